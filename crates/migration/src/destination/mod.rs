//! The side where the VM arrives.

mod arrive;
mod log;
mod outbox;
mod receive;
mod verify;

use crate::handover::DestinationRight;
use crate::wire::{Decoder, Kind, Message, Offer};
use crate::{Bitmap, Error, Micros, Page, Report, Status};
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;
use log::Log;
use outbox::Outbox;
use verify::Hashes;

/// What the destination expects next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A hello, on a link that is new.
    Waiting,
    /// Nothing, while memory is zeroed.
    Preparing,
    /// Pages, then the state.
    Receiving,
    /// The state is loaded. COMMIT.
    Ready,
    /// The guest runs here. The pages that are missing.
    Running,
    /// Every page is here. Hashes, or the end.
    Complete,
    /// The link broke when the guest ran here, or might have to.
    Broken,
    /// There is a new link: a recover, or another attempt.
    Reconnected,
    /// Nothing.
    Ended(Status),
}

/// What a touched page needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the page is here.
    Present,
    /// It is asked for. The guest can go on when it is written.
    Requested,
}

/// The destination's engine: one incoming migration.
#[derive(Debug)]
pub struct Destination {
    phase: Phase,
    right: DestinationRight,
    decoder: Decoder,
    offer: Option<Offer>,
    /// Pages whose present version is here.
    present: Bitmap,
    /// Pages that were here, and that the source has announced as modified since.
    stale: Option<Bitmap>,
    missing: u64,
    state: Vec<u8>,
    hashes: Option<Hashes>,
    /// Pages that the guest waits for, and since when.
    faults: Vec<(u64, Micros)>,
    /// What is to go out.
    outbox: Outbox,
    acknowledged: u64,
    /// Bytes of probes that came, and where their pages are copied to.
    probed: u64,
    scratch: Option<Box<Page>>,
    error: Option<Error>,
    log: Log,
}

impl Destination {
    /// Ready to take a migration in.
    #[must_use]
    pub fn new(now: Micros) -> Self {
        Self {
            phase: Phase::Waiting,
            right: DestinationRight::default(),
            decoder: Decoder::default(),
            offer: None,
            present: Bitmap::new(0),
            stale: None,
            missing: 0,
            state: Vec::new(),
            hashes: None,
            faults: Vec::new(),
            outbox: Outbox::default(),
            acknowledged: 0,
            probed: 0,
            scratch: None,
            error: None,
            log: Log::new(now),
        }
    }

    /// Appends at most `room` bytes to `out`, and returns how many.
    pub fn transmit(&mut self, room: usize, out: &mut Vec<u8>) -> usize {
        self.acknowledge();
        self.outbox.leave(room, out)
    }

    /// Tells the source how far this side is, when that is due.
    fn acknowledge(&mut self) {
        if self.phase == Phase::Waiting && self.probed > self.acknowledged && self.outbox.is_empty() {
            self.acknowledged = self.probed;
            self.say(&Message::Acknowledge { bytes: self.probed });
        }
        let Some(offer) = &self.offer else { return };
        let every = match self.phase {
            Phase::Running => u64::from(offer.acknowledge_every.max(1)),
            // Here it only tells the bandwidth, and each answer costs both hosts a packet.
            Phase::Receiving | Phase::Ready | Phase::Complete => u64::from(offer.acknowledge_every.max(1)) * 4,
            _ => return,
        };
        let handled = self.decoder.handled();
        // While older news wait to go out there is no use in more.
        if handled.saturating_sub(self.acknowledged) >= every && self.outbox.is_empty() {
            self.acknowledged = handled;
            self.say(&Message::Acknowledge { bytes: handled });
        }
    }

    /// The guest has touched a page. Call it for a page that was missing when the guest first ran.
    pub fn fault(&mut self, gfn: u64, now: Micros) -> Fault {
        let known = gfn < self.present.pages() && self.right.is_held();
        if !known || self.present.test(gfn) {
            return Fault::Present;
        }
        if !self.faults.iter().any(|(waiting, _)| *waiting == gfn) {
            self.faults.push((gfn, now));
            self.log.requests += 1;
            // On a broken link it waits: what is waited for is asked for again when the stream resumes.
            if self.phase == Phase::Running {
                self.outbox.say_words(Kind::Request, None, core::iter::once(gfn));
            }
        }
        Fault::Requested
    }

