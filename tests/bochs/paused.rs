//! The link breaks after the hand-over, at each moment that differs: the guest runs on at the destination alone, the events
//! say how each side stands, and what can be resumed is.

use anyhow::{Result, ensure};
use lab::agent::wire::Host::Source;
use lab::env::Environment::Bochs;
use libtest_mimic::Trial;

use crate::support::machine::{Event, Machine};
use crate::support::moves::{QUICK, beats_on, complete, move_vm, start, until_phase};
use crate::support::trial;

/// Each word takes so long that a command comes in between.
const FAR: &str = "to=memory latency=2s";

/// The tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_post_copy_is_paused_and_resumed_over_a_new_link", while_pages_are_missing),
        trial("a_destination_that_completed_unheard_runs_on_and_its_source_learns_of_it", unheard),
        trial("a_link_that_breaks_while_pages_are_compared_costs_the_comparison_alone", verifying),
    ]
}

fn machine(test: &str) -> Result<Machine> {
    let mut machine = Machine::with_tiny(Bochs, test, "mode=write rate=5 pages=64")?;
    machine.heartbeats(Source, 2)?;
    machine.command("pause vm=tiny")?;
    let refused = machine.until("refusal", |event| event.is("error"))?;
    ensure!(refused.text("message").contains("not leaving"), "{}", refused.json);
    Ok(machine)
}

/// Waits until a side says how its part of the migration ended: its status, and the reason if there is one.
fn ends(machine: &mut Machine, side: &str) -> Result<(String, String)> {
    let event = machine.until(&format!("end at the {side}"), |event| {
        event.is("error") || event.is("migration") && event.text("side") == side
    })?;
    ensure!(event.is("migration"), "{}", event.json);
    let status = event.json["migration"]["status"].as_str().unwrap_or_default();
    Ok((status.to_owned(), event.text("error").to_owned()))
}

/// Breaks the link, and takes the news of both sides in the order in which they come: the source's first.
fn paused(machine: &mut Machine) -> Result<[(String, String); 2]> {
    machine.command("pause vm=tiny")?;
    Ok([ends(machine, "source")?, ends(machine, "destination")?])
}

/// One VM runs, and at most one besides waits to be given up.
fn runs_once(machine: &mut Machine) -> Result<usize> {
    beats_on(machine, "tiny")?;
    machine.command("status")?;
    let status = machine.until("status", |event| event.is("status"))?;
    let states: Vec<&str> =
        status.json["vms"].as_array().into_iter().flatten().filter_map(|vm| vm["state"].as_str()).collect();
    ensure!(states.iter().filter(|state| **state == "running").count() == 1, "{}", status.json);
    Ok(states.len())
}

fn while_pages_are_missing() -> Result<()> {
    let mut machine = machine("paused")?;
    // The link holds what the guest needs back for a while.
    start(&mut machine, "tiny", Source, &format!("{QUICK} to=memory bandwidth=200000 path=post-copy"))?;
    until_phase(&mut machine, "tiny", "postcopy-active", 0)?;
    for (status, error) in paused(&mut machine)? {
        ensure!(status == "postcopy-paused" && !error.is_empty(), "{status}: {error}");
    }
    machine.command("recover vm=tiny to=memory")?;
    complete(&mut machine, "tiny")?;
    ensure!(runs_once(&mut machine)? == 1, "the source keeps what it gave away");
    machine.beats.whole("tiny")?;
    Ok(())
}

fn unheard() -> Result<()> {
    let mut machine = machine("unheard")?;
    machine.command(&format!("migrate vm=tiny {QUICK} {FAR} path=post-copy"))?;
    let whole = |event: &Event| {
        event.is("progress") && event.text("side") == "destination" && event.text("phase") == "verifying"
    };
    machine.until("last page at the destination", whole)?;
    let [source, destination] = paused(&mut machine)?;
    ensure!(source.0 == "postcopy-paused", "the source: {source:?}");
    ensure!(destination.0 == "completed" && !destination.1.is_empty(), "the destination: {destination:?}");
    ensure!(runs_once(&mut machine)? == 2, "the source has given up what it does not know to be there");
    machine.command("recover vm=tiny to=memory")?;
    let source = ends(&mut machine, "source")?;
    ensure!(source == ("completed".to_owned(), String::new()), "the source: {source:?}");
    ensure!(runs_once(&mut machine)? == 1, "the source keeps what it gave away");
    move_vm(&mut machine, "tiny", Source, "to=memory path=pre-copy")?;
    machine.beats.whole("tiny")?;
    Ok(())
}

fn verifying() -> Result<()> {
    let mut machine = machine("verifying")?;
    for path in ["stop-and-copy", "post-copy"] {
        start(&mut machine, "tiny", Source, &format!("{QUICK} {FAR} path={path}"))?;
        until_phase(&mut machine, "tiny", "verifying", 0)?;
        for (status, error) in paused(&mut machine)? {
            ensure!(status == "completed" && error.contains("link"), "{path}: {status}: {error}");
        }
        ensure!(runs_once(&mut machine)? == 1, "{path}: the source keeps what it gave away");
    }
    move_vm(&mut machine, "tiny", Source, "to=memory path=pre-copy")?;
    machine.beats.whole("tiny")?;
    Ok(())
}
