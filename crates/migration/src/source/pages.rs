//! Which pages are to be sent. The discipline of dirty pages, in one place:
//!
//! - `pending`: the destination lacks the present version, and this round sends it.
//! - `again`: modified since the round began, as far as was harvested. What is in here is left out of this round: it
//!   would only be sent again. It becomes `pending` when the round ends.
//! - `held`: sent, and not modified since as far as was harvested.
//!
//! - `copies`: sent as the same as another page, on the assumption that the other one is here what was sent of it. The
//!   next harvest tells; if it was modified, the copy counts as modified too.
//!
//! A page leaves `pending` when it is sent, or for `again`. It leaves `again` only for `pending`. So a modified page is
//! always in one of them until a version that is no older was sent.

use super::copies::Copies;
use crate::{Bitmap, SourceVm};

/// The three sets, and where the scan stands.
#[derive(Debug)]
pub struct PageSets {
    pub pending: Bitmap,
    again: Bitmap,
    pub held: Bitmap,
    copies: Copies,
    /// The scan goes on here.
    pub cursor: u64,
}

impl PageSets {
    /// Every page is to be sent.
    pub fn new(pages: u64) -> Self {
        Self {
            pending: Bitmap::full(pages),
            again: Bitmap::new(pages),
            held: Bitmap::new(pages),
            copies: Copies::default(),
            cursor: 0,
        }
    }

    /// Pages that are to be sent.
    pub fn left(&self) -> u64 {
        self.pending.count() + self.again.count()
    }

    /// Collects what was modified. Nothing else harvests.
    fn harvest(&mut self, vm: &mut impl SourceVm) {
        vm.harvest(&mut self.again);
        self.copies.settle(&mut self.again);
    }

    /// Whether `gfn` may be sent as the same as `of`, to which it is equal here: `of` is what was sent of it, as far as is
    /// known. While the guest runs, the next harvest must bear that out.
    pub fn refer(&mut self, gfn: u64, of: u64, guest_runs: bool) -> bool {
        self.held.test(of) && !self.again.test(of) && (!guest_runs || self.copies.note(gfn, of))
    }

    /// Looks, during a round, for pages that were modified again. Returns how many the round leaves out.
    pub fn peek(&mut self, vm: &mut impl SourceVm) -> u64 {
        self.harvest(vm);
        let before = self.pending.count();
        self.pending.subtract(&self.again);
        before - self.pending.count()
    }

    /// Ends a round. Returns how many pages the next one begins with.
    pub fn turn(&mut self, vm: &mut impl SourceVm) -> u64 {
        self.harvest(vm);
        self.held.subtract(&self.again);
        self.pending.or(&self.again);
        self.again.clear_all();
        self.cursor = 0;
        self.pending.count()
    }

    /// The next page of a round, in order.
    pub fn next_in_round(&mut self) -> Option<u64> {
        let gfn = self.pending.next_set(self.cursor)?;
        self.cursor = gfn + 1;
        Some(gfn)
    }

    /// The next page to push: what comes after the latest that the guest asked for, then from the start.
    pub fn next_to_push(&mut self) -> Option<u64> {
        let gfn = self.pending.next_set(self.cursor).or_else(|| self.pending.next_set(0))?;
        self.cursor = gfn + 1;
        Some(gfn)
    }

    /// A page is sent. Returns whether the destination held this very version before.
    pub fn sent(&mut self, gfn: u64) -> bool {
        self.pending.clear(gfn);
        !self.held.set(gfn)
    }

    /// The destination has told what it holds: the rest is to be sent.
    pub fn resume(&mut self) {
        self.pending = self.held.clone();
        self.pending.invert();
        self.again.clear_all();
        self.cursor = 0;
    }
}
