//! Sets of pages as runs, for people and for the lab.

use alloc::vec::Vec;
use migration::Bitmap;

/// Takes the lowest pages out of a set, as runs of first page and number of pages, at most `most` runs.
pub fn take(pages: &mut Bitmap, most: usize) -> Vec<[u64; 2]> {
    let mut runs: Vec<[u64; 2]> = Vec::new();
    while runs.len() < most
        && let Some(first) = pages.next_set(runs.last().map_or(0, |[first, count]| first + count))
    {
        let count = (first..).take_while(|gfn| pages.clear(*gfn)).count() as u64;
        runs.push([first, count]);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::take;
    use migration::Bitmap;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_maximal_in_order_and_what_is_left_comes_next(
            set in proptest::collection::btree_set(0u64..200, 0..100),
            most in 1usize..20,
        ) {
            let mut pages = Bitmap::new(200);
            set.iter().for_each(|gfn| { pages.set(*gfn); });
            let mut told = Vec::new();
            while !pages.is_empty() {
                let runs = take(&mut pages, most);
                prop_assert!((1..=most).contains(&runs.len()));
                prop_assert!(runs.windows(2).all(|pair| pair[0][0] + pair[0][1] < pair[1][0]));
                told.extend(runs.iter().flat_map(|[first, count]| *first..first + count));
            }
            prop_assert_eq!(told, set.into_iter().collect::<Vec<_>>());
            prop_assert!(take(&mut pages, most).is_empty());
        }
    }
}
