//! What changed in a page since its last version: a row of changed words, each as the words between it and the one
//! before (1 byte), which of its eight bytes follow (1 byte, lowest first), and those bytes. A gap of 256 words or more
//! has words in it of which no byte follows. Words, because a comparison of eight bytes costs what one of a byte does;
//! new bytes instead of an XOR, because they take the same room.

use crate::Page;

/// Writes what turns `old` into `new`. Returns its length, or none if there is no room for it.
#[must_use]
pub fn encode(old: &Page, new: &Page, out: &mut [u8]) -> Option<usize> {
    let room = out.len();
    let mut out = out.iter_mut();
    let mut put = |byte: u8| out.next().map(|place| *place = byte);
    let (mut gap, mut length) = (0, 0);
    for (old, new) in old.as_chunks::<8>().0.iter().zip(new.as_chunks::<8>().0) {
        if u64::from_ne_bytes(*old) == u64::from_ne_bytes(*new) {
            gap += 1;
            continue;
        }
        while gap > usize::from(u8::MAX) {
            put(u8::MAX)?;
            put(0)?;
            gap -= usize::from(u8::MAX) + 1;
            length += 2;
        }
        let changed = || old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new);
        let mask = changed().fold(0, |mask, (at, _)| mask | 1 << at);
        put(u8::try_from(gap).ok()?)?;
        put(mask)?;
        for (_, (_, byte)) in changed() {
            put(*byte)?;
            length += 1;
        }
        length += 2;
        gap = 0;
    }
    (length <= room).then_some(length)
}

/// Turns the old version into the new one. None, and a page that is neither, if `delta` is no delta of a page.
#[must_use]
pub fn apply(page: &mut Page, delta: &[u8]) -> Option<()> {
    let mut words = page.as_chunks_mut::<8>().0.iter_mut();
    let mut rest = delta;
    while let [gap, mask, tail @ ..] = rest {
        rest = tail;
        let word = words.nth(usize::from(*gap))?;
        for (at, byte) in word.iter_mut().enumerate() {
            if mask >> at & 1 == 1 {
                let (new, tail) = rest.split_first()?;
                (*byte, rest) = (*new, tail);
            }
        }
    }
    rest.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use super::{apply, encode};
    use crate::{PAGE_SIZE, Page, ZERO_PAGE};
    use proptest::prelude::*;

    fn delta(old: &Page, new: &Page, room: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; room];
        let length = encode(old, new, &mut out)?;
        out.truncate(length);
        Some(out)
    }

    #[test]
    fn a_version_that_is_the_old_one_takes_no_bytes() {
        assert_eq!(delta(&ZERO_PAGE, &ZERO_PAGE, 0), Some(Vec::new()));
    }

    #[test]
    fn one_changed_byte_takes_three_and_two_for_each_long_gap_before_it() {
        for (at, length) in [(0, 3), (255 * 8, 3), (256 * 8, 5), (PAGE_SIZE - 1, 5)] {
            let mut new = ZERO_PAGE;
            new[at] = 7;
            assert_eq!(delta(&ZERO_PAGE, &new, 16).unwrap().len(), length, "byte {at}");
            assert_eq!(delta(&ZERO_PAGE, &new, length - 1), None);
        }
    }

    #[test]
    fn a_page_of_which_all_is_new_does_not_shrink() {
        assert_eq!(delta(&[1; PAGE_SIZE], &[2; PAGE_SIZE], PAGE_SIZE - 1), None);
    }

    #[test]
    fn a_delta_that_runs_past_the_page_or_ends_early_is_none() {
        let mut page = ZERO_PAGE;
        // Two words beyond the last, one beyond it, a mask without its bytes, a gap without its mask.
        for wrong in [&[255, 0, 255, 0, 0, 0][..], &[255, 0, 255, 0, 0, 1, 9], &[0, 3, 9], &[0, 1, 9, 4]] {
            assert_eq!(apply(&mut page, wrong), None, "{wrong:?}");
        }
        assert_eq!(apply(&mut page, &[255, 0, 255, 128, 9]), Some(()));
        assert_eq!(page[PAGE_SIZE - 1], 9);
    }

    proptest! {
        #[test]
        fn what_is_applied_is_the_new_version(
            seed in any::<u8>(),
            changes in prop::collection::vec((0..PAGE_SIZE, 1usize..200, any::<u8>()), 0..40),
        ) {
            let old: Page = core::array::from_fn(|at| (at as u8).wrapping_mul(seed));
            let mut new = old;
            for (at, length, value) in changes {
                new[at..(at + length).min(PAGE_SIZE)].fill(value);
            }
            let delta = delta(&old, &new, 2 * PAGE_SIZE).unwrap();
            let mut page = old;
            prop_assert_eq!(apply(&mut page, &delta), Some(()));
            prop_assert!(page == new);
        }

        #[test]
        fn no_bytes_can_panic_it(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let _ = apply(&mut ZERO_PAGE.clone(), &bytes);
        }
    }
}
