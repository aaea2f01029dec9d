//! A machine with the image, driven event by event.

use std::fs;
use std::path::{Path, PathBuf};
use std::slice;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::agent::wire::{Host, Kind, Line, Order, Party};
use lab::artifacts::guests::{self, Guest};
use lab::env::{Environment, Machines};
use lab::machine::bochs::HASWELL;
use lab::testbed::{Received, Testbed};
use serde_json::Value;

use super::heartbeats::Heartbeats;
use super::{artifacts, folder};

/// What may pass in wall time until an event comes: a bound against a hang, not a claim of speed.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long one look at the line waits.
const LOOK: Duration = Duration::from_millis(200);

/// The memory of a tiny guest, in bytes.
pub const TINY_MEMORY: u64 = 16 << 20;
/// The memory of a Linux guest, in bytes.
const LINUX_MEMORY: u64 = 128 << 20;

/// An event, and the host that it is from.
#[derive(Clone, Debug)]
pub struct Event {
    /// Who sent it.
    pub host: Host,
    /// The event's JSON object.
    pub json: Value,
}

impl Event {
    /// Whether it is of this kind.
    pub fn is(&self, kind: &str) -> bool {
        self.text("event") == kind
    }

    /// A field that is text; empty if there is none.
    pub fn text(&self, key: &str) -> &str {
        self.json[key].as_str().unwrap_or_default()
    }

    /// The number of a heartbeat without errors.
    pub fn heartbeat(&self) -> Option<u64> {
        let words = self.is("console").then(|| self.text("text").strip_prefix("hb "))??;
        let mut words = words.split(' ');
        let number = words.next()?.parse().ok()?;
        (words.next() == Some("e0")).then_some(number)
    }
}

/// Running hosts; dropped, also by a test that fails, their machines end.
pub struct Machine {
    testbed: Testbed,
    folder: PathBuf,
    /// All heartbeats that were taken so far.
    pub beats: Heartbeats,
}

impl Machine {
    /// Starts hosts with one tiny guest, `tiny`.
    pub fn with_tiny(environment: Environment, test: &str, command_line: &str) -> Result<Self> {
        let kernel = artifacts()?.tiny_kernel()?;
        Self::with_kernel(environment, test, &kernel, TINY_MEMORY, command_line)
    }

    /// Starts hosts with one Linux guest, `linux`; `words` follow those of its command line that every guest has.
    pub fn with_linux(env: Environment, test: &str, words: &str) -> Result<Self> {
        let artifacts = artifacts()?;
        let (kernel, initrd) = (&artifacts.debian()?.kernel, artifacts.linux_initrd()?);
        let command_line = format!("{} {words}", guests::command_line());
        let guest =
            Guest { name: "linux", kernel, initrd: Some(&initrd), memory: LINUX_MEMORY, command_line: &command_line };
        Self::with_guest(env, test, &guest, "")
    }

    /// Starts hosts with one guest, `tiny`, of this kernel.
    pub fn with_kernel(env: Environment, test: &str, kernel: &Path, memory: u64, command_line: &str) -> Result<Self> {
        Self::with_guest(env, test, &Guest { name: "tiny", kernel, initrd: None, memory, command_line }, "")
    }

    /// Starts hosts with this guest and these options of the image.
    pub fn with_guest(env: Environment, test: &str, guest: &Guest, options: &str) -> Result<Self> {
        Self::with_guests(env, test, slice::from_ref(guest), options)
    }

    /// Starts hosts with these guests and these options of the image.
    pub fn with_guests(env: Environment, test: &str, guests: &[Guest], options: &str) -> Result<Self> {
        let folder = empty_folder(env, test)?;
        guests::archive(&folder.join("guests.cpio"), guests)?;
        let memory = guests.iter().map(|guest| guest.memory).sum();
        Self::start(env, folder, memory, options, HASWELL)
    }

