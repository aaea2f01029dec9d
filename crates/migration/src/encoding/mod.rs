//! How a page goes: whole, or as less than that.
//!
//! | encoding | the record says | may be used |
//! |---|---|---|
//! | zero | so many pages of zeroes | always |
//! | same | the page is what the destination holds of another | before the hand-over |
//! | delta | what changed since the version that the destination holds | before the hand-over |
//! | LZ4 | the page, compressed by itself | always |
//!
//! *Same* and *delta* build on what the destination holds. That is what the source sent last of that page, in the order
//! of the stream, until the guest runs there and writes. So the source uses them only while the destination has no
//! right to run the guest, and a destination takes them only then. For *delta* the source keeps the versions that it
//! sent, as many as it may. For *same* it compares the two pages as they are here; that the other one has not changed
//! since it was sent is what `PageSets` sees to. Hashes only tell where to look: a guest that makes two pages with the
//! same hash gains nothing.
//!
//! Each is tried on a page when, by what it has cost and saved of late, it saves time at the measured bandwidth, and is
//! used if on this page it does. While the bandwidth is not known, or no byte waits for the link, pages go whole.

pub mod delta;
mod index;
pub mod lz4;
mod versions;
mod worth;

use crate::wire::Body;
use crate::{PAGE_SIZE, Page, SourceVm, hash, is_zero};
use alloc::vec::Vec;
use index::Index;
use versions::Versions;
use worth::Worth;

/// Which encodings a source may use, and the memory that they may take. With all four off every page that the guest needs
/// goes whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encodings {
    /// Runs of pages of zeroes.
    pub zero: bool,
    /// Pages equal to one that was sent.
    pub same: bool,
    /// Changes since the version that was sent.
    pub delta: bool,
    /// Compression of single pages.
    pub lz4: bool,
    /// Pages that can be found by their content, at 8 bytes each.
    pub index_pages: usize,
    /// Versions that are kept for deltas, at a page each.
    pub kept_pages: usize,
}

impl Default for Encodings {
    /// All: each is used only where it saves time. The memory is what a small heap can spare; the index finds any page
    /// of 128 MiB.
    fn default() -> Self {
        Self { zero: true, same: true, delta: true, lz4: true, index_pages: 32 * 1024, kept_pages: 256 }
    }
}

impl Encodings {
    /// Runs of zeroes alone: no page with contents is encoded.
    #[must_use]
    pub fn plain() -> Self {
        Self { same: false, delta: false, lz4: false, ..Self::default() }
    }

    /// What [`Encodings::read`] takes.
    pub const WORDS: &str = "all, none, or some of zero,same,delta,lz4";

    /// Those that a user names, and the default memory for them. Nothing if one is unknown or named twice.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut read = Self { zero: false, ..Self::plain() };
        match text {
            "all" => return Some(Self::default()),
            "none" => return Some(read),
            _ => {}
        }
        for word in text.split(',') {
            let switch = match word {
                "zero" => &mut read.zero,
                "same" => &mut read.same,
                "delta" => &mut read.delta,
                "lz4" => &mut read.lz4,
                _ => return None,
            };
            if core::mem::replace(switch, true) {
                return None;
            }
        }
        Some(read)
    }
}

/// The source's side.
#[derive(Debug)]
pub struct Encoder {
    config: Encodings,
    same: Worth,
    delta: Worth,
    lz4: Worth,
    index: Index,
    versions: Versions,
    /// What the last page became.
    packed: Vec<u8>,
    /// Nanoseconds spent since they were last asked for.
    spent: u64,
}

/// What was chosen; the bytes are in [`Encoder::packed`].
enum Choice {
    Whole,
    Same(u64),
    Delta(usize),
    Lz4(usize),
}

impl Encoder {
    /// For a VM with so many pages.
    pub fn new(config: Encodings, pages: u64) -> Self {
        Self {
            same: Worth::default(),
            delta: Worth::default(),
            lz4: Worth::default(),
            index: Index::new(if config.same { config.index_pages } else { 0 }),
            versions: Versions::new(if config.delta { config.kept_pages } else { 0 }, pages),
            packed: Vec::new(),
            spent: 0,
            config,
        }
    }

    /// A round ended.
    pub fn next_round(&mut self) {
        self.versions.next_round();
    }

    /// What the destination holds may from now on be written there, or declared void: nothing builds on it any more.
    pub fn forget(&mut self) {
        (self.config.same, self.config.delta) = (false, false);
        self.index = Index::new(0);
        self.versions = Versions::new(0, 1);
    }

    /// Nanoseconds spent on encoding since the last call.
    pub fn take_spent(&mut self) -> u64 {
        core::mem::take(&mut self.spent)
    }

