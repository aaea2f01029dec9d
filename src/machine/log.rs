//! The log: lines on COM1, through the `log` crate.

use super::{clock, serial};
use alloc::{format, string::String};
use log::{LevelFilter, Log, Metadata, Record};

struct Com1Log;

static LOG: Com1Log = Com1Log;

/// Starts the log at `level`.
pub fn init(level: LevelFilter) {
    // A second call finds the logger in place; only the level changes then.
    let _ = log::set_logger(&LOG);
    log::set_max_level(level);
}

impl Log for Com1Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let micros = clock::micros();
        let line: String = format!(
            "[{:6}.{:03}] {:5} {}\r\n",
            micros / 1_000_000,
            micros / 1000 % 1000,
            record.level().as_str().to_ascii_lowercase(),
            record.args()
        );
        if let Some(port) = serial::COM1.lock().as_mut() {
            port.write(line.as_bytes());
        }
    }

    fn flush(&self) {}
}
