//! One run: a host with a guest, and its states by turns.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use super::State;
use super::figures::{Reading, Stretch, Work};
use crate::agent::wire::{Host, Kind, Line, Party};
use crate::bench::drop_images;
use crate::env::{DESTINATION_ADDRESS, Environment, PORT};
use crate::interrupt;
use crate::options::MigrateOptions;
use crate::session::stage::Stage;
use crate::session::watch::Watch;
use crate::session::{folder, vm};
use crate::testbed::{Received, Testbed};

/// Each state is measured so many times; the state without watching once more, so that each other one lies between two of it.
const TURNS: usize = 3;
/// The guest tells its work once a second. Of what it tells after a change of state the first still has the state before in it;
/// from the second on, so many seconds are measured.
const SECONDS: usize = 4;
/// After the guest's first word its start is over once it has told its work so many times: Linux first reports its free pages
/// 2 s after its balloon is there.
const SETTLE: usize = 4;
/// A sample that is longer than its stretch.
const SAMPLE: &str = "ts=600s";
/// How long a line may take in wall time, on a slow machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(200);
/// How long the host may take to power off.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs it.
pub fn run(options: &MigrateOptions, watch: &mut dyn Watch) -> Result<Vec<Stretch>> {
    let environment = options.hosts.env;
    let folder = folder(&options.hosts, "price")?;
    let stage = Stage::set(&options.hosts, &options.guest, folder)?;
    let machines = stage.machines(&options.hosts, &options.guest);
    let testbed = environment.start(&machines)?;
    let mut session = Session { testbed, vm: vm(&options.guest), environment };
    let stretches = session.turns(watch)?;
    session.end()?;
    drop_images(&stage.folder)?;
    Ok(stretches)
}

/// Dropped, its machines end.
struct Session {
    testbed: Testbed,
    vm: &'static str,
    environment: Environment,
}

impl Session {
    fn turns(&mut self, watch: &mut dyn Watch) -> Result<Vec<Stretch>> {
        watch.phase("waiting for the guest");
        for _ in 0..SETTLE {
            self.work()?;
        }
        let states = State::ALL.iter().copied().cycle().take(TURNS * State::ALL.len());
        let mut stretches = Vec::new();
        for state in states.chain([State::Off]) {
            watch.phase(state.name());
            stretches.push(self.stretch(state)?);
        }
        Ok(stretches)
    }

    fn stretch(&mut self, state: State) -> Result<Stretch> {
        self.enter(state)?;
        self.work()?;
        let (first, before) = (self.work()?, self.reading()?);
        for _ in 1..SECONDS {
            self.work()?;
        }
        let (last, after) = (self.work()?, self.reading()?);
        if state == State::Sample {
            self.command(&format!("cancel vm={}", self.vm))?;
        }
        Ok(Stretch { state, first, last, before, after })
    }

    /// The host has taken the commands when it answers the `status` after them.
    fn enter(&mut self, state: State) -> Result<()> {
        let vm = self.vm;
        let to = match self.environment {
            Environment::Bochs => "memory".to_owned(),
            Environment::Kvm | Environment::Nested => format!("{DESTINATION_ADDRESS}:{PORT}"),
        };
        self.command(&match state {
            State::Off => format!("identifier vm={vm} off"),
            State::On => format!("identifier vm={vm} on"),
            // With Td the link need not be measured.
            State::Sample => format!("migrate vm={vm} to={to} {SAMPLE} td=1"),
        })?;
        self.reading().map(drop)
    }

    fn command(&mut self, text: &str) -> Result<()> {
        self.testbed.send(Host::Source, text)
    }

    /// What the guest tells next of its work.
    fn work(&mut self) -> Result<Work> {
        self.next("word of the guest about its work", |event| {
            (event["event"] == "console").then(|| Work::parse(event["text"].as_str()?)).flatten()
        })
    }

    fn reading(&mut self) -> Result<Reading> {
        self.command("status")?;
        let vm = self.vm;
        self.next("account of the image", |event| {
            (event["event"] == "overhead" && event["vm"] == vm).then(|| Reading::parse(event)).flatten()
        })
    }

    /// Takes lines until one gives what is looked for.
    fn next<T>(&mut self, what: &str, find: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            interrupt::check()?;
            let line = match self.testbed.receive(LOOK)? {
                Received::Line(line) => line,
                Received::Silence => continue,
                Received::End => bail!("the machine ended: {}", self.testbed.last_words()),
            };
            let Some(event) = event_of_source(&line) else { continue };
            match event["event"].as_str() {
                Some("stopped") => bail!("the VM stopped: {}", event["reason"]),
                // The end of a sample that is given up is told as an error.
                Some("error") if event["message"] != format!("{}: cancelled before its path was chosen", self.vm) => {
                    bail!("the host refused: {}", event["message"])
                }
                _ => {}
            }
            if let Some(found) = find(&event) {
                return Ok(found);
            }
        }
        bail!("no {what} within {} s", PATIENCE.as_secs())
    }

    /// Ends the hosts. The run is over: one that does not power off by itself is ended.
    fn end(&mut self) -> Result<()> {
        for host in self.testbed.hosts() {
            self.testbed.send(*host, "quit")?;
        }
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline && !matches!(self.testbed.receive(LOOK)?, Received::End) {}
        Ok(())
    }
}

fn event_of_source(line: &Line) -> Option<Value> {
    let of_source = line.from == Party::Host(Host::Source) && line.kind == Kind::Monitor;
    of_source.then(|| serde_json::from_str(&line.text).ok()).flatten()
}
