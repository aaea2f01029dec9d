//! Pages arrive.

use super::{Destination, Phase};
use crate::wire::{Body, Chunk, Kind, Record};
use crate::{Bitmap, DestinationVm, Error, Micros, Page};

impl Destination {
    /// Takes a page record in. The gfn is proven here and nowhere else.
    pub(super) fn arrive(
        &mut self,
        record: &Record<'_>,
        now: Micros,
        vm: &mut impl DestinationVm,
    ) -> Result<(), Error> {
        if !matches!(self.phase, Phase::Receiving | Phase::Running) {
            return Err(Error::Unexpected(Kind::Pages as u8));
        }
        let (count, page) = match record.body {
            Body::Zero { count } => (u64::from(count), None),
            Body::Data(page) => (1, Some(page)),
        };
        let end = record.gfn.checked_add(count).filter(|end| *end <= self.present.pages());
        let end = end.ok_or(Error::PageOutside(record.gfn))?;
        for gfn in record.gfn..end {
            self.install(gfn, page, now, vm);
        }
        if self.phase == Phase::Running && self.missing == 0 {
            self.complete(vm);
        }
        Ok(())
    }

    fn install(&mut self, gfn: u64, page: Option<&Page>, now: Micros, vm: &mut impl DestinationVm) {
        let is_new = self.present.set(gfn);
        if is_new {
            self.missing -= 1;
        } else if self.right.is_held() {
            // The guest may have written it since: what comes again is old.
            self.log.pages.twice += 1;
            return;
        }
        if let Some(hashes) = &mut self.hashes {
            hashes.install(gfn, page);
        }
        match page {
            Some(page) => {
                self.log.pages.normal += 1;
                vm.write_page(gfn, page);
            }
            None => {
                self.log.pages.duplicate += 1;
                let was_here = self.stale.as_ref().is_some_and(|stale| stale.test(gfn));
                vm.write_zero(gfn, is_new && !was_here);
            }
        }
        if let Some(index) = self.faults.iter().position(|(waiting, _)| *waiting == gfn) {
            let (_, since) = self.faults.swap_remove(index);
            self.log.waits.push(now.saturating_sub(since));
        }
    }

    /// The source has modified pages since it sent them: what is here of them is worthless.
    pub(super) fn announce(&mut self, chunk: &Chunk<'_>) -> Result<(), Error> {
        let pages = self.present.pages();
        let stale = self.stale.get_or_insert_with(|| Bitmap::new(pages));
        for (index, word) in chunk.words.iter().enumerate() {
            let index = usize::try_from(chunk.first).ok().and_then(|first| first.checked_add(index));
            let index = index.ok_or(Error::BadField("stale pages"))?;
            let Some(here) = self.present.words().get(index).copied() else {
                return Err(Error::BadField("stale pages"));
            };
            let before = stale.words().get(index).copied().unwrap_or(0);
            stale.set_word(index, before | (here & word));
            self.present.set_word(index, here & !word);
            self.missing += u64::from((here & word).count_ones());
        }
        Ok(())
    }
}
