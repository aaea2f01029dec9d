//! The range of memory that is written and checked.
#![allow(unsafe_code)]

use crate::options::Options;
use crate::pattern::{self, Mismatch, Turns, WORDS};

const PAGE: u64 = 4096;
/// The loader maps so much.
pub const MAPPED: u64 = 4 << 30;

/// The range, each page in a known generation.
pub struct Range {
    start: u64,
    pages: u64,
    turns: Turns,
    next_to_verify: u64,
}

impl Range {
    /// Fills the range. `None` if it is not all RAM, or lies over this program.
    pub fn new(options: &Options, is_ram: impl Fn(u64, u64) -> bool) -> Option<Self> {
        let Options { start, pages, .. } = *options;
        let end = pages.checked_mul(PAGE).and_then(|size| start.checked_add(size))?;
        if start % PAGE != 0 || start < image_end() || end > MAPPED || !is_ram(start, end) {
            return None;
        }
        let mut range = Self { start, pages, turns: Turns::new(pages), next_to_verify: 0 };
        for page in 0..pages {
            pattern::fill(range.page(page), page, 0);
        }
        Some(range)
    }

    /// How many pages.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The address after it.
    pub fn end(&self) -> u64 {
        self.start + self.pages * PAGE
    }

    /// Checks the page whose turn it is to be written, and writes its next generation.
    pub fn write_next(&mut self) -> Option<(u64, Mismatch)> {
        let (page, generation) = self.turns.advance();
        let place = self.page(page);
        let mismatch = pattern::check(place, page, generation - 1);
        pattern::fill(place, page, generation);
        mismatch.map(|mismatch| (page, mismatch))
    }

    /// Checks the next page, round and round. A bad one is repaired, so that it counts once.
    pub fn verify_next(&mut self) -> Option<(u64, Mismatch)> {
        let page = self.next_to_verify;
        self.next_to_verify = if page + 1 < self.pages { page + 1 } else { 0 };
        let generation = self.turns.generation(page);
        let place = self.page(page);
        let mismatch = pattern::check(place, page, generation)?;
        pattern::fill(place, page, generation);
        Some((page, mismatch))
    }

    /// `page` comes from our own counters, which stay below `pages`.
    fn page(&mut self, page: u64) -> &mut [u64; WORDS] {
        let page = page.min(self.pages - 1);
        // SAFETY: `new` has proven start..start + pages * 4096 to be mapped RAM beyond this program, and aligned; no
        // other reference to it exists, as each lives only as long as the borrow of the only `Range`.
        unsafe { &mut *((self.start + page * PAGE) as *mut [u64; WORDS]) }
    }
}

fn image_end() -> u64 {
    unsafe extern "C" {
        static image_end: u8;
    }
    &raw const image_end as u64
}
