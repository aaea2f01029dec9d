//! What is known of the VM now, and what it did lately: what a person is shown.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use qavns::{Condition, Decision, Reading};

use super::feed::{Feed, Seen};
use super::options::Rule;
use super::step::{Progress, Step, Tracker};
use super::window::Window;
use crate::agent::wire::{Host, Line};
use crate::session::heartbeat::Heartbeats;

/// What one column of a history stands for, in microseconds.
const COLUMN: u64 = 500_000;
/// Columns that are kept.
const MOST_COLUMNS: usize = 240;
/// Rates are over so many microseconds.
const RATE_TIME: u64 = 1_000_000;
/// Lines of the console that are kept.
const MOST_LINES: usize = 100;

/// What happened in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Microseconds.
    pub time: u64,
    /// Jiffies.
    pub jiffies: u64,
    /// Restarts of the OS.
    pub restarts: u64,
    /// Births of processes.
    pub births: u64,
    /// Deaths of processes.
    pub deaths: u64,
    /// Pages modified.
    pub pages: u64,
}

/// The number of a condition's line in the rule.
fn line_of(condition: Condition) -> u8 {
    match condition {
        Condition::UnstableOperatingSystem => 0,
        Condition::ProcessStorm => 1,
        Condition::UnrulyProcesses => 2,
        Condition::Calm => 3,
    }
}

impl Counts {
    fn add(&mut self, step: &Step) {
        self.time += step.after;
        self.jiffies += step.jiffies;
        self.restarts += u64::from(step.restart);
        self.births += step.births;
        self.deaths += step.deaths;
        self.pages += step.pages;
    }

    /// A count of these as a rate a second.
    pub fn rate(&self, count: u64) -> u64 {
        let rate = u128::from(count) * 1_000_000 / u128::from(self.time.max(1));
        if self.time == 0 { 0 } else { u64::try_from(rate).unwrap_or(u64::MAX) }
    }
}

/// A column of the history.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Column {
    /// What was counted.
    pub counts: Counts,
    /// What the rule named; of several conditions the one whose line of the rule comes first.
    pub condition: Option<Condition>,
}

/// Exits of one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exits {
    /// Since the VM is there.
    pub count: u64,
    /// A second.
    pub rate: u64,
}

/// A restart of the guest's OS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// When, in microseconds of the image's clock.
    pub at: u64,
    /// The way it took.
    pub cause: String,
}

/// How the watch stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The host starts.
    Starting,
    /// The guest starts.
    Booting,
    /// The VM is watched, since this time in microseconds of the image's clock.
    Watching(u64),
    /// It was, until the watch was ended.
    Over,
    /// The VM or the host cannot go on.
    Failed(String),
}

/// Periods and memory of a VM that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its memory in bytes.
    pub memory: u64,
    /// Period of the tick.
    pub jiffy: Duration,
    /// Period of the harvests.
    pub harvest_period: Duration,
}

/// Something for a recording: how the version was reached, when in microseconds, and what it then was.
pub type Counted = (Progress, u64, Reading);

/// The model.
pub struct Model {
    /// Environment, guest and workload.
    pub title: String,
    /// The rule that names the condition.
    pub rule: Rule,
    decider: Box<dyn qavns::Policy>,
    feed: Feed,
    tracker: Tracker,
    window: Option<Window>,
    /// How the watch stands.
    pub phase: Phase,
    /// What the image said when the watch began.
    pub terms: Option<Terms>,
    /// The image's clock in microseconds.
    pub now: u64,
    /// The latest reading.
    pub reading: Option<Reading>,
    /// What the rule says of the last Ts.
    pub decision: Option<Decision>,
    columns: VecDeque<Column>,
    recent: VecDeque<Counts>,
    /// Exits by reason.
    pub exits: BTreeMap<String, Exits>,
    exits_at: Option<u64>,
    /// The latest restart.
    pub restart: Option<Restart>,
    /// What the guest printed last, but for its heartbeat.
    pub console: VecDeque<String>,
    /// The guest's heartbeat.
    pub heartbeats: Heartbeats,
    /// The latest thing that the host could not do.
    pub refused: Option<String>,
}

impl Model {
    /// Nothing is known yet of the VM of this name.
    pub fn new(title: String, vm: &str, rule: Rule) -> Self {
        Model {
            title,
            decider: rule.decider(),
            rule,
            feed: Feed::new(vm),
            tracker: Tracker::default(),
            window: None,
            phase: Phase::Starting,
            terms: None,
            now: 0,
            reading: None,
            decision: None,
            columns: VecDeque::new(),
            recent: VecDeque::new(),
            exits: BTreeMap::new(),
            exits_at: None,
            restart: None,
            console: VecDeque::new(),
            heartbeats: Heartbeats::default(),
            refused: None,
        }
    }

