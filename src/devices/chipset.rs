//! One VM's devices, and which port and interrupt line belongs to which of them.

use super::apic::LocalApic;
use super::balloon::{Balloon, Served};
use super::cmos::Cmos;
use super::keyboard::Keyboard;
use super::pci::{BALLOON_IRQ, PciBus};
use super::pic::PicPair;
use super::pit::{Irq0, Pit};
use super::ports::UnknownPorts;
use super::power::{self, Power};
use super::record::{self, RestoreError};
use super::reset::ResetControl;
use super::uart::Uart;
use super::virtqueue::GuestRam;
use super::{Nanos, RestartCause, Width};
use alloc::vec::Vec;

const TIMER_IRQ: u8 = 0;
const SERIAL_IRQ: u8 = 4;

/// The devices of one VM.
///
/// The owner calls [`advance`](Self::advance) once [`next_deadline`](Self::next_deadline) has come, asks
/// [`interrupt_pending`](Self::interrupt_pending) before it enters the guest, and acknowledges when the guest can
/// take an interrupt. Any access may change the deadline and the pending interrupt.
#[derive(Clone, Debug)]
pub struct Chipset {
    apic: LocalApic,
    uart: Uart,
    pics: PicPair,
    pit: Pit,
    cmos: Cmos,
    keyboard: Keyboard,
    reset_control: ResetControl,
    pci: PciBus,
    power: Power,
    balloon: Balloon,
    unknown: UnknownPorts,
}

impl Chipset {
    /// Devices after power-on. `unix_time` is what the guest's clock shows at the guest time `now`.
    pub fn new(unix_time: u64, now: Nanos) -> Self {
        Self {
            apic: LocalApic::new(),
            uart: Uart::new(),
            pics: PicPair::new(),
            pit: Pit::new(),
            cmos: Cmos::new(unix_time, now),
            keyboard: Keyboard::new(),
            reset_control: ResetControl::new(),
            pci: PciBus::new(),
            power: Power::new(),
            balloon: Balloon::new(),
            unknown: UnknownPorts::default(),
        }
    }

    /// The guest's IN. Bits above the width are 0.
    pub fn read_port(&mut self, port: u16, width: Width, now: Nanos) -> u32 {
        if let Some(register) = self.pci.balloon_register(port) {
            let value = self.balloon.read(register, width);
            self.update_balloon_line();
            return value;
        }
        match (port, width) {
            (0xCFC..=0xCFF, _) => self.pci.read(port, width, self.balloon.interrupt()),
            (_, Width::Byte) => self.read_byte(port, now).map_or_else(|| self.unknown(port, width), u32::from),
            (0xCF8, Width::Dword) => self.pci.address(),
            (0xCF8..=0xCFF, _) => width.ones(),
            _ => self.read_bytes(port, width, now),
        }
    }

    /// The guest's OUT; bits of `value` above the width are ignored. Says if it restarted the guest's OS; nothing
    /// is reset until the owner calls [`reset`](Self::reset).
    pub fn write_port(&mut self, port: u16, width: Width, value: u32, now: Nanos) -> Option<RestartCause> {
        if let Some(register) = self.pci.balloon_register(port) {
            self.balloon.write(register, width, value);
            self.update_balloon_line();
            return None;
        }
        match (port, width) {
            (0xCFC..=0xCFF, _) => {
                self.pci.write(port, width, value);
                self.update_balloon_line();
                None
            }
            (_, Width::Byte) => {
                let [byte, ..] = value.to_le_bytes();
                self.write_byte(port, byte, now)
            }
            (0xCF8, Width::Dword) => {
                self.pci.set_address(value);
                None
            }
            (0xCF8..=0xCFF, _) => None,
            _ => self.write_bytes(port, width, value, now),
        }
    }

    /// Lets the timers run up to `now` and raises their interrupts. Its cost does not depend on the time passed.
    pub fn advance(&mut self, now: Nanos) {
        self.apic.advance(now);
        if self.pit.advance(now) {
            self.pics.pulse(TIMER_IRQ);
        }
    }

    /// When [`advance`](Self::advance) has something to do next; `None` while no timer runs. The moment may have
    /// passed.
    pub fn next_deadline(&self) -> Option<Nanos> {
        [self.apic.next_deadline(), self.pit.deadline()].into_iter().flatten().min()
    }

    /// An interrupt waits for the guest.
    pub fn interrupt_pending(&self) -> bool {
        self.apic.deliverable().is_some() || self.external_pending()
    }

    fn external_pending(&self) -> bool {
        self.apic.passes_external() && self.pics.pending()
    }

    /// RDMSR of a register of the local APIC; `None` is #GP.
    pub fn read_apic(&self, msr: u32, now: Nanos) -> Option<u64> {
        self.apic.read(msr, now)
    }

