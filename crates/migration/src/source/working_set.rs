//! The writable working set: pages that the guest modifies in most rounds, so that sending them while it runs is in vain
//! (Clark et al., NSDI 2005, section 2.2).

use crate::Bitmap;
use core::mem;

/// What was modified in each of the last three rounds.
#[derive(Debug)]
pub struct WorkingSet {
    rounds: [Bitmap; 3],
}

impl WorkingSet {
    /// Before the first round.
    pub fn new(pages: u64) -> Self {
        Self { rounds: [Bitmap::new(pages), Bitmap::new(pages), Bitmap::new(pages)] }
    }

    /// A round has ended, in which these pages were modified.
    pub fn note(&mut self, modified: &Bitmap) {
        let [last, before, oldest] = &mut self.rounds;
        mem::swap(before, oldest);
        mem::swap(last, before);
        last.clear_all();
        last.or(modified);
    }

    /// Pages that were modified in two of the last three rounds or in all of them.
    pub fn pages(&self) -> Bitmap {
        let [last, before, oldest] = &self.rounds;
        let (mut both, mut either) = (last.clone(), last.clone());
        both.and(before);
        either.or(before);
        either.and(oldest);
        both.or(&either);
        both
    }
}
