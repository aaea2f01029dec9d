//! Where a page's content was last sent, by its hash. A hint and no more: whoever takes it compares the pages.

use alloc::vec::Vec;

/// A page: part of its hash, and its number.
#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: u32,
    gfn: u32,
}

/// No page has this number here; the index leaves out those from it on.
const NONE: u32 = u32::MAX;

/// A table of fixed size, made when it is first used. What is sent later takes the place of what was sent before.
#[derive(Debug)]
pub struct Index {
    entries: Vec<Entry>,
    limit: usize,
}

impl Index {
    /// An index of up to `limit` pages.
    pub fn new(limit: usize) -> Self {
        Self { entries: Vec::new(), limit }
    }

    fn place(&mut self, hash: u64) -> Option<&mut Entry> {
        if self.entries.is_empty() && self.limit > 0 {
            if self.entries.try_reserve_exact(self.limit).is_err() {
                // Without memory there is no index.
                self.limit = 0;
                return None;
            }
            self.entries.resize(self.limit, Entry { tag: 0, gfn: NONE });
        }
        let place = (u128::from(hash & u64::from(u32::MAX)) * self.entries.len() as u128) >> 32;
        self.entries.get_mut(usize::try_from(place).ok()?)
    }

    /// A page that may hold what hashes so.
    pub fn find(&mut self, hash: u64) -> Option<u64> {
        let entry = self.place(hash)?;
        (entry.gfn != NONE && entry.tag == tag(hash)).then_some(entry.gfn.into())
    }

    /// A page that hashes so goes out.
    pub fn put(&mut self, hash: u64, gfn: u64) {
        if let Some(entry) = self.place(hash) {
            *entry = Entry { tag: tag(hash), gfn: u32::try_from(gfn).unwrap_or(NONE) };
        }
    }
}

/// The half of the hash that the place does not tell.
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::Index;

    #[test]
    fn it_finds_what_was_put_last_and_holds_no_more_than_its_limit() {
        let mut index = Index::new(64);
        let hash = |gfn: u64| (gfn + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        assert_eq!(index.find(hash(1)), None);
        for gfn in 0..1000 {
            index.put(hash(gfn), gfn);
            assert_eq!(index.find(hash(gfn)), Some(gfn));
        }
        assert!((0..1000).filter(|gfn| index.find(hash(*gfn)).is_some()).count() <= 64);
        assert_eq!(index.entries.capacity(), 64);
    }

    #[test]
    fn an_index_without_room_finds_nothing() {
        let mut index = Index::new(0);
        index.put(5, 1);
        assert_eq!(index.find(5), None);
        index = Index::new(usize::MAX);
        index.put(5, 1);
        assert_eq!(index.find(5), None);
    }
}
