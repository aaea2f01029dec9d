//! Two hosts with a network between them: QEMU/KVM machines inside an emulated machine that has VMX.

mod chain;
mod faults;
mod peer;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use lab::env::Environment::Nested;
use lab::machine::bochs::HASWELL;
use libtest_mimic::Trial;
use support::dirty::{Case, exact};
use support::migration::{expect_decision, migrate};
use support::{run, trial};

fn main() -> ExitCode {
    let trials = vec![
        linux_is_moved_by_the_rule("calm", "pre-copy", "calm"),
        linux_is_moved_by_the_rule("unruly", "post-copy", "unruly processes"),
        linux_is_moved_by_the_rule("storm", "post-copy", "storm of birth and death of processes"),
        linux_is_moved_by_the_rule("reboot", "post-copy", "unstable operating system"),
        written_pages_are_found_exactly("auto", "dirty-bits"),
        written_pages_are_found_exactly("pml", "pml"),
        written_pages_are_found_exactly("write-protection", "write-protection"),
    ];
    let others = [chain::trials(), faults::trials(), peer::trials()];
    run(trials.into_iter().chain(others.into_iter().flatten()).collect()).exit_code()
}

fn linux_is_moved_by_the_rule(workload: &'static str, path: &'static str, condition: &'static str) -> Trial {
    trial(format!("linux_{workload}_moves_by_{path}_and_loses_nothing"), move || {
        let report = migrate("nested", &format!("linux-{workload}"), &format!("--workload {workload}"))?;
        expect_decision(&report, path, condition)
    })
}

/// On KVM, which carries rights and flags over into tables of its own.
fn written_pages_are_found_exactly(option: &'static str, tracker: &'static str) -> Trial {
    let case = Case { environment: Nested, cpu: HASWELL, option, tracker, clock: "pit", harvest: 250 };
    trial(format!("written_pages_are_found_exactly_by_{option}"), move || exact(case))
}
