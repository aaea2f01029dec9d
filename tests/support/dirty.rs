//! Which pages a guest has written, against the guest's own account: not one missed, and none that it did not write.

use std::cell::Cell;
use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use lab::agent::wire::Host::Source;
use lab::env::Environment;

use super::machine::{Event, Machine, TINY_MEMORY};

/// Pages of the range, and how many the guest writes in turn between two heartbeats. A page is not reached twice between two
/// answers of the monitor, which are at least four heartbeats apart: more pages than the CPU's log of 512 holds.
const PAGES: u64 = 3000;
const RATE: u64 = 201;
/// The first page of the range.
const FIRST: u64 = 512;
/// The loader's page tables that map the guest: with EPT flags on, the CPU's walks mark them.
const PAGE_TABLES: [u64; 3] = [9, 10, 11];
/// Where the guest's program, variables and stack lie.
const PROGRAM: std::ops::Range<u64> = 256..FIRST;
const REGIONS: u64 = TINY_MEMORY >> 21;

/// A machine, and how written pages are to be found on it.
#[derive(Clone, Copy)]
pub struct Case {
    /// Where.
    pub environment: Environment,
    /// On which CPU, by Bochs' name.
    pub cpu: &'static str,
    /// The option of the image.
    pub option: &'static str,
    /// What it makes the image use.
    pub tracker: &'static str,
    /// What ends the guest's interval.
    pub clock: &'static str,
    /// A harvest's period in a sample, in ms; the guest writes more pages in the 8 times longer one beside samples than the
    /// CPU's log holds.
    pub harvest: u32,
}

/// Checks it against the guest's own account.
pub fn exact(case: Case) -> Result<()> {
    let Case { environment, cpu, option, tracker, clock, harvest } = case;
    let guest = format!("mode=write clock={clock} rate={RATE} pages={PAGES} verify=2000");
    let options = format!("tracker={option} jiffy=1ms harvest={harvest}ms");
    let mut machine = Machine::with_tiny_on(environment, cpu, &format!("dirty-{cpu}-{option}"), &guest, &options)?;
    let ready = machine.until("ready", |event| event.is("ready") && event.host == Source)?;
    ensure!(ready.text("tracker") == tracker, "the image uses {}, not {tracker}", ready.text("tracker"));
    machine.heartbeats(Source, 1)?;
    only_regions_are_looked_at(&mut machine)?;

    let (opened, first) = ask(&mut machine, "dirty vm=tiny")?;
    ensure!(first.is_none(), "before anybody asked there was nothing to tell");
    let page_tables = BTreeSet::from_iter(PAGE_TABLES.into_iter().filter(|_| tracker != "write-protection"));
    let mut written = Written { reached: None, opened, page_tables, program: None };
    for _ in 0..8 {
        machine.heartbeats(Source, 3)?;
        let (beat, pages) = ask(&mut machine, "dirty vm=tiny")?;
        written.check(beat, &pages.context("the answer has no runs")?)?;
    }
    let overhead = overhead(&mut machine)?;
    let filled = overhead.json["exits"].get("page-modification-log-full").is_some();
    ensure!(filled == (tracker == "pml"), "the CPU's log: {}", overhead.json);
    ask(&mut machine, "dirty vm=tiny end=yes")?;
    // Nobody asks any more: from the second harvest on, large leaves are all that there is to look at.
    let before = harvests(&mut machine)?;
    while harvests(&mut machine)?.0 < before.0 + 2 {}
    only_regions_are_looked_at(&mut machine)
}

/// The pages written are those of the guest's turns, one after the other round the range, from where the last answer ended.
struct Written {
    /// How many turns the last answer has reached.
    reached: Option<u64>,
    /// The heartbeat after which the log was opened.
    opened: u64,
    /// What the CPU's walks mark.
    page_tables: BTreeSet<u64>,
    /// The guest's stack and variables, as the first answer had them.
    program: Option<BTreeSet<u64>>,
}

