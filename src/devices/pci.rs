//! PCI configuration mechanism 1 (PCI Local Bus Specification 3.0, section 3.2.2.3.2) with an empty bus: the
//! address register reads back, every configuration read gives all ones. Linux finds the mechanism, finds no
//! bridge behind it, and goes on without PCI.

use super::record::Device;
use serde::{Deserialize, Serialize};

/// Enable, bus, device, function and register; the rest is hard-wired to zero.
const WRITABLE: u32 = 0x80FF_FFFC;

/// The address register at port 0xCF8, which answers to accesses of four bytes only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PciAddress {
    value: u32,
}

impl PciAddress {
    pub(super) fn new() -> Self {
        Self { value: 0 }
    }

    pub(super) fn read(&self) -> u32 {
        self.value
    }

    pub(super) fn write(&mut self, value: u32) {
        self.value = value & WRITABLE;
    }
}

impl Device for PciAddress {
    const NAME: &'static str = "PCI address register";
    const VERSION: u16 = 1;

    fn accept(&mut self) -> Result<(), &'static str> {
        if self.value & !WRITABLE != 0 {
            return Err("value");
        }
        Ok(())
    }
}
