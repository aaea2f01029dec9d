//! The hosts as the lab sees them, whatever runs them: commands go in, stamped lines come out.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::agent::wire::{Command, Host, Line, Order, Party};
use crate::machine::process::{Process, tail};

/// How the monitor is reached.
pub enum Wiring {
    /// One host, its monitor on the line itself.
    Direct,
    /// An agent passes on.
    Agent,
}

/// What came, or that nothing did.
#[derive(Debug)]
pub enum Received {
    /// A line.
    Line(Line),
    /// Nothing within the time.
    Silence,
    /// The machines are gone.
    End,
}

/// Running hosts. Dropped, all of their machines end.
pub struct Testbed {
    /// The way in.
    pub commands: Box<dyn Write + Send>,
    /// The way out; closed when the machine ends.
    pub lines: Receiver<Line>,
    /// How the monitor is reached.
    pub wiring: Wiring,
    /// The process that is or holds the machines.
    pub process: Process,
    /// Where the machine under the hosts says what went wrong.
    pub machine_logs: Vec<PathBuf>,
    /// Everything that came, as it came.
    pub record: File,
}

impl Testbed {
    /// How many hosts there are.
    pub fn hosts(&self) -> &'static [Host] {
        match self.wiring {
            Wiring::Direct => &[Host::Source],
            Wiring::Agent => &[Host::Source, Host::Destination],
        }
    }

    /// Sends a command to a host's monitor.
    pub fn send(&mut self, host: Host, text: &str) -> Result<()> {
        let line = match self.wiring {
            Wiring::Direct => text.to_owned(),
            Wiring::Agent => Command { to: Party::Host(host), text: text.to_owned() }.to_string(),
        };
        self.write(&line).with_context(|| format!("cannot reach the {} with `{text}`", host.name()))
    }

    /// Tells the agent what to do.
    pub fn order(&mut self, order: Order) -> Result<()> {
        ensure!(matches!(self.wiring, Wiring::Agent), "there is no agent that could `{order}`");
        self.write(&order.command().to_string()).with_context(|| format!("cannot reach the agent with `{order}`"))
    }

    fn write(&mut self, line: &str) -> Result<()> {
        self.commands.write_all(format!("{line}\n").as_bytes())?;
        Ok(self.commands.flush()?)
    }

    /// The next line.
    pub fn receive(&mut self, patience: Duration) -> Result<Received> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => {
                writeln!(self.record, "{line}")?;
                Ok(Received::Line(line))
            }
            Err(RecvTimeoutError::Timeout) => Ok(Received::Silence),
            Err(RecvTimeoutError::Disconnected) => Ok(Received::End),
        }
    }

    /// The last words of the machine under the hosts.
    pub fn last_words(&self) -> String {
        let words = self.machine_logs.iter().map(|log| tail(log, 3)).filter(|words| !words.is_empty());
        words.collect::<Vec<_>>().join(" || ")
    }
}
