//! What a user can set.

use crate::{Encodings, Micros};

/// How a source behaves. What both sides must know is in the [`crate::Offer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Pre-copy pauses the guest when what is left would keep it paused for at most this long.
    pub downtime_limit: Micros,
    /// Pre-copy pauses it after this many rounds in any case; hybrid turns to post-copy then (see
    /// [`Config::hybrid_rounds`]).
    pub round_limit: u32,
    /// Pre-copy pauses it when so many rounds in a row left nearly as much as the one before.
    pub stalled_rounds: u32,
    /// Pre-copy pauses it when so many bytes were sent; none: no limit.
    pub byte_limit: Option<u64>,
    /// Rounds of a hybrid before it turns to post-copy.
    pub hybrid_rounds: u32,
    /// Within a round, dirty flags are collected this often, to skip what is dirtied again.
    pub peek_interval: Micros,
    /// Bandwidth is measured over at least this long.
    pub measure_interval: Micros,
    /// Post-copy keeps about this many bytes waiting in the channel: more fills a fast link better, less lets the
    /// page that the guest waits for arrive sooner.
    pub push_window: u32,
    /// How pages may be encoded.
    pub encodings: Encodings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            downtime_limit: 300_000,
            round_limit: 30,
            stalled_rounds: 3,
            byte_limit: None,
            hybrid_rounds: 1,
            peek_interval: 100_000,
            measure_interval: 100_000,
            push_window: 64 * 1024,
            encodings: Encodings::default(),
        }
    }
}
