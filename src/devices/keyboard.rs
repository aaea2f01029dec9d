//! The keyboard controller (8042) that is not there, and the two ways in which it resets the machine.
//!
//! Linux flushes the controller's output buffer and gives up when it never empties ("No controller found"): the
//! constant status has OBF set. Before it pulses the reset line it waits for IBF to clear (`kb_wait`): IBF is
//! clear, so that wait costs one read.

use super::record::Device;
use serde::{Deserialize, Serialize};

/// Unlocked, last write was a command, self-test passed, output buffer full, input buffer empty.
const STATUS: u8 = 0b0001_1101;
/// Port 0x92 bit 0: a rising edge resets the machine.
const FAST_RESET: u8 = 1 << 0;
/// Port 0x92 bit 1: the A20 gate. It reads back; addresses never wrap here.
const A20: u8 = 1 << 1;

/// What is left of the keyboard controller: port 0x92 ("system control port A").
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Keyboard {
    control_a: u8,
}

impl Keyboard {
    pub(super) fn new() -> Self {
        Self { control_a: A20 }
    }

    /// Port 0x64.
    pub(super) fn status(&self) -> u8 {
        STATUS
    }

    /// Port 0x60: what the full output buffer holds.
    pub(super) fn data(&self) -> u8 {
        0
    }

    /// A write to port 0x64. Commands 0xF0..=0xFF pulse the output lines whose bit is 0; bit 0 is the reset line.
    /// True if the machine is reset.
    pub(super) fn command(&self, value: u8) -> bool {
        value & 0xF1 == 0xF0
    }

    /// Port 0x92.
    pub(super) fn control_a(&self) -> u8 {
        self.control_a
    }

    /// A write to port 0x92; true if the machine is reset.
    pub(super) fn set_control_a(&mut self, value: u8) -> bool {
        let rising = value & !self.control_a;
        self.control_a = value & (FAST_RESET | A20);
        rising & FAST_RESET != 0
    }
}

impl Device for Keyboard {
    const NAME: &'static str = "keyboard controller";
    const VERSION: u16 = 1;

    fn accept(&mut self) -> Result<(), &'static str> {
        if self.control_a & !(FAST_RESET | A20) != 0 {
            return Err("control_a");
        }
        Ok(())
    }
}
