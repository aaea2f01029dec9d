//! The 16550A UART (National Semiconductor PC16550D datasheet).
//!
//! Sending takes no time: the transmitter is empty again as soon as a byte is written. Bytes wait in a bounded
//! buffer for the hypervisor; when it is full, *new* bytes are dropped and counted, so a guest that prints faster
//! than it is drained loses the end of a burst, never costs memory, and never stalls.
//!
//! Input waits in a queue whose first 16 bytes are the receive FIFO; the rest is a sender that respects flow
//! control, so typed text never overruns. The interrupt is not gated by OUT2, as in other hypervisors.

use super::record::Device;
use alloc::collections::VecDeque;
use serde::{Deserialize, Serialize};

/// How many bytes of output wait for the hypervisor at most.
pub const OUTPUT_CAPACITY: usize = 64 * 1024;
/// How many typed bytes wait for the guest at most.
pub const INPUT_CAPACITY: usize = 4096;

const FIFO_DEPTH: usize = 16;

const IER_RECEIVED: u8 = 1 << 0;
const IER_TRANSMITTER_EMPTY: u8 = 1 << 1;
const IER_LINE_STATUS: u8 = 1 << 2;
const IER_MODEM_STATUS: u8 = 1 << 3;
const IER_WRITABLE: u8 = 0x0F;

const IIR_MODEM_STATUS: u8 = 0x00;
const IIR_NONE: u8 = 0x01;
const IIR_TRANSMITTER_EMPTY: u8 = 0x02;
const IIR_RECEIVED: u8 = 0x04;
const IIR_LINE_STATUS: u8 = 0x06;
const IIR_CHARACTER_TIMEOUT: u8 = 0x0C;
const IIR_FIFO_ENABLED: u8 = 0xC0;

const FCR_ENABLE: u8 = 1 << 0;
const FCR_CLEAR_RECEIVER: u8 = 1 << 1;

const LCR_DLAB: u8 = 1 << 7;

const MCR_LOOPBACK: u8 = 1 << 4;
const MCR_WRITABLE: u8 = 0x1F;

const LSR_DATA_READY: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
const LSR_TRANSMITTER_EMPTY: u8 = 0x60;

const MSR_RING: u8 = 1 << 6;
/// CTS, DSR and DCD: somebody listens at the other end.
const MSR_CONNECTED: u8 = 0xB0;
const MSR_RING_ENDED: u8 = 1 << 2;

/// One serial port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Uart {
    interrupt_enable: u8,
    line_control: u8,
    modem_control: u8,
    /// Which modem lines changed since the last read of MSR (its low four bits).
    modem_changes: u8,
    scratch: u8,
    divisor: [u8; 2],
    fifo_enabled: bool,
    /// How many bytes raise "received data" rather than "character timeout".
    trigger: u8,
    overrun: bool,
    /// The "transmitter empty" interrupt is armed: set by a write of THR or by enabling it, cleared when IIR shows it.
    transmitter_empty: bool,
    received: VecDeque<u8>,
    output: VecDeque<u8>,
    dropped: u64,
}