    /// The link broke. Before READY the attempt has failed, and the VM is to be dropped. After it, the VM may be this
    /// side's to run: it is kept until [`Destination::reconnected`] or [`Destination::abandon`].
    pub fn link_lost(&mut self, now: Micros) {
        match self.phase {
            Phase::Ended(_) | Phase::Broken => {}
            // At most the comparison is lost.
            _ if self.is_whole() => self.end(Status::Completed, Some(Error::LinkLost), now),
            Phase::Waiting | Phase::Preparing | Phase::Receiving => {
                self.end(Status::Failed, Some(Error::LinkLost), now);
            }
            Phase::Ready | Phase::Running | Phase::Complete | Phase::Reconnected => {
                self.error = Some(Error::LinkLost);
                self.phase = Phase::Broken;
            }
        }
        self.outbox = Outbox::default();
    }

    /// Gives up a VM that does not run here: it is to be dropped. If the source has sent COMMIT, which never came, the
    /// guest is lost by this: it is for a user who knows that the source has it, or does not want it.
    ///
    /// # Errors
    /// When the guest runs here, or the migration has ended.
    pub fn abandon(&mut self, now: Micros) -> Result<(), Error> {
        if self.right.is_held() || matches!(self.phase, Phase::Ended(_)) {
            return Err(Error::HandedOver);
        }
        self.outbox.take_back();
        self.say(&Message::Abort { reason: Error::Cancelled.to_string() });
        self.end(Status::Cancelled, Some(Error::Cancelled), now);
        Ok(())
    }

    /// There is a new link after a broken one.
    ///
    /// # Errors
    /// When there is nothing that a source could resume.
    pub fn reconnected(&mut self) -> Result<(), Error> {
        // A source that has not heard that all is here asks too.
        if !matches!(self.phase, Phase::Broken | Phase::Ended(Status::Completed)) {
            return Err(Error::NothingToResume);
        }
        self.log.bytes_before += self.decoder.handled();
        self.decoder = Decoder::default();
        self.outbox = Outbox::default();
        self.acknowledged = 0;
        self.phase = Phase::Reconnected;
        Ok(())
    }

    /// Where the migration stands.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.phase {
            Phase::Waiting | Phase::Preparing => Status::Setup,
            Phase::Receiving => {
                if self.log.paused.is_some() {
                    Status::Device
                } else {
                    Status::Active
                }
            }
            Phase::Ready => Status::Device,
            Phase::Running => Status::PostcopyActive,
            Phase::Complete => Status::Verifying,
            Phase::Broken => Status::PostcopyPaused,
            Phase::Reconnected => Status::PostcopyRecover,
            Phase::Ended(status) => status,
        }
    }

    /// Why it failed, or why it is paused.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Whether the guest runs here. If not, and the migration has failed, the VM is to be dropped.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.right.is_held()
    }

    /// What the source offered, once it was accepted.
    #[must_use]
    pub fn offer(&self) -> Option<&Offer> {
        self.offer.as_ref()
    }

    /// Pages that have not come.
    #[must_use]
    pub fn pages_left(&self) -> u64 {
        self.missing
    }

    /// The round that the source is in.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.log.round
    }

    /// What happened up to `now`. None before an offer was accepted.
    #[must_use]
    pub fn report(&self, now: Micros) -> Option<Report> {
        let verdict = self.hashes.as_ref().and_then(Hashes::verdict);
        self.offer
            .as_ref()
            .map(|offer| self.log.report(offer.path, self.status(), self.decoder.handled(), verdict, now))
    }

    fn say(&mut self, message: &Message<'_>) {
        self.outbox.say(message);
    }

    /// Whether the guest runs here with all its pages.
    fn is_whole(&self) -> bool {
        self.right.is_held() && self.missing == 0
    }

    fn end(&mut self, status: Status, error: Option<Error>, now: Micros) {
        self.phase = Phase::Ended(status);
        self.error = error;
        self.log.ended = Some(now);
    }
}
