//! The figures of both, and the table that has them side by side.

use serde_json::{Map, Value};

use crate::agent::wire::Host;
use crate::session::report::{Report, rounded};
use crate::session::story::{Story, index};

/// One hypervisor's figures, in ms and bytes; what it did not come to is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// From the start of the migration to its end at the source, as the hypervisor says itself.
    pub total_time: Option<f64>,
    /// How long the guest did not run, as the hypervisor says itself.
    pub downtime: Option<f64>,
    /// The guest's longest silence.
    pub heartbeat_gap: Option<f64>,
    /// What went over.
    pub bytes: Option<f64>,
    /// From the start of the hypervisor's own program to the guest's first heartbeat.
    pub start: Option<f64>,
    /// The same from the start of the machine's kernel, which for us is the hypervisor.
    pub host_start: Option<f64>,
    /// QEMU's migration was given up at the limit: there is no end to measure.
    pub never_ended: bool,
    /// What went wrong.
    pub error: Option<String>,
}

/// What lies below the process whose start the agent told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Below {
    /// A kernel that had KVM ready so many ms after its own start.
    Kernel {
        /// As its log says.
        kvm: Option<f64>,
    },
    /// The machine: the process is a host, whose own kernel and QEMU come after it.
    Machine,
}

impl Figures {
    /// The figures of a run of ours. The clock that stamps its events starts with the image.
    pub fn ours(report: &Report, story: &Story) -> Self {
        let start = story.heartbeats.first_at;
        Figures { start, host_start: start, ..Self::of(report) }
    }

    /// The figures of a run of QEMU's.
    pub fn qemus(report: &Report, story: &Story, below: &Below) -> Self {
        let started = story.status[index(Host::Source)].as_ref().and_then(|status| status["started"].as_f64());
        let since = story.heartbeats.first_at.zip(started).map(|(first, started)| first - started);
        let (start, host_start) = match below {
            // Without the wait for the destination's QEMU, which runs first.
            Below::Kernel { kvm } => (since, since.zip(*kvm).map(|(since, kvm)| kvm + since)),
            Below::Machine => (None, since),
        };
        let never_ended = report.json.pointer("/migration/status").is_some_and(|status| status == "cancelled");
        let all = Figures { start, host_start, never_ended, ..Self::of(report) };
        if !never_ended {
            return all;
        }
        Figures { total_time: None, downtime: None, heartbeat_gap: None, error: None, ..all }
    }

    fn of(report: &Report) -> Self {
        let number = |pointer: &str| report.json.pointer(pointer).and_then(Value::as_f64);
        Figures {
            total_time: number("/migration/total-time"),
            downtime: number("/migration/downtime"),
            heartbeat_gap: number("/verify/heartbeat-gap"),
            bytes: number("/migration/bytes"),
            error: report.error.clone(),
            ..Self::default()
        }
    }

    /// As they go into a record.
    pub fn record(&self) -> Value {
        let mut record = Map::new();
        for (name, value) in ROWS.iter().map(|row| (row.key, (row.value)(self))) {
            record.extend(value.map(|value| (name.to_owned(), rounded(value).into())));
        }
        record.insert("never-ended".to_owned(), self.never_ended.into());
        record.extend(self.error.clone().map(|error| ("error".to_owned(), error.into())));
        Value::Object(record)
    }

    fn cell(&self, row: &Row) -> String {
        match (row.value)(self) {
            Some(value) => format!("{value:.0}"),
            None if self.never_ended && row.of_the_end => "never ends".to_owned(),
            None => "-".to_owned(),
        }
    }
}

/// A line of the table.
struct Row {
    key: &'static str,
    unit: &'static str,
    value: fn(&Figures) -> Option<f64>,
    /// Only a migration that ends has it.
    of_the_end: bool,
}

const ROWS: [Row; 6] = [
    Row { key: "total-time", unit: "ms", value: |all| all.total_time, of_the_end: true },
    Row { key: "downtime", unit: "ms", value: |all| all.downtime, of_the_end: true },
    Row { key: "heartbeat-gap", unit: "ms", value: |all| all.heartbeat_gap, of_the_end: true },
    Row { key: "bytes", unit: "", value: |all| all.bytes, of_the_end: false },
    Row { key: "start", unit: "ms", value: |all| all.start, of_the_end: false },
    Row { key: "host-start", unit: "ms", value: |all| all.host_start, of_the_end: false },
];