impl Uart {
    pub(super) fn new() -> Self {
        Self {
            interrupt_enable: 0,
            line_control: 0,
            modem_control: 0,
            modem_changes: 0,
            scratch: 0,
            divisor: [1, 0],
            fifo_enabled: false,
            trigger: 1,
            overrun: false,
            transmitter_empty: false,
            received: VecDeque::new(),
            output: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Power-on state; output that nobody has taken yet is kept.
    pub(super) fn reset(&mut self) {
        let output = core::mem::take(&mut self.output);
        *self = Self { output, dropped: self.dropped, ..Self::new() };
    }

    /// The level of the interrupt line.
    pub(super) fn interrupt(&self) -> bool {
        self.cause() != IIR_NONE
    }

    pub(super) fn take_output(&mut self) -> Option<u8> {
        self.output.pop_front()
    }

    /// How many bytes of output were dropped because nobody took them.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Types on the other end of the line; says how many bytes were taken. In loopback the line is cut.
    pub(super) fn type_input(&mut self, bytes: &[u8]) -> usize {
        if self.modem_control & MCR_LOOPBACK != 0 {
            return 0;
        }
        let room = INPUT_CAPACITY.saturating_sub(self.received.len());
        let before = self.received.len();
        self.received.extend(bytes.iter().take(room));
        self.received.len() - before
    }

    pub(super) fn read(&mut self, register: u16) -> u8 {
        let dlab = self.line_control & LCR_DLAB != 0;
        match register {
            0 if dlab => self.divisor[0],
            0 => self.received.pop_front().unwrap_or(0),
            1 if dlab => self.divisor[1],
            1 => self.interrupt_enable,
            2 => self.read_identification(),
            3 => self.line_control,
            4 => self.modem_control,
            5 => self.read_line_status(),
            6 => self.read_modem_status(),
            7 => self.scratch,
            _ => 0xFF,
        }
    }

    pub(super) fn write(&mut self, register: u16, value: u8) {
        let dlab = self.line_control & LCR_DLAB != 0;
        match register {
            0 if dlab => self.divisor[0] = value,
            0 => self.transmit(value),
            1 if dlab => self.divisor[1] = value,
            1 => self.enable_interrupts(value),
            2 => self.control_fifo(value),
            3 => self.line_control = value,
            4 => self.control_modem(value),
            7 => self.scratch = value,
            _ => {} // LSR and MSR are read-only
        }
    }

    /// The highest of the pending causes (PC16550D, table IV).
    fn cause(&self) -> u8 {
        let enabled = |bit| self.interrupt_enable & bit != 0;
        if enabled(IER_LINE_STATUS) && self.overrun {
            IIR_LINE_STATUS
        } else if enabled(IER_RECEIVED) && !self.received.is_empty() {
            // The timeout of four character times is over at once: no time passes on this line.
            let below_trigger = self.fifo_enabled && self.received.len() < usize::from(self.trigger);
            if below_trigger { IIR_CHARACTER_TIMEOUT } else { IIR_RECEIVED }
        } else if enabled(IER_TRANSMITTER_EMPTY) && self.transmitter_empty {
            IIR_TRANSMITTER_EMPTY
        } else if enabled(IER_MODEM_STATUS) && self.modem_changes != 0 {
            IIR_MODEM_STATUS
        } else {
            IIR_NONE
        }
    }

    fn read_identification(&mut self) -> u8 {
        let cause = self.cause();
        if cause == IIR_TRANSMITTER_EMPTY {
            self.transmitter_empty = false;
        }
        cause | if self.fifo_enabled { IIR_FIFO_ENABLED } else { 0 }
    }

    fn read_line_status(&mut self) -> u8 {
        let ready = if self.received.is_empty() { 0 } else { LSR_DATA_READY };
        let overrun = if core::mem::take(&mut self.overrun) { LSR_OVERRUN } else { 0 };
        LSR_TRANSMITTER_EMPTY | ready | overrun
    }

    fn read_modem_status(&mut self) -> u8 {
        self.modem_lines() | core::mem::take(&mut self.modem_changes)
    }

    fn transmit(&mut self, value: u8) {
        self.transmitter_empty = true;
        if self.modem_control & MCR_LOOPBACK != 0 {
            let depth = if self.fifo_enabled { FIFO_DEPTH } else { 1 };
            if self.received.len() < depth {
                self.received.push_back(value);
            } else {
                self.overrun = true;
            }
        } else if self.output.len() < OUTPUT_CAPACITY {
            self.output.push_back(value);
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    fn enable_interrupts(&mut self, value: u8) {
        // Enabling "transmitter empty" while it is empty raises it: Linux starts sending by this, and calls a UART
        // that does not do it broken (UART_BUG_TXEN).
        if value & !self.interrupt_enable & IER_TRANSMITTER_EMPTY != 0 {
            self.transmitter_empty = true;
        }
        self.interrupt_enable = value & IER_WRITABLE;
    }

    fn control_fifo(&mut self, value: u8) {
        let enable = value & FCR_ENABLE != 0;
        if enable != self.fifo_enabled || (enable && value & FCR_CLEAR_RECEIVER != 0) {
            let depth = self.received.len().min(FIFO_DEPTH);
            self.received.drain(..depth);
        }
        self.fifo_enabled = enable;
        self.trigger = match value >> 6 {
            0 => 1,
            1 => 4,
            2 => 8,
            _ => 14,
        };
    }

    fn control_modem(&mut self, value: u8) {
        let before = self.modem_lines();
        self.modem_control = value & MCR_WRITABLE;
        let after = self.modem_lines();
        let ring_ended = if before & !after & MSR_RING != 0 { MSR_RING_ENDED } else { 0 };
        self.modem_changes |= ((before ^ after) & !MSR_RING) >> 4 | ring_ended;
    }

    /// The high half of MSR. In loopback the outputs come back: RTS as CTS, DTR as DSR, OUT1 as RI, OUT2 as DCD.
    fn modem_lines(&self) -> u8 {
        let control = self.modem_control;
        if control & MCR_LOOPBACK == 0 {
            return MSR_CONNECTED;
        }
        ((control & 0b0010) << 3) | ((control & 0b0001) << 5) | ((control & 0b1100) << 4)
    }
}

impl Device for Uart {
    const NAME: &'static str = "UART";
    const VERSION: u16 = 1;

    fn accept(&mut self) -> Result<(), &'static str> {
        if self.interrupt_enable & !IER_WRITABLE != 0 {
            return Err("interrupt_enable");
        }
        if self.modem_control & !MCR_WRITABLE != 0 {
            return Err("modem_control");
        }
        if self.modem_changes > 0x0F {
            return Err("modem_changes");
        }
        if !matches!(self.trigger, 1 | 4 | 8 | 14) {
            return Err("trigger");
        }
        if self.received.len() > INPUT_CAPACITY {
            return Err("received");
        }
        if self.output.len() > OUTPUT_CAPACITY {
            return Err("output");
        }
        Ok(())
    }
}
