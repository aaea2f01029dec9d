//! The serial ports: COM1 for the log, COM2 for the monitor.

use spin::Mutex;
use uart_16550::{BaudRate, Config, Uart16550, backend::PioBackend, spec::registers::LSR};

/// A 16550 at a legacy port.
pub struct Serial {
    uart: Uart16550<PioBackend>,
    port: u16,
}

/// Bytes that a 16550A takes once it says that its transmitter is empty.
const FIFO: usize = 16;

/// COM1, if it is there.
pub static COM1: Mutex<Option<Serial>> = Mutex::new(None);
/// COM2, if it is there.
pub static COM2: Mutex<Option<Serial>> = Mutex::new(None);

/// Sets the ports up; one that does not answer stays `None`.
pub fn init() {
    *COM1.lock() = Serial::open(0x3f8);
    *COM2.lock() = Serial::open(0x2f8);
}

/// Waits until both ports have sent what they took: a machine that loses its power loses its FIFOs.
pub fn drain() {
    for port in [&COM1, &COM2] {
        // Whoever panicked may hold the lock.
        if let Some(port) = port.try_lock().as_mut().and_then(|port| port.as_mut()) {
            port.drain();
        }
    }
}

impl Serial {
    fn open(port: u16) -> Option<Self> {
        // SAFETY: the legacy ports COM1 and COM2 are ours alone; nothing else in the image opens them.
        let mut uart = unsafe { Uart16550::new_port(port) }.ok()?;
        let config = Config { baud_rate: BaudRate::Baud115200, ..Config::default() };
        uart.init(config).ok()?;
        Some(Self { uart, port })
    }

    /// Sends every byte, waiting for the port.
    pub fn write(&mut self, mut bytes: &[u8]) {
        // A UART that is never ready (no such device behind the port) must not hang the host.
        let mut patience = 1_000_000u32;
        while !bytes.is_empty() && patience > 0 {
            let sent = self.try_write(bytes);
            bytes = bytes.get(sent..).unwrap_or_default();
            patience = if sent == 0 { patience - 1 } else { 1_000_000 };
        }
    }

    /// Sends what the port takes at once: a FIFO's worth at a time, as long as its transmitter is empty. One REP OUTSB each,
    /// because emulators charge an exit for each access, and a string counts as one.
    pub fn try_write(&mut self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        for chunk in bytes.chunks(FIFO) {
            if !self.uart.lsr().contains(LSR::THR_EMPTY) {
                break;
            }
            // SAFETY: the port is the data register of a UART that is ours; the pointer and the count are the chunk's.
            unsafe {
                core::arch::asm!(
                    "rep outsb",
                    in("dx") self.port,
                    inout("rsi") chunk.as_ptr() => _,
                    inout("rcx") chunk.len() => _,
                    options(readonly, nostack, preserves_flags)
                );
            }
            sent += chunk.len();
        }
        sent
    }

    /// Waits until the last byte is on the line and not merely in the FIFO.
    fn drain(&mut self) {
        for _ in 0..1_000_000 {
            if self.uart.lsr().contains(LSR::TRANSMITTER_EMPTY) {
                return;
            }
        }
    }

    /// The next received byte.
    pub fn read(&mut self) -> Option<u8> {
        self.uart.try_receive_byte().ok()
    }
}
