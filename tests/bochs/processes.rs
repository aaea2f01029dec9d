//! Births and deaths of processes, beside the guest kernel's own account of them.

use anyhow::{Context, Result, ensure};
use lab::env::Environment::Bochs;
use libtest_mimic::Trial;

use crate::support::machine::{Event, Machine};
use crate::support::trial;

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
/// The guest's line after each.
const REPORT: &str = "census ";
/// A harvest's period in ms: by the second one after a task nothing is held back.
const SETTLED: f64 = 250.0;

/// The tests.
pub fn trials() -> Vec<Trial> {
    [
        ("no_page_table_isolation", "nopti"),
        ("page_table_isolation", "pti=on"),
        ("page_table_isolation_without_pcid", "pti=on nopcid"),
    ]
    .map(|(name, words)| {
        trial(format!("births_and_deaths_are_the_kernels_own_with_{name}"), move || census(name, words))
    })
    .into()
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

fn census(name: &str, words: &str) -> Result<()> {
    let mut machine = Machine::with_linux(Bochs, &format!("census-{name}"), &format!("{words} workload=census"))?;
    machine.until("start of the guest", |event| event.text("text") == "start census")?;
    machine.command("migrate vm=linux to=memory path=stop-and-copy ts=600s")?;
    let mut before = settled(&mut machine, 0.0)?;
    let mut wrong = Vec::new();
    for task in std::env::var("TASKS")
        .map(|t| t.split(';').map(String::from).collect::<Vec<_>>())
        .unwrap_or_else(|_| TASKS.map(String::from).to_vec())
        .iter()
        .map(String::as_str)
    {
        machine.command(&format!("input vm=linux {task}"))?;
        let report = machine.until(task, |event| event.text("text").starts_with(REPORT))?;
        let after = settled(&mut machine, at(&report))?;
        let seen = Count { births: after.births - before.births, deaths: after.deaths - before.deaths };
        before = after;
        let truth = truth(report.text("text")).with_context(|| format!("{task}: {}", report.text("text")))?;
        eprintln!("{name}: {task}: seen {seen:?}, {}", report.text("text"));
        if !seen.is_about(truth) {
            wrong.push(format!("{task}: seen {seen:?}, the kernel's {truth:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// The counts since the VM's start, as soon as nothing is left to be told of what happened before `at`.
fn settled(machine: &mut Machine, at_least: f64) -> Result<Count> {
    let event = machine.until("identifier", |event| event.is("identifier") && at(event) > at_least + SETTLED)?;
    let count = |key: &str| event.json[key].as_u64().with_context(|| format!("no {key} in {}", event.json));
    Ok(Count { births: count("births")?, deaths: count("deaths")? })
}

fn at(event: &Event) -> f64 {
    event.json["at"].as_f64().unwrap_or_default()
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
