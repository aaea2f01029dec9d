//! The side that the VM leaves.

mod converge;
mod copies;
mod log;
mod page_cost;
mod pages;
mod push;
mod receive;
mod rounds;
mod transmit;
mod window;
mod working_set;

use crate::bucket::Bucket;
use crate::encoding::Encoder;
use crate::handover::SourceRight;
use crate::meter::Meter;
use crate::wire::{Decoder, MAX_NAME, MAX_PAGES, Numbering, Offer, Path};
use crate::{Bitmap, Config, Error, Micros, Report, SourceVm, Status};
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use converge::Converge;
use log::Log;
use page_cost::PageCost;
use pages::PageSets;
use push::Push;
use window::Window;

pub use transmit::MIN_ROOM;

/// What the source does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Say hello.
    Greet,
    /// The destination looks at the offer.
    Offered,
    /// Begin with what the path begins with.
    Begin,
    /// Push pages while the guest runs.
    Rounds,
    /// Pause the guest.
    Pause,
    /// Push what is left while the guest is paused.
    Rest,
    /// Tell which pages are missing although they were sent: from this word of the bitmap on.
    Announce(usize),
    /// Mark the pages that the guest does not need, from this one on.
    Free(u64),
    /// Send the state, from this byte on.
    State(usize),
    /// The destination loads the state.
    Loading,
    /// Hand over.
    Commit,
    /// The guest is the destination's. Send what is missing there, what it waits for first.
    Serve,
    /// The destination has all pages. Send the hashes, from this page on.
    Hashes(u64),
    /// The destination compares.
    Compared,
    /// Say that nothing follows.
    Farewell,
    /// The link broke after the hand-over.
    Broken,
    /// There is a new link: ask the destination what it holds.
    Recover,
    /// It tells.
    Recovering,
    /// Nothing more happens.
    Ended(Status),
}

/// How long a larger window is tried.
const WINDOW_INTERVAL: Micros = 250_000;

/// The source's engine. Drive it with [`Source::receive`] and [`Source::transmit`] until [`Source::status`] is final.
///
/// While the guest still runs here, its owner alternates: a while of guest, what came in, what goes out.
#[derive(Debug)]
pub struct Source {
    config: Config,
    offer: Offer,
    phase: Phase,
    right: SourceRight,
    decoder: Decoder,
    numbering: Numbering,
    meter: Meter,
    sets: PageSets,
    encoder: Encoder,
    page_cost: PageCost,
    push: Push,
    /// What may be on its way while pages are pushed, over a link that was measured.
    window: Option<Window>,
    /// Pages that the guest waits for at the destination, in the order of the requests.
    urgent: VecDeque<u64>,
    /// The same, to see a request that came before.
    requested: Bitmap,
    state: Vec<u8>,
    next_peek: Micros,
    /// What the rounds may take of the link.
    limit: Option<Bucket>,
    converge: Option<Converge>,
    /// The reason to give the peer, at the next chance.
    parting: Option<String>,
    error: Option<Error>,
    log: Log,
}

impl Source {
    /// A migration of the VM that `offer` tells of, beginning `now`.
    ///
    /// # Errors
    /// When the offer is one that no destination could read: no pages, too many, or too long a name.
    pub fn new(config: Config, mut offer: Offer, now: Micros) -> Result<Self, Error> {
        if offer.page_count == 0 || offer.page_count > MAX_PAGES {
            return Err(Error::BadField("page count"));
        }
        if offer.name.len() > MAX_NAME {
            return Err(Error::BadField("name"));
        }
        offer.acknowledge_every = offer.acknowledge_every.clamp(1, config.acknowledge_every());
        // Fewer bytes than two acknowledgements' worth might never be acknowledged.
        let least = 2 * u64::from(offer.acknowledge_every);
        let window = config.link.map(|link| Window::new(link.holds(), least, WINDOW_INTERVAL));
        Ok(Self {
            phase: Phase::Greet,
            right: SourceRight::Running,
            decoder: Decoder::default(),
            numbering: Numbering::default(),
            meter: Meter::new(config.measure_interval),
            sets: PageSets::new(offer.page_count),
            encoder: Encoder::new(config.encodings, offer.page_count),
            page_cost: PageCost::default(),
            push: Push::new(),
            window,
            urgent: VecDeque::new(),
            requested: Bitmap::new(offer.page_count),
            state: Vec::new(),
            next_peek: now,
            limit: None,
            converge: None,
            parting: None,
            error: None,
            log: Log::new(now),
            config,
            offer,
        })
    }

    /// The link broke. Before the hand-over the guest goes on here and the attempt has failed; after it both sides keep
    /// what they have, until [`Source::recover`].
    pub fn link_lost(&mut self, now: Micros, vm: &mut impl SourceVm) {
        match self.phase {
            Phase::Ended(_) | Phase::Broken => {}
            Phase::Hashes(_) | Phase::Compared | Phase::Farewell => {
                // All pages are there: only the comparison is lost.
                self.error = Some(Error::LinkLost);
                self.end(Status::Completed, now, vm);
            }
            _ => self.fail(Error::LinkLost, now, vm),
        }
        self.parting = None;
    }