    /// Takes a line; while the VM is watched, a new reading comes back for the recording.
    pub fn take(&mut self, line: &Line) -> Option<Counted> {
        let (at, seen) = self.feed.take(line)?;
        self.now = self.now.max(at);
        match seen {
            Seen::Ready => self.phase = Phase::Booting,
            Seen::Watching { on: true, memory, jiffy, harvest_period } => {
                self.phase = Phase::Watching(at);
                self.terms = Some(Terms { memory, jiffy, harvest_period });
                self.window = Some(Window::new(self.rule.ts, jiffy, harvest_period));
                self.tracker = Tracker::default();
            }
            Seen::Watching { on: false, .. } => self.phase = Phase::Over,
            Seen::Version { reading, restart, dirty } => return self.version(at, reading, restart, dirty),
            Seen::Console(text) => self.console(at, text),
            Seen::Exits(exits) => self.count_exits(at, exits),
            Seen::Stopped(reason) => self.phase = Phase::Failed(format!("the VM stopped: {reason}")),
            Seen::Refused(message) => self.refused = Some(message),
            Seen::Ended(status) => {
                if !self.is_over() {
                    self.phase = Phase::Failed(format!("the host ended: {status}"));
                }
            }
        }
        None
    }

    fn version(
        &mut self,
        at: u64,
        reading: Reading,
        restart: Option<String>,
        dirty: Option<super::runs::Runs>,
    ) -> Option<Counted> {
        self.reading = Some(reading);
        let restarted = restart.is_some();
        if let Some(cause) = restart {
            self.heartbeats.restarted();
            self.restart = Some(Restart { at, cause });
        }
        if !matches!(self.phase, Phase::Watching(_)) {
            return None;
        }
        let progress = self.tracker.see(at, reading, restarted, dirty);
        if let Some(window) = &mut self.window {
            window.push(&progress, reading);
            self.decision = window.decision(&*self.decider).or(self.decision);
        }
        if let Progress::Step(step) = &progress {
            self.count(step);
        }
        Some((progress, at, reading))
    }

    fn count(&mut self, step: &Step) {
        let mut counts = Counts::default();
        counts.add(step);
        self.recent.push_back(counts);
        while self.recent.iter().skip(1).map(|counts| counts.time).sum::<u64>() >= RATE_TIME {
            self.recent.pop_front();
        }
        if self.columns.back().is_none_or(|column| column.counts.time >= COLUMN) {
            self.columns.push_back(Column::default());
        }
        if self.columns.len() > MOST_COLUMNS {
            self.columns.pop_front();
        }
        let now = self.decision.map(|decision| decision.condition);
        if let Some(column) = self.columns.back_mut() {
            column.counts.add(step);
            column.condition = column.condition.into_iter().chain(now).min_by_key(|condition| line_of(*condition));
        }
    }

    fn console(&mut self, at: u64, text: String) {
        if self.heartbeats.see(at as f64 / 1e3, Host::Source, &text) {
            return;
        }
        self.console.push_back(text);
        if self.console.len() > MOST_LINES {
            self.console.pop_front();
        }
    }

    fn count_exits(&mut self, at: u64, exits: Vec<(String, u64)>) {
        let before = self.exits_at.replace(at);
        for (reason, count) in exits {
            let known = self.exits.entry(reason).or_default();
            let time = before.map_or(0, |before| at.saturating_sub(before));
            let more = Counts { time, ..Counts::default() };
            *known = Exits { count, rate: more.rate(count.saturating_sub(known.count)) };
        }
    }

    /// The columns of the history, the latest last.
    pub fn columns(&self) -> impl DoubleEndedIterator<Item = &Column> {
        self.columns.iter()
    }

    /// What happened in the last second.
    pub fn lately(&self) -> Counts {
        let mut all = Counts::default();
        for counts in &self.recent {
            all.time += counts.time;
            all.jiffies += counts.jiffies;
            all.restarts += counts.restarts;
            all.births += counts.births;
            all.deaths += counts.deaths;
            all.pages += counts.pages;
        }
        all
    }

    /// Exits of every reason in the last second.
    pub fn exit_rate(&self) -> u64 {
        self.exits.values().map(|exits| exits.rate).sum()
    }

    /// How long the VM has been watched.
    pub fn watched(&self) -> Option<Duration> {
        match self.phase {
            Phase::Watching(since) => Some(Duration::from_micros(self.now.saturating_sub(since))),
            _ => None,
        }
    }

    /// Whether nothing more can come.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over | Phase::Failed(_))
    }
}
