//! What the destination notes for its report.

use crate::meter::rate;
use crate::wire::Path;
use crate::{Latency, Micros, Pages, Report, Status, Verdict};
use alloc::vec::Vec;

/// Times and counts.
#[derive(Debug)]
pub struct Log {
    pub started: Micros,
    pub accepted: Option<Micros>,
    pub paused: Option<Micros>,
    pub running: Option<Micros>,
    pub ended: Option<Micros>,
    pub round: u32,
    pub pages: Pages,
    pub bytes_saved: u64,
    pub requests: u64,
    /// How long each request took: at most one a page.
    pub waits: Vec<Micros>,
    /// Bytes that came over links that broke.
    pub bytes_before: u64,
}

impl Log {
    pub fn new(now: Micros) -> Self {
        Self {
            started: now,
            accepted: None,
            paused: None,
            running: None,
            ended: None,
            round: 0,
            pages: Pages::default(),
            bytes_saved: 0,
            requests: 0,
            waits: Vec::new(),
            bytes_before: 0,
        }
    }

    pub fn latency(&self) -> Option<Latency> {
        Latency::of(&mut self.waits.clone())
    }

    pub fn report(&self, path: Path, status: Status, bytes: u64, verify: Option<Verdict>, now: Micros) -> Report {
        let bytes = self.bytes_before + bytes;
        let end = self.ended.unwrap_or(now);
        let total_time = end.saturating_sub(self.started);
        Report {
            path,
            status,
            total_time,
            downtime: self.paused.zip(self.running).map(|(from, to)| to.saturating_sub(from)),
            setup_time: self.accepted.map(|to| to.saturating_sub(self.started)),
            expected_downtime: None,
            cpu_throttle_percentage: None,
            dirty_sync_count: 0,
            rounds: Vec::new(),
            postcopy_requests: self.requests,
            demand_fetched: None,
            fault_latency: self.latency(),
            pages: self.pages,
            bytes,
            bytes_saved: self.bytes_saved,
            throughput: rate(bytes, end.saturating_sub(self.accepted.unwrap_or(self.started))),
            link_throughput: None,
            link_round_trip: None,
            verify,
        }
    }
}
