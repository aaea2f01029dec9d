//! The heartbeat of each guest over its whole life, wherever it was.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use super::machine::Event;

/// What each VM has printed.
#[derive(Default)]
pub struct Heartbeats {
    vms: BTreeMap<String, Seen>,
}

#[derive(Default)]
struct Seen {
    numbers: BTreeSet<u64>,
    twice: BTreeSet<u64>,
    errors: Vec<String>,
}

impl Heartbeats {
    /// Takes an event; a restart of the guest's OS begins anew.
    pub fn see(&mut self, event: &Event) {
        let seen = self.vms.entry(event.text("vm").to_owned()).or_default();
        if event.is("restart") {
            *seen = Seen::default();
        } else if let Some(number) = event.heartbeat() {
            if !seen.numbers.insert(number) {
                seen.twice.insert(number);
            }
        } else if event.is("console") && ["hb ", "error"].iter().any(|start| event.text("text").starts_with(start)) {
            seen.errors.push(event.text("text").to_owned());
        }
    }

    /// A VM begins anew.
    pub fn forget(&mut self, vm: &str) {
        self.vms.remove(vm);
    }

    /// The last number, if all from 1 to it came, each once, and none with an error.
    pub fn whole(&self, vm: &str) -> Result<u64> {
        let seen = self.vms.get(vm).with_context(|| format!("`{vm}` was not heard"))?;
        let last = *seen.numbers.last().with_context(|| format!("`{vm}` has no heartbeat"))?;
        let lost: Vec<u64> = (1..=last).filter(|number| !seen.numbers.contains(number)).collect();
        ensure!(lost.is_empty(), "heartbeats {lost:?} of `{vm}` were lost");
        ensure!(seen.twice.is_empty(), "heartbeats {:?} of `{vm}` came twice", seen.twice);
        ensure!(seen.errors.is_empty(), "`{vm}` found errors: {:?}", seen.errors);
        Ok(last)
    }
}
