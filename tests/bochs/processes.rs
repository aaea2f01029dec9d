//! Births and deaths of processes, beside the guest kernel's own account of them.

use anyhow::{Context, Result, ensure};
use lab::agent::wire::Host::Source;
use lab::env::Environment::Bochs;
use libtest_mimic::Trial;

use crate::support::machine::{Event, Machine};
use crate::support::{artifacts, trial};

/// What the guest is told to do, one after another. Each pipeline is a subshell and its three processes.
const TASKS: [&str; 12] = [
    "rest 2000",
    "storm --rate 10 --count 20",
    "storm --rate 100 --count 200",
    "storm --rate 1000 --count 500",
    "storm --rate 1000 --count 300 --life 2",
    "storm --rate 100 --count 100 --exec",
    "storm --rate 1000 --count 200 --exec",
    "storm --rate 100 --count 100 --spawn",
    "storm --rate 100000 --count 200 --jobs 8 --life 20 --exec",
    "pipelines 40",
    "threads 200",
    "rest 1000",
];
/// What is left where only the roots of a process are others.
const FEWER_TASKS: [&str; 4] =
    ["rest 2000", "storm --rate 1000 --count 300", "storm --rate 1000 --count 100 --exec", "pipelines 20"];
/// The guest's line after each.
const REPORT: &str = "census ";
/// More than two periods of harvests, in ms: nothing is left to be told of what was before.
const SETTLED: f64 = 250.0;
/// Loads of CR3 that may exit while nothing is done: some threads of the kernel run. With page-table isolation each
/// system call and each interrupt loads it twice, some 1,500 times in these two seconds.
const LOADS_AT_REST: u64 = 100;

/// The tests.
pub fn trials() -> Vec<Trial> {
    let census = |name: &'static str, words: &'static str, tasks: &'static [&'static str]| {
        trial(format!("births_and_deaths_are_the_kernels_own_{name}"), move || census(name, words, tasks))
    };
    vec![
        census("without_page_table_isolation", "nopti", &TASKS),
        census("with_page_table_isolation", "pti=on", &TASKS),
        census("with_page_table_isolation_but_no_pcid", "pti=on nopcid", &FEWER_TASKS),
        trial("a_guest_that_flips_cr3_fills_the_table_and_nothing_else", flip),
        trial("a_guest_that_restarts_without_end_only_counts", restarts),
    ]
}

/// Processes that came and went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    births: u64,
    deaths: u64,
}

impl Count {
    /// At most one of fifty more or less.
    fn is_about(self, truth: Self) -> bool {
        let near = |seen: u64, truth: u64| seen.abs_diff(truth) * 50 <= truth;
        near(self.births, truth.births) && near(self.deaths, truth.deaths)
    }
}

fn census(name: &str, words: &str, tasks: &[&str]) -> Result<()> {
    let mut machine = Machine::with_linux(Bochs, &format!("census-{name}"), &format!("{words} workload=census"))?;
    machine.until("start of the guest", |event| event.text("text") == "start census")?;
    machine.command("migrate vm=linux to=memory path=stop-and-copy ts=600s")?;
    let mut before = settled(&mut machine, 0.0)?;
    let mut wrong = Vec::new();
    for task in tasks {
        let loads = loads(&mut machine)?;
        machine.command(&format!("input vm=linux {task}"))?;
        let report = machine.until(task, |event| event.text("text").starts_with(REPORT))?;
        let after = settled(&mut machine, at(&report))?;
        let seen = Count { births: after.births - before.births, deaths: after.deaths - before.deaths };
        before = after;
        let truth = truth(report.text("text")).with_context(|| format!("{task}: {}", report.text("text")))?;
        let loads = self::loads(&mut machine)? - loads;
        println!("  {task}: seen {seen:?}, {loads} loads; {}", report.text("text"));
        if !seen.is_about(truth) {
            wrong.push(format!("{task}: seen {seen:?}, the kernel's {truth:?}"));
        }
        if task.starts_with("rest") && loads > LOADS_AT_REST {
            wrong.push(format!("{task}: {loads} loads of CR3 left the guest"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// The counts since the VM's start, as soon as nothing is left to be told of what happened before `moment`.
fn settled(machine: &mut Machine, moment: f64) -> Result<Count> {
    let event = machine.until("identifier", |event| event.is("identifier") && at(event) > moment + SETTLED)?;
    let count = |key: &str| event.json[key].as_u64().with_context(|| format!("no {key} in {}", event.json));
    Ok(Count { births: count("births")?, deaths: count("deaths")? })
}

fn at(event: &Event) -> f64 {
    event.json["at"].as_f64().unwrap_or_default()
}

/// Loads of CR3, and other accesses to control registers, that left the guest so far.
fn loads(machine: &mut Machine) -> Result<u64> {
    machine.command("status")?;
    let overhead = machine.until("overhead", |event| event.is("overhead"))?;
    Ok(overhead.json["exits"]["cr-access"].as_u64().unwrap_or_default())
}

/// The kernel's account, if it is whole: its two sources say the same.
fn truth(line: &str) -> Result<Count> {
    let field = |key: &str| {
        let value = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok());
        value.with_context(|| format!("no {key}"))
    };
    let (births, deaths) = (field("births")?, field("deaths")?);
    ensure!(field("lost")? == 0, "the guest lost events");
    let forks = births + field("threads")? + field("kernel-threads")?;
    ensure!(forks == field("forks")?, "not all forks were told");
    Ok(Count { births, deaths })
}

/// More roots than are watched, each changed before it is loaded: the worst that a guest can do to the table.
fn flip() -> Result<()> {
    let kernel = artifacts()?.tiny_kernel()?;
    let words = "mode=flip rate=10000 roots=5000 pages=16 verify=16";
    let mut machine = Machine::with_kernel(Bochs, "flip", &kernel, 32 << 20, words)?;
    machine.heartbeats(Source, 2)?;
    let sample = sample(&mut machine)?;
    let field = |key: &str| sample[key].as_u64().unwrap_or_default();
    ensure!(field("processes-uncounted") > 0, "the table was never full: {sample}");
    ensure!(field("births") > 0 && field("deaths") > 0, "no process was seen: {sample}");
    goes_on(&mut machine)
}

fn restarts() -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, "restarts", "mode=triple after=1 clock=work")?;
    let sample = sample(&mut machine)?;
    let restarts = sample["restarts"].as_u64().unwrap_or_default();
    ensure!(restarts > 2, "{restarts} restarts in the sample");
    goes_on(&mut machine)
}

/// A sample of one second. It ended when it should, to one in a hundred of its 250 jiffies: the host did not stall.
fn sample(machine: &mut Machine) -> Result<serde_json::Value> {
    machine.command("migrate vm=tiny to=memory path=stop-and-copy ts=1s")?;
    let sample = machine.until("sample", |event| event.is("sample"))?.json["sample"].take();
    let id = sample["end"].as_str().unwrap_or_default();
    let jiffies = id.split('.').next().and_then(|field| field.parse::<u64>().ok());
    ensure!(jiffies.is_some_and(|jiffies| (250..=252).contains(&jiffies)), "the sample ended at {id}");
    Ok(sample)
}

/// The migration completes, and the VM runs on.
fn goes_on(machine: &mut Machine) -> Result<()> {
    let over = |event: &Event| event.is("migration") && event.text("side") == "destination";
    let end = machine.until("end of the migration", over)?;
    ensure!(end.json["migration"]["status"] == "completed", "{}", end.json);
    machine.until("heartbeat", |event| event.heartbeat().is_some())?;
    let state = machine.state()?;
    ensure!(state == "running", "the VM is {state}");
    Ok(())
}
