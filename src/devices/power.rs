//! The fixed hardware of ACPI (ACPI 6.5, 4.8.3) that a guest is told of: the PM1 registers, always in ACPI mode, and the
//! reset register. There are no buttons, no wake events and no timer, so the status bits never rise.

use super::record::Device;
use serde::{Deserialize, Serialize};

/// The PM1a event block: two bytes of status, two of enables.
pub const EVENT_BLOCK: u16 = 0x600;
/// Its length.
pub const EVENT_LENGTH: u16 = 4;
/// The PM1a control block.
pub const CONTROL_BLOCK: u16 = 0x604;
/// Its length.
pub const CONTROL_LENGTH: u16 = 2;
/// The reset register, one byte.
pub const RESET_REGISTER: u16 = 0x608;
/// What is to be written to it.
pub const RESET_VALUE: u8 = 1;
/// The interrupt that ACPI events would come with.
pub const SCI: u16 = 9;

/// PM1 enables: timer, global lock, power button, sleep button, clock.
const ENABLES: u16 = 1 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 10;
/// PM1 control: the machine is in ACPI mode.
const SCI_ENABLE: u8 = 1;

/// The registers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Power {
    enables: u16,
}

impl Power {
    pub(super) fn new() -> Self {
        Self { enables: 0 }
    }

    /// A byte of the blocks; `None` if the port is none of theirs.
    pub(super) fn read(&self, port: u16) -> Option<u8> {
        let [low, high] = self.enables.to_le_bytes();
        Some(match port.checked_sub(EVENT_BLOCK)? {
            0 | 1 => 0,
            2 => low,
            3 => high,
            4 => SCI_ENABLE,
            5 | 8 => 0,
            _ => return None,
        })
    }

    /// A write of a byte; true if the machine is reset.
    pub(super) fn write(&mut self, port: u16, value: u8) -> bool {
        let [low, high] = self.enables.to_le_bytes();
        match port {
            0x602 => self.enables = u16::from_le_bytes([value, high]) & ENABLES,
            0x603 => self.enables = u16::from_le_bytes([low, value]) & ENABLES,
            RESET_REGISTER => return value == RESET_VALUE,
            _ => {}
        }
        false
    }
}

impl Device for Power {
    const NAME: &'static str = "ACPI registers";
    const VERSION: u16 = 1;

    fn accept(&mut self) -> Result<(), &'static str> {
        if self.enables & !ENABLES != 0 {
            return Err("enables");
        }
        Ok(())
    }
}
