//! The serial ports: COM1 for the log, COM2 for the monitor.

use spin::Mutex;
use uart_16550::{BaudRate, Config, Uart16550, backend::PioBackend};

/// A 16550 at a legacy port.
pub struct Serial {
    uart: Uart16550<PioBackend>,
}

/// COM1, if it is there.
pub static COM1: Mutex<Option<Serial>> = Mutex::new(None);
/// COM2, if it is there.
pub static COM2: Mutex<Option<Serial>> = Mutex::new(None);

/// Sets the ports up; one that does not answer stays `None`.
pub fn init() {
    *COM1.lock() = Serial::open(0x3f8);
    *COM2.lock() = Serial::open(0x2f8);
}

impl Serial {
    fn open(port: u16) -> Option<Self> {
        // SAFETY: the legacy ports COM1 and COM2 are ours alone; nothing else in the image opens them.
        let mut uart = unsafe { Uart16550::new_port(port) }.ok()?;
        let config = Config { baud_rate: BaudRate::Baud115200, ..Config::default() };
        uart.init(config).ok()?;
        Some(Self { uart })
    }

    /// Sends every byte, a FIFO's worth at a time: emulators charge an exit a register access, so the
    /// line status is read once for 16 bytes.
    pub fn write(&mut self, mut bytes: &[u8]) {
        // A UART that is never ready (no such device behind the port) must not hang the host.
        let mut patience = 1_000_000u32;
        while !bytes.is_empty() && patience > 0 {
            let sent = self.uart.send_bytes(bytes);
            bytes = bytes.get(sent..).unwrap_or_default();
            if sent == 0 {
                patience -= 1;
                core::hint::spin_loop();
            }
        }
    }

    /// The next received byte.
    pub fn read(&mut self) -> Option<u8> {
        self.uart.try_receive_byte().ok()
    }
}
