//! Drives a run from the start of the hosts to their end, and never waits without a limit.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::report::{Report, Wanted, report};
use super::story::{Story, index};
use super::watch::Watch;
use super::{create, vm};
use crate::agent::wire::{Host, Kind, Line, Party};
use crate::env::{DESTINATION_ADDRESS, Environment, PORT};
use crate::interrupt;
use crate::machine::process::tail;
use crate::options::{GuestKind, HEARTBEAT, MigrateOptions, Workload};
use crate::testbed::{Received, Testbed, Wiring};

/// Heartbeats before the migration: the guest's start is over, and its silences are its own.
const SETTLE: u64 = 10;
/// The same for Linux, which first reports its free pages 2 s after its balloon is there.
const SETTLE_LINUX: u64 = 30;
/// Heartbeats that have to come from the destination.
const AFTERWARDS: u64 = 10;
/// A guest that prints no heartbeat is at work when it has printed nothing for so long.
const QUIET: Duration = Duration::from_secs(15);
/// From the lab's command to the start of the sample: the line is slow, the host has a connection to make and the link to
/// measure.
const COMMAND_LATENCY: Duration = Duration::from_millis(450);
/// How often a person's view is renewed when nothing comes.
const LOOK: Duration = Duration::from_millis(200);

/// How long each phase may take in wall time, on a slow machine that does other things too.
pub struct Patience {
    start: Duration,
    guest: Duration,
    migration: Duration,
    end: Duration,
}

impl Patience {
    /// With hosts that run the image.
    pub fn of(environment: Environment) -> Self {
        match environment {
            Environment::Kvm => Self::seconds(30, 60, 120, 20),
            Environment::Bochs => Self::seconds(90, 180, 240, 30),
            Environment::Nested => Self::seconds(180, 300, 420, 60),
        }
    }

    /// With QEMU's own in the place of ours, which have a Linux to start first, or one level down two; `limit` is the emulated
    /// time that a migration may take.
    pub fn of_peer(environment: Environment, limit: Duration) -> Self {
        let patience = match environment {
            Environment::Kvm | Environment::Bochs => Self::seconds(180, 300, 420, 60),
            Environment::Nested => Self::seconds(600, 600, 600, 90),
        };
        Patience { migration: patience.migration.saturating_add(limit.saturating_mul(3)), ..patience }
    }

    fn seconds(start: u64, guest: u64, migration: u64, end: u64) -> Self {
        let [start, guest, migration, end] = [start, guest, migration, end].map(Duration::from_secs);
        Patience { start, guest, migration, end }
    }
}

/// The heartbeat after which the migration is asked for. Where the guest restarts its OS, so early that the restart
/// falls into the middle of the sample.
fn settled(options: &MigrateOptions) -> u64 {
    if options.guest.workload != Workload::Reboot {
        return match options.guest.guest {
            GuestKind::Linux => SETTLE_LINUX,
            GuestKind::Tiny => SETTLE,
        };
    }
    let shutdown = shutdown_time(options.hosts.env);
    let lead = (options.movement.ts / 2 + COMMAND_LATENCY).saturating_sub(shutdown);
    let lead = u64::try_from(lead.as_millis() / HEARTBEAT.as_millis()).unwrap_or(u64::MAX);
    options.guest.beats_before_restart().saturating_sub(lead).max(1)
}

/// From a guest's last heartbeat to the restart, as measured: two levels down, a kernel takes its time to shut down.
fn shutdown_time(environment: Environment) -> Duration {
    Duration::from_millis(match environment {
        Environment::Kvm | Environment::Bochs => 50,
        Environment::Nested => 450,
    })
}

/// A run in progress.
pub struct Driver<'a> {
    options: &'a MigrateOptions,
    testbed: Testbed,
    story: Story,
    events: File,
    logs: Option<[File; 2]>,
    watch: &'a mut dyn Watch,
    patience: Patience,
    folder: PathBuf,
}

impl<'a> Driver<'a> {
    /// Runs the experiment on hosts that `start` starts. Whatever goes wrong once they are started is in the report.
    pub fn run(
        options: &'a MigrateOptions,
        folder: &Path,
        patience: Patience,
        start: impl FnOnce() -> Result<Testbed>,
        watch: &'a mut dyn Watch,
    ) -> Result<(Report, Story)> {
        watch.phase("starting the hosts");
        let testbed = start()?;
        let story = Story::new(&testbed.wiring, vm(&options.guest));
        // With one host, the log comes by a serial port of its own and is a file already.
        let logs = match testbed.wiring {
            Wiring::Direct => None,
            Wiring::Agent => Some([create(folder, "source.log")?, create(folder, "destination.log")?]),
        };
        let mut driver = Driver {
            options,
            story,
            events: create(folder, "events.jsonl")?,
            logs,
            watch,
            patience,
            folder: folder.to_owned(),
            testbed,
        };
        let outcome = driver.experiment();
        let error = outcome.err().map(|error| driver.explain(&error));
        interrupt::check()?;
        Ok(driver.close(error))
    }

