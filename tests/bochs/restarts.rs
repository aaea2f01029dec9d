//! Each way in which a guest restarts: the event names the cause, OSIN counts, and the guest starts anew.

use anyhow::{Context, Result, ensure};
use lab::agent::wire::Host::Source;
use lab::env::Environment::Bochs;
use libtest_mimic::Trial;

use crate::support::machine::{Event, Machine};
use crate::support::trial;

/// What the `restart` event says: the cause, and whether it was a crash.
type Cause = (&'static str, bool);

/// What tiny does.
const TINY: [(&str, Cause); 4] = [
    ("triple", ("triple fault", false)),
    ("crash", ("triple fault", true)),
    ("cf9", ("port 0xCF9", false)),
    ("8042", ("8042 pulse", false)),
];
/// `reboot=` of Linux.
const LINUX: [(&str, Cause); 4] = [
    ("t", ("triple fault", false)),
    ("k", ("8042 pulse", false)),
    ("p", ("port 0xCF9", false)),
    ("a", ("ACPI reset", false)),
];

/// The tests.
pub fn trials() -> Vec<Trial> {
    let tiny = TINY.map(|(mode, cause)| {
        trial(format!("restart_by_{mode}_names_its_cause_and_counts_in_osin"), move || tiny(mode, cause))
    });
    let linux = LINUX.map(|(letter, cause)| {
        trial(format!("linux_restarts_by_reboot_{letter}_and_the_event_names_it"), move || linux(letter, cause))
    });
    tiny.into_iter().chain(linux).collect()
}

fn tiny(mode: &str, cause: Cause) -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, &format!("restart-{mode}"), &format!("mode={mode} after=2"))?;
    let first = restart(&mut machine, cause)?;
    // A restart loads the guest afresh: it beats from 1 again, and can do it once more.
    let beat = machine.heartbeats(Source, 1)?;
    ensure!(beat == 1, "the restarted guest begins at heartbeat {beat}");
    let second = restart(&mut machine, cause)?;
    ensure!((first, second) == (2, 3), "OSIN is {first}, then {second}");
    Ok(())
}

fn linux(letter: &str, cause: Cause) -> Result<()> {
    let words = format!("workload=reboot workload.after=2 reboot={letter}");
    let mut machine = Machine::with_linux(Bochs, &format!("reboot-{letter}"), &words)?;
    let osin = restart(&mut machine, cause)?;
    ensure!(osin == 2, "OSIN is {osin}");
    machine.until("second start of Linux", |event| event.text("text") == "start reboot")?;
    Ok(())
}

/// Waits for a restart by this cause, and returns OSIN of the identifier after it: `JS.OSIN.PCN.DPCN`.
fn restart(machine: &mut Machine, (cause, crash): Cause) -> Result<u64> {
    let event: Event = machine.until("restart", |event| event.is("restart"))?;
    let crashed = event.json["crash"].as_bool().unwrap_or_default();
    ensure!((event.text("cause"), crashed) == (cause, crash), "another cause than `{cause}`, {crash}: {}", event.json);
    let id = event.text("id");
    let osin = id.split('.').nth(1).and_then(|field| field.parse().ok());
    osin.with_context(|| format!("`{id}` is no identifier"))
}
