//! The tables as memory: what each entry holds, and what a harvest must look at. No instruction is executed here, so host tests
//! run the very same code against a model of the CPU.
//!
//! A *region* is 2 MiB, what one entry of a page directory maps: by itself as a large leaf, or through a table of 512 leaves.
//! While nobody asks which pages were written all whole regions are large leaves ([`Tables::join`]); before somebody does, all
//! become tables at once ([`Tables::split`]). A region at the end that is no whole one always has a table.
//!
//! **What a harvest looks at.** Under large leaves: one entry a region. Under tables: the leaves of the *open* regions only. A
//! region that was found clean [`PATIENCE`] times in a row is *closed*: its directory entry loses the right to write, which the
//! CPU honours for all leaves under it (SDM 29.3.2: an access is allowed only if every entry on the way allows it). So no leaf
//! of a closed region can turn dirty; the first write to it is an EPT violation, and [`Tables::written`] opens it again. This
//! rests on nothing but rights, which a CPU without EPT flags has too and which KVM, where it runs below us, carries over into
//! its shadow tables. The accessed flags of the upper levels would cost no exit, but they are set by reads as well, and KVM
//! traps every write to an upper level: clearing them at each harvest is an exit to it for each region that was touched, where
//! closing is one for each region that falls idle.
//!
//! With [`Tracker::PageModificationLog`] nothing is closed. A region counts as open when the CPU's log names a page of it, and
//! a bitmap of the named pages stands for the search of its leaves.
//!
//! In every case the flag at bit 9 of the leaf is the truth. With [`Tracker::WriteProtection`] the CPU ignores that bit (SDM
//! 29.3.2: ignored if bit 6 of EPTP is 0), and `written` sets it as it gives the right to write back.

use crate::{machine::PAGE_SIZE, vmx::tracker::Tracker};
use alloc::{vec, vec::Vec};
use migration::Bitmap;

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 2;
const RIGHTS: u64 = READ | WRITE | EXECUTE;
/// Write-back, and ignore the guest's PAT: there is no device memory behind a guest's RAM (SDM 29.3.7).
const WRITE_BACK: u64 = (6 << 3) | (1 << 6);
const LARGE: u64 = 1 << 7;
const DIRTY: u64 = 1 << 9;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Entries of a table, pages of a region.
const ENTRIES: usize = 512;
/// PML4 and PDPT come first, then the directories in a row: the first one's first entry.
const DIRECTORIES: usize = 2 * ENTRIES;
/// Bytes of a region.
const REGION_SIZE: u64 = (ENTRIES * PAGE_SIZE) as u64;
const WORD: usize = u64::BITS as usize;
/// Leaves that are looked at together.
const GROUP: usize = 8;

/// So many harvests in a row must find a region clean before it is closed. The searches that this many harvests waste on a region
/// that has fallen idle cost about what the exit does that opens it again, so neither choice can lose much (on a real machine
/// a search is some 64 cache lines, an exit one to two microseconds).
pub const PATIENCE: u8 = 8;

/// What a harvest found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harvest {
    /// Pages found modified.
    pub pages: u64,
    /// Large leaves found modified: in each region at least one page was, which one is not known.
    pub regions: u64,
    /// What was looked at: entries, or words of the bitmap of the CPU's log. The measure of what it cost.
    pub looked_at: u64,
    /// The CPU may hold translations that are no longer true: INVEPT before the guest runs.
    pub stale: bool,
}

/// The tables of one VM over `memory`, which the CPU sees at a physical address of its own.
#[derive(Debug)]
pub struct Tables<M> {
    memory: M,
    base: u64,
    pages: usize,
    first_leaf: usize,
    tracker: Tracker,
    /// Regions that large leaves can map.
    whole: usize,
    /// They do.
    large: bool,
    /// Regions that have a table and may have been written since the last harvest.
    open: Bitmap,
    /// How many harvests in a row found each region clean.
    clean_for: Vec<u8>,
    /// Pages that the CPU's log named; of size 0 without one.
    logged: Bitmap,
    /// Pages without any right.
    revoked: usize,
}

/// How many tables map so many pages.
///
/// # Errors
/// When one PDPT cannot reach them.
pub fn tables_for(pages: usize) -> Result<usize, &'static str> {
    let leaf_tables = pages.div_ceil(ENTRIES);
    let directories = leaf_tables.div_ceil(ENTRIES);
    if directories > ENTRIES {
        return Err("a VM's memory is at most 512 GiB");
    }
    Ok(2 + directories + leaf_tables)
}

