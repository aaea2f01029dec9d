//! What comes in.

use super::verify::Hashes;
use super::{Destination, Phase};
use crate::wire::{self, HEADER, Item, Kind, MAX_STATE, Message, Offer};
use crate::{Bitmap, DestinationVm, Error, Micros, PAGE_SIZE, Status, Verdict, ZERO_PAGE};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;

/// Words of the set of present pages in one message.
const WORDS: usize = 512;

impl Destination {
    /// Takes in what came from the source: any part of the stream, cut anywhere. A page that is whole in `bytes` goes
    /// from there to the VM in one copy.
    ///
    /// # Errors
    /// When the stream can no longer be used: the link is to be closed, after what [`Destination::transmit`] still has
    /// to say. If then [`Destination::is_committed`] is false the attempt has failed and the VM is to be dropped.
    pub fn receive(&mut self, mut bytes: &[u8], now: Micros, vm: &mut impl DestinationVm) -> Result<(), Error> {
        let mut decoder = core::mem::take(&mut self.decoder);
        let result = loop {
            if matches!(self.phase, Phase::Ended(_) | Phase::Broken) {
                break Ok(());
            }
            let result = match decoder.next(&mut bytes) {
                Ok(None) => break Ok(()),
                Ok(Some(Item::Page(record))) => self.arrive(&record, now, vm),
                Ok(Some(Item::Batch)) => Ok(()),
                Ok(Some(Item::Message(message))) => self.handle(&message, now, vm),
                Err(error) => Err(error),
            };
            if result.is_err() {
                break result;
            }
        };
        self.decoder = decoder;
        result.inspect_err(|error| self.fail(error, now))
    }

    /// The stream is of no more use.
    fn fail(&mut self, error: &Error, now: Micros) {
        if self.phase == Phase::Waiting {
            self.say(&Message::Refuse { reason: error.to_string() });
        } else if !matches!(error, Error::Aborted(_)) {
            self.say(&Message::Abort { reason: error.to_string() });
        }
        match self.phase {
            Phase::Ended(_) => {}
            _ if self.is_whole() => self.end(Status::Completed, Some(error.clone()), now),
            // The source has given up before it sent COMMIT.
            Phase::Ready if matches!(error, Error::Aborted(_)) => {
                self.end(Status::Failed, Some(error.clone()), now);
            }
            // What was garbled may have been COMMIT: the VM is kept.
            Phase::Ready | Phase::Running | Phase::Complete | Phase::Broken | Phase::Reconnected => {
                self.phase = Phase::Broken;
                self.error = Some(error.clone());
            }
            Phase::Waiting | Phase::Preparing | Phase::Receiving => self.end(Status::Failed, Some(error.clone()), now),
        }
    }

    fn handle(&mut self, message: &Message<'_>, now: Micros, vm: &mut impl DestinationVm) -> Result<(), Error> {
        match (self.phase, message) {
            (_, Message::Abort { reason }) => return Err(Error::Aborted(reason.clone())),
            (Phase::Waiting, Message::Hello(offer)) => self.consider(offer, now, vm)?,
            (Phase::Waiting, Message::Probe { pages }) => self.measure(pages),
            (Phase::Receiving, Message::Round { number }) => self.log.round = *number,
            (Phase::Receiving, Message::Paused) => self.log.paused = Some(now),
            (Phase::Receiving, Message::Stale(chunk)) if self.runs_early() => self.announce(chunk)?,
            (Phase::Receiving, Message::State { total, offset, bytes }) => self.state(*total, *offset, bytes, vm)?,
            (Phase::Ready, Message::Commit) => {
                self.right.receive_commit(vm);
                self.log.running = Some(now);
                self.say(&Message::Running);
                self.phase = Phase::Running;
                if self.missing == 0 {
                    self.complete(vm);
                }
            }
            (Phase::Complete, Message::Hashes(chunk)) => self.compare(chunk)?,
            (Phase::Complete, Message::Done) => self.end(Status::Completed, None, now),
            (Phase::Waiting, Message::Recover { .. }) => return Err(Error::NothingToResume),
            (Phase::Reconnected, Message::Recover { session }) => self.resume(*session)?,
            (Phase::Reconnected, Message::Hello(offer)) => self.another_attempt(offer, now, vm)?,
            _ => return Err(Error::Unexpected(message.kind())),
        }
        Ok(())
    }

    /// Does with a probe's pages what a page costs here: one copy.
    fn measure(&mut self, pages: &[u8]) {
        self.probed += (HEADER + pages.len()) as u64;
        for page in pages.as_chunks::<PAGE_SIZE>().0 {
            core::hint::black_box(self.scratch.get_or_insert_with(|| Box::new(ZERO_PAGE))).copy_from_slice(page);
        }
    }

    fn runs_early(&self) -> bool {
        self.offer.as_ref().is_some_and(|offer| offer.path.runs_early())
    }

