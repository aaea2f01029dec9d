//! The two 8259A interrupt controllers of a PC (Intel 8259A datasheet), the second behind IR2 of the first.
//!
//! A request in edge mode lasts from the rising edge until it is acknowledged or the line falls. Asking for a
//! request and acknowledging it are one step here, so the spurious vectors (IRQ 7 and 15) of a request that falls
//! in between are only given to a caller that acknowledges what it was never offered.

use super::pci::BALLOON_IRQ;
use super::record::Device;
use serde::{Deserialize, Serialize};

/// The input of the first controller that the second one drives.
const CASCADE: u8 = 1 << 2;
/// IRQ 0, 1 and 2 are edge-triggered on every PC; so are 8 and 13.
const MASTER_ELCR: u8 = 0xF8;
const SLAVE_ELCR: u8 = 0xDE;
/// The line whose vector a spurious interrupt gets.
const SPURIOUS: u8 = 7;

/// Which initialization word comes next on the odd port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Init {
    Done,
    Icw2,
    Icw3,
    Icw4,
}

/// One 8259A.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Chip {
    /// The level of each input.
    lines: u8,
    /// Inputs that have risen and were not acknowledged since.
    risen: u8,
    in_service: u8,
    mask: u8,
    /// Inputs that are level-triggered by the ELCR.
    elcr: u8,
    vector_base: u8,
    /// The input of the lowest priority; the next one up, modulo 8, has the highest.
    lowest: u8,
    init: Init,
    icw4_follows: bool,
    single: bool,
    level_triggered: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_mask: bool,
    special_fully_nested: bool,
    read_in_service: bool,
    poll: bool,
}

impl Chip {
    fn new() -> Self {
        Self {
            lines: 0,
            risen: 0,
            in_service: 0,
            // All masked until a guest initializes it: there is no firmware to do it.
            mask: 0xFF,
            elcr: 0,
            vector_base: 0,
            lowest: 7,
            init: Init::Done,
            icw4_follows: false,
            single: false,
            level_triggered: false,
            auto_eoi: false,
            rotate_on_auto_eoi: false,
            special_mask: false,
            special_fully_nested: false,
            read_in_service: false,
            poll: false,
        }
    }

    fn set_line(&mut self, bit: u8, level: bool) {
        if level {
            self.risen |= bit & !self.lines;
            self.lines |= bit;
        } else {
            self.lines &= !bit;
            self.risen &= !bit;
        }
    }

    /// IRR. `cascade` is the input that another 8259A drives: its INT output is a level, held for as long as it has
    /// a request of its own.
    fn requests(&self, cascade: u8) -> u8 {
        let level = if self.level_triggered { 0xFF } else { self.elcr | cascade };
        self.lines & (self.risen | level)
    }

    /// Rank of the highest of `inputs`: 0 is the highest, 8 stands for none.
    fn rank(&self, inputs: u8) -> u32 {
        inputs.rotate_right(u32::from(self.lowest) + 1).trailing_zeros()
    }

    /// The highest of `inputs`, as a bit.
    fn highest(&self, inputs: u8) -> u8 {
        let turn = u32::from(self.lowest) + 1;
        let turned = inputs.rotate_right(turn);
        (turned & turned.wrapping_neg()).rotate_left(turn)
    }

    /// The input that INT is raised for, as a bit; 0 for none.
    fn pending(&self, cascade: u8) -> u8 {
        let requests = self.requests(cascade) & !self.mask;
        if requests == 0 || self.init != Init::Done {
            return 0;
        }
        let mut blocking = self.in_service;
        if self.special_mask {
            blocking &= !self.mask;
        }
        if self.special_fully_nested {
            // The second controller orders its own requests; one in service there does not hold back a higher one.
            blocking &= !cascade;
        }
        if self.rank(requests) < self.rank(blocking) { self.highest(requests) } else { 0 }
    }

    /// The interrupt-acknowledge cycle: the input that is served from now on.
    fn acknowledge(&mut self, cascade: u8) -> Option<u8> {
        let bit = self.pending(cascade);
        if bit == 0 {
            return None;
        }
        self.risen &= !bit;
        if !self.auto_eoi {
            self.in_service |= bit;
        } else if self.rotate_on_auto_eoi {
            self.lowest = line_of(bit);
        }
        Some(line_of(bit))
    }

    fn vector(&self, line: u8) -> u8 {
        self.vector_base | (line & 7)
    }

    /// Reads the even port: IRR or ISR, or the answer to a poll command.
    fn read_command(&mut self, cascade: u8) -> u8 {
        if core::mem::take(&mut self.poll) {
            return self.acknowledge(cascade).map_or(0, |line| 0x80 | line);
        }
        if self.read_in_service { self.in_service } else { self.requests(cascade) }
    }

    fn write_command(&mut self, value: u8) {
        if value & 0x10 != 0 {
            self.start_initialization(value);
        } else if value & 0x08 != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
    }

    /// ICW1. The edge detectors are reset too: a line that is high must rise again.
    fn start_initialization(&mut self, value: u8) {
        *self = Self {
            lines: self.lines,
            elcr: self.elcr,
            vector_base: self.vector_base,
            mask: 0,
            init: Init::Icw2,
            icw4_follows: value & 0x01 != 0,
            single: value & 0x02 != 0,
            level_triggered: value & 0x08 != 0,
            ..Self::new()
        };
    }

