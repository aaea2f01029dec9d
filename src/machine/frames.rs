//! Physical memory, handed out in runs of contiguous frames.

use super::PAGE_SIZE;
use alloc::vec::Vec;
use core::ops::Range;
use spin::Mutex;

/// Free frame numbers as sorted, disjoint, non-adjacent ranges.
#[derive(Debug, Default)]
pub struct FreeRanges {
    ranges: Vec<Range<u64>>,
}

impl FreeRanges {
    /// No free frame.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Adds a range, joined with its neighbours.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let mut joined = range;
        self.ranges.retain(|other| {
            let apart = other.end < joined.start || joined.end < other.start;
            if !apart {
                joined = joined.start.min(other.start)..joined.end.max(other.end);
            }
            apart
        });
        let at = self.ranges.partition_point(|other| other.start < joined.start);
        self.ranges.insert(at, joined);
    }

    /// Takes a range out, whatever of it was free.
    pub fn remove(&mut self, hole: Range<u64>) {
        let mut left = Vec::with_capacity(self.ranges.len() + 1);
        for range in self.ranges.drain(..) {
            let before = range.start..range.end.min(hole.start);
            let after = range.start.max(hole.end)..range.end;
            left.extend([before, after].into_iter().filter(|part| !part.is_empty()));
        }
        self.ranges = left;
    }

    /// Takes the first run of `count` frames whose start is a multiple of `align`.
    pub fn allocate(&mut self, count: u64, align: u64) -> Option<u64> {
        let start = self.ranges.iter().find_map(|range| {
            let start = range.start.checked_next_multiple_of(align)?;
            (start.checked_add(count)? <= range.end).then_some(start)
        })?;
        self.remove(start..start + count);
        Some(start)
    }

    /// The number of free frames.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }
}

static FREE: Mutex<FreeRanges> = Mutex::new(FreeRanges::new());

/// Makes RAM available but for what is in use: the first MiB, and each range of `reserved` (bytes).
pub fn init(ram: &[Range<u64>], reserved: &[Range<u64>]) {
    let page = PAGE_SIZE as u64;
    let mut free = FREE.lock();
    for range in ram {
        free.insert(range.start.div_ceil(page)..range.end / page);
    }
    free.remove(0..(1 << 20) / page);
    for range in reserved {
        free.remove(range.start / page..range.end.div_ceil(page));
    }
}

/// `count` contiguous frames that start at a multiple of `align` frames and hold whatever they held: their physical address.
pub fn reserve_aligned(count: usize, align: usize) -> Option<u64> {
    let frame = FREE.lock().allocate(count as u64, align as u64)?;
    Some(frame * PAGE_SIZE as u64)
}

/// `count` contiguous zeroed frames: their physical address.
pub fn allocate(count: usize) -> Option<u64> {
    let address = reserve_aligned(count, 1)?;
    // SAFETY: the frames came out of the free list, so nobody else has them; RAM is identity-mapped.
    unsafe { core::ptr::write_bytes(address as *mut u8, 0, count * PAGE_SIZE) };
    Some(address)
}

/// Contiguous frames that hold `bytes`, and zeroes after them: their physical address.
pub fn allocate_filled(bytes: &[u8]) -> Option<u64> {
    let address = allocate(bytes.len().div_ceil(PAGE_SIZE))?;
    // SAFETY: the frames were just allocated, are at least as long, and RAM is identity-mapped.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
    Some(address)
}

/// Gives frames back.
///
/// # Safety
/// They came from [`allocate`] and nothing, no table of the CPU's either, refers to them any more.
pub unsafe fn free(address: u64, count: usize) {
    let frame = address / PAGE_SIZE as u64;
    FREE.lock().insert(frame..frame + count as u64);
}

/// Free memory in bytes.
pub fn free_bytes() -> u64 {
    FREE.lock().count() * PAGE_SIZE as u64
}

#[cfg(test)]
mod tests {
    use super::FreeRanges;
    use proptest::prelude::*;

    #[test]
    fn freed_neighbours_join_again() {
        let mut free = FreeRanges::new();
        free.insert(0..10);
        let a = free.allocate(4, 1).unwrap();
        let b = free.allocate(6, 1).unwrap();
        assert_eq!(free.count(), 0);
        free.insert(b..b + 6);
        free.insert(a..a + 4);
        assert_eq!(free.allocate(10, 1), Some(0));
    }

    #[test]
    fn alignment_is_kept_and_the_head_stays_free() {
        let mut free = FreeRanges::new();
        free.insert(3..2000);
        assert_eq!(free.allocate(512, 512), Some(512));
        assert_eq!(free.count(), 2000 - 3 - 512);
        assert_eq!(free.allocate(1, 1), Some(3));
    }

    proptest! {
        #[test]
        fn no_frame_is_handed_out_twice(sizes in proptest::collection::vec((1u64..40, 0u32..4), 1..40)) {
            let mut free = FreeRanges::new();
            free.insert(0..512);
            free.remove(100..130);
            let mut taken = std::collections::HashSet::new();
            for (count, align) in sizes {
                let Some(start) = free.allocate(count, 1 << align) else { continue };
                prop_assert_eq!(start % (1 << align), 0);
                for frame in start..start + count {
                    prop_assert!(frame < 512 && !(100..130).contains(&frame));
                    prop_assert!(taken.insert(frame));
                }
            }
            prop_assert_eq!(free.count() + taken.len() as u64, 512 - 30);
        }
    }
}
