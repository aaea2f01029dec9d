//! The monitor's port: command lines in, event lines out, and the log's events where both share a port.

use crate::{
    machine::{clock, console::VirtioConsole, log as machine_log, serial},
    monitor::{command::Command, event::What, line::LineAssembler, options::Console},
};
use alloc::{
    boxed::Box,
    collections::VecDeque,
    string::{String, ToString},
};
use core::time::Duration;
use log::Level;
use spin::Mutex;

/// How often the port is looked at: each look is an exit on an emulated machine, and people type slowly.
const POLL_MICROS: u64 = 50_000;
/// Output that may wait. What does not fit any more is waited for.
const MOST_QUEUED: usize = 64 << 10;
/// Harvests that are told as they come may fill the queue only so far: it is there for what must not be lost, and on a
/// serial port this much is a second and a half.
const MOST_HARVESTS: usize = 16 << 10;
/// While output waits, the port is tried so often, in microseconds: 16 bytes at 115,200 baud.
const SEND_MICROS: u64 = 1400;

/// What the monitor is spoken on.
enum Port {
    Serial(&'static Mutex<Option<serial::Serial>>),
    Virtio(Box<VirtioConsole>),
}

impl Port {
    /// Sends what can be sent at once, and says how much.
    fn send(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Serial(port) => port.lock().as_mut().map_or(bytes.len(), |port| port.try_write(bytes)),
            Self::Virtio(console) => {
                console.write(bytes);
                bytes.len()
            }
        }
    }

    /// Sends everything.
    fn flush(&mut self, bytes: &[u8]) {
        match self {
            Self::Serial(port) => {
                if let Some(port) = port.lock().as_mut() {
                    port.write(bytes);
                }
            }
            Self::Virtio(console) => console.write(bytes),
        }
    }

    fn read(&mut self) -> Option<u8> {
        match self {
            Self::Serial(port) => port.lock().as_mut().and_then(serial::Serial::read),
            Self::Virtio(console) => console.read(),
        }
    }
}

/// The port.
pub struct Terminal {
    port: Port,
    assembler: LineAssembler,
    queue: VecDeque<u8>,
    next_poll: u64,
}

impl Terminal {
    /// The terminal on the port that the options name.
    ///
    /// # Errors
    /// When the virtio console cannot be used.
    pub fn new(console: Console) -> Result<Self, &'static str> {
        let port = match console {
            Console::Com1 => {
                machine_log::send_to(log_event);
                Port::Serial(&serial::COM1)
            }
            Console::Com2 => Port::Serial(&serial::COM2),
            Console::Virtio => Port::Virtio(Box::new(VirtioConsole::open()?)),
        };
        Ok(Self { port, assembler: LineAssembler::new(), queue: VecDeque::new(), next_poll: 0 })
    }

    /// The next command, or `None`. What cannot be read is answered here.
    pub fn poll(&mut self) -> Option<Command> {
        let now = clock::micros();
        if now < self.next_poll {
            return None;
        }
        loop {
            let Some(byte) = self.port.read() else {
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
    pub fn next_poll(&self) -> u64 {
        clock::now() + clock::from_micros(self.next_poll.saturating_sub(clock::micros()))
    }

    /// When [`Terminal::send`] is to be called again, in TSC ticks, if output waits.
    pub fn deadline(&self) -> Option<u64> {
        (!self.queue.is_empty()).then(|| clock::now() + clock::from_micros(SEND_MICROS))
    }

    /// Sends what the port takes at once.
    pub fn send(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let sent = self.port.send(self.queue.make_contiguous());
        self.queue.drain(..sent);
    }

    /// Sends everything, waiting for the port.
    pub fn flush(&mut self) {
        self.port.flush(self.queue.make_contiguous());
        self.queue.clear();
    }

    /// Whether what a guest prints may be queued: it must not fill what the host's own events need.
    pub fn has_room(&self) -> bool {
        self.queue.len() < MOST_QUEUED / 2
    }

    /// Queues one event.
    pub fn tell(&mut self, what: What) {
        let line = what.at(Duration::from_micros(clock::micros())).line();
        if self.queue.len() + line.len() > MOST_QUEUED {
            self.flush();
        }
        self.queue.extend(line.bytes());
        self.send();
    }

    /// Bytes that harvests may still take in the queue.
    pub fn room_for_harvests(&self) -> usize {
        MOST_HARVESTS.saturating_sub(self.queue.len())
    }

    /// Queues an error event.
    pub fn error(&mut self, message: String, command: Option<String>) {
        log::warn!("{message}");
        self.tell(What::Error { message, command });
    }
}

fn log_event(level: Level, text: &str) -> String {
    let event = What::Log { level: level.as_str().to_ascii_lowercase(), text: text.to_string() };
    event.at(Duration::from_micros(clock::micros())).line()
}
