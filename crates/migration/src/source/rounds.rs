//! The rounds of a pre-copy, and when they end (Clark et al., NSDI 2005).

use super::converge::Converge;
use super::pages::Seen;
use super::transmit::{MIN_ROOM, Output};
use super::{Phase, Source};
use crate::bucket::Bucket;
use crate::meter::{rate, time_for};
use crate::wire::{self, Message};
use crate::{Error, Micros, PAGE_SIZE, Round, SourceVm};

/// A round that leaves more than this many hundredths of what the one before left has not got on.
const STALLED_PERCENT: u64 = 95;

/// A stream that is held to a rate may be behind it by what goes in this part of a second: owners look as often.
const BURSTS_A_SECOND: u64 = 20;

impl Source {
    /// The first round begins.
    pub(super) fn begin_rounds(&mut self, now: Micros, vm: &mut impl SourceVm) {
        self.sets.begin(vm);
        if let Some(limit) = self.config.rate_limit {
            self.set_rate(limit.start, now);
        }
        if self.config.auto_converge {
            let whole = self.meter.total() + self.log.bytes_saved;
            self.converge = Some(Converge::new(self.config.converge_period, now, whole));
        }
    }

    fn set_rate(&mut self, rate: u64, now: Micros) {
        let burst = (rate / BURSTS_A_SECOND).max(2 * MIN_ROOM as u64);
        self.limit = Some(Bucket::new(rate, burst, now));
    }

    pub(super) fn push_round(
        &mut self,
        now: Micros,
        vm: &mut impl SourceVm,
        out: &mut Output<'_>,
    ) -> Result<bool, Error> {
        if now >= self.next_peek {
            let seen = self.sets.peek(vm);
            self.seen(seen, now, vm, out);
        }
        let allowed = self.limit.as_mut().map_or(u64::MAX, |limit| limit.available(now));
        if allowed < MIN_ROOM as u64 {
            // Fewer bytes would save time as on a slow link.
            self.meter.full();
            return Ok(false);
        }
        let before = out.added();
        let done = out.within(allowed, |out| self.push_in_order(vm, out));
        if let Some(limit) = &mut self.limit {
            limit.spend(out.added() - before);
        }
        if done { self.end_round(now, vm, out).map(|()| true) } else { Ok(false) }
    }

    /// Dirty flags were collected.
    fn seen(&mut self, seen: Seen, now: Micros, vm: &mut impl SourceVm, out: &Output<'_>) {
        self.log.syncs += 1;
        self.log.pages.skipped += seen.skipped;
        self.next_peek = now.saturating_add(self.config.peek_interval);
        if let Some(converge) = &mut self.converge {
            // What the guest dirties counts as whole pages: so does what was sent.
            let whole = self.meter.total() + out.added() + self.log.bytes_saved;
            converge.look(seen.dirtied, whole, now, vm);
        }
    }

    /// All pages of the round are sent or left out.
    fn end_round(&mut self, now: Micros, vm: &mut impl SourceVm, out: &mut Output<'_>) -> Result<(), Error> {
        // A guest that can be slowed will let go of its working set.
        let can_slow = self.converge.as_ref().is_some_and(Converge::can_slow);
        let goes_on = can_slow || self.config.stalled_rounds == 0;
        let (dirtied, seen) = self.sets.turn(goes_on, vm);
        self.encoder.next_round();
        self.seen(seen, now, vm, out);
        let (bytes, pages) = (self.meter.total() + out.added(), self.log.pages.sent());
        let (began, bytes_before, pages_before) = self.log.round_start;
        let time = now.saturating_sub(began);
        let round = Round { pages: pages - pages_before, bytes: bytes - bytes_before, time, dirtied };
        self.log.rounds.push(round);
        self.log.round_start = (now, bytes, pages);
        let expected = self.expected_downtime(vm.state_size(), now);
        if self.rounds_are_over(expected, bytes, goes_on) || !self.follow(&round, now) {
            self.log.expected_downtime = expected;
            self.phase = Phase::Pause;
        } else {
            wire::write(out.bytes, &Message::Round { number: self.round() });
        }
        Ok(())
    }

    /// The next round goes at the rate at which the last one's pages were dirtied, and a little more. False if that is
    /// more than the user allows.
    fn follow(&mut self, last: &Round, now: Micros) -> bool {
        let Some(limit) = self.config.rate_limit else { return true };
        let dirtied = rate(last.dirtied.saturating_mul(PAGE_SIZE as u64), last.time).unwrap_or(0);
        let next = dirtied.saturating_add(limit.increment);
        self.set_rate(next, now);
        next <= limit.most
    }

    /// How long the guest would be paused if it were now: what is on its way, what is left, the state, and a round trip
    /// for the hand-over.
    fn expected_downtime(&self, state: usize, now: Micros) -> Option<Micros> {
        // Rounds that are held back say nothing of the link; what the user allows is what goes when the guest is paused.
        let bandwidth = self.config.rate_limit.map_or(self.meter.bandwidth(now), |limit| Some(limit.most))?;
        let pages = self.page_cost.of(self.sets.to_send());
        let bytes = self.meter.in_flight().saturating_add(pages).saturating_add(state as u64);
        Some(time_for(bytes, bandwidth).saturating_add(self.meter.round_trip().unwrap_or(0)))
    }

    fn rounds_are_over(&self, expected: Option<Micros>, bytes: u64, goes_on: bool) -> bool {
        let limit = if self.is_hybrid() { self.config.hybrid_rounds } else { self.config.round_limit };
        // With nothing left there is nothing to wait for, whatever is known of the link.
        self.sets.to_send() == 0
            || expected.is_some_and(|expected| expected <= self.config.downtime_limit)
            || self.round() >= limit
            || self.config.byte_limit.is_some_and(|most| bytes >= most)
            || (!goes_on && (self.sets.pending.is_empty() || self.has_stalled()))
    }

    /// Whether the guest dirties pages as fast as they are sent: what is left has not shrunk for some rounds.
    fn has_stalled(&self) -> bool {
        let stalled = self.log.rounds.windows(2).rev().take_while(|pair| match pair {
            [before, after] => after.dirtied * 100 > before.dirtied * STALLED_PERCENT,
            _ => false,
        });
        let wanted = usize::try_from(self.config.stalled_rounds).unwrap_or(usize::MAX);
        wanted > 0 && stalled.take(wanted).count() >= wanted
    }
}
