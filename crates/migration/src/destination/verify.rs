//! Every page as it was installed, compared by hash with what the source holds.

use crate::wire::Chunk;
use crate::{Error, Page, Verdict, ZERO_PAGE, hash};
use alloc::vec;
use alloc::vec::Vec;

/// One hash a page. A page's is taken when it is installed: soon after the guest may write it.
#[derive(Debug)]
pub struct Hashes {
    hashes: Vec<u64>,
    zero: u64,
    compared: u64,
    different: u64,
}

impl Hashes {
    /// Of a memory of zeroes.
    pub fn new(pages: usize) -> Self {
        let zero = hash(&ZERO_PAGE);
        Self { hashes: vec![zero; pages], zero, compared: 0, different: 0 }
    }

    /// A page is installed; none: one of zeroes.
    pub fn install(&mut self, gfn: u64, page: Option<&Page>) {
        let value = page.map_or(self.zero, hash);
        if let Some(place) = usize::try_from(gfn).ok().and_then(|gfn| self.hashes.get_mut(gfn)) {
            *place = value;
        }
    }

    /// The comparison begins anew.
    pub fn restart(&mut self) {
        (self.compared, self.different) = (0, 0);
    }

    /// Compares a run of the source's hashes. They come in order, each once.
    pub fn compare(&mut self, chunk: &Chunk<'_>) -> Result<(), Error> {
        if chunk.first != self.compared {
            return Err(Error::BadField("hashes"));
        }
        for theirs in chunk.words.iter() {
            let index = usize::try_from(self.compared).ok();
            let ours = index.and_then(|index| self.hashes.get(index)).ok_or(Error::PageOutside(self.compared))?;
            self.different += u64::from(*ours != theirs);
            self.compared += 1;
        }
        Ok(())
    }

    /// What it showed, when all pages are compared.
    pub fn verdict(&self) -> Option<Verdict> {
        (self.compared == self.hashes.len() as u64)
            .then_some(Verdict { pages_compared: self.compared, pages_different: self.different })
    }
}
