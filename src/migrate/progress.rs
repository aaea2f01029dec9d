//! What a migration tells of itself while it goes on.

use crate::{
    host::Terminal,
    machine::clock,
    monitor::event::{Progress, Side, What},
};
use alloc::string::{String, ToString};
use migration::{Destination, Path, Report, Source, Status};

/// Between two `progress` events, in microseconds.
const PERIOD: u64 = 250_000;

/// Tells of one side of one migration.
pub struct Teller {
    vm: String,
    side: Side,
    next: u64,
    last: (u64, u64),
    handed_over: bool,
}

/// What an engine says of itself.
struct Snapshot {
    path: Path,
    status: Status,
    round: u32,
    pages_left: u64,
    report: Report,
    handed_over: bool,
}

impl Teller {
    /// For one side of the migration of `vm`.
    pub fn new(vm: &str, side: Side) -> Self {
        Self { vm: vm.to_string(), side, next: 0, last: (clock::micros(), 0), handed_over: false }
    }

    /// Looks at the engine of a source.
    pub fn source(&mut self, engine: &Source, terminal: &mut Terminal) {
        self.look(terminal, engine.is_handed_over(), || {
            Some(Snapshot {
                path: engine.offer().path,
                status: engine.status(),
                round: engine.round(),
                pages_left: engine.pages_left(),
                report: engine.report(clock::micros()),
                handed_over: engine.is_handed_over(),
            })
        });
    }

    /// Looks at the engine of a destination.
    pub fn destination(&mut self, engine: &Destination, terminal: &mut Terminal) {
        self.look(terminal, engine.is_committed(), || {
            Some(Snapshot {
                path: engine.offer()?.path,
                status: engine.status(),
                round: engine.round(),
                pages_left: engine.pages_left(),
                report: engine.report(clock::micros())?,
                handed_over: engine.is_committed(),
            })
        });
    }

    fn look(&mut self, terminal: &mut Terminal, handed_over: bool, snapshot: impl FnOnce() -> Option<Snapshot>) {
        let now = clock::micros();
        if handed_over == self.handed_over && now < self.next {
            return;
        }
        let Some(snapshot) = snapshot() else { return };
        if snapshot.handed_over && !self.handed_over {
            self.handed_over = true;
            terminal.tell(What::Handover { vm: self.vm.clone(), side: self.side });
        }
        if now >= self.next {
            self.next = now + PERIOD;
            self.tell_progress(&snapshot, now, terminal);
        }
    }

    fn tell_progress(&mut self, snapshot: &Snapshot, now: u64, terminal: &mut Terminal) {
        let bytes = snapshot.report.bytes;
        let (then, before) = core::mem::replace(&mut self.last, (now, bytes));
        let throughput = bytes.saturating_sub(before).saturating_mul(1_000_000) / now.saturating_sub(then).max(1);
        let progress = Progress {
            path: snapshot.path.name(),
            phase: phase(snapshot.status),
            round: u64::from(snapshot.round),
            pages_sent: snapshot.report.pages.sent(),
            pages_left: snapshot.pages_left,
            bytes,
            throughput,
        };
        terminal.tell(What::Progress { vm: self.vm.clone(), side: self.side, progress });
    }

    /// It has ended on this side, or waits to be resumed.
    pub fn ended(&self, report: Report, error: Option<String>, terminal: &mut Terminal) {
        log::info!("{}: {}: {}{}", self.vm, report.path.name(), phase(report.status), reason(&error));
        if let (Some(verdict), Side::Destination) = (report.verify, self.side) {
            terminal.tell(What::Verify {
                vm: self.vm.clone(),
                pages_compared: verdict.pages_compared,
                pages_different: verdict.pages_different,
            });
        }
        terminal.tell(What::Migration { vm: self.vm.clone(), side: self.side, migration: report, error });
    }
}

fn reason(error: &Option<String>) -> String {
    error.as_ref().map_or_else(String::new, |error| alloc::format!(": {error}"))
}

fn phase(status: Status) -> &'static str {
    match status {
        Status::Setup => "setup",
        Status::Active => "active",
        Status::Device => "device",
        Status::PostcopyActive => "postcopy-active",
        Status::PostcopyPaused => "postcopy-paused",
        Status::PostcopyRecover => "postcopy-recover",
        Status::Verifying => "verifying",
        Status::Completed => "completed",
        Status::Failed => "failed",
        Status::Cancelled => "cancelled",
    }
}
