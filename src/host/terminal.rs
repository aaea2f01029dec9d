//! The monitor's port: command lines in, event lines out, and the log's events where both share a port.

use crate::{
    machine::{clock, log as machine_log, serial},
    monitor::{
        command::Command,
        event::What,
        line::LineAssembler,
        options::Console,
    },
};
use alloc::string::{String, ToString};
use core::time::Duration;
use log::Level;
use spin::Mutex;

/// How often the port is looked at: each look is an exit on an emulated machine, and people type slowly.
const POLL_MICROS: u64 = 20_000;

/// The port.
pub struct Terminal {
    port: &'static Mutex<Option<serial::Serial>>,
    assembler: LineAssembler,
    next_poll: u64,
}

impl Terminal {
    /// The terminal on the port that the options name.
    pub fn new(console: Console) -> Self {
        let port = match console {
            Console::Com1 => {
                machine_log::send_to(log_event);
                &serial::COM1
            }
            Console::Com2 => &serial::COM2,
        };
        Self { port, assembler: LineAssembler::new(), next_poll: 0 }
    }

    /// The next command, or `None`. What cannot be read is answered here.
    pub fn poll(&mut self) -> Option<Command> {
        let now = clock::micros();
        if now < self.next_poll {
            return None;
        }
        loop {
            let Some(byte) = self.port.lock().as_mut().and_then(serial::Serial::read) else {
                self.next_poll = now + POLL_MICROS;
                return None;
            };
            match self.assembler.push(byte) {
                None => {}
                Some(Err(error)) => self.error(error.to_string(), None),
                Some(Ok(line)) => match Command::parse(&line) {
                    Ok(command) => return Some(command),
                    Err(error) => self.error(error.to_string(), Some(line)),
                },
            }
        }
    }

    /// When the port is looked at next, in TSC ticks.
    pub fn deadline(&self) -> u64 {
        clock::now() + clock::from_micros(self.next_poll.saturating_sub(clock::micros()))
    }

    /// Sends one event.
    pub fn tell(&self, what: What) {
        let line = what.at(Duration::from_micros(clock::micros())).line();
        if let Some(port) = self.port.lock().as_mut() {
            port.write(line.as_bytes());
        }
    }

    /// Sends an error event.
    pub fn error(&self, message: String, command: Option<String>) {
        log::warn!("{message}");
        self.tell(What::Error { message, command });
    }
}

fn log_event(level: Level, text: &str) -> String {
    let event = What::Log { level: level.as_str().to_ascii_lowercase(), text: text.to_string() };
    event.at(Duration::from_micros(clock::micros())).line()
}
