//! Two guests that leave one host at once, under one bandwidth.

use anyhow::{Result, ensure};
use lab::agent::wire::Host::Source;
use lab::artifacts::guests::Guest;
use lab::env::Environment::Bochs;
use libtest_mimic::Trial;

use crate::support::machine::{Machine, TINY_MEMORY};
use crate::support::moves::{QUICK, beats_on, complete, complete_all, move_vm, start, until_given_up, until_phase};
use crate::support::{artifacts, trial};

/// Bytes a second that both streams share.
const BANDWIDTH: u64 = 1_000_000;

/// The tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("two_guests_leave_at_once_within_one_bandwidth", at_once),
        trial("two_guests_of_which_one_is_cancelled_and_the_other_arrives", one_cancelled),
    ]
}

fn two_guests(test: &str) -> Result<Machine> {
    let kernel = artifacts()?.tiny_kernel()?;
    let guest = |name, command_line| Guest { name, kernel: &kernel, initrd: None, memory: TINY_MEMORY, command_line };
    let guests = [guest("one", "mode=write rate=5"), guest("two", "mode=write rate=20 pages=300")];
    let mut machine = Machine::with_guests(Bochs, test, &guests, &format!("bandwidth={BANDWIDTH}"))?;
    beats_on(&mut machine, "one")?;
    beats_on(&mut machine, "two")?;
    Ok(machine)
}

/// Both streams are at work at the same time.
fn both_leave(machine: &mut Machine) -> Result<()> {
    start(machine, "one", Source, &format!("{QUICK} to=memory path=pre-copy"))?;
    start(machine, "two", Source, &format!("{QUICK} to=memory path=hybrid"))?;
    until_phase(machine, "two", "active", 0)?;
    until_phase(machine, "one", "active", 0)
}

fn at_once() -> Result<()> {
    let mut machine = two_guests("two-guests")?;
    both_leave(&mut machine)?;
    let reports = complete_all(&mut machine, ["one", "two"])?;
    for report in &reports {
        let throughput = report["throughput"].as_u64();
        ensure!(throughput.is_some_and(|rate| rate <= BANDWIDTH), "more than {BANDWIDTH} B/s: {report}");
    }
    beats_on(&mut machine, "one")?;
    beats_on(&mut machine, "two")?;
    machine.beats.whole("one")?;
    machine.beats.whole("two")?;
    Ok(())
}

fn one_cancelled() -> Result<()> {
    let mut machine = two_guests("one-of-two")?;
    both_leave(&mut machine)?;
    machine.command("cancel vm=two")?;
    until_given_up(&mut machine, "two", "cancelled")?;
    complete(&mut machine, "one")?;
    beats_on(&mut machine, "two")?;
    move_vm(&mut machine, "two", Source, "to=memory path=post-copy")?;
    beats_on(&mut machine, "one")?;
    machine.beats.whole("one")?;
    machine.beats.whole("two")?;
    Ok(())
}
