//! Whether an encoding saves time.

use crate::PAGE_SIZE;

/// An average forgets: the latest of so many weighs one part.
const MEMORY: u64 = 64;

/// Pages on which an encoding is tried before anything is known of it.
const FIRST: u64 = 16;

/// One that does not pay is tried again now and then, for the pages or the link may have changed: for at most this part
/// of the time that the pages take on the link. If it pays there, it is tried on the next page too.
const RETRIES: u64 = 64;

/// The averages are kept with so many more bits.
const FRACTION: u32 = 8;

/// What an encoding has cost and saved of late.
#[derive(Debug, Default)]
pub struct Worth {
    /// Pages tried, up to [`MEMORY`].
    tried: u64,
    /// Nanoseconds a page tried.
    cost: u64,
    /// Bytes saved a page tried.
    gain: u64,
    /// Pages since it was tried; all there could be if it paid then.
    idle: u32,
}

impl Worth {
    /// Whether to try it on the next page, at `bandwidth` bytes a second.
    pub fn is_due(&mut self, bandwidth: u64) -> bool {
        self.idle = self.idle.saturating_add(1);
        let retries = ((u64::from(self.idle) * PAGE_SIZE as u64) << FRACTION) / RETRIES;
        let is_due = self.tried < FIRST || self.outweighs(self.gain.max(retries), bandwidth);
        if is_due {
            self.idle = 0;
        }
        is_due
    }

    /// It was tried on a page: what it took, and what it would save. Returns whether to send the page so, now that this
    /// is known: the time saved on the link outweighs that of the decoding, which is taken to be the encoding's.
    pub fn learn(&mut self, nanos: u64, saved: usize, bandwidth: u64) -> bool {
        self.tried = (self.tried + 1).min(MEMORY);
        let average = |old: u64, new: u64| old - old / self.tried + (new << FRACTION) / self.tried;
        // A page that took a second says nothing of the next one.
        self.cost = average(self.cost, nanos.min(1_000_000_000));
        self.gain = average(self.gain, saved as u64);
        let pays = self.outweighs((saved as u64) << FRACTION, bandwidth);
        if pays {
            self.idle = u32::MAX;
        }
        pays
    }

    fn outweighs(&self, gain: u64, bandwidth: u64) -> bool {
        u128::from(gain) * 1_000_000_000 > u128::from(self.cost) * u128::from(bandwidth)
    }
}

#[cfg(test)]
mod tests {
    use super::{MEMORY, RETRIES, Worth};
    use crate::PAGE_SIZE;

    /// One Gbit.
    const SLOW: u64 = 125_000_000;

    /// After many pages like this one.
    fn learnt(nanos: u64, saved: usize) -> Worth {
        let mut worth = Worth::default();
        assert!(worth.is_due(u64::MAX));
        for _ in 0..MEMORY {
            worth.learn(nanos, saved, u64::MAX);
        }
        worth
    }

    #[test]
    fn it_pays_up_to_the_bandwidth_at_which_the_link_is_as_fast() {
        // 3000 bytes take 2 us at 1.5 GB/s.
        for (bandwidth, pays) in [(1_490_000_000, true), (1_510_000_000, false)] {
            let mut worth = learnt(2000, 3000);
            assert_eq!(worth.is_due(bandwidth), pays);
            assert_eq!(worth.learn(2000, 3000, bandwidth), pays);
        }
    }

    #[test]
    fn a_page_that_saves_little_goes_whole_where_others_do_not() {
        let mut worth = learnt(2000, 3000);
        assert!(!worth.learn(2000, 200, SLOW) && worth.learn(2000, 300, SLOW));
    }

    #[test]
    fn what_does_not_pay_is_tried_for_a_small_part_of_the_time_that_the_pages_take() {
        for (nanos, bandwidth) in [(1, SLOW), (2000, SLOW), (800_000, SLOW / 10), (800_000, SLOW * 10)] {
            let mut worth = learnt(nanos, 0);
            let (mut tried, pages) = (0, 200_000);
            for _ in 0..pages {
                if worth.is_due(bandwidth) {
                    tried += nanos;
                    worth.learn(nanos, 0, bandwidth);
                }
            }
            let on_link = pages * PAGE_SIZE as u64 * 1_000_000_000 / bandwidth;
            assert!((1..=on_link / RETRIES).contains(&tried), "{tried} ns of {on_link} ns");
        }
    }

    #[test]
    fn what_begins_to_pay_is_tried_as_long_as_it_does() {
        let mut worth = learnt(2000, 0);
        while !worth.is_due(SLOW) {}
        for _ in 0..100 {
            assert!(worth.learn(2000, 4000, SLOW) && worth.is_due(SLOW));
        }
    }

    #[test]
    fn what_costs_nothing_pays_if_it_saves_at_all() {
        let mut worth = learnt(0, 1);
        assert!(worth.is_due(u64::MAX) && worth.learn(0, 1, u64::MAX) && !worth.learn(0, 0, 1));
    }
}
