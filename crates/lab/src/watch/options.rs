//! What a person can ask of a watch and of a replay.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use qavns::{DEFAULT_TD, DEFAULT_TP, Paper, Ratio, Robust};

use super::recording::RuleValues;
use crate::options::{GuestOptions, HostOptions, Policy};
use crate::units;

/// The rule that names the condition. What is not said comes from the recording, or is the default.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Rule")]
pub struct RuleOptions {
    /// The policy [default: paper, or the recording's]
    #[arg(long)]
    pub policy: Option<Policy>,
    /// The sampling time: the condition is of the last Ts [default: 500ms, or the recording's]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub ts: Option<Duration>,
    /// Jiffies for each birth or death of a process below which it is a storm [default: 4, or the recording's]
    #[arg(long, value_name = "N/M", value_parser = units::ratio)]
    pub tp: Option<String>,
    /// Jiffies for each modified page below which processes are unruly [default: 1/20, or the recording's]
    #[arg(long, value_name = "N/M", value_parser = units::ratio)]
    pub td: Option<String>,
}

/// Everything about a watch.
#[derive(Args, Clone, Debug)]
pub struct WatchOptions {
    /// End by itself after this time of the host's own clock
    #[arg(long = "for", value_name = "TIME", value_parser = units::duration)]
    pub duration: Option<Duration>,
    /// Keep every harvest in this file, with the pages that were dirty in it (docs/recording.md)
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Watch from the guest's first instruction on, and not from its first heartbeat
    #[arg(long)]
    pub from_boot: bool,
    /// A line a second also on a terminal
    #[arg(long)]
    pub plain: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a flattened group has no help of its own")]
    pub guest: GuestOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a flattened group has no help of its own")]
    pub rule: RuleOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a flattened group has no help of its own")]
    pub hosts: HostOptions,
}

/// Everything about a replay.
#[derive(Args, Clone, Debug)]
pub struct ReplayOptions {
    /// The recording of `watch --record`
    pub file: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a flattened group has no help of its own")]
    pub rule: RuleOptions,
}

/// A rule with all of its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The policy.
    pub policy: Policy,
    /// The sampling time.
    pub ts: Duration,
    /// Tp.
    pub tp: Ratio,
    /// Td.
    pub td: Ratio,
}

impl Default for Rule {
    fn default() -> Self {
        Rule { policy: Policy::Paper, ts: Duration::from_millis(500), tp: DEFAULT_TP, td: DEFAULT_TD }
    }
}

impl Rule {
    /// This rule with what a person said in place of its own values.
    pub fn with(mut self, options: &RuleOptions) -> Result<Self> {
        self.policy = options.policy.unwrap_or(self.policy);
        self.ts = options.ts.unwrap_or(self.ts);
        for (given, value) in [(&options.tp, &mut self.tp), (&options.td, &mut self.td)] {
            if let Some(text) = given {
                *value = text.parse().with_context(|| format!("`{text}` is no ratio"))?;
            }
        }
        Ok(self)
    }

    /// The rule that a recording was watched by.
    pub fn recorded(values: &RuleValues) -> Result<Self> {
        let policy = Policy::from_str(&values.policy, false);
        let ratio = |(numerator, denominator)| Ratio::new(numerator, denominator).context("a ratio over zero");
        Ok(Rule {
            policy: policy.ok().with_context(|| format!("`{}` is no policy", values.policy))?,
            ts: Duration::from_micros(values.ts),
            tp: ratio(values.tp)?,
            td: ratio(values.td)?,
        })
    }

    /// The values, for a recording.
    pub fn values(&self) -> RuleValues {
        RuleValues {
            policy: self.policy.to_string(),
            ts: u64::try_from(self.ts.as_micros()).unwrap_or(u64::MAX),
            tp: (self.tp.numerator(), self.tp.denominator()),
            td: (self.td.numerator(), self.td.denominator()),
        }
    }

    /// The policy that the hypervisor would ask, where it has measured no link.
    pub fn decider(&self) -> Box<dyn qavns::Policy> {
        let (tp, td) = (self.tp, self.td);
        match self.policy {
            Policy::Paper => Box::new(Paper { tp, td }),
            Policy::Robust => Box::new(Robust { tp, td }),
        }
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Rule { policy, ts, tp, td } = self;
        write!(f, "{policy}, Ts {}, Tp {tp}, Td {td}", units::show_duration(*ts))
    }
}

impl WatchOptions {
    /// The options as a person would type them; for tests.
    pub fn from_words(words: &str) -> Result<Self, clap::Error> {
        #[derive(clap::Parser)]
        struct Words {
            #[command(flatten)]
            options: WatchOptions,
        }
        let words = std::iter::once("lab").chain(words.split_whitespace());
        <Words as clap::Parser>::try_parse_from(words).map(|words| words.options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_what_was_said_and_else_the_recordings() {
        let said = WatchOptions::from_words("--env bochs --policy robust --tp 5/2 --for 3s").unwrap().rule;
        let recorded = Rule { ts: Duration::from_secs(1), td: Ratio::new(1, 9).unwrap(), ..Rule::default() };
        let read_back = Rule::recorded(&recorded.values()).unwrap();
        assert_eq!(read_back, recorded);
        assert_eq!(read_back.with(&said).unwrap().to_string(), "robust, Ts 1000ms, Tp 5/2, Td 1/9");
        assert!(WatchOptions::from_words("--env bochs --td 1/0").is_err());
    }

    #[test]
    fn a_recording_of_an_unknown_policy_names_it() {
        let values = RuleValues { policy: "best".to_owned(), ..Rule::default().values() };
        assert!(Rule::recorded(&values).unwrap_err().to_string().contains("best"));
    }
}
