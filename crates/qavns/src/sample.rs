//! What was seen of a VM over the sampling time.

use core::time::Duration;

use crate::version::Reading;

/// The version at the start and at the end of the sampling time Ts, and the periods that give its
/// numbers their meaning: DPCN depends on the harvest period, JS on the jiffy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The version when the sample began.
    pub start: Reading,
    /// The version when it was over.
    pub end: Reading,
    /// The sampling time Ts that was asked for.
    pub ts: Duration,
    /// The period of the tick.
    pub jiffy: Duration,
    /// The period at which dirty flags were collected.
    pub harvest_period: Duration,
}

impl Sample {
    /// Jiffies that the sample lasted, JSe - JSs.
    #[must_use]
    pub fn jiffies(&self) -> u64 {
        let (start, end) = (self.start.identifier.js, self.end.identifier.js);
        end.saturating_sub(start)
    }

    /// Restarts of the guest's OS during the sample.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        let (start, end) = (self.start.totals.restarts, self.end.totals.restarts);
        end.saturating_sub(start)
    }

    /// Processes born during the sample.
    #[must_use]
    pub fn births(&self) -> u64 {
        let (start, end) = (self.start.totals.births, self.end.totals.births);
        end.saturating_sub(start)
    }

    /// Processes that ended during the sample.
    #[must_use]
    pub fn deaths(&self) -> u64 {
        let (start, end) = (self.start.totals.deaths, self.end.totals.deaths);
        end.saturating_sub(start)
    }

    /// Pages found modified at the harvests of the sample.
    #[must_use]
    pub fn pages_modified(&self) -> u64 {
        let (start, end) = (self.start.totals.pages_modified, self.end.totals.pages_modified);
        end.saturating_sub(start)
    }
}
