//! The log: lines on COM1, through the `log` crate.

use super::{clock, serial};
use alloc::{format, string::String};
use log::{Level, LevelFilter, Log, Metadata, Record};
use spin::Mutex;

/// Turns a record into the line that goes out.
pub type Format = fn(Level, &str) -> String;

struct Com1Log {
    format: Mutex<Format>,
}

static LOG: Com1Log = Com1Log { format: Mutex::new(plain) };

/// Starts the log at `level`; later calls change the level.
pub fn init(level: LevelFilter) {
    // A second call finds the logger in place.
    let _ = log::set_logger(&LOG);
    log::set_max_level(level);
}

/// Writes lines by `format` from now on.
pub fn send_to(format: Format) {
    *LOG.format.lock() = format;
}

fn plain(level: Level, text: &str) -> String {
    let micros = clock::micros();
    let (seconds, millis) = (micros / 1_000_000, micros / 1000 % 1000);
    format!("[{seconds:6}.{millis:03}] {:5} {text}\r\n", level.as_str().to_ascii_lowercase())
}

impl Log for Com1Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let format = *self.format.lock();
        let line = format(record.level(), &format!("{}", record.args()));
        if let Some(port) = serial::COM1.lock().as_mut() {
            port.write(line.as_bytes());
        }
    }

    fn flush(&self) {}
}
