//! A guest that does what no guest should: the host and its monitor outlive it.

use anyhow::{Context, Result, ensure};
use lab::env::Environment::Bochs;
use libtest_mimic::Trial;

use crate::support::machine::{Event, Machine};
use crate::support::trial;
use lab::agent::wire::Host::Source;

/// A way to restart, and the cause that the event names.
const RESTARTS: [(&str, &str); 3] = [("triple", "triple fault"), ("cf9", "port 0xCF9"), ("8042", "8042 pulse")];

/// The tests.
pub fn trials() -> Vec<Trial> {
    let restarts = RESTARTS.map(|(mode, cause)| {
        trial(format!("restart_by_{mode}_names_its_cause_and_counts_in_osin"), move || restart(mode, cause))
    });
    let mut trials = Vec::from(restarts);
    trials.push(trial("wild_values_leave_guest_and_host_running", wild_values));
    trials.push(trial("memory_that_is_not_there_stops_the_vm_and_not_the_host", holes));
    trials
}

fn restart(mode: &str, cause: &str) -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, &format!("restart-{mode}"), &format!("mode={mode} after=2"))?;
    let first = restarts_in(&machine.until("restart", |event| event.is("restart"))?, cause)?;
    // A restart loads the guest afresh: it beats from 1 again, and can do it once more.
    let beat = machine.heartbeats(Source, 1)?;
    ensure!(beat == 1, "the restarted guest begins at heartbeat {beat}");
    let second = restarts_in(&machine.until("restart", |event| event.is("restart"))?, cause)?;
    ensure!((first, second) == (2, 3), "OSIN is {first}, then {second}");
    Ok(())
}

/// OSIN of the identifier that a `restart` event with this cause has: `JS.OSIN.PCN.DPCN`.
fn restarts_in(event: &Event, cause: &str) -> Result<u64> {
    ensure!(event.text("cause") == cause, "the cause is `{}`, not `{cause}`", event.text("cause"));
    let id = event.text("id");
    let osin = id.split('.').nth(1).and_then(|field| field.parse().ok());
    osin.with_context(|| format!("`{id}` is no identifier"))
}

fn wild_values() -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, "wild", "mode=wild")?;
    let ended = |event: &Event| event.is("stopped") || event.is("console") && event.text("text") == "wild done";
    let last = machine.until("`wild done`", ended)?;
    ensure!(last.is("console"), "the VM stopped: {}", last.text("reason"));
    machine.heartbeats(Source, 3)?;
    let state = machine.state()?;
    ensure!(state == "running", "the VM is {state}");
    Ok(())
}

fn holes() -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, "holes", "mode=wild holes count=20")?;
    let ended = |event: &Event| event.is("stopped") || event.text("text") == "wild done";
    let last = machine.until("stop", ended)?;
    ensure!(last.is("stopped"), "the guest went on");
    ensure!(!last.text("reason").is_empty(), "the stop has no reason");
    let state = machine.state()?;
    ensure!(state == "stopped", "the VM is {state}");
    Ok(())
}
