//! Whose time it was: the guest's, or the hypervisor's while the guest would have run; and what a sample took of it.

use alloc::collections::VecDeque;

/// Readings of the past are at least so many to the longest stretch before a sample.
const READINGS: u64 = 256;

/// Time in TSC ticks, from some moment on. While the guest waits for an interrupt nobody's time is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The guest ran.
    pub guest: u64,
    /// The guest would have run, and the hypervisor did: transitions, exits, harvests, its own loop.
    pub host: u64,
}

impl Account {
    /// What was added since an earlier reading.
    fn since(self, earlier: Self) -> Self {
        Self { guest: self.guest.saturating_sub(earlier.guest), host: self.host.saturating_sub(earlier.host) }
    }

    /// By how many millionths less of its time the guest had here than in `before`; less than 0 if it had more. `None` if it
    /// did not run in both.
    fn slowdown_from(self, before: Self) -> Option<i64> {
        const MILLION: u128 = 1_000_000;
        let all = |account: Self| u128::from(account.guest) + u128::from(account.host);
        let had = u128::from(before.guest).checked_mul(all(self))?;
        let has = u128::from(self.guest).checked_mul(all(before))?;
        let millionths = has.checked_mul(MILLION)?.checked_div(had)?;
        i64::try_from(MILLION).ok()?.checked_sub(i64::try_from(millionths).ok()?)
    }
}

/// The accounts of one VM.
#[derive(Debug)]
pub struct Ledger {
    /// Ticks from one reading that is kept to the next, at least.
    spacing: u64,
    /// When each was taken, the oldest first.
    past: VecDeque<(u64, Account)>,
    /// The stretch before the sample.
    before: Option<Account>,
    /// The reading at the sample's start.
    start: Option<Account>,
    slowdown: Option<i64>,
}

impl Ledger {
    /// `longest` is the longest stretch before a sample that is known, in ticks.
    pub fn new(longest: u64) -> Self {
        let spacing = (longest / READINGS).max(1);
        Self { spacing, past: VecDeque::new(), before: None, start: None, slowdown: None }
    }

    /// Keeps a reading if it is time to.
    pub fn keep(&mut self, at: u64, now: Account) {
        if self.past.back().is_some_and(|(last, _)| at.saturating_sub(*last) < self.spacing) {
            return;
        }
        if self.past.len() as u64 > READINGS {
            self.past.pop_front();
        }
        self.past.push_back((at, now));
    }

    /// The VM is watched in another way from now on: what was before is nothing to compare with.
    pub fn forget(&mut self) {
        self.past.clear();
    }

    /// A sample of so many ticks is asked for: the stretch until now, as long or a little longer, is what it is compared
    /// with; or else the longest one that is kept, if all of it was like this.
    pub fn sample_asked(&mut self, at: u64, now: Account, length: u64) {
        (self.before, self.start, self.slowdown) = (None, None, None);
        let wanted = length.min(self.spacing.saturating_mul(READINGS));
        let reading = self.past.iter().rev().find(|(then, _)| at.saturating_sub(*then) >= wanted);
        self.before = reading.map(|(_, then)| now.since(*then));
    }

    /// The sample begins.
    pub fn sample_begins(&mut self, now: Account) {
        self.start = Some(now);
    }

    /// The sample is over.
    pub fn sample_ends(&mut self, now: Account) {
        let both = self.before.take().zip(self.start.take());
        self.slowdown = both.and_then(|(before, start)| now.since(start).slowdown_from(before));
    }

    /// By how many millionths less of its time the guest had in the last sample than before it.
    pub fn slowdown(&self) -> Option<i64> {
        self.slowdown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn account(guest: u64, host: u64) -> Account {
        Account { guest, host }
    }

    /// A reading each 10 ticks, of which the guest had `guest`.
    fn run(ledger: &mut Ledger, readings: u64, guest: u64) -> (u64, Account) {
        let reading = |number: u64| (10 * number, account(guest * number, (10 - guest) * number));
        (0..=readings).map(reading).inspect(|(at, now)| ledger.keep(*at, *now)).last().unwrap_or_default()
    }

    #[test]
    fn a_sample_is_compared_with_the_stretch_before_it() {
        let mut ledger = Ledger::new(256 * 10);
        let (at, now) = run(&mut ledger, 100, 8);
        ledger.sample_asked(at, now, 500);
        // The link is measured meanwhile: this is of neither stretch.
        let start = account(now.guest + 1, now.host + 10_000);
        ledger.sample_begins(start);
        assert_eq!(ledger.slowdown(), None);
        ledger.sample_ends(account(start.guest + 300, start.host + 200));
        // 0.6 of the time, where it was 0.8.
        assert_eq!(ledger.slowdown(), Some(250_000));
    }

    #[test]
    fn without_a_stretch_as_long_as_the_sample_nothing_is_said() {
        let mut ledger = Ledger::new(256 * 10);
        let (at, now) = run(&mut ledger, 49, 8);
        ledger.sample_asked(at, now, 500);
        ledger.sample_begins(now);
        ledger.sample_ends(account(now.guest + 1, now.host + 1));
        assert_eq!(ledger.slowdown(), None, "too short");
        let (at, now) = run(&mut Ledger::new(1), 1000, 8);
        ledger.forget();
        ledger.sample_asked(at, now, 1);
        ledger.sample_begins(now);
        ledger.sample_ends(account(now.guest + 1, now.host + 1));
        assert_eq!(ledger.slowdown(), None, "watched in another way before");
    }

    #[test]
    fn a_sample_longer_than_what_is_kept_is_compared_with_all_of_that() {
        let mut ledger = Ledger::new(256 * 10);
        let (at, now) = run(&mut ledger, 5000, 8);
        ledger.sample_asked(at, now, u64::MAX);
        ledger.sample_begins(now);
        ledger.sample_ends(account(now.guest + 800, now.host + 200));
        assert_eq!(ledger.slowdown(), Some(0));
    }

    #[test]
    fn a_guest_that_never_ran_is_slowed_by_nothing() {
        assert_eq!(account(0, 0).slowdown_from(account(5, 5)), None);
        assert_eq!(account(1, 0).slowdown_from(account(0, 5)), None);
    }

    proptest! {
        #[test]
        fn any_readings_are_taken_and_few_are_kept(
            longest in 0u64..2000, readings in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..600)
        ) {
            let mut ledger = Ledger::new(longest);
            for (at, guest, host) in readings {
                ledger.keep(at, account(guest, host));
                ledger.sample_asked(at, account(host, guest), host);
                ledger.sample_begins(account(guest, guest));
                ledger.sample_ends(account(host, host));
                prop_assert!(ledger.past.len() as u64 <= READINGS + 1);
            }
        }

        #[test]
        fn the_slowdown_is_the_fall_of_the_guests_share(guest in 1u64..1 << 40, host in 0u64..1 << 40, less in 0u64..1 << 40) {
            let all = guest + host;
            let less = less % guest;
            let slowed = account(guest - less, host + less).slowdown_from(account(guest, host)).unwrap_or(-1);
            let expected = less as f64 / guest as f64;
            prop_assert!((slowed as f64 / 1e6 - expected).abs() < 2e-6, "{slowed} for {expected} of {all}");
        }
    }
}
