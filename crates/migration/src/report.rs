//! What happened, in the words of `report.json` and of QEMU's `query-migrate`. Times are kept in microseconds and
//! written as milliseconds.

use crate::wire::Body;
use crate::{Micros, Path};
use alloc::vec::Vec;
use serde::{Serialize, Serializer};

/// Where a migration stands, seen from one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The two sides have not agreed yet.
    Setup,
    /// The guest runs at the source, and pages go over.
    Active,
    /// The guest is paused, and what is left goes over.
    Device,
    /// The guest runs at the destination, and pages are missing there.
    PostcopyActive,
    /// The link broke after the hand-over. Both sides hold what they have; `recover` resumes.
    PostcopyPaused,
    /// The two sides compare what they hold, to resume.
    PostcopyRecover,
    /// The guest runs at the destination with all its pages, and these are compared.
    Verifying,
    /// The guest runs at the destination and needs nothing more from the source.
    Completed,
    /// The attempt ended. If it had got as far as a VM, that runs at the source.
    Failed,
    /// The attempt was given up on request; the VM runs at the source.
    Cancelled,
}

impl Status {
    /// Whether nothing more happens.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// One round of a pre-copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Round {
    /// Pages sent.
    pub pages: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// How long it took.
    #[serde(serialize_with = "milliseconds")]
    pub time: Micros,
    /// Pages that the guest dirtied meanwhile.
    pub dirtied: u64,
}

/// The distribution of a waiting time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half of them are at most this.
    #[serde(serialize_with = "milliseconds")]
    pub p50: Micros,
    /// 99 of 100 are at most this.
    #[serde(serialize_with = "milliseconds")]
    pub p99: Micros,
    /// The longest.
    #[serde(serialize_with = "milliseconds")]
    pub max: Micros,
}

impl Latency {
    /// Of a list of waiting times, which it sorts. None of an empty list.
    #[must_use]
    pub fn of(times: &mut [Micros]) -> Option<Self> {
        times.sort_unstable();
        // The nearest-rank percentile: the smallest time that at least this share does not exceed.
        let rank = |percent: usize| times.get((times.len() * percent).div_ceil(100).checked_sub(1)?).copied();
        Some(Self { p50: rank(50)?, p99: rank(99)?, max: rank(100)? })
    }
}

/// Pages of a stream by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pages {
    /// Sent (or received) whole.
    pub normal: u64,
    /// Pages of zeroes, sent as a mark.
    pub duplicate: u64,
    /// Sent as equal to a page that was sent before.
    pub same: u64,
    /// Sent as what changed since the version that was sent before.
    pub delta: u64,
    /// Sent compressed.
    pub compressed: u64,
    /// Pages that the guest does not need, sent as a mark. The destination counts them among the duplicates.
    pub free: u64,
    /// Left out of a round because they were dirtied again, or are in most rounds.
    pub skipped: u64,
    /// Sent though the destination held that very version.
    pub twice: u64,
}

impl Pages {
    /// Sent (or received), however.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.normal + self.duplicate + self.free + self.same + self.delta + self.compressed
    }

    /// Pages go (or came) as a record says.
    pub(crate) fn count(&mut self, body: &Body<'_>) {
        match body {
            Body::Zero { count } => self.duplicate += u64::from(*count),
            Body::Data(_) => self.normal += 1,
            Body::Same { .. } => self.same += 1,
            Body::Delta(_) => self.delta += 1,
            Body::Lz4(_) => self.compressed += 1,
        }
    }
}

/// What the comparison of all pages showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// Pages whose hashes were compared.
    pub pages_compared: u64,
    /// Pages that differed.
    pub pages_different: u64,
}

/// The `migration` object, as one side knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The path.
    pub path: Path,
    /// How it ended, or how far it is.
    pub status: Status,
    /// From the start to the end (or to now).
    #[serde(serialize_with = "milliseconds")]
    pub total_time: Micros,
    /// How long the VM ran nowhere. At the source: from the pause to the news that it runs at the destination. At the
    /// destination: from the news of the pause to the first entry.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_milliseconds")]
    pub downtime: Option<Micros>,
    /// From the start to the first page.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_milliseconds")]
    pub setup_time: Option<Micros>,
    /// The downtime that was predicted when the guest was paused.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_milliseconds")]
    pub expected_downtime: Option<Micros>,
    /// The most that the guest was slowed by, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_throttle_percentage: Option<u8>,
    /// How often dirty flags were collected for the stream.
    pub dirty_sync_count: u64,
    /// The rounds while the guest ran.
    pub rounds: Vec<Round>,
    /// Pages that the guest waited for at the destination and that were asked for: not those that came next in any case.
    pub postcopy_requests: u64,
    /// On demand: pages that the guest fetched before the rest was pushed after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demand_fetched: Option<u64>,
    /// How long the guest waited for pages, asked for or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault_latency: Option<Latency>,
    /// Pages by kind.
    pub pages: Pages,
    /// Bytes of the stream, headers and all.
    pub bytes: u64,
    /// Bytes more that the pages with contents would have taken whole.
    pub bytes_saved: u64,
    /// Bytes a second over the whole stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput: Option<u64>,
    /// Bytes a second that the link carried, where the owner measured that before the migration with a [`crate::Probe`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_throughput: Option<u64>,
    /// The round trip of an empty message, measured likewise.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_milliseconds")]
    pub link_round_trip: Option<Micros>,
    /// The comparison, if it was asked for and is done.
    #[serde(skip)]
    pub verify: Option<Verdict>,
}

fn milliseconds<S: Serializer>(time: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    // Exact up to 2^53 us, which is 285 years.
    serializer.serialize_f64(*time as f64 / 1000.0)
}

fn maybe_milliseconds<S: Serializer>(time: &Option<Micros>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => milliseconds(time, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::Latency;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        assert_eq!(Latency::of(&mut []), None);
        assert_eq!(Latency::of(&mut [7]), Some(Latency { p50: 7, p99: 7, max: 7 }));
        let mut times: [u64; 200] = core::array::from_fn(|i| 200 - i as u64);
        assert_eq!(Latency::of(&mut times), Some(Latency { p50: 100, p99: 198, max: 200 }));
    }
}
