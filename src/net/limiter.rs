//! A limit on bandwidth, as a token bucket.

/// Bytes that may go at once after a pause: this much time's worth. Short against a round of pre-copy, long against
/// the host's loop.
const BURST_MICROS: u64 = 20_000;

/// Lets through a set number of bytes a second, on average, and bursts of a fiftieth of that.
#[derive(Debug, Clone)]
pub struct Limiter {
    /// Bytes a second; 0: no limit.
    rate: u64,
    /// Tokens in millionths of a byte, so that a slow rate and short steps lose nothing.
    tokens: u128,
    last: u64,
}

impl Limiter {
    /// `rate` in bytes a second, 0 for no limit; `now` in microseconds.
    pub fn new(rate: u64, now: u64) -> Self {
        let mut limiter = Self { rate, tokens: 0, last: now };
        limiter.tokens = limiter.most();
        limiter
    }

    /// At least one page and its header pass after a pause, however low the rate.
    fn most(&self) -> u128 {
        (u128::from(self.rate) * u128::from(BURST_MICROS)).max(8192 * 1_000_000)
    }

    /// How many bytes may go at `now`.
    pub fn allowance(&mut self, now: u64) -> usize {
        if self.rate == 0 {
            return usize::MAX;
        }
        let passed = now.saturating_sub(self.last);
        self.last = self.last.max(now);
        let gained = u128::from(self.rate) * u128::from(passed);
        self.tokens = self.tokens.saturating_add(gained).min(self.most());
        usize::try_from(self.tokens / 1_000_000).unwrap_or(usize::MAX)
    }

    /// Counts `bytes` that went.
    pub fn take(&mut self, bytes: usize) {
        if self.rate != 0 {
            self.tokens = self.tokens.saturating_sub(bytes as u128 * 1_000_000);
        }
    }

    /// Changes the rate from now on.
    pub fn set_rate(&mut self, rate: u64) {
        self.rate = rate;
        self.tokens = self.tokens.min(self.most());
    }
}

#[cfg(test)]
mod tests {
    use super::Limiter;
    use proptest::prelude::*;

    #[test]
    fn no_limit_lets_everything_through() {
        let mut limiter = Limiter::new(0, 5);
        limiter.take(1 << 40);
        assert_eq!(limiter.allowance(5), usize::MAX);
    }

    #[test]
    fn a_page_goes_at_the_slowest_rate_in_the_end() {
        let mut limiter = Limiter::new(1, 0);
        limiter.take(limiter.clone().allowance(0));
        assert_eq!(limiter.allowance(999_999), 0);
        assert_eq!(limiter.allowance(1_000_000), 1);
        assert_eq!(limiter.allowance(8_192_000_000), 8192);
    }

    #[test]
    fn time_that_goes_back_gives_nothing() {
        let mut limiter = Limiter::new(1_000_000, 1_000_000);
        let all = limiter.allowance(1_000_000);
        limiter.take(all);
        assert_eq!(limiter.allowance(0), 0);
        assert_eq!(limiter.allowance(1_000_000), 0);
        assert_eq!(limiter.allowance(1_000_010), 10);
    }

    proptest! {
        #[test]
        fn a_busy_sender_gets_its_rate_whatever_the_steps(
            rate in 1_000_000u64..10_000_000_000,
            steps in proptest::collection::vec(1u64..20_000, 100..200),
        ) {
            let mut limiter = Limiter::new(rate, 0);
            limiter.take(limiter.clone().allowance(0));
            let (mut now, mut sent) = (0u64, 0u128);
            for step in steps {
                now += step;
                let bytes = limiter.allowance(now);
                limiter.take(bytes);
                sent += bytes as u128;
            }
            let exact = u128::from(rate) * u128::from(now) / 1_000_000;
            prop_assert!(sent.abs_diff(exact) <= 1, "{} of {}", sent, exact);
        }
    }
}
