//! What goes out.

use super::{Phase, Source};
use crate::wire::{self, Batch, Body, HEADER, Kind, MAX_STATE, MAX_WHOLE, Message, PAGE_RECORD, Path};
use crate::{Error, Micros, SourceVm, Status, ZERO_PAGE, hash, is_zero};
use alloc::string::ToString;
use alloc::vec::Vec;

/// The least room that [`Source::transmit`] can use: a batch with one page.
pub const MIN_ROOM: usize = HEADER + PAGE_RECORD;

/// The most that one call appends, whatever the room: a batch must not be longer than the wire allows.
const MAX_ROOM: usize = wire::MAX_BATCH / 2;

/// Pages that one call looks at: the guest waits meanwhile, and pages of zeroes take hardly any room.
const PAGES_A_CALL: u32 = 64;

/// A hash costs about as much as so many looks.
const LOOKS_A_HASH: u32 = 8;

/// Words of a bitmap, or hashes, in one message.
const WORDS: usize = 512;

/// Bytes of the state in one message.
const STATE_PIECE: usize = MAX_WHOLE / 2;

/// Where one call writes, and how far it may go.
pub struct Output<'a> {
    pub bytes: &'a mut Vec<u8>,
    start: usize,
    end: usize,
    looks: u32,
}

impl Output<'_> {
    /// Bytes appended so far.
    pub fn added(&self) -> u64 {
        self.bytes.len().saturating_sub(self.start) as u64
    }

    /// Lets `write` append at most `bytes` more.
    pub fn within<T>(&mut self, bytes: u64, write: impl FnOnce(&mut Self) -> T) -> T {
        let end = self.end;
        let room = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.end = end.min(self.bytes.len().saturating_add(room));
        let result = write(self);
        self.end = end;
        result
    }

    /// Room for so many bytes?
    fn fits(&self, bytes: usize) -> bool {
        self.bytes.len().saturating_add(bytes) <= self.end
    }

    /// Takes one page from the call's share; false if it is used up or no page fits.
    fn look(&mut self) -> bool {
        if self.looks == 0 || !self.fits(PAGE_RECORD) {
            return false;
        }
        self.looks -= 1;
        true
    }
}

impl Source {
    /// The channel has not taken all that it was given: bytes wait for the link, and fewer would save time. To be told by
    /// an owner whose `room` in [`Source::transmit`] does not show it.
    pub fn channel_full(&mut self) {
        self.meter.full();
    }

    /// Appends at most `room` bytes to `out`, and returns how many. It needs [`MIN_ROOM`]. If nothing was appended there
    /// is nothing to say until the peer answers, or (while the guest runs here) until the guest has run on.
    ///
    /// What is appended counts as sent: the caller must see to it that it goes out, in order, or call
    /// [`Source::link_lost`].
    ///
    /// # Errors
    /// When the VM's state cannot be saved; the guest goes on here.
    pub fn transmit(
        &mut self,
        now: Micros,
        vm: &mut impl SourceVm,
        room: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        if room < MIN_ROOM {
            self.channel_full();
            return Ok(0);
        }
        let start = out.len();
        let end = start.saturating_add(room.min(MAX_ROOM));
        let mut out = Output { bytes: out, start, end, looks: PAGES_A_CALL };
        let mut result = Ok(true);
        while let Ok(true) = result {
            result = self.step(now, vm, &mut out);
        }
        if let Err(error) = &result {
            self.fail(error.clone(), now, vm);
        }
        if let Some(reason) = self.parting.take_if(|_| out.fits(MIN_ROOM)) {
            wire::write(out.bytes, &Message::Abort { reason });
        }
        let end = out.bytes.len();
        self.numbering.stamp(out.bytes, start, end);
        let added = end - start;
        self.meter.sent(added, now);
        result.map(|_| added)
    }

    /// Does one thing. Returns whether there may be another.
    fn step(&mut self, now: Micros, vm: &mut impl SourceVm, out: &mut Output<'_>) -> Result<bool, Error> {
        if !out.fits(MIN_ROOM) {
            return Ok(false);
        }
        match self.phase {
            Phase::Greet => {
                wire::write(out.bytes, &Message::Hello(self.offer.clone()));
                self.phase = Phase::Offered;
                Ok(false)
            }
            Phase::Begin => {
                self.begin(now, vm);
                Ok(true)
            }
            Phase::Rounds => self.push_round(now, vm, out),
            Phase::Pause => self.pause(now, vm, out).map(|()| true),
            Phase::Rest => Ok(self.push_rest(vm, out)),
            Phase::Announce(from) => {
                self.announce(from, out);
                Ok(true)
            }
            Phase::Free(from) => Ok(self.mark_free(from, out)),
            Phase::State(from) => {
                self.send_state(from, out);
                Ok(true)
            }
            Phase::Commit => {
                self.encoder.forget();
                self.right.commit(out.bytes);
                self.log.handed_over.get_or_insert(now);
                self.phase = Phase::Serve;
                Ok(true)
            }
            Phase::Serve => {
                self.serve(now, vm, out);
                Ok(false)
            }
            Phase::Hashes(from) => Ok(self.send_hashes(from, vm, out)),
            Phase::Farewell => {
                wire::write(out.bytes, &Message::Done);
                self.end(Status::Completed, now, vm);
                Ok(false)
            }
            Phase::Recover => {
                wire::write(out.bytes, &Message::Recover { session: self.offer.session });
                self.sets.held.clear_all();
                self.phase = Phase::Recovering;
                Ok(false)
            }
            Phase::Offered | Phase::Loading | Phase::Compared | Phase::Broken | Phase::Recovering | Phase::Ended(_) => {
                Ok(false)
            }
        }
    }

