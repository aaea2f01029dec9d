//! Memory for a queue of the balloon: a legacy ring (virtio 1.2, 2.7.2) of which the device writes the second page only.

use core::sync::atomic::{AtomicU16, Ordering};

/// Words of the first page, which the device reads.
pub const WORDS: usize = 2048;

#[repr(align(4096))]
struct Ring([AtomicU16; 2 * WORDS]);

static RING: Ring = Ring([const { AtomicU16::new(0) }; 2 * WORDS]);

/// The page where it is: this program is mapped where it lies.
pub fn page() -> u32 {
    ((&raw const RING).addr() >> 12) as u32
}

/// Writes a word of it.
pub fn write(word: usize, value: u16) {
    if let Some(place) = RING.0.get(word) {
        place.store(value, Ordering::Relaxed);
    }
}
