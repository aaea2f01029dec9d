//! The console: a 16550A at 0x3F8, polled.

use crate::cpu::{in8, out8};
use core::fmt;

const PORT: u16 = 0x3f8;
const LINE_STATUS: u16 = PORT + 5;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
const FIFO: usize = 16;

/// 115200 baud, 8N1, FIFOs on.
pub fn init() {
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 0x03), (2, 0x07), (4, 0x03)] {
        out8(PORT + register, value);
    }
}

/// Writes to the UART.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // An empty transmitter takes a whole FIFO: one look at the status for sixteen bytes saves VM exits.
        for portion in text.as_bytes().chunks(FIFO) {
            while in8(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
                core::hint::spin_loop();
            }
            portion.iter().for_each(|byte| out8(PORT, *byte));
        }
        Ok(())
    }
}

/// Waits until all is sent.
pub fn drain() {
    const ALL_EMPTY: u8 = 1 << 6;
    while in8(LINE_STATUS) & ALL_EMPTY == 0 {
        core::hint::spin_loop();
    }
}

/// Prints a line.
#[macro_export]
macro_rules! line {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        let mut buffered = $crate::uart::Line::default();
        let _ = writeln!(buffered, $($argument)*);
        let _ = $crate::uart::Console.write_str(buffered.text());
    }};
}

/// A line that is put together before it is sent, so that it goes out in whole FIFOs.
pub struct Line {
    bytes: [u8; 160],
    used: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 160], used: 0 }
    }
}

impl Line {
    /// What was written.
    pub fn text(&self) -> &str {
        self.bytes.get(..self.used).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or("?\n")
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // The last place is kept for the end of the line: what is too long is cut.
            let last = self.used + 1 >= self.bytes.len();
            if last && byte != b'\n' {
                continue;
            }
            if let Some(place) = self.bytes.get_mut(self.used) {
                *place = if byte.is_ascii() { byte } else { b'?' };
                self.used += 1;
            }
        }
        Ok(())
    }
}
