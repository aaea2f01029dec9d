//! Which page is pushed next once the guest runs at the destination: the push spreads both ways from the pages that the
//! guest touched of late, as bubbles that grow around pivots (prepaging; Hines and Gopalan, VEE 2009).

use crate::Bitmap;
use alloc::collections::VecDeque;

/// Bubbles that grow at a time: about as many as a guest has places where it works.
const PIVOTS: usize = 4;

/// A fault so near to a bubble is the same work that has moved on: it moves that bubble's pivot.
const NEAR: u64 = 32;

/// A bubble. No page between its edges is left to be sent.
#[derive(Debug)]
struct Bubble {
    pivot: u64,
    /// The lowest page above that may be left.
    above: u64,
    /// The highest page below that may be left.
    below: Option<u64>,
}

impl Bubble {
    fn new(pivot: u64) -> Self {
        Self { pivot, above: pivot, below: pivot.checked_sub(1) }
    }

    fn is_near(&self, gfn: u64) -> bool {
        let from = self.below.unwrap_or(0).saturating_sub(NEAR);
        (from..=self.above.saturating_add(NEAR)).contains(&gfn)
    }

    /// The page left that is nearest to the pivot, and how far it is.
    fn nearest(&mut self, pending: &Bitmap) -> Option<(u64, u64)> {
        let up = pending.next_set(self.above);
        self.above = up.unwrap_or(pending.pages());
        self.below = self.below.and_then(|below| pending.previous_set(below));
        let up = up.map(|gfn| (gfn - self.pivot, gfn));
        let down = self.below.map(|gfn| (self.pivot - gfn, gfn));
        // Of two that are as near the upper one: more programs walk upwards.
        [up, down].into_iter().flatten().min_by_key(|(distance, _)| *distance)
    }
}

/// The bubbles, the latest first. There is always one.
#[derive(Debug)]
pub struct Push {
    bubbles: VecDeque<Bubble>,
}

impl Push {
    /// Before the first fault the push begins at the first page.
    pub fn new() -> Self {
        Self { bubbles: VecDeque::from([Bubble::new(0)]) }
    }

    /// The guest touched a page.
    pub fn touched(&mut self, gfn: u64) {
        if let Some(place) = self.bubbles.iter().position(|bubble| bubble.is_near(gfn)) {
            self.bubbles.remove(place);
        }
        self.bubbles.truncate(PIVOTS - 1);
        self.bubbles.push_front(Bubble::new(gfn));
    }

    /// The page of `pending` that is nearest to a pivot. So a new bubble has the whole push until it is as large as
    /// the others, and then they grow alike.
    pub fn next(&mut self, pending: &Bitmap) -> Option<u64> {
        let nearest = self.bubbles.iter_mut().filter_map(|bubble| bubble.nearest(pending));
        nearest.min_by_key(|(distance, _)| *distance).map(|(_, gfn)| gfn)
    }
}

#[cfg(test)]
mod tests {
    use super::{NEAR, PIVOTS, Push};
    use crate::Bitmap;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn pushed(push: &mut Push, pending: &mut Bitmap, count: usize) -> Vec<u64> {
        let step = |_| {
            let gfn = push.next(pending)?;
            pending.clear(gfn);
            Some(gfn)
        };
        (0..count).map_while(step).collect()
    }

    #[test]
    fn it_spreads_both_ways_from_a_fault_and_skips_what_was_sent() {
        let (mut push, mut pending) = (Push::new(), Bitmap::full(1000));
        for sent in [500, 502] {
            pending.clear(sent);
        }
        push.touched(500);
        assert_eq!(pushed(&mut push, &mut pending, 6), [0, 501, 499, 1, 498, 2]);
    }

    #[test]
    fn a_new_fault_has_the_push_until_its_bubble_is_as_large_as_the_others() {
        let (mut push, mut pending) = (Push::new(), Bitmap::full(10_000));
        assert_eq!(pushed(&mut push, &mut pending, 4), [0, 1, 2, 3]);
        pending.clear(5000);
        push.touched(5000);
        assert_eq!(pushed(&mut push, &mut pending, 9), [5001, 4999, 5002, 4998, 5003, 4997, 5004, 4996, 4]);
    }

    #[test]
    fn a_walk_through_memory_moves_one_pivot_and_not_all() {
        let mut push = Push::new();
        push.touched(5000);
        for gfn in (6000..8000).step_by(NEAR as usize) {
            push.touched(gfn);
        }
        assert_eq!(push.bubbles.iter().map(|bubble| bubble.pivot / 1000).collect::<Vec<_>>(), [7, 5, 0]);
    }

    proptest! {
        #[test]
        fn every_page_is_pushed_once_wherever_the_faults_are(
            pages in 1u64..400,
            faults in prop::collection::vec((0usize..50, any::<prop::sample::Index>()), 0..40),
        ) {
            let (mut push, mut pending) = (Push::new(), Bitmap::full(pages));
            let mut sent = 0;
            for (before, gfn) in faults {
                sent += pushed(&mut push, &mut pending, before).len() as u64;
                let gfn = gfn.index(pages as usize) as u64;
                sent += u64::from(pending.clear(gfn));
                push.touched(gfn);
                prop_assert!(push.bubbles.len() <= PIVOTS);
            }
            sent += pushed(&mut push, &mut pending, usize::MAX >> 1).len() as u64;
            prop_assert_eq!((sent, pending.is_empty()), (pages, true));
        }
    }
}
