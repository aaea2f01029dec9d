//! What Linux 6.1 does to these devices while it boots, step by step, and what it must see; and what guests and
//! records do that mean harm ([`wild`]).

mod balloon;
mod board;
mod pic;
mod pit;
mod uart;
mod wild;

use super::*;
use alloc::vec::Vec;

/// 2026-11-24 03:14:15 UTC, a Tuesday.
const UNIX: u64 = 1_795_490_055;
const MILLISECOND: Nanos = 1_000_000;

/// A guest that does nothing but access ports.
struct Guest {
    chipset: Chipset,
    now: Nanos,
}

impl Guest {
    fn new() -> Self {
        // Guest time does not begin at 0 after a migration: no device may count on it.
        Self { chipset: Chipset::new(UNIX, 5_000), now: 5_000 }
    }

    fn inb(&mut self, port: u16) -> u8 {
        self.chipset.read_port(port, Width::Byte, self.now) as u8
    }

    fn outb(&mut self, value: u8, port: u16) -> Option<RestartCause> {
        self.chipset.write_port(port, Width::Byte, u32::from(value), self.now)
    }

    /// Lets time pass as the hypervisor does, and counts the interrupts that the guest takes and ends at once.
    fn run(&mut self, span: Nanos) -> usize {
        let end = self.now + span;
        let mut interrupts = 0;
        loop {
            let next = self.chipset.next_deadline().filter(|deadline| *deadline <= end);
            self.now = next.unwrap_or(end).max(self.now);
            self.chipset.advance(self.now);
            while let Some(vector) = self.chipset.acknowledge_interrupt() {
                interrupts += 1;
                self.end_of_interrupt(vector);
            }
            if next.is_none() {
                return interrupts;
            }
        }
    }

    fn end_of_interrupt(&mut self, vector: u8) {
        let irq = vector - 0x30;
        if irq >= 8 {
            self.outb(0x60 + (irq & 7), 0xA0);
            self.outb(0x62, 0x20);
        } else {
            self.outb(0x60 + irq, 0x20);
        }
    }

    /// `init_8259A` with normal EOI, then the mask of both controllers.
    fn init_pics(&mut self, unmasked: u16) {
        for (value, port) in [
            (0xFF, 0x21),
            (0x11, 0x20),
            (0x30, 0x21),
            (0x04, 0x21),
            (0x01, 0x21),
            (0x11, 0xA0),
            (0x38, 0xA1),
            (0x02, 0xA1),
            (0x01, 0xA1),
        ] {
            self.outb(value, port);
        }
        let [master, slave] = (!unmasked).to_le_bytes();
        self.outb(master, 0x21);
        self.outb(slave, 0xA1);
    }

    fn printed(&mut self) -> Vec<u8> {
        core::iter::from_fn(|| self.chipset.take_output()).collect()
    }
}
