//! What a link carries, measured before a migration is decided on: a connection of its own that carries pages for a
//! while, which nobody keeps. The other side is a [`crate::Destination`] that still waits for a hello; it copies each page once
//! and answers. So what is measured is the way of a page, not the wire alone: where hosts are slow, or share a CPU, that is
//! what counts. Before the pages go messages without any, one after another: their round trip is that of an empty request.

use crate::meter;
use crate::wire::{self, Decoder, Item, Message, Numbering};
use crate::{Error, LinkMeasure, Micros, SourceVm};
use alloc::vec::Vec;

/// Pages in one message.
const PAGES: u64 = 4;

/// Empty messages, of which the fastest counts: what held the others up is not the way.
const EMPTY: u32 = 4;

/// The source's side of the measurement. Drive it with [`Probe::receive`] and [`Probe::transmit`] until
/// [`Probe::found`] is there or patience ends.
#[derive(Debug)]
pub struct Probe {
    duration: Micros,
    most: u64,
    decoder: Decoder,
    numbering: Numbering,
    /// Empty messages that are still to go, and when the present one went.
    empty: u32,
    asked: Option<Micros>,
    round_trip: Option<Micros>,
    began: Option<Micros>,
    /// Bytes of empty messages.
    ahead: u64,
    sent: u64,
    acknowledged: u64,
    last: Micros,
    /// The page to look at next.
    next: u64,
    /// Nothing more is sent.
    full: bool,
}

impl Probe {
    /// A measurement that sends for so long, and at most so many bytes.
    #[must_use]
    pub fn new(duration: Micros, most: u64) -> Self {
        Self {
            duration,
            most,
            decoder: Decoder::default(),
            numbering: Numbering::default(),
            empty: EMPTY,
            asked: None,
            round_trip: None,
            began: None,
            ahead: 0,
            sent: 0,
            acknowledged: 0,
            last: 0,
            next: 0,
            full: false,
        }
    }

    /// Appends a message to `out` if it is time for one: call it when the channel has room.
    pub fn transmit(&mut self, now: Micros, vm: &impl SourceVm, out: &mut Vec<u8>) {
        if self.asked.is_some() {
            return;
        }
        if let Some(rest) = self.empty.checked_sub(1) {
            (self.empty, self.asked) = (rest, Some(now));
            self.write(0, vm, out);
            return;
        }
        let began = *self.began.get_or_insert(now);
        self.full =
            self.full || self.sent >= self.most || now.saturating_sub(began) >= self.duration && self.sent > self.ahead;
        if self.full {
            return;
        }
        self.write(PAGES, vm, out);
    }

    fn write(&mut self, pages: u64, vm: &impl SourceVm, out: &mut Vec<u8>) {
        let start = out.len();
        let count = vm.page_count().max(1);
        wire::write_probe(out, (self.next..self.next + pages).map(|gfn| vm.page(gfn % count)));
        self.next = (self.next + pages) % count;
        let end = out.len();
        self.numbering.stamp(out, start, end);
        self.sent += (end - start) as u64;
    }

    /// Takes in what the other side answered.
    ///
    /// # Errors
    /// When it is no answer to a probe: the other side is none of ours, or of another version.
    pub fn receive(&mut self, mut bytes: &[u8], now: Micros) -> Result<(), Error> {
        while let Some(item) = self.decoder.next(&mut bytes)? {
            match item {
                Item::Message(Message::Acknowledge { bytes }) if bytes <= self.sent => {
                    self.acknowledged = self.acknowledged.max(bytes);
                    self.last = now;
                    if self.acknowledged == self.sent
                        && let Some(asked) = self.asked.take()
                    {
                        let trip = now.saturating_sub(asked);
                        self.round_trip = Some(self.round_trip.map_or(trip, |least| least.min(trip)));
                        self.ahead = self.sent;
                    }
                }
                Item::Message(Message::Refuse { reason }) => return Err(Error::Refused(reason)),
                Item::Message(message) => return Err(Error::Unexpected(message.kind())),
                Item::Page(_) | Item::Batch => return Err(Error::NotAMigration),
            }
        }
        Ok(())
    }

    /// Bytes a second, once everything that was sent is answered.
    fn bandwidth(&self) -> Option<u64> {
        let began = self.began.filter(|_| self.full && self.acknowledged == self.sent)?;
        meter::rate(self.acknowledged.saturating_sub(self.ahead), self.last.saturating_sub(began).max(1))
    }

    /// What the link does, once everything that was sent is answered.
    #[must_use]
    pub fn found(&self) -> Option<LinkMeasure> {
        Some(LinkMeasure { bandwidth: self.bandwidth()?, round_trip: self.round_trip? })
    }
}