    /// There is a new link after a broken one: resumes where the old one stopped.
    ///
    /// # Errors
    /// When nothing is broken.
    pub fn recover(&mut self) -> Result<(), Error> {
        if self.phase != Phase::Broken {
            return Err(Error::NothingToResume);
        }
        self.decoder = Decoder::default();
        self.numbering = Numbering::default();
        self.log.bytes_before += self.meter.total();
        self.meter.new_link();
        self.error = None;
        self.parting = None;
        self.phase = Phase::Recover;
        Ok(())
    }

    /// Gives up. The guest goes on here; the destination is told by the next [`Source::transmit`].
    ///
    /// # Errors
    /// When the VM is handed over, or the migration has ended.
    pub fn cancel(&mut self, now: Micros, vm: &mut impl SourceVm) -> Result<(), Error> {
        if self.right.is_given() || matches!(self.phase, Phase::Ended(_)) {
            return Err(Error::HandedOver);
        }
        self.fail(Error::Cancelled, now, vm);
        Ok(())
    }

    /// Where the migration stands.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.phase {
            Phase::Greet | Phase::Offered | Phase::Begin => Status::Setup,
            Phase::Rounds | Phase::Pause => Status::Active,
            Phase::Rest | Phase::Announce(_) | Phase::Free(_) | Phase::State(_) | Phase::Loading | Phase::Commit => {
                Status::Device
            }
            Phase::Serve => Status::PostcopyActive,
            Phase::Hashes(_) | Phase::Compared | Phase::Farewell => Status::Verifying,
            Phase::Broken => Status::PostcopyPaused,
            Phase::Recover | Phase::Recovering => Status::PostcopyRecover,
            Phase::Ended(status) => status,
        }
    }

    /// Why it failed, or why it is paused.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Whether the right to run the guest is given to the destination. From then on it never runs here again.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.right.is_given()
    }

    /// The offer that was made.
    #[must_use]
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Pages that are still to be sent, as far as is known.
    #[must_use]
    pub fn pages_left(&self) -> u64 {
        self.sets.left()
    }

    /// Rounds that have ended.
    #[must_use]
    pub fn round(&self) -> u32 {
        u32::try_from(self.log.rounds.len()).unwrap_or(u32::MAX)
    }

    /// What the link carries, in bytes a second, as far as is known.
    #[must_use]
    pub fn bandwidth(&self, now: Micros) -> Option<u64> {
        self.meter.bandwidth(now)
    }

    /// When to call [`Source::transmit`] again even if neither input nor room came.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Micros> {
        match self.phase {
            Phase::Rounds => {
                let page = self.limit.as_ref().map(|limit| limit.when(MIN_ROOM as u64));
                Some(page.map_or(self.next_peek, |page| page.min(self.next_peek)))
            }
            Phase::Serve => self.push_begins().filter(|_| !self.sets.pending.is_empty()),
            _ => None,
        }
    }

    /// What happened up to `now`.
    #[must_use]
    pub fn report(&self, now: Micros) -> Report {
        let report = self.log.report(self.offer.path, self.status(), self.meter.total(), now);
        Report { cpu_throttle_percentage: self.converge.as_ref().map(Converge::highest), ..report }
    }

    /// The guest goes at its full speed from now on.
    fn release(&mut self, vm: &mut impl SourceVm) {
        if let Some(converge) = &mut self.converge {
            converge.release(vm);
        }
    }

    /// The attempt fails, or after the hand-over: the link is given up.
    fn fail(&mut self, error: Error, now: Micros, vm: &mut impl SourceVm) {
        self.release(vm);
        if self.right.take_back(vm) {
            if !matches!(error, Error::LinkLost | Error::Refused(_) | Error::Aborted(_)) {
                self.parting = Some(error.to_string());
            }
            let status = if error == Error::Cancelled { Status::Cancelled } else { Status::Failed };
            self.end(status, now, vm);
        } else {
            // Nothing is said: a destination that has not heard COMMIT would drop the VM.
            self.phase = Phase::Broken;
        }
        self.error = Some(error);
    }

    fn end(&mut self, status: Status, now: Micros, vm: &mut impl SourceVm) {
        vm.track(false);
        self.phase = Phase::Ended(status);
        self.log.ended = Some(now);
    }

    /// When the pages that the guest has not asked for begin to go too. None: now, or on demand alone for ever.
    fn push_begins(&self) -> Option<Micros> {
        let period = self.config.demand_period.filter(|_| self.offer.path == Path::Demand)?;
        self.log.handed_over.map(|since| since.saturating_add(period))
    }

    /// Whether this path's rounds lead to a post-copy.
    fn is_hybrid(&self) -> bool {
        self.offer.path == Path::Hybrid
    }
}