    /// How a page goes, as it is now, at `bandwidth` bytes a second if that is known. It counts as sent. `refer(of)` is
    /// asked before the record names the page `of`: whether the destination holds of it what it is here.
    pub fn encode<'a>(
        &'a mut self,
        gfn: u64,
        vm: &'a impl SourceVm,
        bandwidth: Option<u64>,
        refer: impl FnMut(u64) -> bool,
    ) -> Body<'a> {
        let page = vm.page(gfn);
        if self.config.zero && is_zero(page) {
            self.versions.drop(gfn);
            return Body::Zero { count: 1 };
        }
        let choice = match bandwidth {
            Some(bandwidth) if self.make_room() => self.choose(gfn, vm, bandwidth, refer),
            _ => Choice::Whole,
        };
        if self.config.delta {
            self.versions.sent(gfn, page);
        }
        let packed = |length| self.packed.get(..length).unwrap_or_default();
        match choice {
            Choice::Whole => Body::Data(page),
            Choice::Same(of) => Body::Same { of },
            Choice::Delta(length) => Body::Delta(packed(length)),
            Choice::Lz4(length) => Body::Lz4(packed(length)),
        }
    }

    /// Room for what a page may become, if there is memory for it.
    fn make_room(&mut self) -> bool {
        if self.packed.try_reserve_exact(lz4::ROOM.saturating_sub(self.packed.len())).is_err() {
            return false;
        }
        self.packed.resize(lz4::ROOM, 0);
        true
    }

    fn choose(&mut self, gfn: u64, vm: &impl SourceVm, bandwidth: u64, refer: impl FnMut(u64) -> bool) -> Choice {
        let page = vm.page(gfn);
        if self.config.same && self.same.is_due(bandwidth) {
            let (of, nanos) = timed(vm, || find_same(&mut self.index, gfn, page, vm, refer));
            self.spent = self.spent.saturating_add(nanos);
            let saved = of.map_or(0, |of| Body::Same { of }.saved());
            if let (true, Some(of)) = (self.same.learn(nanos, saved, bandwidth), of) {
                return Choice::Same(of);
            }
        }
        if self.config.delta
            && let Some(old) = self.versions.get(gfn)
            && let Some(room) = self.packed.get_mut(..PAGE_SIZE - 1)
            && self.delta.is_due(bandwidth)
        {
            let (length, nanos) = timed(vm, || delta::encode(old, page, room));
            self.spent = self.spent.saturating_add(nanos);
            if let (true, Some(length)) = (self.delta.learn(nanos, saved(length), bandwidth), length) {
                return Choice::Delta(length);
            }
        }
        if self.config.lz4 && self.lz4.is_due(bandwidth) {
            let (length, nanos) = timed(vm, || lz4::encode(page, &mut self.packed));
            self.spent = self.spent.saturating_add(nanos);
            if let (true, Some(length)) = (self.lz4.learn(nanos, saved(length), bandwidth), length) {
                return Choice::Lz4(length);
            }
        }
        Choice::Whole
    }
}

/// What a piece of work gives, and the nanoseconds that it takes.
fn timed<T>(vm: &impl SourceVm, work: impl FnOnce() -> T) -> (T, u64) {
    let start = vm.nanos();
    let result = work();
    (result, vm.nanos().saturating_sub(start))
}

/// Another page with the same content, which the destination holds so.
fn find_same(
    index: &mut Index,
    gfn: u64,
    page: &Page,
    vm: &impl SourceVm,
    mut refer: impl FnMut(u64) -> bool,
) -> Option<u64> {
    let hash = hash(page);
    let found = index.find(hash).filter(|of| *of != gfn && vm.page(*of) == page && refer(*of));
    if found.is_none() {
        index.put(hash, gfn);
    }
    found
}

fn saved(length: Option<usize>) -> usize {
    length.map_or(0, |length| PAGE_SIZE.saturating_sub(length))
}

#[cfg(test)]
mod tests {
    use super::Encodings;

    #[test]
    fn a_user_names_encodings_in_any_order_each_once() {
        let switches = |text| Encodings::read(text).map(|read| [read.zero, read.same, read.delta, read.lz4]);
        assert_eq!(Encodings::read("all"), Some(Encodings::default()));
        assert_eq!(switches("none"), Some([false; 4]));
        assert_eq!(switches("lz4"), Some([false, false, false, true]));
        assert_eq!(switches("delta,zero"), Some([true, false, true, false]));
        assert_eq!(switches("same,lz4,delta,zero"), Some([true; 4]));
        assert_eq!(Encodings::read("zero"), Some(Encodings::plain()));
        for wrong in ["", "zip", "zero,", "zero,zero", "zero,none", "all,zero", "Zero", "zero lz4"] {
            assert_eq!(Encodings::read(wrong), None, "{wrong}");
        }
    }
}
