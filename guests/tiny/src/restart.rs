//! Each way in which a PC restarts.

use crate::options::Restart;
use crate::{cpu, line, uart};

const RESET_CONTROL: u16 = 0xcf9;
const KEYBOARD_COMMAND: u16 = 0x64;

/// Restarts the machine.
pub fn run(kind: Restart) -> ! {
    line!("restarting");
    uart::drain();
    match kind {
        Restart::TripleFault => cpu::triple_fault(),
        Restart::Crash => cpu::crash(),
        Restart::Cf9 => {
            cpu::out8(RESET_CONTROL, 0x02); // a hard reset ...
            cpu::out8(RESET_CONTROL, 0x06); // ... now
        }
        Restart::Keyboard => cpu::out8(KEYBOARD_COMMAND, 0xfe),
    }
    line!("error: the restart did nothing");
    cpu::stop()
}
