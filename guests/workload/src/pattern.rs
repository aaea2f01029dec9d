//! A range of memory that can tell whether it is what was written: each page holds its index, its generation and
//! words derived from both. The generation that a page should have is kept outside the page, so that an old copy
//! of a page is found out as well as a foreign or a torn one.

const WORDS: usize = 512;

/// The golden ratio's fraction in 64 bits (Knuth, TAOCP 3, 6.4): neighbours differ in many bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

type Page = [u64; WORDS];

/// A word that is not what it should be.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The page in the range.
    pub page: usize,
    /// The word in the page.
    pub word: usize,
    /// What was written.
    pub expected: u64,
    /// What was found.
    pub found: u64,
}

/// The range.
pub struct Range {
    /// Holds the pages, and room to align them as the hypervisor tracks them. Allocated as zeroes, which the kernel
    /// maps when they are first touched, so the fill writes each page once and not twice.
    memory: Vec<u64>,
    /// Words before the first page.
    before: usize,
    generations: Vec<u32>,
    next_to_verify: usize,
    next_to_write: usize,
}

impl Range {
    /// A range of at least one page, filled with generation 0.
    pub fn new(pages: usize) -> Self {
        let pages = pages.max(1);
        let memory = vec![0; (pages + 1) * WORDS];
        let before = memory.as_ptr().align_offset(WORDS * size_of::<u64>()).min(WORDS);
        let mut range = Self { memory, before, generations: vec![0; pages], next_to_verify: 0, next_to_write: 0 };
        for index in 0..pages {
            if let Some(page) = range.page(index) {
                fill(page, index, 0);
            }
        }
        range
    }

    fn page(&mut self, index: usize) -> Option<&mut Page> {
        self.memory.get_mut(self.before..)?.as_chunks_mut().0.get_mut(index)
    }

    /// Verifies the next page, round and round. A bad page is repaired, so that it counts once.
    pub fn verify_next(&mut self) -> Option<Mismatch> {
        let index = self.next_to_verify;
        self.next_to_verify = self.after(index);
        self.verify(index)
    }

    /// Verifies the next page, round and round, and writes its next generation over it.
    pub fn write_next(&mut self) -> Option<Mismatch> {
        let index = self.next_to_write;
        self.next_to_write = self.after(index);
        let mismatch = self.verify(index);
        if let Some(generation) = self.generations.get_mut(index) {
            *generation = generation.wrapping_add(1);
            let generation = *generation;
            if let Some(page) = self.page(index) {
                fill(page, index, generation);
            }
        }
        mismatch
    }

    fn after(&self, index: usize) -> usize {
        if index + 1 < self.generations.len() { index + 1 } else { 0 }
    }

    fn verify(&mut self, index: usize) -> Option<Mismatch> {
        let generation = *self.generations.get(index)?;
        let page = self.page(index)?;
        if is_right(page, index, generation) {
            return None;
        }
        let mut expected = [0; WORDS];
        fill(&mut expected, index, generation);
        let pairs = expected.iter().zip(page.iter()).enumerate();
        let mismatch = pairs
            .filter(|(_, (expected, found))| expected != found)
            .map(|(word, (expected, found))| Mismatch { page: index, word, expected: *expected, found: *found })
            .next();
        *page = expected;
        mismatch
    }
}

fn seed(index: usize, generation: u32) -> u64 {
    ((index as u64) << 32 | u64::from(generation)).wrapping_mul(STEP)
}

fn fill(page: &mut Page, index: usize, generation: u32) {
    let mut word = seed(index, generation);
    for place in page.iter_mut() {
        *place = word;
        word = word.wrapping_add(STEP);
    }
    page[0] = index as u64;
    page[1] = u64::from(generation);
}

/// The whole page without a branch a word: the guest's CPU is slow, and this is most of what it does.
fn is_right(page: &Page, index: usize, generation: u32) -> bool {
    let mut word = seed(index, generation).wrapping_add(STEP.wrapping_mul(2));
    let mut difference = (page[0] ^ index as u64) | (page[1] ^ u64::from(generation));
    for found in &page[2..] {
        difference |= word ^ found;
        word = word.wrapping_add(STEP);
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_right_over_several_rounds() {
        let mut range = Range::new(5);
        for _ in 0..23 {
            assert_eq!(range.write_next(), None);
            assert_eq!(range.verify_next(), None);
        }
    }

    #[test]
    fn pages_of_the_range_are_pages_of_the_machine() {
        for pages in [1, 7, 64] {
            let mut range = Range::new(pages);
            assert_eq!(range.page(0).unwrap().as_ptr().addr() % 4096, 0);
            assert!(range.page(pages - 1).is_some());
        }
    }

    #[test]
    fn each_wrong_word_is_named_once() {
        for word in 0..WORDS {
            let mut range = Range::new(3);
            let expected = range.page(1).unwrap()[word];
            range.page(1).unwrap()[word] ^= 1 << 40;
            assert_eq!(range.verify_next(), None);
            let found = expected ^ (1 << 40);
            assert_eq!(range.verify_next(), Some(Mismatch { page: 1, word, expected, found }));
            assert!((0..6).all(|_| range.verify_next().is_none()), "a repaired page counts no second time");
        }
    }

    #[test]
    fn an_old_copy_of_a_page_is_found_out_before_it_is_overwritten() {
        let mut range = Range::new(1);
        let old = *range.page(0).unwrap();
        range.write_next();
        *range.page(0).unwrap() = old;
        let mismatch = range.write_next().expect("the page is a generation behind");
        assert_eq!((mismatch.word, mismatch.expected, mismatch.found), (1, 1, 0));
    }

    #[test]
    fn a_page_in_another_ones_place_is_found_out() {
        let mut range = Range::new(2);
        let first = *range.page(0).unwrap();
        *range.page(0).unwrap() = *range.page(1).unwrap();
        *range.page(1).unwrap() = first;
        assert_eq!(range.verify_next().map(|mismatch| mismatch.word), Some(0));
    }
}