    fn experiment(&mut self) -> Result<()> {
        self.wait("starting the hosts", self.patience.start, Story::all_ready)?;
        self.phase("waiting for the guest");
        let wanted = settled(self.options);
        let patience = self.patience.guest;
        let foreign = self.options.guest.is_foreign();
        self.wait("waiting for the guest", patience, |story| match story.heartbeats.last_number() {
            Some(number) => number >= wanted,
            None => foreign && story.guest_spoke.elapsed() >= QUIET,
        })?;
        let to = match self.testbed.wiring {
            Wiring::Direct => "memory".to_owned(),
            Wiring::Agent => format!("{DESTINATION_ADDRESS}:{PORT}"),
        };
        let command = self.options.movement.command(vm(&self.options.guest), &to);
        self.testbed.send(Host::Source, &command)?;
        self.phase("sampling");
        let over = |story: &Story| story.decision.is_some() || story.migration_over();
        self.wait("sampling", self.patience.migration, over)?;
        self.phase("migrating");
        self.wait("migrating", self.patience.migration, Story::migration_over)?;
        self.phase("watching the guest at the destination");
        let verify = self.options.movement.verify;
        self.wait("watching the guest at the destination", self.patience.guest, |story| {
            let failed = story.sides.iter().any(|side| side.error.is_some());
            let beats = story.heartbeats.seen;
            let silent = beats == [0, 0] && story.guest_spoke.elapsed() >= QUIET;
            failed || (silent || beats[1] >= AFTERWARDS) && (story.verify.is_some() || !verify)
        })
    }

    fn phase(&mut self, name: &str) {
        self.watch.phase(name);
    }

    /// Takes lines until `done`, or says why that will not come.
    fn wait(&mut self, what: &str, patience: Duration, done: impl Fn(&Story) -> bool) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !done(&self.story) {
            interrupt::check()?;
            match self.testbed.receive(LOOK)? {
                Received::Line(line) => self.take(&line)?,
                Received::Silence => {}
                Received::End => bail!("while {what}: the machine ended"),
            }
            self.watch.look(&self.story);
            self.still_possible(what)?;
            ensure!(Instant::now() < deadline, "while {what}: nothing more within {} s", patience.as_secs());
        }
        Ok(())
    }

    fn still_possible(&self, what: &str) -> Result<()> {
        if let Some(reason) = &self.story.stopped {
            bail!("while {what}: the VM stopped: {reason}");
        }
        if let Some((host, status)) = self.story.host_ended() {
            bail!("while {what}: the {} ended: {status}", host.name());
        }
        match &self.story.refused {
            Some(message) if !self.story.migration_over() => bail!("while {what}: {message}"),
            _ => Ok(()),
        }
    }

    /// Puts a line where it belongs.
    fn take(&mut self, line: &Line) -> Result<()> {
        if let (Some(logs), Party::Host(host), Kind::Log | Kind::Note) = (&mut self.logs, line.from, line.kind) {
            writeln!(logs[index(host)], "{:10.1} {}", line.at, line.text)?;
        }
        if let Some(record) = self.story.tell(line) {
            writeln!(self.events, "{record}")?;
        }
        Ok(())
    }

    /// An error with the last words of whoever knows more: the host that ended, else the machine under the hosts.
    fn explain(&self, error: &anyhow::Error) -> String {
        let words = match self.story.host_ended() {
            Some((host, _)) if self.logs.is_some() => tail(&self.folder.join(format!("{}.log", host.name())), 3),
            _ => self.testbed.last_words(),
        };
        if words.is_empty() { format!("{error:#}") } else { format!("{error:#} (last words: {words})") }
    }

    /// Ends the hosts and makes the report. After a fault they are not asked: dropping the testbed ends them.
    fn close(mut self, error: Option<String>) -> (Report, Story) {
        let wanted = Wanted { verify: self.options.movement.verify, heartbeats: AFTERWARDS };
        let found = report(self.options, &self.story, wanted, error.clone());
        if found.error.is_some() {
            return (found, self.story);
        }
        self.phase("powering off");
        let deadline = self.patience.end;
        let commands =
            ["status", "quit"].into_iter().flat_map(|word| self.testbed.hosts().iter().map(move |host| (*host, word)));
        // The run is over: a host that does not power off by itself is ended.
        let asked = commands.collect::<Vec<_>>().into_iter().try_for_each(|(host, word)| self.testbed.send(host, word));
        if asked.is_ok() {
            let _ = self.wait_for_end(deadline);
        }
        (report(self.options, &self.story, wanted, error), self.story)
    }

    fn wait_for_end(&mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !self.story.all_ended() && Instant::now() < deadline {
            match self.testbed.receive(LOOK)? {
                Received::Line(line) => self.take(&line)?,
                Received::Silence => interrupt::check()?,
                Received::End => break,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled_with(words: &str) -> u64 {
        settled(&MigrateOptions::from_words(words).unwrap())
    }

    #[test]
    fn a_guest_that_restarts_is_asked_for_before_it_does() {
        assert_eq!(settled_with("--env bochs --workload calm"), SETTLE_LINUX);
        assert_eq!(settled_with("--env bochs --guest tiny --workload calm"), SETTLE);
        // 250 ms to the middle of the sample, 450 ms to its start, less 50 ms to shut down: six beats before the last.
        assert_eq!(settled_with("--env bochs --workload reboot"), 14);
        assert_eq!(settled_with("--env bochs --workload reboot --ts 1s"), 11);
        assert_eq!(settled_with("--env bochs --workload reboot --append workload.after=30"), 24);
        assert_eq!(settled_with("--env bochs --workload reboot --append workload.after=2"), 1);
        assert_eq!(settled_with("--env nested --workload reboot"), 18);
    }
}
