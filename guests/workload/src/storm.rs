//! A storm of births and deaths of processes.

use crate::clock::{self, MILLISECOND, Nanos};
use crate::heartbeat::Counts;
use crate::options::StormOptions;
use crate::pace::Pace;
use crate::process;
use nix::unistd::Pid;
use std::collections::BTreeSet;

/// A step takes no longer than this and one birth: at a rate that the guest cannot reach, the heartbeat goes on.
const MOST_TIME: Nanos = 10 * MILLISECOND;

/// Starts processes at a rate.
pub struct Storm {
    pace: Pace,
    options: StormOptions,
    started: u64,
    alive: BTreeSet<Pid>,
}

impl Storm {
    /// From `now` on.
    pub fn new(options: &StormOptions, now: Nanos) -> Self {
        Self { pace: Pace::new(options.rate, now), options: *options, started: 0, alive: BTreeSet::new() }
    }

    /// Reaps who has ended. Only our own count: init reaps orphans too.
    pub fn reap(&mut self, counts: &mut Counts) {
        while let Some(pid) = process::reap() {
            counts.deaths += u64::from(self.alive.remove(&pid));
        }
    }

    /// Reaps who has ended and starts who is due.
    pub fn step(&mut self, now: Nanos, counts: &mut Counts) {
        self.reap(counts);
        for _ in 0..self.pace.due(now) {
            let full = self.alive.len() >= self.options.jobs || self.is_complete();
            if full || clock::now().saturating_sub(now) >= MOST_TIME {
                break;
            }
            if let Some(pid) = process::start(self.options.start, self.options.life) {
                self.alive.insert(pid);
                self.started += 1;
                counts.births += 1;
                counts.work += 1;
            }
        }
    }

    /// All that were to be started have been.
    fn is_complete(&self) -> bool {
        self.options.count.is_some_and(|count| self.started >= count)
    }

    /// All have been started, and have ended.
    pub fn is_over(&self) -> bool {
        self.is_complete() && self.alive.is_empty()
    }
}
