//! Which pages the guest has said that it does not use.
//!
//! A page is in the set if it was reported free and not modified since. Three rules keep that true:
//!
//! - A report is taken while the guest is stopped at the access that made it, and after a harvest (`Vm::serve_balloon`):
//!   what is found modified later was modified later. The guest has the page back only when it sees the report
//!   answered, so its next write to it is one of those.
//! - Each harvest takes what it finds out of the set, before anyone can ask for it. Of a large leaf it is known that some page
//!   of it was written: all of its pages go.
//! - Whoever asks gets the set after a harvest with nothing run since (`Vm::free_pages`).
//!
//! So what is in the set holds what it held at the report, which the guest has no use for: it writes the page before it reads
//! it, or takes whatever it finds (virtio 1.2, 5.5.6.7). Nothing is ever changed for it on this host.

use crate::machine::PAGE_SIZE;
use alloc::vec::Vec;
use migration::Bitmap;

const PAGE_BYTES: u64 = PAGE_SIZE as u64;

/// More runs than this do not travel with the guest: its pages are merely no longer known to be free then.
const MOST_RUNS: usize = 4096;

/// The set.
#[derive(Debug)]
pub struct FreePages {
    set: Bitmap,
}

impl FreePages {
    /// An empty set of a guest with so many pages.
    pub fn new(pages: u64) -> Self {
        Self { set: Bitmap::new(pages) }
    }

    /// The set.
    pub fn set(&self) -> &Bitmap {
        &self.set
    }

    /// The guest reported a range, a claim: the whole pages in it that it has.
    pub fn report(&mut self, gpa: u64, length: u64) {
        let first = gpa.div_ceil(PAGE_BYTES);
        let end = gpa.saturating_add(length) / PAGE_BYTES;
        self.set.fill(first, end.saturating_sub(first), true);
    }

    /// A page was modified.
    pub fn modified(&mut self, gfn: u64) {
        self.set.clear(gfn);
    }

    /// Some of these pages were modified.
    pub fn some_modified(&mut self, first: u64, count: u64) {
        self.set.fill(first, count, false);
    }

    /// All of these pages were modified.
    pub fn all_modified(&mut self, pages: &Bitmap) {
        self.set.subtract(pages);
    }

    /// Nothing is known any more.
    pub fn forget(&mut self) {
        self.set.clear_all();
    }

    /// The set for another host: runs in order, each as the pages between it and the one before, and its own.
    pub fn runs(&self) -> Vec<(u64, u64)> {
        let mut runs = Vec::new();
        let mut end = 0;
        while runs.len() < MOST_RUNS
            && let Some((first, count)) = self.set.next_run(end)
        {
            runs.push((first - end, count));
            end = first + count;
        }
        runs
    }

    /// Takes the set over from another host; the runs are claims. They cannot overlap, so this costs no more than the memory is
    /// large.
    pub fn take_over(&mut self, runs: &[(u64, u64)]) {
        self.forget();
        let mut at = 0u64;
        for (gap, count) in runs {
            let first = at.saturating_add(*gap);
            self.set.fill(first, *count, true);
            at = first.saturating_add(*count);
            if at >= self.set.pages() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn pages(free: &FreePages) -> Vec<u64> {
        free.set().iter().collect()
    }

    #[test]
    fn only_whole_pages_of_the_guests_memory_become_free() {
        let mut free = FreePages::new(8);
        free.report(4095, 8194);
        assert_eq!(pages(&free), [1, 2]);
        free.report(4097, 4095);
        free.report(6 * 4096, u64::MAX);
        free.report(u64::MAX, u64::MAX);
        free.report(0, 4095);
        assert_eq!(pages(&free), [1, 2, 6, 7]);
    }

    #[test]
    fn what_is_modified_is_free_no_longer() {
        let mut free = FreePages::new(2048);
        free.report(0, 2048 * 4096);
        free.modified(3);
        free.modified(u64::MAX);
        free.some_modified(512, 512);
        let mut more = Bitmap::new(2048);
        more.set(2047);
        free.all_modified(&more);
        assert_eq!(free.set().count(), 2048 - 1 - 512 - 1);
        free.forget();
        assert!(free.set().is_empty());
    }

    proptest! {
        #[test]
        fn another_host_takes_over_the_same_set(set in proptest::collection::btree_set(0u64..300, 0..100)) {
            let mut free = FreePages::new(300);
            for gfn in &set { free.report(gfn * 4096, 4096); }
            let mut other = FreePages::new(300);
            other.report(0, 300 * 4096);
            other.take_over(&free.runs());
            prop_assert_eq!(pages(&other), set.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn no_runs_can_panic_it_or_leave_the_memory(
            runs in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..20),
            small in proptest::collection::vec((0u64..50, 0u64..50), 0..20),
        ) {
            let mut free = FreePages::new(300);
            free.take_over(&runs);
            prop_assert!(pages(&free).iter().all(|gfn| *gfn < 300));
            free.take_over(&small);
            let mut model = BTreeSet::new();
            let mut at = 0;
            for (gap, count) in small {
                model.extend((at + gap..at + gap + count).filter(|gfn| *gfn < 300));
                at += gap + count;
            }
            prop_assert_eq!(pages(&free), model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_set_in_too_many_pieces_travels_in_part() {
        let mut free = FreePages::new(4 * MOST_RUNS as u64);
        for gfn in (0..4 * MOST_RUNS as u64).step_by(2) {
            free.report(gfn * 4096, 4096);
        }
        let mut other = FreePages::new(4 * MOST_RUNS as u64);
        other.take_over(&free.runs());
        assert_eq!(other.set().count(), MOST_RUNS as u64);
        assert!(other.set().iter().all(|gfn| free.set().test(gfn)));
    }
}
