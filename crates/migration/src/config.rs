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
    /// What the rounds take of the link; none: all.
    pub rate_limit: Option<RateLimit>,
    /// A guest that dirties pages too fast is slowed in steps, until what is left can be sent within the downtime limit:
    /// no progress ends the rounds only when it can be slowed no further.
    pub auto_converge: bool,
    /// Whether it does is judged over each of these periods; two in a row count.
    pub converge_period: Micros,
    /// Rounds of a hybrid before it turns to post-copy.
    pub hybrid_rounds: u32,
    /// Demand fetches only what the guest touches for so long after the hand-over; then it pushes the rest as post-copy
    /// does, so that the migration ends and the source is free. None: never.
    pub demand_period: Option<Micros>,
    /// Within a round, dirty flags are collected this often, to skip what is dirtied again.
    pub peek_interval: Micros,
    /// Bandwidth is measured over at least this long.
    pub measure_interval: Micros,
    /// Post-copy keeps at most about this many bytes waiting in the channel: more fills a fast link better, less lets the
    /// page that the guest waits for arrive sooner.
    pub push_window: u32,
    /// What the link does at rest, if that was measured over it with a [`crate::Probe`].
    pub link: Option<LinkMeasure>,
    /// How pages may be encoded.
    pub encodings: Encodings,
}

/// What a [`crate::Probe`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkMeasure {
    /// Bytes a second.
    pub bandwidth: u64,
    /// Of an empty message.
    pub round_trip: Micros,
}

impl LinkMeasure {
    /// Bytes that are on their way at full speed.
    pub(crate) fn holds(self) -> u64 {
        u64::try_from(u128::from(self.bandwidth) * u128::from(self.round_trip) / 1_000_000).unwrap_or(u64::MAX / 4)
    }
}

/// The rate of the rounds, in bytes a second: low at first, so that a guest at work feels little of it, then what the
/// last round's pages were dirtied at and a little more (Clark et al., NSDI 2005, section 3.3). With the guest paused,
/// and after the hand-over, there is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The first round's.
    pub start: u64,
    /// Added to the dirty rate.
    pub increment: u64,
    /// A guest that would need more than this ends the rounds. It is taken for what the link carries.
    pub most: u64,
}

impl Config {
    /// After how many bytes the destination is to tell how far it is, for the [`crate::Offer`]: the least window is twice
    /// that, and does not run dry between two of them.
    #[must_use]
    pub fn acknowledge_every(&self) -> u32 {
        (self.push_window / 8).max(1)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            downtime_limit: 300_000,
            round_limit: 30,
            stalled_rounds: 3,
            byte_limit: None,
            rate_limit: None,
            auto_converge: false,
            converge_period: 1_000_000,
            hybrid_rounds: 1,
            demand_period: Some(10_000_000),
            peek_interval: 100_000,
            measure_interval: 100_000,
            push_window: 64 * 1024,
            link: None,
            encodings: Encodings::default(),
        }
    }
}