    /// Starts hosts on an emulated machine with this CPU and one tiny guest, `tiny`; `options` are the image's.
    pub fn with_tiny_on(
        environment: Environment,
        cpu: &str,
        test: &str,
        command_line: &str,
        options: &str,
    ) -> Result<Self> {
        let folder = empty_folder(environment, test)?;
        let kernel = artifacts()?.tiny_kernel()?;
        let guest = Guest { name: "tiny", kernel: &kernel, initrd: None, memory: TINY_MEMORY, command_line };
        guests::archive(&folder.join("guests.cpio"), &[guest])?;
        Self::start(environment, folder, TINY_MEMORY, options, cpu)
    }

    /// Starts hosts with these bytes as their archive of guests, and these options of the image.
    pub fn with_archive(env: Environment, test: &str, archive: &[u8], options: &str) -> Result<Self> {
        let folder = empty_folder(env, test)?;
        fs::write(folder.join("guests.cpio"), archive)?;
        Self::start(env, folder, TINY_MEMORY, options, HASWELL)
    }

    fn start(env: Environment, folder: PathBuf, guest_memory: u64, options: &str, cpu: &str) -> Result<Self> {
        env.require()?;
        let machines = Machines {
            artifacts: artifacts()?,
            guests: &folder.join("guests.cpio"),
            guest_memory,
            options,
            mtu: 9000,
            cpu,
            folder: &folder,
        };
        Ok(Self { testbed: env.start(&machines)?, folder, beats: Heartbeats::default() })
    }

    /// Sends a command to the source's monitor.
    pub fn command(&mut self, text: &str) -> Result<()> {
        self.command_to(Host::Source, text)
    }

    /// Sends a command to a host's monitor.
    pub fn command_to(&mut self, host: Host, text: &str) -> Result<()> {
        self.testbed.send(host, text)
    }

    /// Tells the agent between the hosts what to do.
    pub fn order(&mut self, order: Order) -> Result<()> {
        self.testbed.order(order)
    }

    /// Takes events until one fits, and returns it.
    pub fn until(&mut self, what: &str, fits: impl Fn(&Event) -> bool) -> Result<Event> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.testbed.receive(LOOK)? {
                Received::Line(line) => {
                    let Some(event) = event(&line) else { continue };
                    self.beats.see(&event);
                    if fits(&event) {
                        return Ok(event);
                    }
                }
                Received::Silence => {}
                Received::End => {
                    bail!("the machine ended before {what}: {}; see {}", self.log(), self.folder.display())
                }
            }
            ensure!(Instant::now() < deadline, "no {what} within {PATIENCE:?}; see {}", self.folder.display());
        }
    }

    /// The guest's heartbeat goes on at that host: this many more come in order. Returns the first one's number.
    pub fn heartbeats(&mut self, host: Host, count: u64) -> Result<u64> {
        let what = format!("heartbeat at the {}", host.name());
        let mut beat = || {
            let event = self.until(&what, |event| event.host == host && event.heartbeat().is_some())?;
            event.heartbeat().context("a heartbeat has a number")
        };
        let first = beat()?;
        for number in first + 1..first + count {
            let next = beat()?;
            ensure!(next == number, "heartbeat {next} in place of {number}");
        }
        Ok(first)
    }

    /// Asks the source for its status, and returns the state of the one VM, or nothing if there is none.
    pub fn state(&mut self) -> Result<String> {
        self.command("status")?;
        let status = self.until("status", |event| event.is("status") && event.host == Host::Source)?;
        Ok(status.json["vms"][0]["state"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the machine has powered itself off, and returns the image's log.
    pub fn log_at_its_end(mut self) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        while !matches!(self.testbed.receive(LOOK)?, Received::End) {
            ensure!(Instant::now() < deadline, "the machine did not end: {}", self.log());
        }
        Ok(self.log())
    }

    /// The image's log so far.
    fn log(&self) -> String {
        let bytes = fs::read(self.folder.join("source.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn empty_folder(environment: Environment, test: &str) -> Result<PathBuf> {
    let folder = folder(&environment.to_string(), test);
    lab::artifacts::stamp::remove(&folder)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(fs::canonicalize(folder)?)
}

fn event(line: &Line) -> Option<Event> {
    match (line.from, line.kind) {
        (Party::Host(host), Kind::Monitor) => Some(Event { host, json: serde_json::from_str(&line.text).ok()? }),
        _ => None,
    }
}
