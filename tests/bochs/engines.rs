//! What `migrate` can ask of the engines, and moves one after another, on one host.

use anyhow::{Context, Result, ensure};
use lab::agent::wire::Host::Source;
use lab::env::Environment::Bochs;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::machine::Machine;
use crate::support::moves::{beats_on, move_vm};
use crate::support::trial;

/// Each hop of a chain by another path.
const HOPS: [&str; 5] = [
    "path=pre-copy",
    "path=post-copy",
    "path=hybrid",
    "path=stop-and-copy",
    // Half a second of demand, then the rest is pushed.
    "path=demand demand-period=500ms",
];

/// The tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_chain_of_moves_each_by_another_path_loses_nothing", chain),
        trial("a_guest_that_writes_too_fast_is_slowed_until_it_converges", auto_converge),
        trial("pages_go_by_the_encodings_that_were_named_and_no_other", encodings),
        trial("rounds_end_and_demand_pushes_as_asked_for", limits),
    ]
}

fn chain() -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, "chain", "mode=write rate=100")?;
    machine.heartbeats(Source, 3)?;
    for words in HOPS {
        let report = move_vm(&mut machine, "tiny", Source, &format!("to=memory bandwidth=20000000 {words}"))?;
        let path = report["path"].as_str().unwrap_or_default();
        ensure!(words.starts_with(&format!("path={path}")), "asked for {words}, it went by {path}");
    }
    machine.beats.whole("tiny")?;
    Ok(())
}

/// It writes as fast as it can, over 1 MiB: at full speed that is more than the link carries.
fn auto_converge() -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, "auto-converge", "mode=write rate=200 clock=work verify=2400")?;
    machine.heartbeats(Source, 3)?;
    let words = "to=memory path=pre-copy bandwidth=4000000 downtime-limit=50ms max-rounds=1000";
    let full_speed = move_vm(&mut machine, "tiny", Source, words)?;
    ensure!(full_speed["cpu-throttle-percentage"].is_null(), "it was slowed unasked: {full_speed}");
    let slowed = move_vm(&mut machine, "tiny", Source, &format!("{words} auto-converge=yes"))?;
    ensure!(slowed["cpu-throttle-percentage"].as_u64().is_some_and(|p| p >= 20), "it was not slowed: {slowed}");
    let (before, after) = (last_dirtied(&full_speed)?, last_dirtied(&slowed)?);
    ensure!(after < before / 2, "slowed, it dirtied {after} pages in its last round; at full speed {before}");
    machine.beats.whole("tiny")?;
    Ok(())
}

fn last_dirtied(report: &Value) -> Result<u64> {
    rounds(report).last().and_then(|round| round["dirtied"].as_u64()).context("no rounds")
}

fn rounds(report: &Value) -> &[Value] {
    report["rounds"].as_array().map_or(&[], Vec::as_slice)
}

/// Over a link for which bytes wait, so that each pays where it may be used.
fn encodings() -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, "encodings", "mode=write rate=200")?;
    machine.heartbeats(Source, 3)?;
    let slow = "to=memory path=pre-copy bandwidth=2000000 downtime-limit=1ms max-rounds=4";
    for (list, wanted) in [
        ("none", vec![]),
        ("zero", vec!["duplicate"]),
        ("same", vec!["same"]),
        ("lz4", vec!["compressed"]),
        ("zero,lz4", vec!["duplicate", "compressed"]),
    ] {
        let report = move_vm(&mut machine, "tiny", Source, &format!("{slow} encodings={list}"))?;
        went_only_as(&report, &wanted).with_context(|| format!("encodings={list}"))?;
    }
    machine.beats.whole("tiny")?;
    // Tiny writes whole pages, of which no version is like another.
    let mut machine = Machine::with_linux(Bochs, "encodings-delta", "workload=storm workload.rate=50")?;
    beats_on(&mut machine, "linux")?;
    let words = "to=memory path=pre-copy bandwidth=8000000 downtime-limit=1ms max-rounds=5 encodings=zero,delta";
    let report = move_vm(&mut machine, "linux", Source, words)?;
    went_only_as(&report, &["duplicate", "delta"])?;
    machine.beats.whole("linux")?;
    Ok(())
}

fn went_only_as(report: &Value, wanted: &[&str]) -> Result<()> {
    for kind in ["duplicate", "same", "delta", "compressed"] {
        let went = report["pages"][kind].as_u64().is_some_and(|pages| pages > 0);
        ensure!(went == wanted.contains(&kind), "as {kind} went pages, or none did: {report}");
    }
    Ok(())
}

fn limits() -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, "limits", "mode=write rate=200")?;
    machine.heartbeats(Source, 3)?;
    // Slow enough that no round leaves what fits the downtime.
    let slow = "to=memory bandwidth=2000000 downtime-limit=1ms";
    for (words, wanted) in [
        ("path=pre-copy max-rounds=2", 2),
        // The first round alone sends more.
        ("path=pre-copy max-bytes=100000", 1),
        ("path=hybrid hybrid-rounds=2", 2),
        // The guest dirties pages faster than this, which ends the rounds after the first.
        ("path=pre-copy rate-limit=2000000", 1),
    ] {
        let report = move_vm(&mut machine, "tiny", Source, &format!("{slow} {words}"))?;
        ensure!(rounds(&report).len() == wanted, "{words}: not {wanted} rounds: {report}");
    }
    let report = move_vm(&mut machine, "tiny", Source, "to=memory path=demand demand-period=100ms")?;
    ensure!(report["demand-fetched"].is_u64(), "it does not tell what was fetched: {report}");
    machine.beats.whole("tiny")?;
    Ok(())
}