    /// WRMSR of a register of the local APIC. `deadline` is the guest time at which a TSC of `value` is reached, for the TSC-deadline
    /// timer. False is #GP.
    pub fn write_apic(&mut self, msr: u32, value: u64, now: Nanos, deadline: Nanos) -> bool {
        self.advance(now);
        self.apic.write(msr, value, now, deadline)
    }

    /// Where in guest memory the end of the interrupt in service may be told, if the guest has named a place and nothing
    /// else waits for that end.
    pub fn end_in_memory(&self) -> Option<u64> {
        self.apic.end_in_memory()
    }

    /// The guest told the end of the interrupt in service there.
    pub fn end_interrupt(&mut self) {
        self.apic.end_interrupt();
    }

    /// CR8: the upper half of the task priority.
    pub fn cr8(&self) -> u64 {
        u64::from(self.apic.task_priority() >> 4)
    }

    /// MOV to CR8; false is #GP.
    pub fn set_cr8(&mut self, value: u64) -> bool {
        value <= 0xf && self.apic.set_task_priority(value << 4)
    }

    /// The vector of the waiting interrupt, which is in service from now on: it must be injected.
    pub fn acknowledge_interrupt(&mut self) -> Option<u8> {
        self.apic.acknowledge().or_else(|| self.external_pending().then(|| self.pics.acknowledge()))
    }

    /// The guest has told the balloon something: [`serve_balloon`](Self::serve_balloon) is to be called before the guest goes on.
    pub fn balloon_has_work(&self) -> bool {
        self.balloon.has_work()
    }

    /// Takes what the guest has told the balloon. If a page is missing it is to be called again when the page has come.
    pub fn serve_balloon(&mut self, ram: &mut impl GuestRam) -> Served {
        let served = self.balloon.serve(ram);
        self.update_balloon_line();
        served
    }

    /// The next byte that the guest printed. What is not taken waits, within the UART's bound.
    pub fn take_output(&mut self) -> Option<u8> {
        self.uart.take_output()
    }

    /// Types on the guest's console; says how many bytes found room.
    pub fn type_input(&mut self, bytes: &[u8]) -> usize {
        let taken = self.uart.type_input(bytes);
        self.update_serial_line();
        taken
    }

    /// Bytes that the guest printed and that were dropped because nobody took what was before them.
    pub fn dropped_output(&self) -> u64 {
        self.uart.dropped()
    }

    /// Periods of the guest's timer that shared their interrupt with a later one.
    pub fn coalesced_ticks(&self) -> u64 {
        self.pit.coalesced()
    }

    /// The ports that nobody answered.
    pub fn unknown_ports(&self) -> &UnknownPorts {
        &self.unknown
    }

    /// A restart of the guest's OS: every device as after power-on, but for what a battery keeps (the clock and its
    /// memory) and for output that nobody has taken yet.
    pub fn reset(&mut self) {
        self.apic = LocalApic::new();
        self.uart.reset();
        self.pics = PicPair::new();
        self.pit = Pit::new();
        self.keyboard = Keyboard::new();
        self.reset_control = ResetControl::new();
        self.pci = PciBus::new();
        self.power = Power::new();
        self.balloon = Balloon::new();
    }

    /// The records of all devices.
    pub fn save(&self) -> Vec<u8> {
        let mut out = Vec::new();
        record::save(&self.uart, &mut out);
        record::save(&self.pics, &mut out);
        record::save(&self.pit, &mut out);
        record::save(&self.cmos, &mut out);
        record::save(&self.keyboard, &mut out);
        record::save(&self.reset_control, &mut out);
        record::save(&self.pci, &mut out);
        record::save(&self.power, &mut out);
        record::save(&self.apic, &mut out);
        record::save(&self.balloon, &mut out);
        out
    }

    /// Takes over the state in the records of [`save`](Self::save), whole; or refuses it and stays as it was.
    pub fn restore(&mut self, record: &[u8]) -> Result<(), RestoreError> {
        let mut rest = record;
        let restored = Self {
            uart: record::restore(&mut rest)?,
            pics: record::restore(&mut rest)?,
            pit: record::restore(&mut rest)?,
            cmos: record::restore(&mut rest)?,
            keyboard: record::restore(&mut rest)?,
            reset_control: record::restore(&mut rest)?,
            pci: record::restore(&mut rest)?,
            power: record::restore(&mut rest)?,
            apic: record::restore(&mut rest)?,
            balloon: record::restore(&mut rest)?,
            unknown: UnknownPorts::default(),
        };
        if !rest.is_empty() {
            return Err(RestoreError::TrailingBytes);
        }
        *self = restored;
        Ok(())
    }

