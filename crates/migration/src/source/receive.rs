//! What comes in.

use super::push::Push;
use super::{Phase, Source};
use crate::wire::{Chunk, Item, Message};
use crate::{Error, Micros, SourceVm, Verdict};

impl Source {
    /// Takes in what came from the destination: any part of the stream, cut anywhere.
    ///
    /// # Errors
    /// When the attempt has failed (the guest goes on here) or, after the hand-over, the link can no longer be used
    /// (then the migration is paused and [`Source::recover`] resumes it).
    pub fn receive(&mut self, mut bytes: &[u8], now: Micros, vm: &mut impl SourceVm) -> Result<(), Error> {
        let mut decoder = core::mem::take(&mut self.decoder);
        let result = loop {
            if matches!(self.phase, Phase::Ended(_) | Phase::Broken) {
                break Ok(());
            }
            match decoder.next(&mut bytes) {
                Ok(None) => break Ok(()),
                Ok(Some(Item::Message(message))) => {
                    if let Err(error) = self.handle(&message, now) {
                        break Err(error);
                    }
                }
                Ok(Some(Item::Batch | Item::Page(_))) => {
                    break Err(Error::Unexpected(crate::wire::Kind::Pages as u8));
                }
                Err(error) => break Err(error),
            }
        };
        self.decoder = decoder;
        result.inspect_err(|error| self.fail(error.clone(), now, vm))
    }

    fn handle(&mut self, message: &Message<'_>, now: Micros) -> Result<(), Error> {
        match (self.phase, message) {
            (_, Message::Abort { reason }) => return Err(Error::Aborted(reason.clone())),
            (Phase::Offered, Message::Refuse { reason }) => {
                return Err(Error::Refused(reason.clone()));
            }
            (Phase::Recovering, Message::Refuse { reason }) => {
                return Err(Error::Refused(reason.clone()));
            }
            (Phase::Offered, Message::Accept) => {
                self.all_handled(now)?;
                self.phase = Phase::Begin;
            }
            (_, Message::Acknowledge { bytes }) => self.meter.acknowledged(*bytes, now)?,
            (Phase::Loading, Message::Ready) => {
                self.all_handled(now)?;
                self.phase = Phase::Commit;
            }
            (Phase::Serve, Message::Running) => {
                self.log.running.get_or_insert(now);
            }
            (Phase::Serve, Message::Request(gfns)) => {
                for gfn in gfns.iter() {
                    self.request(gfn)?;
                }
            }
            (Phase::Serve, Message::Complete { requests, latency }) if self.sets.pending.is_empty() => {
                self.log.requests = *requests;
                self.log.latency = *latency;
                self.phase = if self.offer.verify { Phase::Hashes(0) } else { Phase::Farewell };
            }
            (Phase::Compared, Message::Verdict { compared, different }) => {
                self.log.verdict = Some(Verdict { pages_compared: *compared, pages_different: *different });
                self.phase = Phase::Farewell;
            }
            (Phase::Recovering, Message::Held(chunk)) => self.held(chunk)?,
            (Phase::Recovering, Message::Resume { committed }) => {
                self.sets.resume();
                self.urgent.clear();
                self.requested.clear_all();
                self.push = Push::new();
                self.phase = if *committed { Phase::Serve } else { Phase::Commit };
            }
            _ => return Err(Error::Unexpected(message.kind())),
        }
        Ok(())
    }

    /// The destination's answer shows that it has handled everything sent so far.
    fn all_handled(&mut self, now: Micros) -> Result<(), Error> {
        let total = self.meter.total();
        self.meter.acknowledged(total, now)
    }

    /// The guest waits for a page. A page that has gone out is on its way: it is not sent twice. Either way it tells
    /// where the guest works.
    fn request(&mut self, gfn: u64) -> Result<(), Error> {
        if gfn >= self.offer.page_count {
            return Err(Error::PageOutside(gfn));
        }
        if self.requested.set(gfn) {
            self.log.requests += 1;
            self.push.touched(gfn);
            self.urgent.push_back(gfn);
        }
        Ok(())
    }

    fn held(&mut self, chunk: &Chunk<'_>) -> Result<(), Error> {
        let first = usize::try_from(chunk.first).map_err(|_| Error::BadField("held pages"))?;
        for (index, word) in chunk.words.iter().enumerate() {
            let index = first.checked_add(index).ok_or(Error::BadField("held pages"))?;
            if !self.sets.held.set_word(index, word) {
                return Err(Error::BadField("held pages"));
            }
        }
        Ok(())
    }
}