    /// Makes room for the VM, or refuses. Nothing is allocated for an offer before the VM has found room for it.
    fn consider(&mut self, offer: &Offer, now: Micros, vm: &mut impl DestinationVm) -> Result<(), Error> {
        vm.prepare(offer).map_err(Error::Refused)?;
        let pages = usize::try_from(offer.page_count).map_err(|_| Error::BadField("page count"))?;
        self.present = Bitmap::new(offer.page_count);
        self.missing = offer.page_count;
        self.hashes = offer.verify.then(|| Hashes::new(pages));
        self.offer = Some(offer.clone());
        self.phase = Phase::Preparing;
        self.go_on(now, vm);
        Ok(())
    }

    /// Goes on with what is done in pieces, if there is such. To be called again and again, as [`Destination::transmit`] is;
    /// returns whether there is more of it.
    pub fn go_on(&mut self, now: Micros, vm: &mut impl DestinationVm) -> bool {
        if self.phase == Phase::Preparing && vm.zero_some() {
            self.log.accepted = Some(now);
            self.phase = Phase::Receiving;
            self.say(&Message::Accept);
        }
        self.phase == Phase::Preparing
    }

    /// Collects the state, and loads it when it is whole. The buffer grows with what comes, not with what is claimed.
    fn state(&mut self, total: u32, offset: u32, bytes: &[u8], vm: &mut impl DestinationVm) -> Result<(), Error> {
        let (total, offset) = (total as usize, offset as usize);
        let whole = self.state.len() + bytes.len();
        if total > MAX_STATE || offset != self.state.len() || whole > total || (bytes.is_empty() && total > 0) {
            return Err(Error::BadState);
        }
        self.state.extend_from_slice(bytes);
        if whole < total {
            return Ok(());
        }
        if self.missing > 0 && !self.runs_early() {
            return Err(Error::PagesMissing(self.missing));
        }
        vm.load_state(&self.state).map_err(Error::StateNotLoaded)?;
        self.state = alloc::vec::Vec::new();
        if self.missing > 0 {
            let mut missing = self.present.clone();
            missing.invert();
            vm.set_missing(&missing);
        }
        self.phase = Phase::Ready;
        self.say(&Message::Ready);
        Ok(())
    }

    /// The guest runs here and every page is here.
    pub(super) fn complete(&mut self, vm: &mut impl DestinationVm) {
        vm.all_present();
        self.phase = Phase::Complete;
        self.say(&Message::Complete { requests: self.log.requests, latency: self.log.latency() });
    }

    fn compare(&mut self, chunk: &wire::Chunk<'_>) -> Result<(), Error> {
        let hashes = self.hashes.as_mut().ok_or(Error::Unexpected(Kind::Hashes as u8))?;
        hashes.compare(chunk)?;
        if let Some(Verdict { pages_compared, pages_different }) = hashes.verdict() {
            self.say(&Message::Verdict { compared: pages_compared, different: pages_different });
        }
        Ok(())
    }

    /// The source has come back: tells it what is here, and asks again for what the guest waits for.
    fn resume(&mut self, session: u64) -> Result<(), Error> {
        if self.offer.as_ref().is_none_or(|offer| offer.session != session) {
            return Err(Error::NothingToResume);
        }
        for (index, words) in self.present.words().chunks(WORDS).enumerate() {
            let first = Some((index * WORDS) as u64);
            self.outbox.say_words(Kind::Held, first, words.iter().copied());
        }
        let committed = self.right.is_held();
        self.say(&Message::Resume { committed });
        self.error = None;
        self.log.ended = None;
        if !committed {
            self.phase = Phase::Ready;
            return Ok(());
        }
        self.say(&Message::Running);
        if self.missing == 0 {
            if let Some(hashes) = &mut self.hashes {
                hashes.restart();
            }
            self.phase = Phase::Complete;
            self.say(&Message::Complete { requests: self.log.requests, latency: self.log.latency() });
        } else {
            self.phase = Phase::Running;
            let waiting = self.faults.iter().map(|(gfn, _)| *gfn);
            self.outbox.say_words(Kind::Request, None, waiting);
        }
        Ok(())
    }

    /// A hello while a VM is kept here. If that VM was never committed, and the source offers it anew, then the source
    /// still holds the right to it: what is here is void. Otherwise it is not to be touched.
    fn another_attempt(&mut self, offer: &Offer, now: Micros, vm: &mut impl DestinationVm) -> Result<(), Error> {
        let name = self.offer.as_ref().map(|offer| offer.name.clone()).unwrap_or_default();
        if self.right.is_held() || name != offer.name {
            return Err(Error::Refused(format!("a migration of `{name}` is paused here and waits for its source")));
        }
        *self = Self::new(now);
        self.consider(offer, now, vm)
    }
}
