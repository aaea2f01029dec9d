//! The objects of `report.json`, in its words. What does not apply is absent.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use qavns::{Decision, Margin, Ratio, Reading};
use serde::{Serialize, Serializer};

use super::command::PathRequest;
use crate::observe::Observed;

/// A duration that is written as a number of milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Milliseconds(pub Duration);

impl Serialize for Milliseconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // From whole microseconds, so that the text ends after three places.
        let micros = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        #[allow(clippy::cast_precision_loss, reason = "exact for the first 285 years")]
        serializer.serialize_f64(micros as f64 / 1000.0)
    }
}

/// A number of millionths that is written as a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millionths(pub i64);

impl Serialize for Millionths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[allow(clippy::cast_precision_loss, reason = "exact below 2^53, which is a fraction of 9 thousand millions")]
        serializer.serialize_f64(self.0 as f64 / 1e6)
    }
}

impl From<Duration> for Milliseconds {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

/// A reading of a VM's version, as the events have it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct VersionReport {
    /// The identifier.
    pub id: String,
    /// Restarts of the guest's OS since the VM started.
    pub restarts: u64,
    /// Births of processes since the VM started.
    pub births: u64,
    /// Deaths of processes since the VM started.
    pub deaths: u64,
    /// Pages found modified since the VM started.
    pub pages_modified: u64,
}

impl From<&Reading> for VersionReport {
    fn from(reading: &Reading) -> Self {
        Self {
            id: reading.identifier.to_string(),
            restarts: reading.totals.restarts,
            births: reading.totals.births,
            deaths: reading.totals.deaths,
            pages_modified: reading.totals.pages_modified,
        }
    }
}

/// `sample`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SampleReport {
    /// Sampling time.
    pub ts: Milliseconds,
    /// Period of the tick.
    pub jiffy: Milliseconds,
    /// Period at which dirty flags were collected.
    pub harvest_period: Milliseconds,
    /// Identifier at the start.
    pub start: String,
    /// Identifier at the end.
    pub end: String,
    /// Identifier after each harvest.
    pub identifiers: Vec<IdentifierAt>,
    /// Restarts of the guest's OS during the sample.
    pub restarts: u64,
    /// Births of processes.
    pub births: u64,
    /// Deaths of processes.
    pub deaths: u64,
    /// Loads of CR3 after which births and deaths may have gone unseen.
    pub processes_uncounted: u64,
    /// Pages found modified.
    pub pages_modified: u64,
}

/// An identifier and when it was read.
#[derive(Clone, Debug, Serialize)]
pub struct IdentifierAt {
    /// Since the image started.
    pub at: Milliseconds,
    /// The identifier.
    pub id: String,
}

impl SampleReport {
    /// The record of a sample and of the identifiers seen on the way.
    #[must_use]
    pub fn new(observed: &Observed) -> Self {
        let Observed { sample, identifiers, uncounted } = observed;
        let identifiers = identifiers.iter().map(|(at, id)| IdentifierAt { at: (*at).into(), id: id.to_string() });
        Self {
            ts: sample.ts.into(),
            jiffy: sample.jiffy.into(),
            harvest_period: sample.harvest_period.into(),
            start: sample.start.identifier.to_string(),
            end: sample.end.identifier.to_string(),
            identifiers: identifiers.collect(),
            restarts: sample.restarts(),
            births: sample.births(),
            deaths: sample.deaths(),
            processes_uncounted: *uncounted,
            pages_modified: sample.pages_modified(),
        }
    }
}

/// `decision`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DecisionReport {
    /// The policy that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<&'static str>,
    /// The path that is taken.
    pub path: &'static str,
    /// What the policy saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<&'static str>,
    /// Threshold Tp, jiffies for each birth or death, as `N/M`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tp: Option<String>,
    /// Threshold Td, jiffies for each modified page, as `N/M`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub td: Option<String>,
    /// How near it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<MarginReport>,
    /// `policy`, or `user` when the path was asked for.
    pub chosen_by: &'static str,
}

/// `decision.margin`: the line that fired, or else came nearest, as `left < right`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MarginReport {
    /// The comparison as a formula.
    pub line: &'static str,
    /// What was counted: restarts, births and deaths, or pages.
    pub count: u64,
    /// Its left side.
    pub left: u64,
    /// Its right side.
    pub right: f64,
    /// Left over right: below 1 the line fires.
    pub ratio: f64,
}

impl From<Margin> for MarginReport {
    fn from(margin: Margin) -> Self {
        Self {
            line: margin.line.text(),
            count: margin.count,
            left: margin.left,
            right: number(margin.right),
            ratio: number(margin.ratio),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "for reading; the decision was taken in integers")]
fn number(ratio: Ratio) -> f64 {
    ratio.numerator() as f64 / ratio.denominator() as f64
}

impl DecisionReport {
    /// The record of what a policy decided and is done.
    #[must_use]
    pub fn by_policy(decision: &Decision) -> Self {
        let path = match decision.path {
            qavns::PathChoice::PreCopy => PathRequest::PreCopy,
            qavns::PathChoice::PostCopy => PathRequest::PostCopy,
        };
        Self { chosen_by: "policy", ..Self::by_user(path, Some(decision)) }
    }

    /// The record of a path that was asked for, beside what the policy saw where it was asked.
    #[must_use]
    pub fn by_user(path: PathRequest, seen: Option<&Decision>) -> Self {
        Self {
            policy: seen.map(|decision| decision.policy),
            path: path.text(),
            condition: seen.map(|decision| decision.condition.text()),
            tp: seen.map(|decision| decision.tp.to_string()),
            td: seen.map(|decision| decision.td.to_string()),
            margin: seen.and_then(|decision| decision.margin).map(Into::into),
            chosen_by: "user",
        }
    }
}

/// `overhead`, as far as the image sees it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct OverheadReport {
    /// By what part less of its time the guest ran in the last sample than right before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_slowdown_sampling: Option<Millionths>,
    /// How long the guest ran.
    pub guest_time: Milliseconds,
    /// How long the hypervisor ran while the guest would have.
    pub host_time: Milliseconds,
    /// How long harvests took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harvest_time: Option<HarvestTime>,
    /// How many there were.
    pub harvests: u64,
    /// What they looked at, together: entries of the page tables, or words of the CPU's log of pages.
    pub harvest_entries: u64,
    /// VM exits by reason.
    pub exits: BTreeMap<String, u64>,
}

/// The distribution of the time of a harvest.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct HarvestTime {
    /// Half of them are at most this.
    pub p50: Milliseconds,
    /// The longest.
    pub max: Milliseconds,
}
