//! Pages that were sent as the same as another while the guest ran, until a harvest has shown that they were.

use crate::Bitmap;
use alloc::vec::Vec;

/// As many as wait for a harvest. More pages go in another way.
const MOST: usize = 4096;

/// The page that was sent, and the one that its record named.
#[derive(Debug, Default)]
pub struct Copies {
    pairs: Vec<(u64, u64)>,
}

impl Copies {
    /// `gfn` is to be sent as the same as `of`. Returns whether that can be noted: if not, it must go in another way.
    pub fn note(&mut self, gfn: u64, of: u64) -> bool {
        let has_room = self.pairs.len() < MOST && self.pairs.try_reserve(1).is_ok();
        if has_room {
            self.pairs.push((gfn, of));
        }
        has_room
    }

    /// Dirty flags were collected. A page that was modified may have been so before a record named it, so that the
    /// destination copied an older version: the copy is taken for modified. In the order of the stream, since a copy may
    /// have been copied.
    pub fn settle(&mut self, dirty: &mut Bitmap) {
        for (gfn, of) in self.pairs.drain(..) {
            if dirty.test(of) {
                dirty.set(gfn);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Copies, MOST};
    use crate::Bitmap;

    #[test]
    fn a_copy_of_a_copy_of_a_modified_page_is_void_too() {
        let (mut copies, mut dirty) = (Copies::default(), Bitmap::new(10));
        for (gfn, of) in [(2, 1), (3, 2), (4, 3), (6, 5)] {
            assert!(copies.note(gfn, of));
        }
        dirty.set(1);
        copies.settle(&mut dirty);
        assert_eq!(dirty.iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
        dirty.set(5);
        copies.settle(&mut dirty);
        assert!(!dirty.test(6), "what was borne out once is so for ever");
    }

    #[test]
    fn it_notes_no_more_than_it_may() {
        let mut copies = Copies::default();
        assert!((0..MOST as u64).all(|gfn| copies.note(gfn + 1, 0)) && !copies.note(9, 0));
        copies.settle(&mut Bitmap::new(10));
        assert!(copies.note(9, 0));
    }
}
