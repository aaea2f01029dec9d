//! Linux tells by its balloon which pages are free: they are not sent, and nobody misses them.

use anyhow::{Context, Result, ensure};
use lab::agent::wire::Host::Source;
use lab::env::Environment::Bochs;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::machine::Machine;
use crate::support::moves::{QUICK, beats_on, move_vm, start, until_given_up, until_phase};
use crate::support::trial;

/// What the guest uses and gives back before its first heartbeat: bytes, and on its command line.
const USED: u64 = 40 << 20;
const USES: &str = "workload=idle workload.used=40M";
/// It reports free pages 2 s after its balloon is there, and the rest 2 s later.
const SETTLED: u64 = 50;
const PAGE: u64 = 4096;

/// The tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("free_pages_of_linux_are_not_sent_from_hop_to_hop", hops),
        trial("a_linux_whose_migration_was_cancelled_has_its_free_pages_and_uses_them", cancelled),
        trial("a_linux_without_balloon_sends_what_it_no_longer_uses", without),
    ]
}

fn settled(test: &str, words: &str) -> Result<Machine> {
    let mut machine = Machine::with_linux(Bochs, test, words)?;
    machine.until("heartbeats", |event| event.heartbeat().is_some_and(|number| number >= SETTLED))?;
    Ok(machine)
}

fn count(report: &Value, kind: &str) -> Result<u64> {
    report["pages"][kind].as_u64().with_context(|| format!("no pages `{kind}`: {report}"))
}

/// Most of what it had used was free.
fn check(report: &Value) -> Result<()> {
    let free = count(report, "free")?;
    ensure!(free * PAGE > USED / 2, "only {free} pages are free: {report}");
    Ok(())
}

/// What was free before the first hop still is after it, though it arrived there only then.
fn hops() -> Result<()> {
    let mut machine = settled("free-hops", USES)?;
    for path in ["pre-copy", "post-copy", "stop-and-copy", "hybrid"] {
        let report = move_vm(&mut machine, "linux", Source, &format!("to=memory path={path}"))?;
        check(&report).with_context(|| format!("by {path}"))?;
    }
    machine.beats.whole("linux")?;
    Ok(())
}

/// The guest gets no memory but what it has reported free, and checks what it writes there: nothing was taken from it.
fn cancelled() -> Result<()> {
    let mut machine = settled("free-cancelled", "workload=storm workload.rate=20 workload.used=40M")?;
    start(&mut machine, "linux", Source, &format!("{QUICK} to=memory path=pre-copy bandwidth=1000000"))?;
    until_phase(&mut machine, "linux", "active", 0)?;
    machine.command("cancel vm=linux")?;
    until_given_up(&mut machine, "linux", "cancelled")?;
    beats_on(&mut machine, "linux")?;
    let report = move_vm(&mut machine, "linux", Source, "to=memory path=post-copy")?;
    ensure!(count(&report, "free")? > 0, "nothing is free: {report}");
    beats_on(&mut machine, "linux")?;
    machine.beats.whole("linux")?;
    Ok(())
}

fn without() -> Result<()> {
    let mut machine = settled("free-without", &format!("{USES} pci=off"))?;
    let report = move_vm(&mut machine, "linux", Source, "to=memory path=pre-copy")?;
    let (free, normal) = (count(&report, "free")?, count(&report, "normal")?);
    ensure!(free == 0 && normal * PAGE > USED / 2, "it told of free pages, or had none: {report}");
    machine.beats.whole("linux")?;
    Ok(())
}
