//! What the source notes for its report.

use crate::meter::rate;
use crate::wire::Path;
use crate::{Latency, Micros, Pages, Report, Round, Status, Verdict};
use alloc::vec::Vec;

/// Times and counts.
#[derive(Debug)]
pub struct Log {
    pub started: Micros,
    pub first_page: Option<Micros>,
    pub paused: Option<Micros>,
    pub handed_over: Option<Micros>,
    pub running: Option<Micros>,
    pub ended: Option<Micros>,
    pub expected_downtime: Option<Micros>,
    pub syncs: u64,
    pub rounds: Vec<Round>,
    /// When this round began, and the bytes and pages sent by then.
    pub round_start: (Micros, u64, u64),
    pub pages: Pages,
    pub bytes_saved: u64,
    pub requests: u64,
    /// Pages sent on demand alone.
    pub fetched: u64,
    pub latency: Option<Latency>,
    pub verdict: Option<Verdict>,
    /// Bytes that went over links that broke.
    pub bytes_before: u64,
}

impl Log {
    pub fn new(now: Micros) -> Self {
        Self {
            started: now,
            first_page: None,
            paused: None,
            handed_over: None,
            running: None,
            ended: None,
            expected_downtime: None,
            syncs: 0,
            rounds: Vec::new(),
            round_start: (now, 0, 0),
            pages: Pages::default(),
            bytes_saved: 0,
            requests: 0,
            fetched: 0,
            latency: None,
            verdict: None,
            bytes_before: 0,
        }
    }

    pub fn report(&self, path: Path, status: Status, bytes: u64, now: Micros) -> Report {
        let since = |from: Micros, to: Micros| to.saturating_sub(from);
        let bytes = self.bytes_before + bytes;
        let end = self.ended.unwrap_or(now);
        Report {
            path,
            status,
            total_time: since(self.started, end),
            downtime: self.paused.zip(self.running).map(|(from, to)| since(from, to)),
            setup_time: self.first_page.map(|to| since(self.started, to)),
            expected_downtime: self.expected_downtime,
            cpu_throttle_percentage: None,
            dirty_sync_count: self.syncs,
            rounds: self.rounds.clone(),
            postcopy_requests: self.requests,
            demand_fetched: (path == Path::Demand).then_some(self.fetched),
            fault_latency: self.latency,
            pages: self.pages,
            bytes,
            bytes_saved: self.bytes_saved,
            throughput: rate(bytes, since(self.first_page.unwrap_or(self.started), end)),
            link_throughput: None,
            link_round_trip: None,
            verify: self.verdict,
        }
    }
}
