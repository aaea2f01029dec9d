//! The last versions sent, of some pages.

use crate::Page;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// A version that no page asked for in so many rounds makes room for another's.
const OLD: u32 = 2;

#[derive(Debug)]
struct Version {
    gfn: u64,
    /// The round in which it was sent.
    round: u32,
    page: Box<Page>,
}

/// A cache with one place for each page, which it shares with others. Rounds go through the pages in order: a cache that
/// always kept the latest would have forgotten each page when its turn comes again.
#[derive(Debug)]
pub struct Versions {
    places: Vec<Option<Version>>,
    limit: usize,
    round: u32,
    /// There is room for every page of the VM.
    holds_all: bool,
}

impl Versions {
    /// Of up to `limit` of `pages` pages.
    pub fn new(limit: usize, pages: u64) -> Self {
        let needed = usize::try_from(pages).unwrap_or(usize::MAX);
        Self { places: Vec::new(), limit: limit.min(needed), round: 0, holds_all: limit >= needed }
    }

    /// A round ended.
    pub fn next_round(&mut self) {
        self.round += 1;
    }

    fn place(&self, gfn: u64) -> Option<usize> {
        usize::try_from(gfn % (self.places.len() as u64).max(1)).ok()
    }

    /// What the destination was last sent of a page, if that is here.
    pub fn get(&self, gfn: u64) -> Option<&Page> {
        let version = self.places.get(self.place(gfn)?)?.as_ref()?;
        (version.gfn == gfn).then_some(&version.page)
    }

    /// A version is sent. In the first round each page is, and most for the only time: they are kept only if there is
    /// room for all.
    pub fn sent(&mut self, gfn: u64, page: &Page) {
        if self.places.is_empty() && !self.begin() {
            return;
        }
        let round = self.round;
        let keep = round > 0 || self.holds_all;
        let Some(place) = self.place(gfn).and_then(|place| self.places.get_mut(place)) else { return };
        match place {
            Some(version) if version.gfn == gfn || (keep && version.round + OLD <= round) => {
                (version.gfn, version.round) = (gfn, round);
                version.page.copy_from_slice(page);
            }
            None if keep => *place = boxed(page).map(|page| Version { gfn, round, page }),
            _ => {}
        }
    }

    /// The destination was sent a version that is not worth keeping.
    pub fn drop(&mut self, gfn: u64) {
        if let Some(place) = self.place(gfn).and_then(|place| self.places.get_mut(place))
            && place.as_ref().is_some_and(|version| version.gfn == gfn)
        {
            *place = None;
        }
    }

    /// Makes the places, when they are first needed.
    fn begin(&mut self) -> bool {
        if (self.round == 0 && !self.holds_all) || self.places.try_reserve_exact(self.limit).is_err() {
            return false;
        }
        self.places.resize_with(self.limit, || None);
        true
    }
}

/// A copy of a page, if there is memory for it.
fn boxed(page: &Page) -> Option<Box<Page>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(page.len()).ok()?;
    bytes.extend_from_slice(page);
    bytes.into_boxed_slice().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::Versions;
    use crate::{PAGE_SIZE, Page};
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn page(value: u8) -> Page {
        [value; PAGE_SIZE]
    }

    #[test]
    fn a_range_larger_than_the_cache_does_not_sweep_it_empty() {
        let mut versions = Versions::new(8, 100);
        let mut hits = 0;
        for round in 0..10 {
            for gfn in 0..24 {
                hits += u32::from(versions.get(gfn).is_some());
                versions.sent(gfn, &page(round));
            }
            versions.next_round();
        }
        // From the third round on, a third of the pages.
        assert_eq!(hits, 8 * 8);
    }

    #[test]
    fn a_page_that_is_no_longer_sent_makes_room() {
        let mut versions = Versions::new(1, 100);
        versions.next_round();
        versions.sent(1, &page(1));
        versions.next_round();
        versions.sent(2, &page(2));
        assert!(versions.get(1).is_some() && versions.get(2).is_none());
        versions.next_round();
        versions.sent(2, &page(2));
        assert!(versions.get(1).is_none() && versions.get(2).is_some());
    }

    #[test]
    fn a_cache_that_cannot_be_made_keeps_nothing() {
        for limit in [0, usize::MAX] {
            let mut versions = Versions::new(limit, u64::MAX);
            versions.next_round();
            versions.sent(1, &page(1));
            assert!(versions.get(1).is_none());
            versions.drop(1);
        }
    }

    proptest! {
        #[test]
        fn what_it_has_of_a_page_is_what_was_sent_last(
            limit in 0usize..12,
            sends in prop::collection::vec((0u64..30, prop::option::of(1u8..), any::<bool>()), 0..300),
        ) {
            let (mut versions, mut last) = (Versions::new(limit, 30), HashMap::new());
            for (gfn, value, next) in sends {
                match value {
                    Some(value) => versions.sent(gfn, &page(value)),
                    None => versions.drop(gfn),
                }
                last.insert(gfn, value);
                if next { versions.next_round(); }
                let kept: Vec<u64> = (0..30).filter(|gfn| versions.get(*gfn).is_some()).collect();
                prop_assert!(kept.len() <= limit);
                for gfn in kept {
                    let value = last.get(&gfn).copied().flatten();
                    prop_assert_eq!(versions.get(gfn).map(|page| page[0]), value);
                }
            }
        }
    }
}