    fn begin(&mut self, now: Micros, vm: &mut impl SourceVm) {
        vm.track(true);
        self.log.first_page = Some(now);
        self.log.round_start = (now, self.meter.total(), 0);
        self.meter.restart(now);
        self.next_peek = now.saturating_add(self.config.peek_interval);
        self.phase = match self.offer.path {
            Path::PreCopy | Path::Hybrid => {
                self.begin_rounds(now, vm);
                Phase::Rounds
            }
            Path::StopAndCopy | Path::Demand | Path::PostCopy => Phase::Pause,
        };
    }

    /// Sends a page as it is now.
    fn send_page(&mut self, gfn: u64, vm: &impl SourceVm, batch: &mut Batch, out: &mut Output<'_>) {
        if self.sets.is_free(gfn) {
            batch.zero(out.bytes, gfn);
            self.log.pages.free += 1;
        } else {
            self.send_content(gfn, vm, batch, out);
        }
        if self.sets.sent(gfn) {
            self.log.pages.twice += 1;
        }
    }

    /// Sends what a page holds, encoded if that saves time.
    fn send_content(&mut self, gfn: u64, vm: &impl SourceVm, batch: &mut Batch, out: &mut Output<'_>) {
        let (sets, guest_runs) = (&mut self.sets, self.right.guest_runs());
        let body = self.encoder.encode(gfn, vm, self.meter.capacity(), |of| sets.refer(gfn, of, guest_runs));
        batch.add(out.bytes, gfn, &body);
        self.log.pages.count(&body);
        self.log.bytes_saved += body.saved() as u64;
        let zero = u64::from(matches!(body, Body::Zero { .. }));
        if zero == 0 {
            self.page_cost.note(body.saved());
        }
        self.meter.scanned(1 - zero, zero);
        self.meter.encoded(self.encoder.take_spent());
    }

    /// Sends pages in order until the call's share is used up (false) or none is left (true).
    pub(super) fn push_in_order(&mut self, vm: &impl SourceVm, out: &mut Output<'_>) -> bool {
        let mut batch = Batch::open(out.bytes);
        let mut done = false;
        while !done && out.look() {
            match self.sets.next_in_round() {
                Some(gfn) => self.send_page(gfn, vm, &mut batch, out),
                None => done = true,
            }
        }
        batch.close(out.bytes);
        done
    }

    fn push_rest(&mut self, vm: &impl SourceVm, out: &mut Output<'_>) -> bool {
        let done = self.push_in_order(vm, out);
        if done {
            self.phase = Phase::State(0);
        }
        done
    }

    /// Pauses the guest and saves its state. Saving may modify pages, so dirty flags are collected after it.
    fn pause(&mut self, now: Micros, vm: &mut impl SourceVm, out: &mut Output<'_>) -> Result<(), Error> {
        self.right.pause(vm);
        if self.offer.path.runs_early() {
            self.encoder.forget();
        }
        self.release(vm);
        self.log.paused = Some(now);
        self.state = vm.save_state().map_err(Error::StateNotSaved)?;
        if self.state.len() > MAX_STATE {
            return Err(Error::StateNotSaved("it is too long".to_string()));
        }
        self.sets.last_turn(vm);
        self.log.syncs += 1;
        wire::write(out.bytes, &Message::Paused);
        self.phase = if self.is_hybrid() { Phase::Announce(0) } else { Phase::Free(0) };
        Ok(())
    }

    /// Marks the pages whose content the guest does not need: they are zero at the destination, and present before it
    /// runs. False if this call's share is used up.
    fn mark_free(&mut self, mut from: u64, out: &mut Output<'_>) -> bool {
        let mut batch = Batch::open(out.bytes);
        let done = loop {
            let Some((first, count)) = self.sets.next_free_run(from) else { break true };
            if !out.look() {
                break false;
            }
            let count = u16::try_from(count).unwrap_or(u16::MAX);
            batch.zeroes(out.bytes, first, count);
            self.sets.marked(first, count.into());
            self.log.pages.free += u64::from(count);
            from = first + u64::from(count);
        };
        batch.close(out.bytes);
        self.phase = match (done, self.offer.path.runs_early()) {
            (false, _) => Phase::Free(from),
            (true, true) => Phase::State(0),
            (true, false) => Phase::Rest,
        };
        done
    }