impl<M: AsMut<[u64]>> Tables<M> {
    /// Fills `memory`, zeroed and of the size that [`tables_for`] gives, at the physical address `base`: guest-physical 0 up to
    /// `pages` pages are the contiguous host memory at `host`. `large` says that the CPU knows large leaves.
    pub fn new(memory: M, base: u64, host: u64, pages: usize, tracker: Tracker, large: bool) -> Self {
        let regions = pages.div_ceil(ENTRIES);
        let directories = regions.div_ceil(ENTRIES);
        let first_leaf = DIRECTORIES + directories * ENTRIES;
        let whole = if large && host.is_multiple_of(REGION_SIZE) { pages / ENTRIES } else { 0 };
        let logged = if tracker == Tracker::PageModificationLog { pages as u64 } else { 0 };
        let mut tables = Self {
            memory,
            base,
            pages,
            first_leaf,
            tracker,
            whole,
            large: false,
            open: Bitmap::new(regions as u64),
            // Whatever is written first opens its region.
            clean_for: vec![PATIENCE; regions],
            logged: Bitmap::new(logged),
            revoked: 0,
        };
        let memory = tables.memory.as_mut();
        let address = |entry: usize| base + (entry * 8) as u64;
        if let Some(entry) = memory.first_mut() {
            *entry = address(ENTRIES) | RIGHTS;
        }
        for (index, entry) in memory.iter_mut().skip(ENTRIES).take(directories).enumerate() {
            *entry = address(DIRECTORIES + index * ENTRIES) | RIGHTS;
        }
        let rights = tables.rights(false);
        for (gfn, leaf) in tables.memory.as_mut().iter_mut().skip(first_leaf).take(pages).enumerate() {
            *leaf = (host + (gfn * PAGE_SIZE) as u64) | WRITE_BACK | rights;
        }
        for region in 0..regions {
            tables.point_to_table(region, false);
        }
        // Nothing runs on these tables yet.
        let _ = tables.join();
        tables
    }

    /// The tables as the CPU has them, for whoever stands in for one.
    pub fn memory(&mut self) -> &mut [u64] {
        self.memory.as_mut()
    }

    /// Rights of a leaf by whether it is dirty.
    fn rights(&self, dirty: bool) -> u64 {
        match self.tracker {
            Tracker::WriteProtection if !dirty => READ | EXECUTE,
            _ => RIGHTS,
        }
    }

    /// What a clean leaf has not.
    fn unclean(&self) -> u64 {
        RIGHTS & !self.rights(false) | DIRTY
    }

    /// What a leaf gets at a write that was stopped: where the CPU sets the flag, nothing.
    fn stopped_write(&self) -> u64 {
        if self.tracker == Tracker::WriteProtection { self.unclean() } else { 0 }
    }

    fn is_large(&self, region: usize) -> bool {
        self.large && region < self.whole
    }

    fn region_entry(&mut self, region: usize) -> Option<&mut u64> {
        self.memory.as_mut().get_mut(DIRECTORIES + region)
    }

    fn leaf(&mut self, gfn: u64) -> Option<&mut u64> {
        let gfn = usize::try_from(gfn).ok().filter(|gfn| *gfn < self.pages)?;
        self.memory.as_mut().get_mut(self.first_leaf + gfn)
    }

    fn leaves(&mut self, region: usize) -> &mut [u64] {
        let start = self.first_leaf + region * ENTRIES;
        let end = (start + ENTRIES).min(self.first_leaf + self.pages);
        self.memory.as_mut().get_mut(start..end).unwrap_or_default()
    }

    /// Maps a region by its table of leaves.
    fn point_to_table(&mut self, region: usize, open: bool) {
        let table = self.base + ((self.first_leaf + region * ENTRIES) * 8) as u64;
        let writable = open || self.tracker == Tracker::PageModificationLog;
        if let Some(entry) = self.region_entry(region) {
            *entry = table | READ | EXECUTE | if writable { WRITE } else { 0 };
        }
    }

    /// Calls `found` with each page modified since the last harvest, and makes it clean. Large leaves are counted only.
    #[must_use = "INVEPT if it is stale"]
    pub fn harvest(&mut self, mut found: impl FnMut(u64)) -> Harvest {
        self.harvest_words(|word, mut pages| {
            while pages != 0 {
                found((word * WORD) as u64 + u64::from(pages.trailing_zeros()));
                pages &= pages - 1;
            }
        })
    }

    /// The same, with the modified ones of 64 pages at a time: those from `64 * word` on, the first in bit 0.
    #[must_use = "INVEPT if it is stale"]
    pub fn harvest_words(&mut self, mut found: impl FnMut(usize, u64)) -> Harvest {
        let mut harvest = Harvest::default();
        if self.large {
            self.search_regions(&mut harvest);
        }
        let mut next = self.open.next_set(0);
        while let Some(region) = next {
            next = self.open.next_set(region + 1);
            self.harvest_region(region as usize, &mut found, &mut harvest);
        }
        harvest.stale |= harvest.pages + harvest.regions > 0;
        harvest
    }

