//! A token bucket: how many bytes may go now, so that over no time more than the rate and one burst goes.

use crate::Micros;

/// Tokens are counted in millionths of a byte, so that no rate loses a fraction.
pub const TOKENS_A_BYTE: u128 = 1_000_000;

/// Tokens that come in with time, up to a burst.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: u64,
    burst: u128,
    tokens: u128,
    at: Micros,
}

impl Bucket {
    /// Empty, filled by `rate` bytes a second up to `burst` bytes.
    pub fn new(rate: u64, burst: u64, now: Micros) -> Self {
        Self { rate, burst: u128::from(burst) * TOKENS_A_BYTE, tokens: 0, at: now }
    }

    /// Bytes that may go now.
    pub fn available(&mut self, now: Micros) -> u64 {
        let new = u128::from(now.saturating_sub(self.at)) * u128::from(self.rate);
        self.tokens = (self.tokens + new).min(self.burst);
        self.at = self.at.max(now);
        u64::try_from(self.tokens / TOKENS_A_BYTE).unwrap_or(u64::MAX)
    }

    /// So many go.
    pub fn spend(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_sub(u128::from(bytes) * TOKENS_A_BYTE);
    }

    /// When so many, at most a burst, may go.
    pub fn when(&self, bytes: u64) -> Micros {
        let missing = (u128::from(bytes) * TOKENS_A_BYTE).saturating_sub(self.tokens);
        let time = missing.div_ceil(u128::from(self.rate.max(1)));
        self.at.saturating_add(u64::try_from(time).unwrap_or(u64::MAX))
    }
}
