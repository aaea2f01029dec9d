//! What a guest sees beside its CPU and memory: a small PC without I/O APIC. It has a local APIC in x2APIC mode, two 8259A
//! interrupt controllers, an 8254 timer, one 16550A UART, an MC146818 clock, ACPI's fixed registers, the reset ports, a
//! PCI bus with a virtio balloon, and the traces of a keyboard controller that Linux looks at before it gives up on it.
//! All of it is reached through ports and MSRs: no instruction has to be decoded.
//!
//! [`Chipset`] is one VM's set. Each device is a type in its own file that saves and restores itself with its own
//! versioned record ([`record`]). Time is guest time in nanoseconds, handed in with each call; nothing here reads
//! a clock, so a migration carries on where it stopped, and tests are exact.
//!
//! Everything that a guest or a record says is a claim. No index, shift or length comes from one unchecked.

mod apic;
mod balloon;
mod chipset;
mod cmos;
mod keyboard;
mod pci;
mod pic;
mod pit;
mod ports;
pub mod power;
pub mod record;
mod reset;
mod uart;
mod virtqueue;

#[cfg(test)]
mod tests;

pub use balloon::Served;
pub use chipset::Chipset;
pub use pci::{BALLOON_IRQ, BALLOON_SLOT};
pub use ports::UnknownPorts;
pub use record::RestoreError;
pub use uart::{INPUT_CAPACITY, OUTPUT_CAPACITY};
pub use virtqueue::{GuestRam, Unreachable};

use core::fmt;

/// A moment of guest time, or a span of it, in nanoseconds. It continues over a migration.
pub type Nanos = u64;

/// Nanoseconds in a second.
pub(crate) const SECOND: Nanos = 1_000_000_000;

/// The size of a port access, as the exit qualification gives it (SDM 3C, table "Exit Qualification for I/O").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// IN/OUT with AL.
    Byte,
    /// IN/OUT with AX.
    Word,
    /// IN/OUT with EAX.
    Dword,
}

impl Width {
    /// The width of so many bytes; `None` for what no IN or OUT can move.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            _ => None,
        }
    }

    /// How many bytes are moved.
    pub fn bytes(self) -> u16 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }

    /// All ones in this width: what a port reads when nothing answers.
    pub fn ones(self) -> u32 {
        match self {
            Self::Byte => 0xFF,
            Self::Word => 0xFFFF,
            Self::Dword => 0xFFFF_FFFF,
        }
    }
}

/// Why a guest's OS restarted, in the words of the monitor's `restart` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartCause {
    /// The CPU shut down after a fault in delivering a double fault, with an IDT that has no gate: the guest asked for
    /// it, as Linux's `reboot=t` does.
    TripleFault,
    /// The same with an IDT that has gates: the guest could not handle its own fault.
    Crash,
    /// The reset control register of the chipset.
    Port0xCF9,
    /// The keyboard controller pulsed the reset line (command 0xFE), or port 0x92 did so in its place.
    I8042Pulse,
    /// The reset register that the ACPI FADT names.
    AcpiReset,
}

impl RestartCause {
    /// The words of the `restart` event.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::TripleFault | Self::Crash => "triple fault",
            Self::Port0xCF9 => "port 0xCF9",
            Self::I8042Pulse => "8042 pulse",
            Self::AcpiReset => "ACPI reset",
        }
    }
}

impl fmt::Display for RestartCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