/// Both columns.
pub fn table(title: &str, qemu: &Figures, ours: &Figures) -> String {
    let mut text = format!("{title}\n  {:<20} {:>16} {:>16}\n", "", "QEMU/KVM", "Qavisor");
    for row in &ROWS {
        let name = format!("{} {}", row.key, row.unit);
        text += &format!("  {name:<20} {:>16} {:>16}\n", qemu.cell(row), ours.cell(row));
    }
    text
}

/// When the emulated machine's kernel had KVM ready, in ms since its start, as its own log says.
pub fn kvm_ready(log: &str) -> Option<f64> {
    let (_, rest) = log.split_once("lab: KVM after ")?;
    let seconds: f64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(seconds * 1e3)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::wire::{Kind, Line, Party};
    use crate::testbed::Wiring;

    fn report(json: Value, error: Option<&str>) -> Report {
        Report { json, error: error.map(str::to_owned) }
    }

    /// QEMU started at 2 s, its guest's first heartbeat came at 16 s.
    fn story() -> Story {
        let mut story = Story::new(&Wiring::Agent, "linux");
        for (at, event) in [
            (2000.0, json!({"event": "status", "vms": [], "started": 2000.0})),
            (16_000.0, json!({"event": "console", "vm": "linux", "text": "hb 1 e0"})),
        ] {
            let from = Party::Host(Host::Source);
            story.tell(&Line { from, kind: Kind::Monitor, at, text: event.to_string() });
        }
        story
    }

    #[test]
    fn both_columns_come_from_their_reports() {
        let ended = json!({"migration": {"status": "completed", "total-time": 5885, "downtime": 317, "bytes": 77_000_000},
            "verify": {"heartbeat-gap": 468.2}});
        let qemu = Figures::qemus(&report(ended.clone(), None), &story(), &Below::Kernel { kvm: Some(9500.0) });
        assert_eq!((qemu.start, qemu.host_start), (Some(14_000.0), Some(23_500.0)));
        let ours = Figures::ours(&report(ended, None), &story());
        assert_eq!((ours.start, ours.host_start), (Some(16_000.0), Some(16_000.0)));
        let text = table("title", &qemu, &ours);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[2], ["total-time", "ms", "5885", "5885"]);
        assert_eq!(rows[4], ["heartbeat-gap", "ms", "468", "468"]);
        assert_eq!(rows[6], ["start", "ms", "14000", "16000"]);
        assert_eq!(qemu.record()["bytes"], 77_000_000.0);
    }

    #[test]
    fn a_migration_that_never_ends_has_sent_bytes_but_has_no_times() {
        let given_up = json!({"migration": {"status": "cancelled", "total-time": 60_000, "bytes": 746}});
        let qemu = Figures::qemus(&report(given_up, Some("cancelled")), &story(), &Below::Machine);
        assert_eq!((qemu.start, qemu.host_start), (None, Some(14_000.0)));
        assert_eq!((qemu.total_time, qemu.bytes, qemu.error.as_deref()), (None, Some(746.0), None));
        let text = table("title", &qemu, &Figures::default());
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[2], ["total-time", "ms", "never", "ends", "-"]);
        assert_eq!(rows[5], ["bytes", "746", "-"]);
    }

    #[test]
    fn a_failure_is_no_migration_that_never_ends() {
        let failed = json!({"migration": {"status": "failed"}});
        let qemu = Figures::qemus(&report(failed, Some("no route")), &story(), &Below::Kernel { kvm: None });
        assert!(!qemu.never_ended);
        assert_eq!(qemu.record()["error"], "no route");
    }

    #[test]
    fn the_log_says_when_kvm_was_ready() {
        assert_eq!(kvm_ready("lab: system after 7.5 s\nlab: KVM after 9.25 s\n"), Some(9250.0));
        assert_eq!(kvm_ready("lab: system after 7.5 s"), None);
    }
}
