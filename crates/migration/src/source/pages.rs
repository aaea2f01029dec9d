//! Which pages are to be sent. The discipline of dirty pages, in one place:
//!
//! - `pending`: the destination lacks the present version, and this round sends it.
//! - `again`: modified since the round began, as far as was harvested. What is in here is left out of this round: it
//!   would only be sent again.
//! - `late`: the destination lacks the present version, and no round sends it, because it is likely to be sent again (the
//!   writable working set) or need not be sent at all (free).
//! - `held`: sent, and not modified since as far as was harvested.
//!
//! - `copies`: sent as the same as another page, on the assumption that the other one is here what was sent of it. The
//!   next harvest tells; if it was modified, the copy counts as modified too.
//!
//! A page leaves `pending` when it is sent, or for one of the next two. It leaves `again` and `late` only for each other
//! and for `pending`. So a modified page is always in one of the three until a version that is no older was sent.

use super::copies::Copies;
use super::working_set::WorkingSet;
use crate::{Bitmap, SourceVm};

/// The sets, and where the scan stands.
#[derive(Debug)]
pub struct PageSets {
    pub pending: Bitmap,
    again: Bitmap,
    late: Bitmap,
    pub held: Bitmap,
    copies: Copies,
    /// Pages whose content the guest does not need. While it runs they are in no set that is sent; when it is paused,
    /// what is here goes as a mark.
    free: Bitmap,
    working_set: WorkingSet,
    /// The scan goes on here.
    cursor: u64,
}

/// What a look at the dirty flags showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Pages that were not known to be modified since the round began.
    pub dirtied: u64,
    /// Pages that this round, or the next, leaves out for that.
    pub skipped: u64,
}

impl PageSets {
    /// Every page is to be sent.
    pub fn new(pages: u64) -> Self {
        let none = || Bitmap::new(pages);
        Self {
            pending: Bitmap::full(pages),
            again: none(),
            late: none(),
            held: none(),
            copies: Copies::default(),
            free: none(),
            working_set: WorkingSet::new(pages),
            cursor: 0,
        }
    }

    /// Pages of which the destination lacks the present version.
    pub fn left(&self) -> u64 {
        self.pending.count() + self.again.count() + self.late.count()
    }

    /// Collects what was modified. Nothing else harvests.
    fn harvest(&mut self, vm: &mut impl SourceVm) {
        vm.harvest(&mut self.again);
        self.copies.settle(&mut self.again);
    }

    /// Whether `gfn` may be sent as the same as `of`, to which it is equal here: `of` is what was sent of it, as far as is
    /// known. While the guest runs, the next harvest must bear that out.
    pub fn refer(&mut self, gfn: u64, of: u64, guest_runs: bool) -> bool {
        // Of a free page the destination holds zeroes.
        let is_as_sent = self.held.test(of) && !self.again.test(of) && !self.free.test(of);
        is_as_sent && (!guest_runs || self.copies.note(gfn, of))
    }

    /// The same without those that need not be sent.
    pub fn to_send(&self) -> u64 {
        self.left() - self.late.count_common(&self.free)
    }

    /// Begins the rounds: free pages are left for last.
    pub fn begin(&mut self, vm: &mut impl SourceVm) {
        self.ask_free(vm);
        self.put_off(false);
    }

    /// Looks, during a round, for pages that were modified again.
    pub fn peek(&mut self, vm: &mut impl SourceVm) -> Seen {
        let (known, before) = (self.again.count(), self.pending.count());
        self.harvest(vm);
        self.pending.subtract(&self.again);
        self.late.subtract(&self.again);
        Seen { dirtied: self.again.count() - known, skipped: before - self.pending.count() }
    }

    /// Ends a round. `whole`: the next one sends the writable working set too. Returns how many pages were modified in
    /// it, and what the last look showed.
    pub fn turn(&mut self, whole: bool, vm: &mut impl SourceVm) -> (u64, Seen) {
        let Seen { dirtied, .. } = self.peek(vm);
        self.working_set.note(&self.again);
        let modified = self.again.count();
        self.gather();
        self.ask_free(vm);
        let skipped = self.put_off(whole);
        (modified, Seen { dirtied, skipped })
    }

    /// The guest is paused: what is left goes now, and what is free of it as a mark.
    pub fn last_turn(&mut self, vm: &mut impl SourceVm) {
        self.harvest(vm);
        self.gather();
        self.ask_free(vm);
        self.free.and(&self.pending);
    }

    /// What is known to be modified is to be sent.
    fn gather(&mut self) {
        self.held.subtract(&self.again);
        for set in [&mut self.again, &mut self.late] {
            self.pending.or(set);
            set.clear_all();
        }
        self.cursor = 0;
    }

    fn ask_free(&mut self, vm: &mut impl SourceVm) {
        self.free.clear_all();
        vm.free_pages(&mut self.free);
    }

    /// Leaves pages for last. Returns how many for being modified in most rounds.
    fn put_off(&mut self, whole: bool) -> u64 {
        if !whole {
            self.late = self.working_set.pages();
            self.late.and(&self.pending);
        }
        let often = self.late.count();
        self.late.or(&self.free);
        self.late.and(&self.pending);
        self.pending.subtract(&self.late);
        often
    }

    /// The next page of a round, in order.
    pub fn next_in_round(&mut self) -> Option<u64> {
        let gfn = self.pending.next_set(self.cursor)?;
        self.cursor = gfn + 1;
        Some(gfn)
    }

    /// The next run of pages at or after `from` that go as marks: its first page and how many there are.
    pub fn next_free_run(&self, from: u64) -> Option<(u64, u64)> {
        self.free.next_run(from)
    }

    /// Whether a page goes as a mark, whatever it holds.
    pub fn is_free(&self, gfn: u64) -> bool {
        self.free.test(gfn)
    }

    /// A page is sent. Returns whether the destination held this very version before.
    pub fn sent(&mut self, gfn: u64) -> bool {
        self.pending.clear(gfn);
        !self.held.set(gfn)
    }

    /// The same for a run of pages that goes as a mark.
    pub fn marked(&mut self, first: u64, count: u64) {
        self.pending.fill(first, count, false);
        self.held.fill(first, count, true);
    }

    /// The destination has told what it holds: the rest is to be sent.
    pub fn resume(&mut self) {
        self.pending = self.held.clone();
        self.pending.invert();
        self.again.clear_all();
        self.late.clear_all();
        self.cursor = 0;
    }
}
