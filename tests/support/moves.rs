//! Migrations by the monitor's own commands, one after another on one machine.

use anyhow::{Result, bail, ensure};
use lab::agent::wire::Host;
use serde_json::Value;

use super::machine::{Event, Machine};

/// Beats that have to come after each move.
const AFTERWARDS: u64 = 3;

/// Moves a VM from one host by `migrate` with these words, and waits until that has ended on both sides with every page
/// compared. Returns the source's `migration` object.
pub fn move_vm(machine: &mut Machine, vm: &str, from: Host, words: &str) -> Result<Value> {
    start(machine, vm, from, words)?;
    let report = complete(machine, vm)?;
    beats_on(machine, vm)?;
    Ok(report)
}

/// Asks for a move, with a sample as short as can be and nothing measured before it, unless the words say otherwise.
pub fn start(machine: &mut Machine, vm: &str, from: Host, words: &str) -> Result<()> {
    let or = |key: &str, word: &str| if words.contains(key) { String::new() } else { format!(" {word}") };
    let command = format!("migrate vm={vm} {words} verify=yes{}{}", or("ts=", "ts=1ms"), or("td=", "td=1"));
    machine.command_to(from, &command)
}

/// Waits until the move of a VM has ended on both sides, and takes nothing but a clean end.
pub fn complete(machine: &mut Machine, vm: &str) -> Result<Value> {
    let (mut source, mut destination, mut compared) = (None, false, false);
    loop {
        if let (Some(report), true, true) = (&source, destination, compared) {
            return Ok(Value::clone(report));
        }
        let event = machine.until(&format!("end of the migration of `{vm}`"), |event| is_end(event, vm))?;
        match (event.text("event"), event.text("side")) {
            ("verify", _) => {
                ensure!(event.json["pages-different"] == 0, "pages differ: {}", event.json);
                compared = event.json["pages-compared"].as_u64().is_some_and(|pages| pages > 0);
            }
            ("migration", side) => {
                let report = &event.json["migration"];
                ensure!(report["status"] == "completed", "the {side} says: {}", event.json);
                if side == "source" { source = Some(report.clone()) } else { destination = true }
            }
            _ => bail!("{}", event.text("message")),
        }
    }
}

fn is_end(event: &Event, vm: &str) -> bool {
    event.is("error") || event.text("vm") == vm && (event.is("migration") || event.is("verify"))
}

/// Waits for a few more heartbeats of a VM.
pub fn beats_on(machine: &mut Machine, vm: &str) -> Result<()> {
    for _ in 0..AFTERWARDS {
        machine
            .until(&format!("heartbeat of `{vm}`"), |event| event.text("vm") == vm && event.heartbeat().is_some())?;
    }
    Ok(())
}