impl Written {
    /// `beat` is the last heartbeat before the answer: its turns are done, those of the next one may be.
    fn check(&mut self, beat: u64, pages: &BTreeSet<u64>) -> Result<()> {
        let (range, outside): (BTreeSet<u64>, BTreeSet<u64>) =
            pages.iter().partition(|gfn| (FIRST..FIRST + PAGES).contains(*gfn));
        let arc: BTreeSet<u64> = range.iter().map(|gfn| gfn - FIRST).collect();
        let starts: Vec<u64> =
            arc.iter().copied().filter(|page| !arc.contains(&((page + PAGES - 1) % PAGES))).collect();
        let &[start] = &starts[..] else {
            anyhow::bail!("after heartbeat {beat}: not one run round the range, but runs from {starts:?}")
        };
        // The page that is written while the answer is given comes in two answers.
        let from = self.reached.map_or(self.opened * RATE, |reached| reached - 1);
        let first_turn = from + (start + PAGES - from % PAGES) % PAGES;
        let slack = if self.reached.is_some() { 1 } else { RATE };
        ensure!(first_turn - from <= slack, "after heartbeat {beat}: turns {from} to {first_turn} are missing");
        let reached = first_turn + arc.len() as u64;
        ensure!(
            (beat * RATE..=(beat + 1) * RATE).contains(&reached),
            "after heartbeat {beat}, with {RATE} turns each, {reached} turns are told"
        );
        self.reached = Some(reached);
        let (program, walked): (BTreeSet<u64>, BTreeSet<u64>) = outside.iter().partition(|gfn| PROGRAM.contains(*gfn));
        ensure!(walked == self.page_tables, "{walked:?} was written, where walks mark {:?}", self.page_tables);
        let known = self.program.get_or_insert_with(|| program.clone());
        ensure!(program == *known, "of its program the guest wrote {program:?}, before it was {known:?}");
        ensure!((1..=6).contains(&program.len()), "the guest wrote {program:?} of its program");
        Ok(())
    }
}

/// The answer to a `dirty` command, and the last heartbeat before it.
fn ask(machine: &mut Machine, command: &str) -> Result<(u64, Option<BTreeSet<u64>>)> {
    let beat = Cell::new(machine.heartbeats(Source, 1)?);
    machine.command(command)?;
    let answer = machine.until("dirty pages", |event| {
        beat.set(event.heartbeat().unwrap_or(beat.get()));
        event.is("dirty")
    })?;
    ensure!(answer.json["left"] == 0, "not all pages were told: {}", answer.json);
    let run = |run: &serde_json::Value| {
        let (first, count) = (run[0].as_u64()?, run[1].as_u64()?);
        Some(first..first + count)
    };
    let runs = answer.json["runs"].as_array();
    let pages = runs.map(|runs| runs.iter().map(run).collect::<Option<Vec<_>>>().context("a run is no run"));
    Ok((beat.get(), pages.transpose()?.map(|runs| runs.into_iter().flatten().collect())))
}

fn overhead(machine: &mut Machine) -> Result<Event> {
    machine.command("status")?;
    machine.until("overhead", |event| event.is("overhead"))
}

/// Harvests so far, and what they looked at.
fn harvests(machine: &mut Machine) -> Result<(u64, u64)> {
    let overhead = overhead(machine)?;
    let number = |key: &str| overhead.json[key].as_u64().with_context(|| format!("no {key}"));
    Ok((number("harvests")?, number("harvest-entries")?))
}

/// Unwatched, the guest is mapped by large leaves alone.
fn only_regions_are_looked_at(machine: &mut Machine) -> Result<()> {
    let before = harvests(machine)?;
    let after = loop {
        let now = harvests(machine)?;
        if now.0 > before.0 {
            break now;
        }
    };
    let (harvests, entries) = (after.0 - before.0, after.1 - before.1);
    ensure!(entries == harvests * REGIONS, "{harvests} harvests of {REGIONS} regions looked at {entries} entries");
    Ok(())
}
