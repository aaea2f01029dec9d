//! What the image tells, one JSON object a line.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Not;
use core::time::Duration;

use migration::Report;
use qavns::Reading;
use serde::Serialize;

use super::report::{DecisionReport, Milliseconds, OverheadReport, SampleReport, VersionReport};
use crate::devices::RestartCause;

/// One event: what happened, and when.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Since the image started.
    at: Milliseconds,
    #[serde(flatten)]
    what: What,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum What {
    /// The image has booted.
    Ready {
        /// Of the image.
        version: &'static str,
        /// Names of the VMs.
        vms: Vec<String>,
        /// How written pages are found.
        tracker: &'static str,
        /// The TCP port on which migrations are taken in.
        #[serde(skip_serializing_if = "Option::is_none")]
        listening: Option<u16>,
        /// Bytes.
        memory_free: u64,
    },
    /// The guest printed a line.
    Console {
        /// The VM's name.
        vm: String,
        /// The line.
        text: String,
    },
    /// The identifier, now and then.
    Identifier {
        /// The VM's name.
        vm: String,
        /// What the version is.
        #[serde(flatten)]
        version: VersionReport,
        /// How many pages of this harvest the `pages` events before it named: all of them. Absent where they were
        /// not asked for or did not fit.
        #[serde(skip_serializing_if = "Option::is_none")]
        dirty: Option<u64>,
    },
    /// Pages of a harvest of which the `identifier` event comes next.
    Pages {
        /// The VM's name.
        vm: String,
        /// The pages, see [`super::pages`].
        runs: String,
    },
    /// A VM is watched from now on, or no longer.
    Watching {
        /// The VM's name.
        vm: String,
        /// Whether it is.
        on: bool,
        /// Its memory in bytes.
        memory: u64,
        /// Period of the tick.
        jiffy: Milliseconds,
        /// Period of the harvests.
        harvest_period: Milliseconds,
    },
    /// The guest's OS restarted.
    Restart {
        /// The VM's name.
        vm: String,
        /// By which way.
        cause: &'static str,
        /// Whether nobody asked for it.
        #[serde(skip_serializing_if = "Not::not")]
        crash: bool,
        /// The version after it.
        #[serde(flatten)]
        version: VersionReport,
    },
    /// Which pages were modified since this was last told.
    Dirty {
        /// The VM's name.
        vm: String,
        /// First page and number of pages of each run; absent when it is only known from now on.
        #[serde(skip_serializing_if = "Option::is_none")]
        runs: Option<Vec<[u64; 2]>>,
        /// Pages that did not fit, and come next time.
        left: u64,
    },
    /// The VM cannot go on.
    Stopped {
        /// The VM's name.
        vm: String,
        /// Why.
        reason: String,
    },
    /// A sample is over.
    Sample {
        /// The VM's name.
        vm: String,
        /// The sample.
        sample: SampleReport,
    },
    /// A path was chosen.
    Decision {
        /// The VM's name.
        vm: String,
        /// The decision.
        decision: DecisionReport,
    },
    /// A migration goes on.
    Progress {
        /// The VM's name.
        vm: String,
        /// This host's side of it.
        side: Side,
        /// How far it is.
        #[serde(flatten)]
        progress: Progress,
    },
    /// The right to run has gone over.
    Handover {
        /// The VM's name.
        vm: String,
        /// This host's side of it.
        side: Side,
    },
    /// A migration has ended on this side.
    Migration {
        /// The VM's name.
        vm: String,
        /// This host's side of it.
        side: Side,
        /// The migration.
        migration: Report,
        /// Why it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The pages were compared.
    Verify {
        /// The VM's name.
        vm: String,
        /// How many.
        pages_compared: u64,
        /// How many of them were not the same.
        pages_different: u64,
    },
    /// What the observation cost.
    Overhead {
        /// The VM's name.
        vm: String,
        /// The figures.
        #[serde(flatten)]
        overhead: OverheadReport,
    },
    /// How things stand.
    Status {
        /// The VMs.
        vms: Vec<VmStatus>,
        /// Bytes.
        memory_used: u64,
        /// Bytes.
        memory_free: u64,
    },
    /// A line of the log.
    Log {
        /// Its level, in lower case.
        level: String,
        /// The line.
        text: String,
    },
    /// Something could not be done.
    Error {
        /// One sentence.
        message: String,
        /// The command that asked for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        command: Option<String>,
    },
    /// The last line before power-off.
    Bye,
}

/// Which side of a migration a host is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The VM leaves here.
    Source,
    /// The VM arrives here.
    Destination,
}

/// How far a migration is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Progress {
    /// The path.
    pub path: &'static str,
    /// The engine's phase.
    pub phase: &'static str,
    /// The round, counted from 1; 0 where there are none.
    pub round: u64,
    /// Pages sent, or received.
    pub pages_sent: u64,
    /// Pages known to be missing.
    pub pages_left: u64,
    /// Bytes of the stream so far.
    pub bytes: u64,
    /// Bytes a second.
    pub throughput: u64,
}

/// One VM in a `status` event.
#[derive(Clone, Debug, Serialize)]
pub struct VmStatus {
    /// Its name.
    pub vm: String,
    /// What it does.
    pub state: &'static str,
    /// Bytes.
    pub memory: u64,
    /// Its identifier.
    pub id: String,
}

impl What {
    /// The event for a reading of a VM's version.
    #[must_use]
    pub fn identifier(vm: &str, reading: &Reading) -> Self {
        Self::Identifier { vm: vm.to_string(), version: reading.into(), dirty: None }
    }

    /// The event for a restart, with the reading after it.
    #[must_use]
    pub fn restart(vm: &str, cause: RestartCause, after: &Reading) -> Self {
        let crash = cause == RestartCause::Crash;
        Self::Restart { vm: vm.to_string(), cause: cause.text(), crash, version: after.into() }
    }

    /// This event at a time since the image started.
    #[must_use]
    pub fn at(self, at: Duration) -> Event {
        Event { at: at.into(), what: self }
    }
}

impl Event {
    /// The event as one line of JSON with its newline. JSON escapes every line end inside a text, so
    /// whatever a guest prints, an event stays one line.
    #[must_use]
    pub fn line(&self) -> String {
        // Only a map key that is no text can fail, and these have none.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
