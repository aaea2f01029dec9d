//! Two hosts with a network between them: QEMU/KVM machines inside an emulated machine that has VMX.

#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use lab::agent::wire::Host::{Destination, Source};
use lab::env::{DESTINATION_ADDRESS, Environment::Nested, PORT};
use lab::machine::bochs::HASWELL;
use libtest_mimic::Trial;
use support::dirty::{Case, exact};
use support::machine::{Event, Machine};
use support::migration::{expect_decision, migrate};
use support::{run, trial};

fn main() -> ExitCode {
    let trials = vec![
        linux_is_moved_by_the_rule("calm", "pre-copy", "calm"),
        linux_is_moved_by_the_rule("reboot", "post-copy", "unstable operating system"),
        written_pages_are_found_exactly("auto", "dirty-bits"),
        written_pages_are_found_exactly("pml", "pml"),
        written_pages_are_found_exactly("write-protection", "write-protection"),
        trial("a_destination_that_is_absent_leaves_the_guest_at_the_source", absent_destination),
    ];
    run(trials).exit_code()
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

/// The link fails before the hand-over: the guest goes on at the source, and a second attempt succeeds.
fn absent_destination() -> Result<()> {
    let mut machine = Machine::with_tiny(Nested, "absent-destination", "mode=write rate=20")?;
    machine.heartbeats(Source, 3)?;
    machine.command(&format!("migrate vm=tiny to={DESTINATION_ADDRESS}:{} path=pre-copy", PORT + 1))?;
    let failed = |event: &Event| event.is("migration") || event.is("error");
    let end = machine.until("end of the first attempt", |event| failed(event) && event.host == Source)?;
    let why = if end.is("error") { end.text("message") } else { end.text("error") };
    ensure!(!why.is_empty(), "the first attempt names no error: {}", end.json);
    machine.heartbeats(Source, 5)?;
    machine.command(&format!("migrate vm=tiny to={DESTINATION_ADDRESS}:{PORT} path=pre-copy verify=yes"))?;
    let over = |event: &Event| event.is("error") || event.is("verify") && event.host == Destination;
    let end = machine.until("end of the second attempt", over)?;
    ensure!(end.json["pages-different"] == 0, "the second attempt: {}", end.json);
    machine.heartbeats(Destination, 5)?;
    Ok(())
}
