//! So many things a second, in small portions.

use crate::clock::{Nanos, SECOND};

/// Counts how many things are due.
#[derive(Debug)]
pub struct Pace {
    per_second: u64,
    since: Nanos,
    done: u64,
}

impl Pace {
    /// `per_second` things each second from `now` on.
    pub fn new(per_second: u64, now: Nanos) -> Self {
        Self { per_second, since: now, done: 0 }
    }

    /// How many are due now; they count as done. What was missed in a silence of more than a tenth of a second
    /// is let go: to catch up would make another load than the one that was asked for.
    pub fn due(&mut self, now: Nanos) -> u64 {
        let total = u128::from(now.saturating_sub(self.since)) * u128::from(self.per_second) / u128::from(SECOND);
        let total = u64::try_from(total).unwrap_or(u64::MAX);
        let due = total.saturating_sub(self.done);
        let most = self.per_second.div_ceil(10);
        if due > most {
            *self = Self::new(self.per_second, now);
            return most;
        }
        self.done = total;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLISECOND;

    #[test]
    fn a_second_of_small_steps_makes_the_rate() {
        let mut pace = Pace::new(333, 5);
        let total: u64 = (1..=100).map(|step| pace.due(5 + step * 10 * MILLISECOND)).sum();
        assert_eq!(total, 333);
    }

    #[test]
    fn a_silence_is_not_caught_up() {
        let mut pace = Pace::new(1000, 0);
        assert_eq!(pace.due(60 * SECOND), 100);
        assert_eq!(pace.due(60 * SECOND + 10 * MILLISECOND), 10);
    }
}
