//! The end of the machine.

use x86_64::instructions::{hlt, interrupts, port::Port};

/// How the image ends; the status of QEMU's process where it has `isa-debug-exit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All is well. The machine powers off (QEMU's status is 0).
    Done,
    /// The image cannot run here, or panicked. QEMU's status is 3 with `isa-debug-exit`.
    Failed,
}

/// Powers the machine off, and halts for ever where it cannot.
///
/// Emulators have fixed ports for it. They are written only behind a host bridge that emulators use (Intel 440FX
/// or Q35): on another machine the ports may be anything.
pub fn off(ending: Ending) -> ! {
    interrupts::disable();
    super::serial::drain();
    if emulated_board() {
        // SAFETY: on these boards the ports power the emulated machine off and do nothing else.
        unsafe {
            if ending == Ending::Failed {
                Port::<u8>::new(0xf4).write(1u8); // QEMU isa-debug-exit: status 2 * 1 + 1
            }
            Port::<u16>::new(0x604).write(0x2000u16); // QEMU: ACPI PM1a control, S5
            for byte in b"Shutdown" {
                Port::<u8>::new(0x8900).write(*byte); // Bochs
            }
            Port::<u16>::new(0xb004).write(0x2000u16); // Bochs and old QEMU: ACPI PM1a control, S5
        }
    }
    loop {
        hlt();
    }
}

/// Whether PCI device 00:00.0 is a 440FX or a Q35.
fn emulated_board() -> bool {
    // SAFETY: PCI configuration mechanism 1, read only, before or after any other use of it.
    let id = unsafe {
        Port::<u32>::new(0xcf8).write(0x8000_0000u32);
        Port::<u32>::new(0xcfc).read()
    };
    matches!(id, 0x1237_8086 | 0x29c0_8086)
}
