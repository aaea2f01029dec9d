//! A watched guest: what is recorded of it is what the hypervisor counted, and what the guest did.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use lab::agent::wire::Host::Source;
use lab::env::Environment::Bochs;
use lab::watch::options::WatchOptions;
use lab::watch::recording::{self, Ending, Recording};
use lab::watch::replay;
use lab::watch::step::Progress;
use lab::watch::view::Blind;
use libtest_mimic::Trial;

use crate::support::machine::Machine;
use crate::support::{folder, trial};

/// The range that tiny writes: 256 pages from 2 MiB on (guests/README.md).
const RANGE: std::ops::Range<u64> = 512..768;

/// The tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_watch_that_was_recorded_replays_to_the_identifiers_that_the_hypervisor_told", same),
        trial("a_watch_over_restarts_replays_too", restarts),
        trial("a_watch_can_be_ended_and_a_watch_of_nobody_is_an_error", monitor),
    ]
}

/// Watches a guest for a few seconds of its own time, and reads what was recorded.
fn record(test: &str, words: &str) -> Result<Recording> {
    let out = folder("bochs", test);
    std::fs::create_dir_all(&out)?;
    let file = out.join("watch.rec");
    let mut options = WatchOptions::from_words(&format!("--env bochs --guest tiny {words}"))?;
    options.hosts.out = Some(out);
    options.record = Some(file.clone());
    lab::watch::watch(&options, &mut Blind)?;
    let recording = recording::read(&file)?;
    ensure!(recording.ending == Ending::Whole, "the recording is not whole: {:?}", recording.ending);
    let found = replay::count(&recording, |_, _| ());
    ensure!(found.different.is_none(), "an identifier came out otherwise: {found:?}");
    ensure!(found.beginnings == 1 && found.same > 0, "not one whole watch: {found:?}");
    ensure!(found.with_pages == found.harvests, "pages are missing: {found:?}");
    Ok(recording)
}

fn same() -> Result<()> {
    let recording = record("watch-same", "--workload unruly --for 3s")?;
    let mut written = BTreeSet::new();
    for entry in &recording.entries {
        if let Progress::Step(step) = &entry.progress {
            let dirty = step.dirty.as_ref().context("a harvest without pages")?;
            ensure!(step.jiffies > 0 && dirty.count() == step.pages, "{step:?}");
            written.extend(dirty.pages());
        }
    }
    // It writes 200 of them each interval, in turn.
    ensure!(RANGE.clone().all(|page| written.contains(&page)), "a page that the guest wrote is in no harvest");
    // Beside them its stack, its variables and its tables, and not the rest of its memory.
    let others = written.iter().filter(|page| !RANGE.contains(page)).count();
    ensure!(others < 64, "{others} pages beside those that the guest writes");
    Ok(())
}

fn restarts() -> Result<()> {
    let recording = record("watch-restarts", "--workload reboot --append after=3 --from-boot --for 2s")?;
    let restarts: Vec<u64> = recording
        .entries
        .iter()
        .filter(|entry| is_restart(&entry.progress))
        .map(|entry| entry.identifier.osin)
        .collect();
    ensure!(restarts.len() >= 2, "{} restarts", restarts.len());
    ensure!(restarts.windows(2).all(|pair| pair[1] == pair[0] + 1), "OSIN after each restart: {restarts:?}");
    Ok(())
}

fn is_restart(progress: &Progress) -> bool {
    matches!(progress, Progress::Step(step) if step.restart)
}

fn monitor() -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, "watch-monitor", "mode=hlt")?;
    machine.heartbeats(Source, 2)?;
    machine.command("watch vm=nobody on")?;
    let error = machine.until("error", |event| event.is("error"))?;
    ensure!(error.text("message").contains("nobody"), "the error does not name the VM: {}", error.json);
    machine.command("watch vm=tiny on pages=yes")?;
    let begins = machine.until("watching", |event| event.is("watching"))?;
    ensure!(begins.json["on"] == true && begins.json["memory"] == 16 << 20, "{}", begins.json);
    machine.until("harvest with its pages", |event| event.is("identifier") && event.json["dirty"].is_u64())?;
    machine.command("watch vm=tiny off")?;
    let ends = machine.until("the end", |event| event.is("watching"))?;
    ensure!(ends.json["on"] == false, "{}", ends.json);
    let after = machine.until("identifier", |event| event.is("identifier"))?;
    ensure!(after.json["dirty"].is_null(), "still told: {}", after.json);
    machine.heartbeats(Source, 3)?;
    Ok(())
}
