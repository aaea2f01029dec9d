//! The rounds of a pre-copy, and when they end (Clark et al., NSDI 2005).

use super::transmit::Output;
use super::{Phase, Source};
use crate::meter::time_for;
use crate::wire::{self, Message, PAGE_RECORD};
use crate::{Error, Micros, Round, SourceVm};

/// A round that leaves more than this many hundredths of what the one before left has not got on.
const STALLED_PERCENT: u64 = 95;

impl Source {
    /// Collects dirty flags within a round, when it is time.
    pub(super) fn peek(&mut self, now: Micros, vm: &mut impl SourceVm) {
        if now >= self.next_peek {
            self.log.pages.skipped += self.sets.peek(vm);
            self.log.syncs += 1;
            self.next_peek = now.saturating_add(self.config.peek_interval);
        }
    }

    /// All pages of the round are sent or left out.
    pub(super) fn end_round(
        &mut self,
        now: Micros,
        vm: &mut impl SourceVm,
        out: &mut Output<'_>,
    ) -> Result<bool, Error> {
        let left = self.sets.turn(vm);
        self.encoder.next_round();
        self.log.syncs += 1;
        let (bytes, pages) = (self.meter.total() + out.added(), self.log.sent_pages());
        let (began, bytes_before, pages_before) = self.log.round_start;
        self.log.rounds.push(Round {
            pages: pages - pages_before,
            bytes: bytes - bytes_before,
            time: now.saturating_sub(began),
            dirtied: left,
        });
        self.log.round_start = (now, bytes, pages);
        self.next_peek = now.saturating_add(self.config.peek_interval);
        let expected = self.expected_downtime(left, vm.state_size(), now);
        if self.rounds_are_over(expected, bytes) {
            self.log.expected_downtime = expected;
            self.phase = Phase::Pause;
        } else {
            wire::write(out.bytes, &Message::Round { number: self.round() });
        }
        Ok(true)
    }

    /// How long the guest would be paused if it were now: what is on its way, what is left, the state, and a round trip
    /// for the hand-over.
    fn expected_downtime(&self, left: u64, state: usize, now: Micros) -> Option<Micros> {
        let bandwidth = self.meter.bandwidth(now)?;
        let pages = left.saturating_mul(PAGE_RECORD as u64);
        let bytes = self.meter.in_flight().saturating_add(pages).saturating_add(state as u64);
        Some(time_for(bytes, bandwidth).saturating_add(self.meter.round_trip().unwrap_or(0)))
    }

    fn rounds_are_over(&self, expected: Option<Micros>, bytes: u64) -> bool {
        let limit = if self.is_hybrid() { self.config.hybrid_rounds } else { self.config.round_limit };
        expected.is_some_and(|expected| expected <= self.config.downtime_limit)
            || self.round() >= limit
            || self.config.byte_limit.is_some_and(|most| bytes >= most)
            || self.has_stalled()
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