    fn search_regions(&mut self, harvest: &mut Harvest) {
        let unclean = self.unclean();
        let entries = self.memory.as_mut().iter_mut().skip(DIRECTORIES).take(self.whole);
        for (entry, clean_for) in entries.zip(&mut self.clean_for) {
            *clean_for = clean_for.saturating_add(1);
            if *entry & DIRTY != 0 {
                *entry &= !unclean;
                *clean_for = 0;
                harvest.regions += 1;
            }
        }
        harvest.looked_at += self.whole as u64;
    }

    /// Calls `found` with the pages under each large leaf that was written since the last harvest, as the first one and their
    /// number. Nothing is cleared.
    pub fn dirty_regions(&mut self, mut found: impl FnMut(u64, u64)) {
        if !self.large {
            return;
        }
        let entries = self.memory.as_mut().iter().skip(DIRECTORIES).take(self.whole);
        for (region, _) in entries.enumerate().filter(|(_, entry)| **entry & DIRTY != 0) {
            found((region * ENTRIES) as u64, ENTRIES as u64);
        }
    }

    fn harvest_region(&mut self, region: usize, found: &mut impl FnMut(usize, u64), harvest: &mut Harvest) {
        let before = harvest.pages;
        if self.tracker == Tracker::PageModificationLog {
            self.take_logged(region, found, harvest);
            self.open.clear(region as u64);
            return;
        }
        self.search_leaves(region, found, harvest);
        let Some(clean_for) = self.clean_for.get_mut(region) else { return };
        *clean_for = if harvest.pages == before { clean_for.saturating_add(1) } else { 0 };
        if *clean_for >= PATIENCE {
            self.open.clear(region as u64);
            self.point_to_table(region, false);
            harvest.stale = true;
        }
    }

    fn search_leaves(&mut self, region: usize, found: &mut impl FnMut(usize, u64), harvest: &mut Harvest) {
        let unclean = self.unclean();
        let first = region * ENTRIES / WORD;
        for (word, leaves) in self.leaves(region).chunks_mut(WORD).enumerate() {
            harvest.looked_at += leaves.len() as u64;
            let (groups, rest) = leaves.as_chunks_mut::<GROUP>();
            let mut pages = 0u64;
            for (group, leaves) in groups.iter_mut().enumerate() {
                // Most pages are clean: one OR of eight leaves finds that out. (An array, so that it takes no loop.)
                if leaves.iter().fold(0, |all, leaf| all | leaf) & DIRTY != 0 {
                    pages |= clean(leaves, unclean) << (group * GROUP);
                }
            }
            pages |= clean(rest, unclean).checked_shl((groups.len() * GROUP) as u32).unwrap_or(0);
            if pages != 0 {
                harvest.pages += u64::from(pages.count_ones());
                found(first + word, pages);
            }
        }
    }

    fn take_logged(&mut self, region: usize, found: &mut impl FnMut(usize, u64), harvest: &mut Harvest) {
        let first = region * ENTRIES / WORD;
        for word in first..first + ENTRIES / WORD {
            let pages = self.logged.words().get(word).copied().unwrap_or(0);
            self.logged.set_word(word, 0);
            harvest.looked_at += 1;
            let mut bits = pages;
            while bits != 0 {
                let gfn = (word * WORD) as u64 + u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                if let Some(leaf) = self.leaf(gfn) {
                    *leaf &= !DIRTY;
                }
            }
            if pages != 0 {
                harvest.pages += u64::from(pages.count_ones());
                found(word, pages);
            }
        }
    }

    /// The CPU's log named this page. Under large leaves it tells nothing that the search does not find.
    pub fn logged(&mut self, gfn: u64) {
        let region = gfn / ENTRIES as u64;
        if !self.is_large(region as usize) {
            self.logged.set(gfn);
            self.open.set(region);
        }
    }

    /// The guest was stopped at a write to this page: gives back the right that a clean page or a closed region has not. Whether
    /// there was one to give. Rights that are only added need no INVEPT: the violation itself dropped what was cached
    /// of this page (SDM 29.4.3.1), and another page's old translation can only cause a violation that ends here, too.
    pub fn written(&mut self, gfn: u64) -> bool {
        let region = (gfn / ENTRIES as u64) as usize;
        let marks = self.stopped_write();
        if self.is_large(region) {
            return self.region_entry(region).is_some_and(|entry| give(entry, marks));
        }
        if self.leaf(gfn).is_none() {
            return false;
        }
        let opened = self.region_entry(region).is_some_and(|entry| give(entry, WRITE));
        if opened {
            self.open.set(region as u64);
            if let Some(clean_for) = self.clean_for.get_mut(region) {
                *clean_for = 0;
            }
        }
        let marked = self.leaf(gfn).is_some_and(|leaf| *leaf & READ != 0 && give(leaf, marks));
        opened || marked
    }

