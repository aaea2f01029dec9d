//! A set of pages: one bit a guest frame number. The bits are `bitvec`'s; whole sets are scanned by words of 64, because
//! most words are empty.

use bitvec::order::Lsb0;
use bitvec::slice::BitSlice;
use bitvec::vec::BitVec;
use core::ops::Range;

const BITS: u64 = 64;

/// A set of guest frame numbers below a fixed count. A number outside is in no set: testing it is false, setting it
/// does nothing, so a number that is still a claim can do no harm here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    bits: BitVec<u64, Lsb0>,
}

impl Bitmap {
    /// An empty set of frame numbers below `pages`.
    #[must_use]
    pub fn new(pages: u64) -> Self {
        Self { bits: BitVec::repeat(false, usize::try_from(pages).unwrap_or(usize::MAX)) }
    }

    /// The set of all frame numbers below `pages`.
    #[must_use]
    pub fn full(pages: u64) -> Self {
        let mut bitmap = Self::new(pages);
        bitmap.set_all();
        bitmap
    }

    /// One more than the highest frame number that it can hold.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.bits.len() as u64
    }

    /// The place of a page that lies inside.
    fn place(&self, gfn: u64) -> Option<usize> {
        usize::try_from(gfn).ok().filter(|place| *place < self.bits.len())
    }

    /// Adds a page. Returns whether it is new.
    pub fn set(&mut self, gfn: u64) -> bool {
        self.place(gfn).is_some_and(|place| !self.bits.replace(place, true))
    }

    /// Removes a page. Returns whether it was there.
    pub fn clear(&mut self, gfn: u64) -> bool {
        self.place(gfn).is_some_and(|place| self.bits.replace(place, false))
    }

    /// What lies inside of `count` pages from `first` on.
    fn places(&self, first: u64, count: u64) -> Range<usize> {
        let end = first.saturating_add(count).min(self.pages());
        first.min(end) as usize..end as usize
    }

    /// Adds (or removes) `count` pages from `first` on, as far as they lie inside. Returns how many of them are new (or
    /// were there).
    pub fn fill(&mut self, first: u64, count: u64, value: bool) -> u64 {
        let places = self.places(first, count);
        let Some(bits) = self.bits.get_mut(places) else { return 0 };
        let changed = if value { bits.count_zeros() } else { bits.count_ones() };
        bits.fill(value);
        changed as u64
    }

    /// Whether one of `count` pages from `first` on is in the set.
    #[must_use]
    pub fn has_any(&self, first: u64, count: u64) -> bool {
        self.bits.get(self.places(first, count)).is_some_and(BitSlice::any)
    }

    /// Whether a page is in the set.
    #[must_use]
    pub fn test(&self, gfn: u64) -> bool {
        self.place(gfn).is_some_and(|place| self.bits.get(place).as_deref() == Some(&true))
    }

    /// How many pages are in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.words().iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// How many pages are in both sets.
    #[must_use]
    pub fn count_common(&self, other: &Self) -> u64 {
        self.words().iter().zip(other.words()).map(|(one, two)| u64::from((one & two).count_ones())).sum()
    }

    /// Whether no page is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words().iter().all(|word| *word == 0)
    }

    /// Adds every page.
    pub fn set_all(&mut self) {
        self.bits.fill(true);
    }

    /// Removes every page.
    pub fn clear_all(&mut self) {
        self.words_mut().fill(0);
    }

    /// Adds the pages of another set.
    pub fn or(&mut self, other: &Self) {
        for (word, more) in self.words_mut().iter_mut().zip(other.words()) {
            *word |= more;
        }
        self.trim();
    }

    /// Keeps the pages that are in both sets.
    pub fn and(&mut self, other: &Self) {
        let others = other.words().iter().copied().chain(core::iter::repeat(0));
        for (word, kept) in self.words_mut().iter_mut().zip(others) {
            *word &= kept;
        }
    }

    /// Removes the pages of another set.
    pub fn subtract(&mut self, other: &Self) {
        for (word, less) in self.words_mut().iter_mut().zip(other.words()) {
            *word &= !less;
        }
    }

    /// Turns the set into that of the pages that are not in it.
    pub fn invert(&mut self) {
        for word in self.words_mut() {
            *word = !*word;
        }
        self.trim();
    }

    /// The first page at or after `from`.
    #[must_use]
    pub fn next_set(&self, from: u64) -> Option<u64> {
        let first = self.place(from)? / BITS as usize;
        let mut mask = u64::MAX << (from % BITS);
        for (index, word) in self.words().iter().enumerate().skip(first) {
            let found = word & mask;
            if found != 0 {
                return Some(index as u64 * BITS + u64::from(found.trailing_zeros()));
            }
            mask = u64::MAX;
        }
        None
    }

    /// The first run of pages at or after `from`: its first page, and how many there are.
    #[must_use]
    pub fn next_run(&self, from: u64) -> Option<(u64, u64)> {
        let first = self.next_set(from)?;
        let rest = self.bits.get(self.place(first)?..)?;
        Some((first, rest.leading_ones() as u64))
    }

    /// The last page at or before `from`.
    #[must_use]
    pub fn previous_set(&self, from: u64) -> Option<u64> {
        let from = from.min(self.pages().checked_sub(1)?);
        let last = self.place(from)? / BITS as usize;
        let mut mask = u64::MAX >> (BITS - 1 - from % BITS);
        for index in (0..=last).rev() {
            let found = self.words().get(index)? & mask;
            if found != 0 {
                return Some(index as u64 * BITS + BITS - 1 - u64::from(found.leading_zeros()));
            }
            mask = u64::MAX;
        }
        None
    }

    /// The pages, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let mut from = 0;
        core::iter::from_fn(move || {
            let gfn = self.next_set(from)?;
            from = gfn + 1;
            Some(gfn)
        })
    }

    /// The set as words, lowest page in the lowest bit of the first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        self.bits.as_raw_slice()
    }

    /// The same, to change; bits that stand for no page must be dropped by [`Bitmap::trim`].
    fn words_mut(&mut self) -> &mut [u64] {
        self.bits.as_raw_mut_slice()
    }

    /// Replaces a word. Bits outside are dropped. Returns whether there is such a word.
    pub fn set_word(&mut self, index: usize, value: u64) -> bool {
        let Some(word) = self.words_mut().get_mut(index) else {
            return false;
        };
        *word = value;
        self.trim();
        true
    }

    /// Drops the bits of the last word that stand for no page.
    fn trim(&mut self) {
        self.bits.set_uninitialized(false);
    }
}

