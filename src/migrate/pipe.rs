//! Bytes between an engine and its channel.

use super::share::Share;
use crate::{
    machine::clock,
    net::{Channel, CloseReason, ConnectionState},
};
use alloc::{boxed::Box, vec::Vec};
use migration::Opening;

/// Bytes that an engine is asked for at a time.
const BATCH: usize = 64 << 10;
/// How long one step goes on sending, in microseconds, before the guest has its turn.
const STEP: u64 = 1000;

/// A channel with what is on its way into it.
pub struct Pipe {
    channel: Box<dyn Channel>,
    out: Vec<u8>,
    sent: usize,
    share: Option<Share>,
    /// What came before it was known whom it is for.
    early: Vec<u8>,
}

impl Pipe {
    /// Over a channel, with what its stream has of the host's bandwidth if that is limited.
    pub fn new(channel: Box<dyn Channel>, share: Option<Share>) -> Self {
        Self { channel, out: Vec::new(), sent: 0, share, early: Vec::new() }
    }

    /// What the other side wants, as far as can be told. What has come stays, to be received.
    pub fn opening(&mut self) -> Opening {
        let early = &mut self.early;
        self.channel.receive(clock::micros(), &mut |bytes| {
            early.extend_from_slice(bytes);
            bytes.len()
        });
        Opening::of(early)
    }

    /// Shows `take` what has come until it fails. True if anything came.
    ///
    /// # Errors
    /// What `take` said.
    pub fn receive<E>(&mut self, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<bool, E> {
        let early = core::mem::take(&mut self.early);
        let mut outcome = if early.is_empty() { Ok(()) } else { take(&early) };
        let count = self.channel.receive(clock::micros(), &mut |bytes| {
            if outcome.is_ok() {
                outcome = take(bytes);
            }
            bytes.len()
        });
        outcome.map(|()| count > 0 || !early.is_empty())
    }

    /// Asks `fill` for bytes and sends them, as long as the channel takes them. `fill` gets how many may be wanted and where
    /// to put them. True if anything went.
    ///
    /// # Errors
    /// What `fill` said.
    pub fn send<E>(&mut self, mut fill: impl FnMut(usize, &mut Vec<u8>) -> Result<(), E>) -> Result<bool, E> {
        let mut happened = false;
        let end = clock::micros() + STEP;
        while !happened || clock::micros() < end {
            let room = self.share.as_ref().map_or(usize::MAX, Share::room);
            if self.sent == self.out.len() {
                self.out.clear();
                self.sent = 0;
                fill(BATCH.min(room), &mut self.out)?;
            }
            let rest = self.out.get(self.sent..).unwrap_or_default();
            let allowed = rest.get(..rest.len().min(room)).unwrap_or_default();
            if allowed.is_empty() {
                break;
            }
            let taken = self.channel.send(clock::micros(), allowed);
            self.sent += taken;
            if let Some(share) = &self.share {
                share.spend(taken);
            }
            happened |= taken > 0;
            if self.sent < self.out.len() {
                break;
            }
        }
        Ok(happened)
    }

    /// Whether the channel has not taken all that it was given.
    pub fn is_full(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Whether everything that was given to it has reached the other side.
    pub fn is_drained(&self) -> bool {
        self.sent == self.out.len() && self.channel.queued() == 0
    }

    /// Whether the connection is still being made.
    pub fn is_connecting(&self) -> bool {
        self.channel.state() == ConnectionState::Connecting
    }

    /// Why it can carry nothing more, if so.
    pub fn broken(&self) -> Option<CloseReason> {
        match self.channel.state() {
            ConnectionState::Closed(reason) => Some(reason),
            ConnectionState::PeerClosed | ConnectionState::Closing => Some(CloseReason::Reset),
            ConnectionState::Connecting | ConnectionState::Open => None,
        }
    }

    /// Ends it in good order.
    pub fn close(&mut self) {
        self.channel.close();
    }

    /// Ends it at once.
    pub fn abort(&mut self) {
        self.channel.abort();
    }
}
