//! How many bytes may be on their way while pages are pushed.
//!
//! A page that the guest waits for queues behind them, so they are to be few; but a link that runs dry carries less. What the
//! link holds at full speed, as it was measured at rest, and a quarter more keeps an ideal link busy with next to no queue. Hosts
//! that share a CPU, or look at their cards seldom, need more than that, and nothing that is measured at rest tells how much:
//! so a quarter more is tried for an interval now and then, and kept if the destination acknowledged more for it. What a
//! stream sees of its own round trips would not do: bytes that wait for a slow host and bytes that wait for the wire
//! look alike, and both grow with the window.

use crate::Micros;
use crate::meter::rate;

/// Intervals from a trial that was no use to the next one.
const REST: u32 = 16;

/// The window, and the trial of a larger one.
#[derive(Debug)]
pub struct Window {
    size: u64,
    interval: Micros,
    /// When the present interval began, and what was acknowledged by then.
    since: Option<(Micros, u64)>,
    /// It has held back a page in this interval.
    tight: bool,
    /// A larger one is tried: the size before, and what was acknowledged a second then.
    before: Option<(u64, u64)>,
    /// Intervals until the next trial.
    rest: u32,
}

impl Window {
    /// Over a link that holds so many bytes; at least `least`.
    pub fn new(holds: u64, least: u64, interval: Micros) -> Self {
        let size = (holds + holds / 4).max(least);
        Self { size, interval, since: None, tight: false, before: None, rest: 0 }
    }

    /// Bytes that may be on their way.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A page had to stay for lack of room.
    pub fn full(&mut self) {
        self.tight = true;
    }

    /// So many bytes are acknowledged by now.
    pub fn look(&mut self, now: Micros, acknowledged: u64) {
        let (start, already) = *self.since.get_or_insert((now, acknowledged));
        let time = now.saturating_sub(start);
        if time < self.interval {
            return;
        }
        self.since = Some((now, acknowledged));
        let tight = core::mem::take(&mut self.tight);
        let Some(rate) = rate(acknowledged.saturating_sub(already), time).filter(|_| tight) else {
            // The link was not what it waited for: the trial says nothing.
            self.give_up_trial();
            return;
        };
        if self.before.is_some_and(|(_, before)| rate < before + before / 20) {
            self.give_up_trial();
        } else if self.rest > 0 {
            self.rest -= 1;
        } else {
            self.before = Some((self.size, rate));
            self.size += self.size / 4;
        }
    }

    fn give_up_trial(&mut self) {
        if let Some((size, _)) = self.before.take() {
            self.size = size;
            self.rest = REST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{REST, Window};

    const INTERVAL: u64 = 1000;

    /// Sizes over so many intervals, on a link that carries `carried(size)` bytes in each.
    fn sizes(window: &mut Window, intervals: u64, carried: impl Fn(u64) -> u64) -> Vec<u64> {
        let mut acknowledged = 0;
        let step = |interval| {
            window.full();
            window.look(interval * INTERVAL, acknowledged);
            acknowledged += carried(window.size());
            window.size()
        };
        (0..intervals).map(step).collect()
    }

    #[test]
    fn on_a_link_that_is_full_it_stays_and_a_larger_one_is_tried_now_and_then() {
        let mut window = Window::new(800, 0, INTERVAL);
        let sizes = sizes(&mut window, 1000, |_| 1_000_000);
        let larger = sizes.iter().filter(|size| **size > 1000).count();
        assert!(sizes.iter().all(|size| (1000..=1250).contains(size)), "{sizes:?}");
        assert!((1..=1000 / REST as usize).contains(&larger), "{larger}");
    }

    #[test]
    fn it_grows_as_long_as_that_helps() {
        let mut window = Window::new(800, 0, INTERVAL);
        let sizes = sizes(&mut window, 100, |size| size.min(5000) * 1000);
        assert!(sizes.last().is_some_and(|size| (4000..8000).contains(size)), "{sizes:?}");
    }

    #[test]
    fn it_does_not_grow_while_nothing_is_held_back() {
        let mut window = Window::new(800, 2000, INTERVAL);
        (0..100).for_each(|interval| window.look(interval * INTERVAL, interval * interval * 1_000_000));
        assert_eq!(window.size(), 2000);
    }
}
