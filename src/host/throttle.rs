//! Holds a guest back to a share of its time, exactly, however coarse the steps are in which it runs.

/// What a guest may run of each period, and how much it has.
#[derive(Clone, Copy, Debug)]
pub struct Throttle {
    period: u64,
    /// What it may run in a period.
    share: u64,
    /// When the present period began.
    began: u64,
    /// What it has run in it, and beyond its share in earlier ones.
    ran: u64,
}

impl Throttle {
    /// It may run `100 - percent` hundredths of each period from `now` on; all in TSC ticks. It always may run a little,
    /// or a migration that slows it would never end.
    pub fn new(percent: u8, period: u64, now: u64) -> Self {
        let share = u128::from(period) * u128::from(100u8.saturating_sub(percent)) / 100;
        let share = u64::try_from(share).unwrap_or(period).max(1);
        Self { period: period.max(1), share, began: now, ran: 0 }
    }

    /// When it may run again, if it may not now.
    pub fn held_until(&self, now: u64) -> Option<u64> {
        let (began, ran) = self.at(now);
        let periods = ran / self.share;
        (periods > 0).then(|| began.saturating_add(periods.saturating_mul(self.period)))
    }

    /// Until when it may run if it begins now.
    pub fn may_run_until(&self, now: u64) -> u64 {
        let (_, ran) = self.at(now);
        now.saturating_add(self.share.saturating_sub(ran))
    }

    /// It ran from `start` to `end`.
    pub fn ran(&mut self, start: u64, end: u64) {
        (self.began, self.ran) = self.at(start);
        self.ran = self.ran.saturating_add(end.saturating_sub(start));
    }

    /// When the period that `now` lies in began, and what was run of its share by then.
    fn at(&self, now: u64) -> (u64, u64) {
        let periods = now.saturating_sub(self.began) / self.period;
        let ran = self.ran.saturating_sub(periods.saturating_mul(self.share));
        (self.began + periods * self.period, ran)
    }
}

#[cfg(test)]
mod tests {
    use super::Throttle;
    use proptest::prelude::*;

    #[test]
    fn a_guest_without_a_share_still_runs_a_little() {
        let mut throttle = Throttle::new(100, 1000, 0);
        assert_eq!((throttle.held_until(0), throttle.may_run_until(0)), (None, 1));
        throttle.ran(0, 1);
        assert_eq!(throttle.held_until(1), Some(1000));
    }

    #[test]
    fn what_it_rests_of_itself_is_not_made_up_for() {
        let throttle = Throttle::new(75, 1000, 0);
        assert_eq!(throttle.may_run_until(50_000), 50_250);
    }

    proptest! {
        #[test]
        fn a_busy_guest_has_its_share_however_late_it_is_stopped(
            percent in 1u8..=99,
            late in proptest::collection::vec(0u64..5_000, 500),
        ) {
            const PERIOD: u64 = 10_000;
            let (mut throttle, mut now, mut ran) = (Throttle::new(percent, PERIOD, 7), 7, 0);
            for late in late {
                if let Some(until) = throttle.held_until(now) {
                    prop_assert!(until > now);
                    now = until;
                    prop_assert_eq!(throttle.held_until(now), None);
                }
                let end = throttle.may_run_until(now) + late;
                prop_assert!(end > now);
                throttle.ran(now, end);
                ran += end - now;
                now = end;
            }
            let share = u64::from(100 - percent) * PERIOD / 100;
            // What it may be ahead: its share of the period that has begun, and one late stop.
            let wanted = (now - 7) / PERIOD * share;
            prop_assert!(ran >= wanted.saturating_sub(share) && ran <= wanted + share + 5_000, "{ran} of {wanted}");
        }
    }
}