    /// A wide access reaches devices of one byte as one access a byte, as on the ISA bus.
    fn read_bytes(&mut self, port: u16, width: Width, now: Nanos) -> u32 {
        let mut value = width.ones();
        let mut answered = false;
        for offset in 0..width.bytes() {
            if let Some(byte) = self.read_byte(port.wrapping_add(offset), now) {
                let shift = u32::from(offset) * 8;
                value = (value & !(0xFF << shift)) | (u32::from(byte) << shift);
                answered = true;
            }
        }
        if answered { value } else { self.unknown(port, width) }
    }

    fn write_bytes(&mut self, port: u16, width: Width, value: u32, now: Nanos) -> Option<RestartCause> {
        let bytes = (0..width.bytes()).zip(value.to_le_bytes());
        // The first cause counts; the writes behind it would have reached the machine too.
        bytes.fold(None, |cause, (offset, byte)| {
            let next = match port.wrapping_add(offset) {
                0xCF8..=0xCFF => None, // only an access of one byte reaches the reset register
                port => self.write_byte(port, byte, now),
            };
            cause.or(next)
        })
    }

    fn unknown(&mut self, port: u16, width: Width) -> u32 {
        self.unknown.note(port);
        width.ones()
    }

    /// What a port answers; `None` if nothing is there.
    fn read_byte(&mut self, port: u16, now: Nanos) -> Option<u8> {
        Some(match port {
            0x3F8..=0x3FF => {
                let value = self.uart.read(port & 7);
                self.update_serial_line();
                value
            }
            0x20 | 0x21 | 0xA0 | 0xA1 | 0x4D0 | 0x4D1 => {
                self.advance(now); // a pending tick shows in IRR
                self.pics.read(port)
            }
            0x40..=0x43 => self.pit.read(port, now),
            0x60 => self.keyboard.data(),
            0x61 => self.pit.control_b(now),
            0x64 => self.keyboard.status(),
            0x71 => self.cmos.read(now),
            0x92 => self.keyboard.control_a(),
            0xCF9 => self.reset_control.read(),
            power::EVENT_BLOCK..=power::RESET_REGISTER => self.power.read(port)?,
            _ if is_silent(port) => 0xFF,
            _ => return None,
        })
    }

    fn write_byte(&mut self, port: u16, value: u8, now: Nanos) -> Option<RestartCause> {
        let mut cause = None;
        match port {
            0x3F8..=0x3FF => {
                self.uart.write(port & 7, value);
                self.update_serial_line();
            }
            0x20 | 0x21 | 0xA0 | 0xA1 | 0x4D0 | 0x4D1 => {
                self.advance(now); // a tick before this write is not touched by it
                self.pics.write(port, value);
            }
            0x40..=0x43 => {
                self.advance(now);
                if self.pit.write(port, value, now) == Irq0::Lower {
                    self.pics.set_line(TIMER_IRQ, false);
                }
            }
            0x61 => self.pit.set_control_b(value, now),
            0x64 if self.keyboard.command(value) => cause = Some(RestartCause::I8042Pulse),
            0x70 => self.cmos.select(value),
            0x71 => self.cmos.write(value, now),
            0x92 if self.keyboard.set_control_a(value) => cause = Some(RestartCause::I8042Pulse),
            0xCF9 if self.reset_control.write(value) => cause = Some(RestartCause::Port0xCF9),
            power::EVENT_BLOCK..=power::RESET_REGISTER if self.power.write(port, value) => {
                cause = Some(RestartCause::AcpiReset);
            }
            0x60 | 0x64 | 0x92 | 0xCF9 | power::EVENT_BLOCK..=power::RESET_REGISTER => {}
            _ if is_silent(port) => {}
            _ => self.unknown.note(port),
        }
        cause
    }

    fn update_balloon_line(&mut self) {
        self.pics.set_line(BALLOON_IRQ, self.pci.passes(self.balloon.interrupt()));
    }

    fn update_serial_line(&mut self) {
        self.pics.set_line(SERIAL_IRQ, self.uart.interrupt());
    }
}

/// Ports that a PC has and that do nothing here: writes vanish, reads give all ones.
fn is_silent(port: u16) -> bool {
    matches!(
        port,
        0x00..=0x0F | 0x81..=0x8F | 0xC0..=0xDF // DMA controllers and their page registers
            | 0x70 // the clock's index is write-only
            | 0x80 // POST codes, which Linux writes to pass some time
            | 0x2E8..=0x2EF | 0x2F8..=0x2FF | 0x3E8..=0x3EF // COM4, COM2 and COM3
            | 0xCF8..=0xCFB // PCI's address, of which only the whole matters
    )
}
