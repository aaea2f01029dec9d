//! The device's side of a split virtqueue of a legacy device (virtio 1.2, 2.7; its layout in one piece: 2.7.2).
//!
//! Every index, address and length in the ring is the guest's claim. A ring that breaks the rules is left alone until the
//! guest sets it up anew; a notification costs at most [`SIZE`] descriptors, whatever the ring says.

use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Entries of each queue: Linux reports up to 32 runs of free pages at a time, in one chain.
pub(super) const SIZE: u16 = 32;

const PAGE: u64 = 4096;
/// A descriptor: address, length, flags, and the next one.
const DESCRIPTOR: u64 = 16;
const NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;
/// A table of further descriptors, which is not offered.
const INDIRECT: u16 = 4;
/// In the driver's flags: it wants no interrupt.
const NO_INTERRUPT: u16 = 1;

/// Why a device cannot reach guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// There is no memory.
    Outside,
    /// This page is yet to come from another host.
    Missing(u64),
}

/// Guest memory as a device reaches it.
pub trait GuestRam {
    /// Reads all of `into` at a guest-physical address.
    ///
    /// # Errors
    /// When a byte of it cannot be reached.
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), Unreachable>;

    /// Writes all of `bytes`, or nothing.
    ///
    /// # Errors
    /// When a byte of it cannot be reached.
    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), Unreachable>;
}

/// What a descriptor names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    pub(super) gpa: u64,
    pub(super) length: u32,
    /// It is the device's to write, so the guest has no use for what it holds.
    pub(super) device_writes: bool,
}

/// A queue whose buffers are given back in the order in which they come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Virtqueue {
    /// Where the ring is, in pages; 0 for nowhere.
    page: u32,
    /// Chains taken from the driver and given back, modulo 2^16.
    served: u16,
    /// The ring broke the rules.
    broken: bool,
}

/// Why a chain is not served: now, or at all.
enum Stuck {
    Missing(u64),
    Broken,
}

impl From<Unreachable> for Stuck {
    fn from(why: Unreachable) -> Self {
        match why {
            Unreachable::Outside => Self::Broken,
            Unreachable::Missing(gfn) => Self::Missing(gfn),
        }
    }
}

impl Virtqueue {
    pub(super) fn page(&self) -> u32 {
        self.page
    }

    /// The guest puts the ring somewhere, or takes it away.
    pub(super) fn set_page(&mut self, page: u32) {
        *self = Self { page, ..Self::default() };
    }

    /// Takes all that waits, adds it to `buffers` and gives it back. Returns whether the guest wants an interrupt for it.
    ///
    /// # Errors
    /// The page that has to come first. What was served until then is served; the rest is when it is called again.
    pub(super) fn serve(&mut self, ram: &mut impl GuestRam, buffers: &mut Vec<Buffer>) -> Result<bool, u64> {
        if self.page == 0 || self.broken {
            return Ok(false);
        }
        match self.serve_all(ram, buffers) {
            Ok(interrupt) => Ok(interrupt),
            Err(Stuck::Missing(gfn)) => Err(gfn),
            Err(Stuck::Broken) => {
                self.broken = true;
                Ok(false)
            }
        }
    }

    fn descriptors(&self) -> u64 {
        u64::from(self.page) * PAGE
    }

    fn available(&self) -> u64 {
        self.descriptors() + DESCRIPTOR * u64::from(SIZE)
    }

    fn used(&self) -> u64 {
        // Flags, index, entries, and the driver's event index.
        (self.available() + 6 + 2 * u64::from(SIZE)).next_multiple_of(PAGE)
    }

    fn serve_all(&mut self, ram: &mut impl GuestRam, buffers: &mut Vec<Buffer>) -> Result<bool, Stuck> {
        let [flags, index] = read_words(ram, self.available())?;
        let waiting = index.wrapping_sub(self.served);
        if waiting > SIZE {
            return Err(Stuck::Broken);
        }
        let mut budget = SIZE;
        for _ in 0..waiting {
            let slot = u64::from(self.served % SIZE);
            let [head] = read_words(ram, self.available() + 4 + 2 * slot)?;
            let chain = self.chain(ram, head, &mut budget)?;
            self.give_back(ram, slot, head)?;
            buffers.extend(chain);
        }
        Ok(waiting > 0 && flags & NO_INTERRUPT == 0)
    }

    fn chain(&self, ram: &impl GuestRam, head: u16, budget: &mut u16) -> Result<Vec<Buffer>, Stuck> {
        let mut chain = Vec::new();
        let mut at = head;
        loop {
            if at >= SIZE {
                return Err(Stuck::Broken);
            }
            // A loop, or chains that share descriptors: no driver has more of them in flight than there are.
            *budget = budget.checked_sub(1).ok_or(Stuck::Broken)?;
            let descriptor = self.descriptors() + DESCRIPTOR * u64::from(at);
            let [a, b, c, d, length_low, length_high, flags, next] = read_words(ram, descriptor)?;
            if flags & INDIRECT != 0 {
                return Err(Stuck::Broken);
            }
            chain.push(Buffer {
                gpa: [d, c, b, a].iter().fold(0, |gpa, word| gpa << 16 | u64::from(*word)),
                length: u32::from(length_high) << 16 | u32::from(length_low),
                device_writes: flags & DEVICE_WRITES != 0,
            });
            if flags & NEXT == 0 {
                return Ok(chain);
            }
            at = next;
        }
    }

    /// All of it lies in one page, so the second write reaches what the first one did.
    fn give_back(&mut self, ram: &mut impl GuestRam, slot: u64, head: u16) -> Result<(), Stuck> {
        const WRITTEN: u64 = 0;
        ram.write(self.used() + 4 + 8 * slot, &(WRITTEN << 32 | u64::from(head)).to_le_bytes())?;
        let served = self.served.wrapping_add(1);
        ram.write(self.used() + 2, &served.to_le_bytes())?;
        self.served = served;
        Ok(())
    }
}

fn read_words<const N: usize>(ram: &impl GuestRam, gpa: u64) -> Result<[u16; N], Unreachable> {
    let mut words = [0; N];
    let mut bytes = [0; 16];
    let bytes = bytes.get_mut(..2 * N).ok_or(Unreachable::Outside)?;
    ram.read(gpa, bytes)?;
    for (word, pair) in words.iter_mut().zip(bytes.chunks_exact(2)) {
        *word = pair.iter().rev().fold(0, |word, byte| word << 8 | u16::from(*byte));
    }
    Ok(words)
}
