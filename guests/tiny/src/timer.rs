//! PIT channel 0 at 100 Hz on IRQ 0 of the PIC.

use crate::cpu::out8;

/// The vector of IRQ 0.
pub const VECTOR: u64 = 32;

const PIC_MASTER: u16 = 0x20;
const PIC_SLAVE: u16 = 0xa0;
const PIT_CHANNEL0: u16 = 0x40;
const PIT_COMMAND: u16 = 0x43;
/// 1193182 Hz / 100, rounded.
const DIVISOR: u16 = 11932;

/// Programs the PICs: vectors 32 to 47, everything masked but IRQ 0 if `ticks`.
pub fn init(ticks: bool) {
    for (pic, vectors, cascade) in [(PIC_MASTER, 32, 4), (PIC_SLAVE, 40, 2)] {
        out8(pic, 0x11); // ICW1: edge, cascade, ICW4 follows
        out8(pic + 1, vectors);
        out8(pic + 1, cascade);
        out8(pic + 1, 1); // ICW4: 8086
    }
    out8(PIC_SLAVE + 1, 0xff);
    out8(PIC_MASTER + 1, if ticks { 0xfe } else { 0xff });
    if ticks {
        let [low, high] = DIVISOR.to_le_bytes();
        out8(PIT_COMMAND, 0x34); // channel 0, both bytes, mode 2
        out8(PIT_CHANNEL0, low);
        out8(PIT_CHANNEL0, high);
    }
}

/// Ends the interrupt at the PIC.
pub fn acknowledge() {
    out8(PIC_MASTER, 0x20);
}
