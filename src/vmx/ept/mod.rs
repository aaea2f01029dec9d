//! The extended page tables of one VM (SDM 29.3): [`tables`] in frames of their own, and the invalidation of what the CPU caches
//! of them.
//!
//! **Who may clear a dirty flag:** [`Ept::harvest`] alone. Whoever wants to know what was written gets it from there, so no
//! modification is seen by one party and lost to another. (Joining and splitting regions moves flags, and loses none.) The
//! accessed flags are never cleared: under KVM that would drop its shadow of the entry.
//!
//! **When INVEPT runs:** before the method returns that cleared a flag, took a right away, or changed how a region is mapped,
//! so before the guest can run. Otherwise the CPU may go on with a cached translation whose dirty flag is set and
//! never set it again in memory, or write to what is read-only by now (SDM 29.4.3.3). A harvest that found nothing and closed
//! nothing needs none: each cached translation that has its dirty flag set still has it in memory, too. One vCPU runs on
//! these tables, and not while the host does.
//!
//! What is found modified beside the pages that a guest's instructions wrote: with EPT's flags on, the CPU's walks of the
//! guest's own page tables count as writes to them (SDM 29.3.5), so they turn dirty as they are used. With write protection they
//! do only where a walk sets an accessed or dirty flag of the guest's.

pub mod tables;

use super::{invalidate::invept, operation, tracker::Tracker};
use crate::machine::{PAGE_SIZE, frames};
use migration::Bitmap;
use tables::{Harvest, Tables, tables_for};

/// EPTP: write-back tables, a walk of four (SDM table 25-9).
const POINTER: u64 = 6 | (3 << 3);
/// EPTP: accessed and dirty flags on.
const POINTER_FLAGS: u64 = 1 << 6;

/// Frames for tables.
#[derive(Debug)]
struct Frames {
    address: u64,
    count: usize,
}

impl AsMut<[u64]> for Frames {
    fn as_mut(&mut self) -> &mut [u64] {
        // SAFETY: `Ept::new` allocated these contiguous zeroed frames, which this value owns, identity-mapped. The CPU also
        // writes accessed and dirty flags there, but only while a guest runs, and no reference lives then.
        unsafe { core::slice::from_raw_parts_mut(self.address as *mut u64, self.count * PAGE_SIZE / 8) }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        // SAFETY: the guest runs no more (its vCPU is dropped before), and `Ept` has just dropped the CPU's cached copies.
        unsafe { frames::free(self.address, self.count) };
    }
}

/// The tables of one VM.
#[derive(Debug)]
pub struct Ept {
    tables: Tables<Frames>,
    tracker: Tracker,
    pointer: u64,
    size: usize,
}

impl Ept {
    /// Tables that map guest-physical 0 up to `pages` pages to the contiguous host memory at `host`.
    ///
    /// # Errors
    /// When memory for the tables runs out, or `pages` is beyond 512 GiB.
    pub fn new(host: u64, pages: usize, tracker: Tracker) -> Result<Self, &'static str> {
        let count = tables_for(pages)?;
        let address = frames::allocate(count).ok_or("no memory for the EPT")?;
        let flags = if tracker == Tracker::WriteProtection { 0 } else { POINTER_FLAGS };
        let large = operation::capabilities().has_large_leaves();
        Ok(Self {
            tables: Tables::new(Frames { address, count }, address, host, pages, tracker, large),
            tracker,
            pointer: address | POINTER | flags,
            size: count * PAGE_SIZE,
        })
    }

    /// The value of the VMCS's EPT pointer.
    pub fn pointer(&self) -> u64 {
        self.pointer
    }

    /// How written pages are found.
    pub fn tracker(&self) -> Tracker {
        self.tracker
    }

    fn invalidate_if(&self, stale: bool) {
        if stale {
            invept(self.pointer);
        }
    }

    /// Calls `found` with each page written since the last harvest and clears their flags. Large leaves are counted only.
    pub fn harvest(&mut self, found: impl FnMut(u64)) -> Harvest {
        let harvest = self.tables.harvest(found);
        self.invalidate_if(harvest.stale);
        harvest
    }

    /// The same by words, see [`Tables::harvest_words`](tables::Tables::harvest_words).
    pub fn harvest_words(&mut self, found: impl FnMut(usize, u64)) -> Harvest {
        let harvest = self.tables.harvest_words(found);
        self.invalidate_if(harvest.stale);
        harvest
    }

    /// The CPU's log named this page.
    pub fn logged(&mut self, gfn: u64) {
        self.tables.logged(gfn);
    }

    /// The guest was stopped at a write to this page. Whether tracking was why, and it can go on.
    pub fn written(&mut self, gfn: u64) -> bool {
        self.tables.written(gfn)
    }

    /// Whether the page was written since the last harvest, as far as the CPU is concerned.
    pub fn is_dirty(&mut self, gfn: u64) -> bool {
        self.tables.is_dirty(gfn)
    }

    /// Calls `found` with the pages under each large leaf that was written since the last harvest, as the first one and their number.
    pub fn dirty_regions(&mut self, found: impl FnMut(u64, u64)) {
        self.tables.dirty_regions(found);
    }

    /// Maps by pages of 4 KiB, all at once. Harvest first: a dirty large leaf becomes 512 dirty pages.
    pub fn split(&mut self) {
        let changed = self.tables.split();
        self.invalidate_if(changed);
    }

    /// Maps by pages of 2 MiB where that is possible.
    pub fn join(&mut self) {
        let changed = self.tables.join();
        self.invalidate_if(changed);
    }

    /// Takes all rights from pages, so that a touch is an EPT violation.
    pub fn revoke(&mut self, pages: &Bitmap) {
        let changed = self.tables.revoke(pages);
        self.invalidate_if(changed);
    }

    /// Gives a page its rights back.
    pub fn grant(&mut self, gfn: u64) {
        self.tables.grant(gfn);
    }

    /// Bytes of the tables.
    pub fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Ept {
    fn drop(&mut self) {
        invept(self.pointer);
    }
}