#[cfg(test)]
mod tests {
    use super::Bitmap;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn a_page_outside_is_in_no_set() {
        let mut bitmap = Bitmap::full(70);
        assert_eq!(bitmap.count(), 70);
        assert!(!bitmap.set(70) && !bitmap.set(u64::MAX) && !bitmap.clear(70) && !bitmap.test(70));
        assert_eq!((bitmap.next_set(70), bitmap.next_set(u64::MAX)), (None, None));
        assert_eq!(bitmap.previous_set(u64::MAX), Some(69));
        assert!(Bitmap::full(0).is_empty() && Bitmap::new(0).previous_set(3).is_none());
    }

    #[test]
    fn the_complement_of_the_full_set_is_empty() {
        let mut bitmap = Bitmap::full(130);
        bitmap.invert();
        assert!(bitmap.is_empty());
        bitmap.or(&Bitmap::full(1000));
        assert_eq!(bitmap, Bitmap::full(130));
        bitmap.set_word(2, u64::MAX);
        assert_eq!(bitmap, Bitmap::full(130));
        assert!(!bitmap.set_word(3, 1));
    }

    proptest! {
        #[test]
        fn it_is_a_set(
            pages in 1u64..300,
            run in (0u64..310, prop_oneof![0u64..310, Just(u64::MAX)], any::<bool>()),
            ops in proptest::collection::vec((0u64..310, any::<bool>()), 0..200),
            other in proptest::collection::btree_set(0u64..300, 0..100),
            from in 0u64..320,
        ) {
            let (mut bitmap, mut model) = (Bitmap::new(pages), BTreeSet::new());
            for (gfn, add) in ops {
                if add {
                    prop_assert_eq!(bitmap.set(gfn), gfn < pages && model.insert(gfn));
                } else {
                    prop_assert_eq!(bitmap.clear(gfn), model.remove(&gfn));
                }
            }
            let (first, more, value) = run;
            let inside = (first..first.saturating_add(more)).start.min(pages)..first.saturating_add(more).min(pages);
            let there = model.range(inside.clone()).count() as u64;
            prop_assert_eq!(bitmap.has_any(first, more), there > 0);
            let others = inside.end - inside.start - there;
            prop_assert_eq!(bitmap.fill(first, more, value), if value { others } else { there });
            model.retain(|gfn| value || !(first..first.saturating_add(more)).contains(gfn));
            model.extend((first..first.saturating_add(more).min(pages)).filter(|_| value));
            prop_assert_eq!(bitmap.count(), model.len() as u64);
            prop_assert_eq!(bitmap.next_set(from), model.range(from..).next().copied());
            let run = |first: &u64| (*first..).take_while(|gfn| model.contains(gfn)).count() as u64;
            prop_assert_eq!(bitmap.next_run(from), model.range(from..).next().map(|first| (*first, run(first))));
            prop_assert_eq!(bitmap.previous_set(from), model.range(..=from).next_back().copied());
            prop_assert_eq!(bitmap.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            let mut second = Bitmap::new(pages);
            for gfn in &other { second.set(*gfn); }
            let (mut both, mut less) = (bitmap.clone(), bitmap.clone());
            both.and(&second);
            less.subtract(&second);
            prop_assert_eq!(bitmap.count_common(&second), both.count());
            prop_assert_eq!(both.count() + less.count(), bitmap.count());
            prop_assert!(both.iter().all(|gfn| model.contains(&gfn) && other.contains(&gfn)));
        }
    }
}
