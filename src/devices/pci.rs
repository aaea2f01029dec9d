//! A PCI bus with two functions, by configuration mechanism 1 (PCI Local Bus Specification 3.0, section 3.2.2.3.2): a host
//! bridge without registers, which makes an operating system believe in the bus, and the balloon. Everything is left as
//! firmware would leave it: ports assigned and decoded, the interrupt line named.

use super::Width;
use super::record::Device;
use serde::{Deserialize, Serialize};

/// Address register: enable, bus, device, function and register; the rest is hard-wired to zero.
const ADDRESS: u32 = 0x80FF_FFFC;
const ENABLE: u32 = 1 << 31;
/// What is not the register: enable, bus, device, function.
const FUNCTION: u32 = 0xFFFF_FF00;
const BRIDGE: u32 = ENABLE;
const BALLOON: u32 = ENABLE | BALLOON_SLOT << 11;
/// Which device of the bus the balloon is.
pub const BALLOON_SLOT: u32 = 1;

/// Red Hat's generic host bridge, which is known for having nothing of its own.
const BRIDGE_ID: u32 = 0x0008_1B36;
const BRIDGE_CLASS: u32 = 0x0600_0000;
/// A transitional balloon, revision 0 (virtio 1.2, 4.1.2), of no class; its subsystem is the legacy device type.
const BALLOON_ID: u32 = 0x1002_1AF4;
const BALLOON_CLASS: u32 = 0xFF00_0000;
const BALLOON_SUBSYSTEM: u32 = 0x0005_1AF4;

/// Command: it decodes its ports; it may master the bus, which is not asked of it; its interrupt is off.
const DECODES: u16 = 1 << 0;
const MASTERS: u16 = 1 << 2;
const NO_INTERRUPT: u16 = 1 << 10;
const COMMAND: u16 = DECODES | MASTERS | NO_INTERRUPT;
/// Status: an interrupt waits.
const INTERRUPT_STATUS: u32 = 1 << 19;

/// Base address: of 64 ports, in the lower 64 KiB.
const BASE: u32 = 0xFFC0;
const IS_PORTS: u32 = 1;
const FIRST_BASE: u32 = 0xC000;
const PIN_A: u32 = 1 << 8;

/// The 8259A line that the balloon's interrupt pin is wired to.
pub const BALLOON_IRQ: u8 = 11;

/// The bus.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PciBus {
    /// The address register at port 0xCF8, which answers to accesses of four bytes only.
    address: u32,
    /// The balloon's registers.
    command: u16,
    base: u32,
    /// A note for the guest alone.
    line: u8,
}

impl PciBus {
    pub(super) fn new() -> Self {
        Self { address: 0, command: DECODES | MASTERS, base: FIRST_BASE, line: BALLOON_IRQ }
    }

    pub(super) fn address(&self) -> u32 {
        self.address
    }

    pub(super) fn set_address(&mut self, value: u32) {
        self.address = value & ADDRESS;
    }

    /// Reads the selected register at a port of 0xCFC..=0xCFF.
    pub(super) fn read(&self, port: u16, width: Width, interrupt: bool) -> u32 {
        let value = match self.address & FUNCTION {
            BRIDGE => bridge(self.register()),
            BALLOON => self.balloon(self.register(), interrupt),
            _ => u32::MAX,
        };
        within(port, width).map_or(width.ones(), |shift| value >> shift & width.ones())
    }

    /// Writes the selected register there.
    pub(super) fn write(&mut self, port: u16, width: Width, value: u32) {
        let Some(shift) = within(port, width).filter(|_| self.address & FUNCTION == BALLOON) else { return };
        let written = width.ones() << shift;
        let value = self.balloon(self.register(), false) & !written | value << shift & written;
        match self.register() {
            0x04 => self.command = value as u16 & COMMAND,
            0x10 => self.base = value & BASE,
            0x3C => self.line = value as u8,
            _ => {}
        }
    }

    fn register(&self) -> u32 {
        self.address & !FUNCTION
    }

    fn balloon(&self, register: u32, interrupt: bool) -> u32 {
        match register {
            0x00 => BALLOON_ID,
            0x04 => u32::from(self.command) | if interrupt { INTERRUPT_STATUS } else { 0 },
            0x08 => BALLOON_CLASS,
            0x10 => self.base | IS_PORTS,
            0x2C => BALLOON_SUBSYSTEM,
            0x3C => PIN_A | u32::from(self.line),
            _ => 0,
        }
    }

    /// The register of the balloon at a port.
    pub(super) fn balloon_register(&self, port: u16) -> Option<u16> {
        // A base of 0 is one that nobody has assigned.
        let decoded = self.base != 0 && self.command & DECODES != 0 && u32::from(port) & BASE == self.base;
        decoded.then_some(port & !BASE as u16)
    }

    /// The level that the balloon's interrupt has on the line.
    pub(super) fn passes(&self, interrupt: bool) -> bool {
        interrupt && self.command & NO_INTERRUPT == 0
    }
}

fn bridge(register: u32) -> u32 {
    match register {
        0x00 => BRIDGE_ID,
        0x08 => BRIDGE_CLASS,
        _ => 0,
    }
}

/// Where an access lies in the register, in bits; none if it does not lie in it whole.
fn within(port: u16, width: Width) -> Option<u32> {
    let byte = port & 3;
    (byte + width.bytes() <= 4).then_some(u32::from(byte) * 8)
}

impl Device for PciBus {
    const NAME: &'static str = "PCI bus";
    const VERSION: u16 = 1;

    fn accept(&mut self) -> Result<(), &'static str> {
        if self.address & !ADDRESS != 0 {
            return Err("address");
        }
        if self.command & !COMMAND != 0 {
            return Err("command");
        }
        if self.base & !BASE != 0 {
            return Err("base");
        }
        Ok(())
    }
}
