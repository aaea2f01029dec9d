//! The log to which the CPU writes the address of each page whose dirty flag it sets (SDM 29.3.6).

use crate::machine::{PAGE_SIZE, frames};

const PLACES: u16 = 512;
/// The log is filled from its last place down to its first.
pub const EMPTY_INDEX: u16 = PLACES - 1;

/// The log's page.
#[derive(Debug)]
pub struct ModificationLog(u64);

impl ModificationLog {
    /// An empty log.
    ///
    /// # Errors
    /// When there is no memory for its page.
    pub fn new() -> Result<Self, &'static str> {
        frames::allocate(1).map(Self).ok_or("no memory for the page-modification log")
    }

    /// Where it lies.
    pub fn address(&self) -> u64 {
        self.0
    }

    /// The guest frame numbers in it, the oldest first, by the index that the CPU left in the VMCS.
    pub fn pages(&self, index: u16) -> impl Iterator<Item = u64> + '_ {
        used(index).rev().map(|place| {
            // SAFETY: the page is this value's, identity-mapped, and `place` lies inside; the CPU writes to it only while
            // the guest runs, which the host does not see happen.
            let address = unsafe { ((self.0 + u64::from(place) * 8) as *const u64).read_volatile() };
            address / PAGE_SIZE as u64
        })
    }
}

/// The places that hold an entry. The index is the next place to fill; it runs below 0 when the log is full.
fn used(index: u16) -> core::ops::Range<u16> {
    let first = index.wrapping_add(1);
    first.min(PLACES)..PLACES
}

impl Drop for ModificationLog {
    fn drop(&mut self) {
        // SAFETY: the VMCS that named it is dropped before it, and nothing else refers to it.
        unsafe { frames::free(self.0, 1) };
    }
}

#[cfg(test)]
mod tests {
    use super::{EMPTY_INDEX, used};

    #[test]
    fn an_empty_a_filling_and_a_full_log_have_so_many_entries() {
        assert_eq!(used(EMPTY_INDEX).len(), 0);
        assert_eq!(used(509), 510..512);
        assert_eq!(used(0), 1..512);
        assert_eq!(used(u16::MAX), 0..512);
        assert_eq!(used(1000).len(), 0, "an index that no CPU leaves");
    }
}