    /// Whether the page was written since the last harvest, as far as the CPU is concerned; under a large leaf, whether a page of
    /// its region was.
    pub fn is_dirty(&mut self, gfn: u64) -> bool {
        let region = (gfn / ENTRIES as u64) as usize;
        let entry = if self.is_large(region) { self.region_entry(region) } else { self.leaf(gfn) };
        entry.is_some_and(|entry| *entry & DIRTY != 0)
    }

    /// Maps every region by its leaves. A dirty large leaf becomes 512 dirty pages: harvest first. Whether anything changed.
    #[must_use = "INVEPT if anything changed"]
    pub fn split(&mut self) -> bool {
        if !self.large {
            return false;
        }
        self.large = false;
        for region in 0..self.whole {
            let dirty = self.region_entry(region).is_some_and(|entry| *entry & DIRTY != 0);
            let recent = self.clean_for.get(region).is_some_and(|harvests| *harvests < PATIENCE);
            let open = dirty || (recent && self.tracker != Tracker::PageModificationLog);
            self.point_to_table(region, open);
            if dirty {
                self.leaves(region).iter_mut().for_each(|leaf| *leaf |= WRITE | DIRTY);
                self.log_region(region, u64::MAX);
            }
            if open {
                self.open.set(region as u64);
            }
        }
        true
    }

    /// Maps every whole region by a large leaf, which is dirty if one of its pages was. Not while pages are revoked. Whether
    /// anything changed.
    #[must_use = "INVEPT if anything changed"]
    pub fn join(&mut self) -> bool {
        if self.large || self.whole == 0 || self.revoked > 0 {
            return false;
        }
        self.large = true;
        for region in 0..self.whole {
            let dirty = self.open.clear(region as u64) && self.clean_region(region);
            let rights = self.rights(dirty) | if dirty { DIRTY } else { 0 };
            let host = self.leaves(region).first().map_or(0, |leaf| *leaf & ADDRESS);
            if let Some(entry) = self.region_entry(region) {
                *entry = host | WRITE_BACK | LARGE | rights;
            }
        }
        true
    }

    /// Makes all leaves of a region clean. Whether one was not.
    fn clean_region(&mut self, region: usize) -> bool {
        let unclean = self.unclean();
        let mut all = 0;
        for leaf in self.leaves(region) {
            all |= *leaf;
            *leaf &= !unclean;
        }
        self.log_region(region, 0);
        all & DIRTY != 0
    }

    fn log_region(&mut self, region: usize, word: u64) {
        let first = region * ENTRIES / WORD;
        for index in first..first + ENTRIES / WORD {
            self.logged.set_word(index, word);
        }
    }

    /// Takes all rights from pages, so that a touch is an EPT violation.
    #[must_use = "INVEPT if anything changed"]
    pub fn revoke(&mut self, pages: &Bitmap) -> bool {
        let mut stale = self.split();
        for gfn in pages.iter() {
            let Some(leaf) = self.leaf(gfn).filter(|leaf| **leaf & READ != 0) else { continue };
            *leaf &= !RIGHTS;
            self.revoked += 1;
            stale = true;
        }
        stale
    }

    /// Gives a page its rights back. A leaf that was not present is never cached, so nothing is invalidated
    /// (SDM 29.4.3.3).
    pub fn grant(&mut self, gfn: u64) {
        let (clean, dirty) = (self.rights(false), self.rights(true));
        let Some(leaf) = self.leaf(gfn).filter(|leaf| **leaf & READ == 0) else { return };
        *leaf |= if *leaf & DIRTY == 0 { clean } else { dirty };
        self.revoked -= 1;
    }
}

/// Sets bits; whether one was not set.
fn give(entry: &mut u64, bits: u64) -> bool {
    let before = *entry;
    *entry |= bits;
    *entry != before
}

/// Makes these leaves clean, at most a word's; which of them were modified, the first in bit 0.
fn clean(leaves: &mut [u64], unclean: u64) -> u64 {
    let modified = leaves.iter_mut().enumerate().filter(|(_, leaf)| **leaf & DIRTY != 0);
    modified.fold(0, |pages, (index, leaf)| {
        *leaf &= !unclean;
        pages | 1 << index
    })
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
