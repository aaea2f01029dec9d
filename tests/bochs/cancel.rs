//! `cancel` before the hand-over: the guest goes on, and a second attempt succeeds. After it, `cancel` changes nothing.

use anyhow::{Result, ensure};
use lab::agent::wire::Host::Source;
use lab::env::Environment::Bochs;
use libtest_mimic::Trial;

use crate::support::machine::Machine;
use crate::support::moves::{QUICK, beats_on, complete, move_vm, start, until_given_up, until_phase};
use crate::support::trial;

/// A link on which each phase takes a while.
const LINK: &str = "to=memory bandwidth=500000 downtime-limit=1ms";

/// The tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("cancelled_in_any_phase_the_guest_goes_on_and_a_second_attempt_succeeds", in_any_phase),
        trial("cancelled_after_the_hand_over_the_migration_completes", too_late),
    ]
}

fn in_any_phase() -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, "cancel", "mode=write rate=100")?;
    machine.heartbeats(Source, 2)?;
    for words in ["to=memory ts=5s", "to=memory ts=5s td=1"] {
        start(&mut machine, "tiny", Source, words)?;
        let why = cancel(&mut machine)?;
        ensure!(why.contains("cancelled before its path was chosen"), "{words}: {why}");
    }
    for (path, phase, rounds) in
        [("pre-copy", "active", 0), ("pre-copy", "active", 1), ("hybrid", "active", 0), ("stop-and-copy", "device", 0)]
    {
        start(&mut machine, "tiny", Source, &format!("{QUICK} {LINK} path={path}"))?;
        until_phase(&mut machine, "tiny", phase, rounds)?;
        let why = cancel(&mut machine)?;
        ensure!(why.contains("cancelled"), "{path}, {phase}: {why}");
    }
    move_vm(&mut machine, "tiny", Source, "to=memory path=pre-copy")?;
    machine.beats.whole("tiny")?;
    Ok(())
}

/// Gives the attempt up: the guest beats on.
fn cancel(machine: &mut Machine) -> Result<String> {
    machine.command("cancel vm=tiny")?;
    let why = until_given_up(machine, "tiny", "cancelled")?;
    beats_on(machine, "tiny")?;
    let state = machine.state()?;
    ensure!(state == "running", "the VM is {state}");
    Ok(why)
}

fn too_late() -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, "cancel-too-late", "mode=write rate=100")?;
    machine.heartbeats(Source, 2)?;
    start(&mut machine, "tiny", Source, &format!("{QUICK} {LINK} path=post-copy"))?;
    until_phase(&mut machine, "tiny", "postcopy-active", 0)?;
    machine.command("cancel vm=tiny")?;
    let refused = machine.until("answer", |event| event.is("error") || event.is("migration"))?;
    ensure!(refused.is("error"), "it was not refused: {}", refused.json);
    complete(&mut machine, "tiny")?;
    beats_on(&mut machine, "tiny")?;
    machine.beats.whole("tiny")?;
    Ok(())
}
