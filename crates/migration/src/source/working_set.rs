//! The writable working set: pages that the guest modifies in most rounds, so that sending them while it runs is in vain
//! (Clark et al., NSDI 2005, section 2.2).

use crate::Bitmap;
use core::mem;

/// What was modified in each of the last three rounds.
#[derive(Debug)]
pub struct WorkingSet {
    rounds: [Bitmap; 3],
    noted: u32,
}

impl WorkingSet {
    /// Before the first round.
    pub fn new(pages: u64) -> Self {
        Self { rounds: [Bitmap::new(pages), Bitmap::new(pages), Bitmap::new(pages)], noted: 0 }
    }

    /// A round has ended, in which these pages were modified.
    pub fn note(&mut self, modified: &Bitmap) {
        let [last, before, oldest] = &mut self.rounds;
        mem::swap(before, oldest);
        mem::swap(last, before);
        last.clear_all();
        last.or(modified);
        self.noted = self.noted.saturating_add(1);
    }

    /// Pages that were modified in two of the last three rounds or in all of them; none before there were three.
    pub fn pages(&self) -> Bitmap {
        let [last, before, oldest] = &self.rounds;
        if self.noted < 3 {
            return Bitmap::new(last.pages());
        }
        let (mut both, mut either) = (last.clone(), last.clone());
        both.and(before);
        either.or(before);
        either.and(oldest);
        both.or(&either);
        both
    }
}

#[cfg(test)]
mod tests {
    use super::WorkingSet;
    use crate::Bitmap;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_most_of_the_last_three_rounds_modified(rounds in prop::collection::vec(any::<u8>(), 0..8)) {
            let mut set = WorkingSet::new(8);
            for round in &rounds {
                let mut modified = Bitmap::new(8);
                modified.set_word(0, u64::from(*round));
                set.note(&modified);
            }
            let last: Vec<u8> = rounds.iter().rev().take(3).copied().collect();
            let often = |gfn: &u64| last.len() == 3 && last.iter().filter(|round| *round >> gfn & 1 == 1).count() >= 2;
            let expected: Vec<u64> = (0..8).filter(often).collect();
            prop_assert_eq!(set.pages().iter().collect::<Vec<_>>(), expected);
        }
    }
}
