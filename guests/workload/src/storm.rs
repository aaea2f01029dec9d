//! A storm of births and deaths of processes.

use crate::clock::{self, MILLISECOND, Nanos};
use crate::heartbeat::Counts;
use crate::options::StormOptions;
use crate::pace::Pace;
use crate::process;
use nix::unistd::Pid;
use std::collections::BTreeSet;

/// More children than this are never alive at once: without the bound, a long life would fill the guest.
const MOST_ALIVE: usize = 256;

/// A step takes no longer than this and one birth: at a rate that the guest cannot reach, the heartbeat goes on.
const MOST_TIME: Nanos = 10 * MILLISECOND;

/// Starts processes at a rate.
pub struct Storm {
    pace: Pace,
    life: Nanos,
    exec: bool,
    alive: BTreeSet<Pid>,
}

impl Storm {
    /// From `now` on.
    pub fn new(options: &StormOptions, now: Nanos) -> Self {
        Self { pace: Pace::new(options.rate, now), life: options.life, exec: options.exec, alive: BTreeSet::new() }
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
            if self.alive.len() >= MOST_ALIVE || clock::now().saturating_sub(now) >= MOST_TIME {
                break;
            }
            let child = if self.exec { process::spawn_child() } else { process::fork_child(self.life) };
            if let Some(pid) = child {
                self.alive.insert(pid);
                counts.births += 1;
            }
        }
    }
}
