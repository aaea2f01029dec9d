//! The reset control register at port 0xCF9 (Intel ICH/PCH datasheets, "RST_CNT"). It shares its number with the
//! second byte of the PCI address register; only accesses of one byte reach it.

use super::record::Device;
use serde::{Deserialize, Serialize};

/// Bit 1 picks a hard reset, bit 3 a power cycle. Both end the guest's OS, so neither is told apart.
const SYSTEM_RESET: u8 = 1 << 1;
const FULL_RESET: u8 = 1 << 3;
/// Bit 2: a rising edge resets the machine.
const RESET_CPU: u8 = 1 << 2;
const WRITABLE: u8 = SYSTEM_RESET | RESET_CPU | FULL_RESET;

/// The register.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ResetControl {
    value: u8,
}

impl ResetControl {
    pub(super) fn new() -> Self {
        Self { value: 0 }
    }

    pub(super) fn read(&self) -> u8 {
        self.value
    }

    /// True if the machine is reset.
    pub(super) fn write(&mut self, value: u8) -> bool {
        let rising = value & !self.value;
        self.value = value & WRITABLE;
        rising & RESET_CPU != 0
    }
}

impl Device for ResetControl {
    const NAME: &'static str = "reset control";
    const VERSION: u16 = 1;

    fn accept(&mut self) -> Result<(), &'static str> {
        if self.value & !WRITABLE != 0 {
            return Err("value");
        }
        Ok(())
    }
}
