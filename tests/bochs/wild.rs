//! A guest that does what no guest should: the host and its monitor outlive it.

use anyhow::{Result, ensure};
use lab::env::Environment::Bochs;
use libtest_mimic::Trial;

use crate::support::machine::{Event, Machine};
use crate::support::trial;
use lab::agent::wire::Host::Source;

/// The tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("wild_values_leave_guest_and_host_running", wild_values),
        trial("memory_that_is_not_there_stops_the_vm_and_not_the_host", holes),
    ]
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