    /// Tells which pages are missing at the destination although a version of them may be there.
    fn announce(&mut self, from: usize, out: &mut Output<'_>) {
        let words = self.sets.pending.words();
        let from = from + words.iter().skip(from).take_while(|word| **word == 0).count();
        let Some(rest) = words.get(from..).filter(|rest| !rest.is_empty()) else {
            self.phase = Phase::Free(0);
            return;
        };
        let now = rest.len().min(WORDS / 2);
        wire::write_words(out.bytes, Kind::Stale, Some(from as u64), rest.iter().copied().take(now));
        self.phase = Phase::Announce(from + now);
    }

    fn send_state(&mut self, from: usize, out: &mut Output<'_>) {
        // An empty state is one empty piece.
        let space = out.end.saturating_sub(out.bytes.len()).saturating_sub(2 * HEADER);
        let until = from.saturating_add(space.min(STATE_PIECE)).min(self.state.len());
        let bytes = self.state.get(from..until).unwrap_or_default();
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let piece = Message::State { total: number(self.state.len()), offset: number(from), bytes };
        wire::write(out.bytes, &piece);
        self.phase = if until == self.state.len() { Phase::Loading } else { Phase::State(until) };
    }

    /// Sends what the guest waits for, and as much of the rest as may be on its way at a time.
    fn serve(&mut self, now: Micros, vm: &impl SourceVm, out: &mut Output<'_>) {
        let (pushes, window) = (self.pushes(now), self.window(now));
        let mut batch = Batch::open(out.bytes);
        while out.look() {
            let has_room = self.meter.in_flight() + out.added() < window;
            let gfn = if let Some(wanted) = self.next_wanted() {
                self.log.fetched += u64::from(!pushes);
                wanted
            } else if pushes
                && has_room
                && let Some(next) = self.push.next(&self.sets.pending)
            {
                next
            } else {
                if !has_room {
                    self.window_full();
                }
                break;
            };
            if pushes && self.config.encodings.zero && is_zero(vm.page(gfn)) {
                self.send_zeroes_around(gfn, vm, &mut batch, out);
            } else {
                self.send_page(gfn, vm, &mut batch, out);
            }
        }
        batch.close(out.bytes);
    }

    /// Sends a page of zeroes with its neighbours that are too: as one run they take no more room.
    fn send_zeroes_around(&mut self, gfn: u64, vm: &impl SourceVm, batch: &mut Batch, out: &mut Output<'_>) {
        let pending = &self.sets.pending;
        let mut goes_too = |gfn: &u64| pending.test(*gfn) && out.look() && is_zero(vm.page(*gfn));
        let above = (gfn + 1..).take_while(&mut goes_too).count() as u64;
        let below = (0..gfn).rev().take_while(&mut goes_too).count() as u64;
        for gfn in gfn - below..=gfn + above {
            batch.zero(out.bytes, gfn);
            self.log.pages.duplicate += 1;
            self.log.pages.twice += u64::from(self.sets.sent(gfn));
        }
        self.meter.scanned(0, above + below + 1);
    }

    /// Whether pages go too that the guest has not asked for.
    fn pushes(&self, now: Micros) -> bool {
        self.offer.path != Path::Demand || self.push_begins().is_some_and(|at| now >= at)
    }

    /// The page that the guest has waited for longest, unless it has gone out meanwhile.
    fn next_wanted(&mut self) -> Option<u64> {
        let pending = &self.sets.pending;
        core::iter::from_fn(|| self.urgent.pop_front()).find(|gfn| pending.test(*gfn))
    }

    /// Bytes that may be on their way while pages are pushed. On a link that was not measured at rest, the configured part beyond
    /// what the stream itself has seen.
    fn window(&mut self, now: Micros) -> u64 {
        match &mut self.window {
            Some(window) => {
                window.look(now, self.meter.total() - self.meter.in_flight());
                window.size()
            }
            None => self.meter.on_wire().saturating_add(self.config.push_window.into()),
        }
    }

    fn window_full(&mut self) {
        self.meter.full();
        if let Some(window) = &mut self.window {
            window.full();
        }
    }

    /// Of what a page must be at the destination: one that was free at the hand-over is zero there.
    fn hash(&self, gfn: u64, vm: &impl SourceVm) -> u64 {
        hash(if self.sets.is_free(gfn) { &ZERO_PAGE } else { vm.page(gfn) })
    }

    fn send_hashes(&mut self, from: u64, vm: &impl SourceVm, out: &mut Output<'_>) -> bool {
        let left = usize::try_from(self.offer.page_count.saturating_sub(from)).unwrap_or(usize::MAX);
        let count = left.min(WORDS).min((out.looks / LOOKS_A_HASH) as usize);
        if count == 0 {
            return false;
        }
        out.looks -= u32::try_from(count).unwrap_or(0).saturating_mul(LOOKS_A_HASH);
        let until = from + count as u64;
        wire::write_words(out.bytes, Kind::Hashes, Some(from), (from..until).map(|gfn| self.hash(gfn, vm)));
        self.phase = if until >= self.offer.page_count { Phase::Compared } else { Phase::Hashes(until) };
        true
    }
}
