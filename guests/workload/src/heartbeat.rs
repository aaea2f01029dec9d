//! The numbered heartbeat: one line each 100 ms, by which an onlooker sees that the guest lives and that its
//! memory is right.

use crate::clock::{MICROSECOND, MILLISECOND, Nanos};

/// The time from one beat to the next.
pub const PERIOD: Nanos = 100 * MILLISECOND;

/// Each so many beats the line carries the counts too.
const COUNTS_EVERY: u64 = 10;

/// What the workload counts about itself.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Pages found with a content that nobody wrote.
    pub errors: u64,
    /// Processes started.
    pub births: u64,
    /// Processes that ended and were reaped.
    pub deaths: u64,
    /// Pages written after the range was filled, each write counted.
    pub pages_written: u64,
    /// What the workload is about: pages read or written, processes started, system calls made.
    pub work: u64,
}

/// When the next beat is due, and its number.
#[derive(Debug)]
pub struct Heartbeat {
    number: u64,
    deadline: Nanos,
}

impl Heartbeat {
    /// The first beat is due at once.
    pub fn new(now: Nanos) -> Self {
        Self { number: 0, deadline: now }
    }

    /// When the next beat is due.
    pub fn deadline(&self) -> Nanos {
        self.deadline
    }

    /// How many beats there were.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The line of this beat, if one is due. No number is left out. After a silence of more than a period the
    /// beats start afresh from now, instead of coming in a burst: the burst would hide how long the guest took
    /// to get going again.
    pub fn beat(&mut self, now: Nanos, counts: &Counts) -> Option<String> {
        if now < self.deadline {
            return None;
        }
        self.number += 1;
        self.deadline += PERIOD;
        if self.deadline <= now {
            self.deadline = now + PERIOD;
        }
        let Counts { errors, births, deaths, pages_written, work: _ } = counts;
        let mut line = format!("hb {} e{errors}", self.number);
        if self.number.is_multiple_of(COUNTS_EVERY) {
            line += &format!(" b{births} d{deaths} w{pages_written}");
        }
        Some(line)
    }

    /// How much work was done, told as often as the counts.
    pub fn work(&self, now: Nanos, counts: &Counts) -> Option<String> {
        let told = self.number.is_multiple_of(COUNTS_EVERY);
        told.then(|| format!("work {} at {}", counts.work, now / MICROSECOND))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_keep_their_grid_when_each_is_a_little_late() {
        let mut heartbeat = Heartbeat::new(0);
        for number in 0..5 {
            assert!(heartbeat.beat(number * PERIOD + 7, &Counts::default()).is_some());
            assert_eq!(heartbeat.deadline(), (number + 1) * PERIOD);
        }
    }

    #[test]
    fn after_a_silence_no_number_is_left_out_and_nothing_bursts() {
        let mut heartbeat = Heartbeat::new(0);
        assert_eq!(heartbeat.beat(0, &Counts::default()).as_deref(), Some("hb 1 e0"));
        let late = 50 * PERIOD + 3;
        assert_eq!(heartbeat.beat(late, &Counts::default()).as_deref(), Some("hb 2 e0"));
        assert_eq!(heartbeat.beat(late, &Counts::default()), None);
        assert_eq!(heartbeat.deadline(), late + PERIOD);
    }

    #[test]
    fn every_tenth_beat_carries_the_counts() {
        let mut heartbeat = Heartbeat::new(0);
        let counts = Counts { errors: 1, births: 2, deaths: 3, pages_written: 4, work: 5 };
        let lines: Vec<_> = (0..10).filter_map(|beat| heartbeat.beat(beat * PERIOD, &counts)).collect();
        assert_eq!(lines[8], "hb 9 e1");
        assert_eq!(lines[9], "hb 10 e1 b2 d3 w4");
        assert_eq!(heartbeat.work(1_234_567, &counts).as_deref(), Some("work 5 at 1234"));
        heartbeat.beat(10 * PERIOD, &counts);
        assert_eq!(heartbeat.work(1_234_567, &counts), None);
    }
}