    /// End of interrupt and priority rotation.
    fn write_ocw2(&mut self, value: u8) {
        let named = 1u8 << (value & 7);
        let highest = self.highest(self.in_service);
        match value >> 5 {
            0b000 => self.rotate_on_auto_eoi = false,
            0b100 => self.rotate_on_auto_eoi = true,
            0b001 => self.in_service &= !highest,
            0b011 => self.in_service &= !named,
            0b101 if highest != 0 => {
                self.in_service &= !highest;
                self.lowest = line_of(highest);
            }
            0b111 => {
                self.in_service &= !named;
                self.lowest = value & 7;
            }
            0b110 => self.lowest = value & 7,
            _ => {} // 010 is no operation
        }
    }

    /// Special mask mode, poll, and which register the even port reads.
    fn write_ocw3(&mut self, value: u8) {
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
        self.poll = value & 0x04 != 0;
        if value & 0x02 != 0 {
            self.read_in_service = value & 0x01 != 0;
        }
    }

    /// Writes the odd port: the mask, or the initialization word that is due.
    fn write_data(&mut self, value: u8) {
        let after_icw3 = if self.icw4_follows { Init::Icw4 } else { Init::Done };
        match self.init {
            Init::Done => self.mask = value,
            Init::Icw2 => {
                self.vector_base = value & 0xF8;
                self.init = if self.single { after_icw3 } else { Init::Icw3 };
            }
            // The wiring is fixed: nothing to learn from ICW3.
            Init::Icw3 => self.init = after_icw3,
            Init::Icw4 => {
                self.special_fully_nested = value & 0x10 != 0;
                self.auto_eoi = value & 0x02 != 0;
                self.init = Init::Done;
            }
        }
    }

    fn accept(&self, elcr_writable: u8) -> Result<(), &'static str> {
        if self.lowest > 7 {
            return Err("lowest");
        }
        if self.vector_base & 7 != 0 {
            return Err("vector_base");
        }
        if self.elcr & !elcr_writable != 0 {
            return Err("elcr");
        }
        if self.risen & !self.lines != 0 {
            return Err("risen");
        }
        Ok(())
    }
}

/// The number of an input that is given as a bit.
fn line_of(bit: u8) -> u8 {
    // At most 8, and 8 only for no bit at all.
    (bit.trailing_zeros() & 7) as u8
}

/// Both controllers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PicPair {
    master: Chip,
    slave: Chip,
}

impl PicPair {
    pub(super) fn new() -> Self {
        // The balloon's interrupt is a level, as a PCI bus has them: firmware would say so here.
        let slave = Chip { elcr: 1 << (BALLOON_IRQ & 7), ..Chip::new() };
        Self { master: Chip::new(), slave }
    }

    /// Sets the level of an interrupt line of the PC, 0..=15 but 2.
    pub(super) fn set_line(&mut self, irq: u8, level: bool) {
        let bit = 1u8 << (irq & 7);
        if irq < 8 {
            self.master.set_line(bit, level);
        } else {
            self.slave.set_line(bit, level);
            self.cascade();
        }
    }

    /// A new rising edge on a line, whatever its level was.
    pub(super) fn pulse(&mut self, irq: u8) {
        self.set_line(irq, false);
        self.set_line(irq, true);
    }

    /// INT to the CPU.
    pub(super) fn pending(&self) -> bool {
        self.master.pending(CASCADE) != 0
    }

    /// The acknowledge cycle of the CPU: the vector to deliver. Without a request it is the spurious one.
    pub(super) fn acknowledge(&mut self) -> u8 {
        let vector = match self.master.acknowledge(CASCADE) {
            Some(2) => {
                let line = self.slave.acknowledge(0).unwrap_or(SPURIOUS);
                self.slave.vector(line)
            }
            Some(line) => self.master.vector(line),
            None => self.master.vector(SPURIOUS),
        };
        self.cascade();
        vector
    }

    pub(super) fn read(&mut self, port: u16) -> u8 {
        let value = match port {
            0x20 => self.master.read_command(CASCADE),
            0x21 => self.master.mask,
            0xA0 => self.slave.read_command(0),
            0xA1 => self.slave.mask,
            0x4D0 => self.master.elcr,
            0x4D1 => self.slave.elcr,
            _ => 0xFF,
        };
        self.cascade();
        value
    }

    pub(super) fn write(&mut self, port: u16, value: u8) {
        match port {
            0x20 => self.master.write_command(value),
            0x21 => self.master.write_data(value),
            0xA0 => self.slave.write_command(value),
            0xA1 => self.slave.write_data(value),
            0x4D0 => self.master.elcr = value & MASTER_ELCR,
            0x4D1 => self.slave.elcr = value & SLAVE_ELCR,
            _ => {}
        }
        self.cascade();
    }

    /// The INT output of the second controller is an input of the first.
    fn cascade(&mut self) {
        let level = self.slave.pending(0) != 0;
        self.master.set_line(CASCADE, level);
    }
}

impl Device for PicPair {
    const NAME: &'static str = "interrupt controllers";
    const VERSION: u16 = 1;

    fn accept(&mut self) -> Result<(), &'static str> {
        self.master.accept(MASTER_ELCR)?;
        self.slave.accept(SLAVE_ELCR)?;
        self.cascade();
        Ok(())
    }
}
