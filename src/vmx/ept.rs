//! The extended page tables of one VM (SDM 29.3), with 4 KiB leaves and accessed and dirty flags.
//!
//! The leaf tables are one contiguous array, so the leaf of a guest frame number is `leaves[gfn]`.
//!
//! **Who may clear a dirty bit:** [`Ept::harvest`] alone, and it runs INVEPT before it returns. Whoever wants to know
//! what was written gets it from there, so no modification is seen by one party and lost to another. The accessed
//! bits are never cleared (under KVM that would drop the shadow entry).

use super::invalidate::invept;
use crate::machine::{PAGE_SIZE, frames};
use migration::Bitmap;

const READ_WRITE_EXECUTE: u64 = 7;
/// Write-back, and ignore the guest's PAT: there is no device memory behind a guest's RAM (SDM 29.3.7).
const LEAF_WRITE_BACK: u64 = (6 << 3) | (1 << 6);
const DIRTY: u64 = 1 << 9;
/// EPTP: write-back tables, a walk of four, accessed and dirty flags on (SDM table 25-9).
const POINTER: u64 = 6 | (3 << 3) | (1 << 6);
const ENTRIES: usize = 512;

/// The tables.
#[derive(Debug)]
pub struct Ept {
    /// PML4, then PDPT, then the page directories, then the leaf tables.
    tables: u64,
    table_count: usize,
    leaf_offset: usize,
    pages: usize,
}

impl Ept {
    /// Tables that map guest-physical 0 up to `pages` pages to the contiguous host memory at `host`.
    ///
    /// # Errors
    /// When memory for the tables runs out, or `pages` is beyond 512 GiB.
    pub fn new(host: u64, pages: usize) -> Result<Self, &'static str> {
        let leaf_tables = pages.div_ceil(ENTRIES);
        let directories = leaf_tables.div_ceil(ENTRIES);
        if directories > ENTRIES {
            return Err("a VM's memory is at most 512 GiB");
        }
        let leaf_offset = 2 + directories;
        let table_count = leaf_offset + leaf_tables;
        let tables = frames::allocate(table_count).ok_or("no memory for the EPT")?;
        let mut ept = Self { tables, table_count, leaf_offset, pages };
        let address = |table: usize| tables + (table * PAGE_SIZE) as u64;
        ept.entries(0, 1)[0] = address(1) | READ_WRITE_EXECUTE;
        for (index, entry) in ept.entries(1, 1).iter_mut().enumerate().take(directories) {
            *entry = address(2 + index) | READ_WRITE_EXECUTE;
        }
        for (index, entry) in ept.entries(2, directories).iter_mut().enumerate().take(leaf_tables) {
            *entry = address(leaf_offset + index) | READ_WRITE_EXECUTE;
        }
        for (gfn, leaf) in ept.leaves().iter_mut().enumerate() {
            *leaf = (host + (gfn * PAGE_SIZE) as u64) | LEAF_WRITE_BACK | READ_WRITE_EXECUTE;
        }
        Ok(ept)
    }

    /// The value of the VMCS's EPT pointer.
    pub fn pointer(&self) -> u64 {
        self.tables | POINTER
    }

    fn entries(&mut self, table: usize, count: usize) -> &mut [u64] {
        debug_assert!(table + count <= self.table_count);
        // SAFETY: `new` allocated `table_count` contiguous zeroed frames, which this value owns, identity-mapped. The
        // CPU also writes accessed and dirty bits there, but only while a guest runs, and no reference lives then.
        unsafe {
            core::slice::from_raw_parts_mut((self.tables + (table * PAGE_SIZE) as u64) as *mut u64, count * ENTRIES)
        }
    }

    fn leaves(&mut self) -> &mut [u64] {
        let (offset, pages) = (self.leaf_offset, self.pages);
        let count = pages.div_ceil(ENTRIES);
        self.entries(offset, count).get_mut(..pages).unwrap_or_default()
    }

    /// Adds the pages written since the last harvest to `dirty` and clears their flags. Returns how many there were.
    pub fn harvest(&mut self, dirty: &mut Bitmap) -> u64 {
        let mut found = 0;
        for (group, leaves) in self.leaves().chunks_mut(8).enumerate() {
            // Most pages are clean: one OR of eight leaves finds that out.
            if leaves.iter().fold(0, |all, leaf| all | leaf) & DIRTY == 0 {
                continue;
            }
            for (index, leaf) in leaves.iter_mut().enumerate() {
                if *leaf & DIRTY != 0 {
                    *leaf &= !DIRTY;
                    dirty.set((group * 8 + index) as u64);
                    found += 1;
                }
            }
        }
        // Without it the CPU may go on with a cached translation whose dirty flag is set, and never set it again
        // in memory (SDM 29.3.5).
        invept(self.pointer());
        found
    }

    /// Whether the page was written since the last harvest, as far as the CPU is concerned.
    pub fn is_dirty(&mut self, gfn: u64) -> bool {
        usize::try_from(gfn).ok().and_then(|gfn| self.leaves().get(gfn).map(|leaf| leaf & DIRTY != 0)).unwrap_or(false)
    }

    /// Takes all rights from pages, so that a touch is an EPT violation.
    pub fn revoke(&mut self, pages: &Bitmap) {
        let leaves = self.leaves();
        for gfn in pages.iter() {
            if let Some(leaf) = usize::try_from(gfn).ok().and_then(|gfn| leaves.get_mut(gfn)) {
                *leaf &= !READ_WRITE_EXECUTE;
            }
        }
        invept(self.pointer());
    }

    /// Gives a page its rights back. A leaf that was not present is never cached, so nothing is invalidated
    /// (SDM 29.4.3.3).
    pub fn grant(&mut self, gfn: u64) {
        if let Some(leaf) = usize::try_from(gfn).ok().and_then(|gfn| self.leaves().get_mut(gfn)) {
            *leaf |= READ_WRITE_EXECUTE;
        }
    }

    /// Bytes of the tables.
    pub fn size(&self) -> usize {
        self.table_count * PAGE_SIZE
    }
}

impl Drop for Ept {
    fn drop(&mut self) {
        invept(self.pointer());
        // SAFETY: the guest runs no more (its vCPU is dropped with it), and the CPU's cached copies were just dropped.
        unsafe { frames::free(self.tables, self.table_count) };
    }
}
