//! What watching does to a guest, in counts: an identifier that is switched off does nothing, and misses nothing.

use std::cell::Cell;

use anyhow::{Context, Result, ensure};
use lab::agent::wire::Host::Source;
use lab::env::Environment::Bochs;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::machine::Machine;
use crate::support::trial;

/// It writes 50 pages of its range between two heartbeats, in turn: these 256, in half a second (guests/README.md).
const WRITER: &str = "mode=write rate=50";
const RANGE: std::ops::Range<u64> = 512..768;
/// It loads CR3 2000 times between two heartbeats.
const FLIPPER: &str = "mode=flip rate=2000 roots=64 verify=1";
/// As long as a harvest's period between samples, and half as long again, in ms.
const LONG: f64 = 3000.0;

/// The tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("an_identifier_that_is_off_harvests_nothing_and_loses_nothing", off_and_on),
        trial("a_sample_counts_while_the_identifier_is_off", sample_while_off),
        trial("a_sample_tells_by_how_much_it_slowed_the_guest", slowdown),
    ]
}

fn off_and_on() -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, "price-off", WRITER)?;
    machine.heartbeats(Source, 3)?;
    tell(&mut machine, "dirty vm=tiny", "dirty")?;
    machine.command("identifier vm=tiny off")?;
    let last = Cell::new(None);
    machine.command("dirty vm=tiny")?;
    machine.until("dirty pages", |event| {
        last.set(event.json["pages-modified"].as_u64().or(last.get()));
        event.is("dirty")
    })?;
    let (before, after) = a_while(&mut machine)?;
    for count in ["harvests", "harvest-entries"] {
        ensure!(before[count].is_u64() && before[count] == after[count], "{count}: {before}, then {after}");
    }

    // All of the range was written meanwhile, and what can be written between these commands is only a part of it.
    let on = tell(&mut machine, "identifier vm=tiny on", "identifier")?;
    let told = tell(&mut machine, "dirty vm=tiny end=yes", "dirty")?;
    let runs = told["runs"].as_array().context("no runs")?;
    let missing: Vec<u64> = RANGE.filter(|page| !runs.iter().any(|run| holds(run, *page))).collect();
    ensure!(missing.is_empty(), "written meanwhile and not told: {missing:?}");
    let (pages, range) = (on["pages-modified"].as_u64(), RANGE.end - RANGE.start);
    ensure!(pages >= last.get().map(|pages| pages + range), "what was written does not count: {last:?}, then {on}");
    let (before, after) = a_while(&mut machine)?;
    ensure!(before["harvests"].as_u64() < after["harvests"].as_u64(), "no harvest: {before}, then {after}");
    Ok(())
}

fn sample_while_off() -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, "price-sample", FLIPPER)?;
    machine.heartbeats(Source, 3)?;
    machine.command("identifier vm=tiny off")?;
    let (before, after) = a_while(&mut machine)?;
    ensure!(before["harvests"] == after["harvests"] && loads(&after) == 0, "{before}, then {after}");
    machine.command("migrate vm=tiny to=memory ts=600s td=1")?;
    let (before, after) = a_while(&mut machine)?;
    ensure!(before["harvests"].as_u64() < after["harvests"].as_u64(), "no harvest in a sample: {before}, then {after}");
    ensure!(loads(&before) < loads(&after), "loads of CR3 do not exit in a sample: {before}, then {after}");
    tell(&mut machine, "cancel vm=tiny", "error")?;
    let (before, after) = a_while(&mut machine)?;
    ensure!(before["harvests"] == after["harvests"] && loads(&before) == loads(&after), "{before}, then {after}");
    Ok(())
}

fn slowdown() -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, "price-slowdown", FLIPPER)?;
    machine.heartbeats(Source, 10)?;
    machine.command("migrate vm=tiny to=memory path=stop-and-copy ts=200ms td=1")?;
    let overhead = machine.until("overhead", |event| event.is("overhead"))?;
    let slowdown = overhead.json["guest-slowdown-sampling"].as_f64();
    // Each load of CR3 was an exit, and there was none before.
    ensure!(slowdown.is_some_and(|part| 0.0 < part && part < 1.0), "{}", overhead.json);
    Ok(())
}

/// Has the source do it, and returns the answer.
fn tell(machine: &mut Machine, command: &str, answer: &str) -> Result<Value> {
    machine.command(command)?;
    Ok(machine.until(command, |event| event.is(answer))?.json)
}

/// The image's account now, and a while later.
fn a_while(machine: &mut Machine) -> Result<(Value, Value)> {
    let before = tell(machine, "status", "overhead")?;
    let end = before["at"].as_f64().context("an event has a time")? + LONG;
    machine.until("a while", |event| event.json["at"].as_f64().is_some_and(|at| at >= end))?;
    Ok((before, tell(machine, "status", "overhead")?))
}

fn loads(overhead: &Value) -> u64 {
    overhead["exits"]["cr-access"].as_u64().unwrap_or_default()
}

fn holds(run: &Value, page: u64) -> bool {
    let (first, count) = (run[0].as_u64().unwrap_or(u64::MAX), run[1].as_u64().unwrap_or_default());
    page.checked_sub(first).is_some_and(|offset| offset < count)
}
