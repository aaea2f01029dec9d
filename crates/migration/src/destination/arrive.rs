//! Pages arrive.

use super::{Destination, Phase};
use crate::encoding::{delta, lz4};
use crate::wire::{Body, Chunk, Kind, Record};
use crate::{Bitmap, DestinationVm, Error, Micros, Page, ZERO_PAGE};
use core::ops::Range;

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
        let count = if let Body::Zero { count } = record.body { count.into() } else { 1 };
        let end = record.gfn.checked_add(count).filter(|end| *end <= self.present.pages());
        let end = end.ok_or(Error::PageOutside(record.gfn))?;
        match record.body {
            Body::Zero { .. } => {
                self.install_zeroes(record.gfn..end, now, vm);
            }
            Body::Data(page) => self.install(record.gfn, Some(page), &record.body, now, vm),
            Body::Same { .. } | Body::Delta(_) | Body::Lz4(_) => {
                let page = self.decode(record, vm)?;
                self.install(record.gfn, Some(&page), &record.body, now, vm);
            }
        }
        if self.phase == Phase::Running && self.missing == 0 {
            self.complete(vm);
        }
        Ok(())
    }

    /// The page that an encoded record stands for.
    fn decode(&self, record: &Record<'_>, vm: &impl DestinationVm) -> Result<Page, Error> {
        match record.body {
            Body::Zero { .. } => Ok(ZERO_PAGE),
            Body::Data(page) => Ok(*page),
            Body::Same { of } => self.base(of, vm),
            Body::Delta(bytes) => {
                let mut page = self.base(record.gfn, vm)?;
                delta::apply(&mut page, bytes).ok_or(Error::BadRecord)?;
                Ok(page)
            }
            Body::Lz4(bytes) => lz4::decode(bytes).ok_or(Error::BadRecord),
        }
    }

    /// A page on which a record may build: one that is here as it was sent. Once the guest may run here, none is.
    fn base(&self, gfn: u64, vm: &impl DestinationVm) -> Result<Page, Error> {
        let is_held = self.phase == Phase::Receiving && self.present.test(gfn);
        if is_held { Ok(*vm.received(gfn)) } else { Err(Error::NoBase(gfn)) }
    }

    /// A run that is all new goes as one: there can be as many as the guest has pages, while it waits. Its hashes are those of
    /// zeroes from the start.
    fn install_zeroes(&mut self, gfns: Range<u64>, now: Micros, vm: &mut impl DestinationVm) {
        let (first, count) = (gfns.start, gfns.end - gfns.start);
        let is_known = |set: &Bitmap| set.has_any(first, count);
        if is_known(&self.present) || self.stale.as_ref().is_some_and(is_known) || !self.faults.is_empty() {
            gfns.for_each(|gfn| self.install(gfn, None, &Body::Zero { count: 1 }, now, vm));
            return;
        }
        self.missing -= self.present.fill(first, count, true);
        self.log.pages.duplicate += count;
        vm.write_zeroes(gfns, true);
    }

    fn install(&mut self, gfn: u64, page: Option<&Page>, body: &Body<'_>, now: Micros, vm: &mut impl DestinationVm) {
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
        self.log.pages.count(body);
        self.log.bytes_saved += body.saved() as u64;
        match page {
            Some(page) => vm.write_page(gfn, page),
            None => {
                let was_here = self.stale.as_ref().is_some_and(|stale| stale.test(gfn));
                vm.write_zeroes(gfn..gfn + 1, is_new && !was_here);
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
