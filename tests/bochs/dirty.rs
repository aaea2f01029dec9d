//! Which pages a guest has written, by each way to find them.

use anyhow::{Result, ensure};
use lab::env::Environment::Bochs;
use lab::machine::bochs::{HASWELL, IVY_BRIDGE, SKYLAKE};
use libtest_mimic::Trial;

use crate::support::dirty::{Case, exact};
use crate::support::machine::Machine;
use crate::support::trial;

/// A CPU, the option of the image, and what is used then.
const CASES: [(&str, &str, &str); 4] = [
    (HASWELL, "auto", "dirty-bits"),
    (HASWELL, "write-protection", "write-protection"),
    (IVY_BRIDGE, "auto", "write-protection"),
    (SKYLAKE, "pml", "pml"),
];

/// The tests.
pub fn trials() -> Vec<Trial> {
    let exact = CASES.map(|(cpu, option, tracker)| {
        let case = Case { environment: Bochs, cpu, option, tracker, clock: "work", harvest: 50 };
        trial(format!("written_pages_are_found_exactly_on_{cpu}_by_{option}"), move || exact(case))
    });
    let mut trials = Vec::from(exact);
    trials.push(trial("a_tracker_that_the_cpu_has_not_is_refused", not_offered));
    trials
}

fn not_offered() -> Result<()> {
    let log = Machine::with_tiny_on(Bochs, HASWELL, "no-pml", "mode=hlt", "tracker=pml")?.log_at_its_end()?;
    ensure!(log.contains("this CPU has not what `tracker=pml` needs"), "the log does not say why: {log}");
    Ok(())
}
