//! Jiffies against the TSC: a tick is neither lost nor counted twice, however late the host looks.

/// Counts the ticks of one period.
#[derive(Clone, Copy, Debug)]
pub struct Ticker {
    period: u64,
    next: u64,
}

impl Ticker {
    /// The first tick comes a period after `now`; both in TSC ticks. A period of zero is taken as one.
    pub fn new(now: u64, period: u64) -> Self {
        let period = period.max(1);
        Self { period, next: now.saturating_add(period) }
    }

    /// When the tick after so many others is due: 0 asks for the next one.
    pub fn deadline_after(&self, others: u64) -> u64 {
        self.next.saturating_add(others.saturating_mul(self.period))
    }

    /// The ticks since the last call.
    pub fn elapsed(&mut self, now: u64) -> u64 {
        let Some(late) = now.checked_sub(self.next) else { return 0 };
        let ticks = late / self.period + 1;
        self.next = self.next.saturating_add(ticks.saturating_mul(self.period));
        ticks
    }
}

#[cfg(test)]
mod tests {
    use super::Ticker;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ticks_are_the_time_over_the_period_whenever_it_is_asked(period in 1u64..10_000, steps in proptest::collection::vec(0u64..100_000, 1..100)) {
            let (mut now, mut ticks) = (1_000, 0);
            let mut ticker = Ticker::new(now, period);
            for step in steps {
                now += step;
                ticks += ticker.elapsed(now);
                prop_assert_eq!(ticks, (now - 1_000) / period);
                let next = ticker.deadline_after(0);
                prop_assert!(next > now && next <= now + period);
                prop_assert_eq!(ticker.deadline_after(3), next + 3 * period);
            }
        }
    }
}
