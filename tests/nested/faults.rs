//! The link cut and a host killed, phase by phase, and the way back. One boot, because that is what takes the time.

use anyhow::{Result, ensure};
use lab::agent::wire::Host::{Destination, Source};
use lab::agent::wire::Order;
use lab::artifacts::guests::Guest;
use lab::env::{DESTINATION_ADDRESS, Environment::Nested, PORT, SOURCE_ADDRESS};
use libtest_mimic::Trial;

use crate::support::machine::{Event, Machine, TINY_MEMORY};
use crate::support::moves::{QUICK, beats_at, complete, move_vm, start, until_given_up, until_phase};
use crate::support::{artifacts, trial};

/// Slow enough that a phase outlives the way of a command.
const SLOW: &str = "bandwidth=200000 downtime-limit=1ms";

/// Memory whose comparison over a link of [`COMPARING`] bytes a second takes a second.
const OTHER_MEMORY: u64 = 64 << 20;
const COMPARING: u64 = 100_000;

/// The tests.
pub fn trials() -> Vec<Trial> {
    vec![trial("whatever_breaks_in_whichever_phase_the_guest_runs_on_once_and_comes_back", faults)]
}

fn faults() -> Result<()> {
    let kernel = artifacts()?.tiny_kernel()?;
    let guest = |name, memory, command_line| Guest { name, kernel: &kernel, initrd: None, memory, command_line };
    let guests =
        [guest("tiny", TINY_MEMORY, "mode=write rate=5"), guest("other", OTHER_MEMORY, "mode=hlt verify=1 pages=16")];
    let mut machine = Machine::with_guests(Nested, "faults", &guests, "")?;
    beats_at(&mut machine, "tiny", Source)?;
    nobody_listens(&mut machine)?;
    cut_before_the_hand_over(&mut machine, "path=pre-copy ts=3s td=1", None)?;
    cut_before_the_hand_over(&mut machine, &format!("path=pre-copy {QUICK}"), Some("active"))?;
    cut_before_the_hand_over(&mut machine, &format!("path=stop-and-copy {QUICK}"), Some("device"))?;
    cut_while_pages_are_compared(&mut machine)?;
    peer_killed(&mut machine, "pre-copy", "active")?;
    peer_killed(&mut machine, "stop-and-copy", "device")?;
    cut_after_the_hand_over(&mut machine)?;
    // Home again by another path.
    move_vm(&mut machine, "tiny", Destination, &format!("to={SOURCE_ADDRESS}:{PORT} path=pre-copy"))?;
    machine.beats.whole("tiny")?;
    source_killed(&mut machine)
}

fn there() -> String {
    format!("to={DESTINATION_ADDRESS}:{PORT} {SLOW}")
}

/// The attempt has failed: the guest goes on at the source.
fn fails(machine: &mut Machine) -> Result<()> {
    let why = until_given_up(machine, "tiny", "failed")?;
    ensure!(!why.is_empty(), "the attempt names no reason");
    beats_at(machine, "tiny", Source)
}

fn nobody_listens(machine: &mut Machine) -> Result<()> {
    start(machine, "tiny", Source, &format!("to={DESTINATION_ADDRESS}:{} path=pre-copy", PORT + 1))?;
    fails(machine)
}

/// Without a phase the link is cut while the sample is taken.
fn cut_before_the_hand_over(machine: &mut Machine, words: &str, phase: Option<&str>) -> Result<()> {
    start(machine, "tiny", Source, &format!("{} {words}", there()))?;
    if let Some(phase) = phase {
        until_phase(machine, "tiny", phase, 0)?;
    }
    machine.order(Order::Cut)?;
    fails(machine)?;
    machine.order(Order::Join)
}

/// Nothing but the comparison is lost: the guest runs on at the destination alone.
fn cut_while_pages_are_compared(machine: &mut Machine) -> Result<()> {
    let words = format!("to={DESTINATION_ADDRESS}:{PORT} bandwidth={COMPARING} path=stop-and-copy {QUICK}");
    start(machine, "other", Source, &words)?;
    until_phase(machine, "other", "verifying", 0)?;
    machine.order(Order::Cut)?;
    for _ in 0..2 {
        let end = machine.until("end of the move", |event| event.is("migration") || event.is("error"))?;
        let (status, error) = (&end.json["migration"]["status"], end.text("error"));
        ensure!(status == "completed" && !error.is_empty(), "not told as it is: {}", end.json);
    }
    beats_at(machine, "other", Destination)?;
    for (host, runs) in [(Source, false), (Destination, true)] {
        machine.command_to(host, "status")?;
        let status = machine.until("status", |event| event.is("status") && event.host == host)?;
        let vms = status.json["vms"].as_array().map_or(&[][..], Vec::as_slice);
        ensure!(vms.iter().any(|vm| vm["vm"] == "other" && vm["state"] == "running") == runs, "{}", status.json);
    }
    machine.order(Order::Join)?;
    move_vm(machine, "other", Destination, &format!("to={SOURCE_ADDRESS}:{PORT} path=pre-copy"))?;
    machine.beats.whole("other")?;
    Ok(())
}

fn peer_killed(machine: &mut Machine, path: &str, phase: &str) -> Result<()> {
    start(machine, "tiny", Source, &format!("{} path={path} {QUICK}", there()))?;
    until_phase(machine, "tiny", phase, 0)?;
    machine.order(Order::Kill(Destination))?;
    fails(machine)?;
    machine.order(Order::Start(Destination))?;
    machine.until("the destination's start", |event| event.is("ready") && event.host == Destination)?;
    Ok(())
}

/// Both sides keep what they have, and `recover` completes it.
fn cut_after_the_hand_over(machine: &mut Machine) -> Result<()> {
    start(machine, "tiny", Source, &format!("{} path=post-copy {QUICK}", there()))?;
    until_phase(machine, "tiny", "postcopy-active", 0)?;
    machine.order(Order::Cut)?;
    for _ in 0..2 {
        let end = machine.until("break of the post-copy", |event| event.is("migration") || event.is("error"))?;
        ensure!(end.json["migration"]["status"] == "postcopy-paused", "not paused: {}", end.json);
    }
    machine.order(Order::Join)?;
    // What is broken waits; another guest comes and does not take its place.
    move_vm(machine, "other", Source, &format!("to={DESTINATION_ADDRESS}:{PORT} path=post-copy"))?;
    machine.beats.whole("other")?;
    machine.command(&format!("recover vm=tiny to={DESTINATION_ADDRESS}:{PORT}"))?;
    complete(machine, "tiny")?;
    beats_at(machine, "tiny", Destination)?;
    machine.beats.whole("tiny")?;
    Ok(())
}

/// The guest is gone with its host; the destination drops what had come, and takes in the next one.
fn source_killed(machine: &mut Machine) -> Result<()> {
    start(machine, "tiny", Source, &format!("{} path=pre-copy {QUICK}", there()))?;
    until_phase(machine, "tiny", "active", 0)?;
    machine.order(Order::Kill(Source))?;
    let dropped = |event: &Event| event.is("migration") && event.host == Destination;
    let end = machine.until("end at the destination", dropped)?;
    ensure!(end.json["migration"]["status"] == "failed", "not failed: {}", end.json);
    machine.beats.forget("tiny");
    machine.order(Order::Start(Source))?;
    beats_at(machine, "tiny", Source)?;
    move_vm(machine, "tiny", Source, &format!("to={DESTINATION_ADDRESS}:{PORT} path=hybrid"))?;
    beats_at(machine, "tiny", Destination)?;
    machine.beats.whole("tiny")?;
    Ok(())
}
