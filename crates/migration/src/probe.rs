//! What a link carries, measured before a migration is decided on: a connection of its own that carries pages for a
//! while, which nobody keeps. The other side is a [`crate::Destination`] that still waits for a hello; it copies each page once
//! and answers. So what is measured is the way of a page, not the wire alone: where hosts are slow, or share a CPU, that is
//! what counts.

use crate::meter;
use crate::wire::{self, Decoder, Item, Message, Numbering};
use crate::{Error, Micros, SourceVm};
use alloc::vec::Vec;

/// Pages in one message.
const PAGES: u64 = 4;

/// The source's side of the measurement. Drive it with [`Probe::receive`] and [`Probe::transmit`] until
/// [`Probe::bandwidth`] is there or patience ends.
#[derive(Debug)]
pub struct Probe {
    duration: Micros,
    most: u64,
    decoder: Decoder,
    numbering: Numbering,
    began: Option<Micros>,
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
            began: None,
            sent: 0,
            acknowledged: 0,
            last: 0,
            next: 0,
            full: false,
        }
    }

    /// Appends a message to `out` if it is time for one: call it when the channel has room.
    pub fn transmit(&mut self, now: Micros, vm: &impl SourceVm, out: &mut Vec<u8>) {
        let began = *self.began.get_or_insert(now);
        self.full = self.full || self.sent >= self.most || now.saturating_sub(began) >= self.duration && self.sent > 0;
        if self.full {
            return;
        }
        let start = out.len();
        let count = vm.page_count().max(1);
        wire::write_probe(out, (self.next..self.next + PAGES).map(|gfn| vm.page(gfn % count)));
        self.next = (self.next + PAGES) % count;
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
                }
                Item::Message(Message::Refuse { reason }) => return Err(Error::Refused(reason)),
                Item::Message(message) => return Err(Error::Unexpected(message.kind())),
                Item::Page(_) | Item::Batch => return Err(Error::NotAMigration),
            }
        }
        Ok(())
    }

    /// Bytes a second, once everything that was sent is answered.
    #[must_use]
    pub fn bandwidth(&self) -> Option<u64> {
        let began = self.began.filter(|_| self.full && self.acknowledged == self.sent)?;
        meter::rate(self.acknowledged, self.last.saturating_sub(began).max(1))
    }
}
