//! What a page takes in the stream, to predict what those that are left will take.

use crate::wire::PAGE_RECORD;

/// An average forgets: the latest of so many weighs one part.
const MEMORY: u64 = 256;

/// Bytes of a page with contents, record and all, of late. Pages of zeroes do not count: what a guest modifies has
/// contents, and the first round, which sends all there are, would make it seem cheap.
#[derive(Debug)]
pub struct PageCost {
    /// As many times over as the average remembers pages, so that it loses no fraction.
    sum: u64,
}

impl Default for PageCost {
    /// Whole pages, until some went as less.
    fn default() -> Self {
        Self { sum: MEMORY * PAGE_RECORD as u64 }
    }
}

impl PageCost {
    /// A page went, as so many bytes less than a whole one.
    pub fn note(&mut self, saved: usize) {
        self.sum = self.sum - self.sum / MEMORY + PAGE_RECORD.saturating_sub(saved) as u64;
    }

    /// Bytes that so many pages will take.
    pub fn of(&self, pages: u64) -> u64 {
        pages.saturating_mul(self.sum.div_ceil(MEMORY))
    }
}

#[cfg(test)]
mod tests {
    use super::{MEMORY, PageCost};
    use crate::wire::PAGE_RECORD;

    #[test]
    fn it_follows_what_pages_take_and_is_a_whole_page_at_first() {
        let mut cost = PageCost::default();
        assert_eq!(cost.of(10), 10 * PAGE_RECORD as u64);
        for _ in 0..MEMORY {
            cost.note(0);
        }
        assert_eq!(cost.of(1), PAGE_RECORD as u64);
        for _ in 0..20 * MEMORY {
            cost.note(PAGE_RECORD - 100);
        }
        assert!((100..=101).contains(&cost.of(1)), "{}", cost.of(1));
        assert_eq!(cost.of(u64::MAX), u64::MAX);
    }
}
