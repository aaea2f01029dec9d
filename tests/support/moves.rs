//! Migrations by the monitor's own commands, one after another on one machine.

use anyhow::{Context, Result, ensure};
use lab::agent::wire::Host;
use serde_json::Value;

use super::machine::{Event, Machine};

/// Beats that have to come after each move.
const AFTERWARDS: u64 = 3;

/// Nothing is measured, and the sample is as short as can be: for who gives the path.
pub const QUICK: &str = "ts=1ms td=1";

/// Moves a VM from one host by `migrate` with these words, and waits until that has ended on both sides with every page
/// compared. Returns the source's `migration` object.
pub fn move_vm(machine: &mut Machine, vm: &str, from: Host, words: &str) -> Result<Value> {
    start(machine, vm, from, &format!("{QUICK} {words}"))?;
    let report = complete(machine, vm)?;
    beats_on(machine, vm)?;
    Ok(report)
}

/// Asks for a move.
pub fn start(machine: &mut Machine, vm: &str, from: Host, words: &str) -> Result<()> {
    machine.command_to(from, &format!("migrate vm={vm} verify=yes {words}"))
}

/// Waits until the move of a VM has ended on both sides, and takes nothing but a clean end.
pub fn complete(machine: &mut Machine, vm: &str) -> Result<Value> {
    let [report] = complete_all(machine, [vm])?;
    Ok(report)
}

/// The same for several at once.
pub fn complete_all<const N: usize>(machine: &mut Machine, vms: [&str; N]) -> Result<[Value; N]> {
    let mut moves = vms.map(|vm| (vm, Move::default()));
    while !moves.iter().all(|(_, ended)| ended.is_over()) {
        let event = machine.until(&format!("end of the migrations of {vms:?}"), |event| {
            event.is("error") || (event.is("migration") || event.is("verify")) && vms.contains(&event.text("vm"))
        })?;
        ensure!(!event.is("error"), "{}", event.text("message"));
        let mine = moves.iter_mut().find(|(vm, _)| event.text("vm") == *vm);
        mine.context("an event of another VM")?.1.see(&event)?;
    }
    Ok(moves.map(|(_, ended)| ended.source.unwrap_or_default()))
}

/// How far a move is.
#[derive(Default)]
struct Move {
    source: Option<Value>,
    destination: bool,
    compared: bool,
}

impl Move {
    fn see(&mut self, event: &Event) -> Result<()> {
        if event.is("verify") {
            ensure!(event.json["pages-different"] == 0, "pages differ: {}", event.json);
            self.compared = event.json["pages-compared"].as_u64().is_some_and(|pages| pages > 0);
            return Ok(());
        }
        let report = &event.json["migration"];
        ensure!(report["status"] == "completed", "the {} says: {}", event.text("side"), event.json);
        if event.text("side") == "source" {
            self.source = Some(report.clone());
        } else {
            self.destination = true;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.source.is_some() && self.destination && self.compared
    }
}

/// Waits until the source of a move tells this phase, and at least so many rounds.
pub fn until_phase(machine: &mut Machine, vm: &str, phase: &str, rounds: u64) -> Result<()> {
    let there = |event: &Event| {
        event.is("progress")
            && event.text("vm") == vm
            && event.text("side") == "source"
            && event.text("phase") == phase
            && event.json["round"].as_u64().is_some_and(|round| round >= rounds)
    };
    let ended = |event: &Event| event.is("error") || event.is("migration") && event.text("vm") == vm;
    let event = machine.until(&format!("phase `{phase}` of `{vm}`"), |event| there(event) || ended(event))?;
    ensure!(there(&event), "no phase `{phase}` came: {}", event.json);
    Ok(())
}

/// Waits until a move that was given up has ended at its source, and says why.
pub fn until_given_up(machine: &mut Machine, vm: &str, status: &str) -> Result<String> {
    let ended = |event: &Event| event.is("migration") && event.text("vm") == vm && event.text("side") == "source";
    let event = machine.until(&format!("end of the attempt with `{vm}`"), |event| event.is("error") || ended(event))?;
    if event.is("error") {
        return Ok(event.text("message").to_owned());
    }
    ensure!(event.json["migration"]["status"] == status, "not {status}: {}", event.json);
    Ok(event.text("error").to_owned())
}

/// Waits for a few more heartbeats of a VM.
pub fn beats_on(machine: &mut Machine, vm: &str) -> Result<()> {
    beats_where(machine, vm, |_| true)
}

/// The same, at this host.
pub fn beats_at(machine: &mut Machine, vm: &str, host: Host) -> Result<()> {
    beats_where(machine, vm, |at| at == host)
}

fn beats_where(machine: &mut Machine, vm: &str, place: impl Fn(Host) -> bool) -> Result<()> {
    for _ in 0..AFTERWARDS {
        let beat = |event: &Event| event.text("vm") == vm && place(event.host) && event.heartbeat().is_some();
        machine.until(&format!("heartbeat of `{vm}`"), beat)?;
    }
    Ok(())
}
