//! One bandwidth for several streams: two or more VMs that leave a host at once.

use crate::bucket::TOKENS_A_BYTE;
use crate::{MIN_ROOM, Micros};
use alloc::vec::Vec;

/// A token bucket whose tokens come in to its streams alike. A stream that has saved up its part of the burst needs no
/// more, and what comes in goes to the others: so one that has nothing to send leaves its share to them.
///
/// Over no time more goes than [`Budget::rate`] and one [`Budget::burst`]. Before a stream sends, its owner asks
/// [`Budget::room`]; then it tells what went ([`Budget::spend`]).
#[derive(Debug)]
pub struct Budget {
    rate: u64,
    burst: u64,
    at: Micros,
    streams: Vec<Stream>,
    next_id: u64,
}

/// Names a stream of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(u64);

#[derive(Debug)]
struct Stream {
    id: StreamId,
    /// In millionths of a byte.
    tokens: u128,
}

impl Budget {
    /// `rate` bytes a second, and `burst` bytes that may go at once after a rest.
    #[must_use]
    pub fn new(rate: u64, burst: u64, now: Micros) -> Self {
        Self { rate, burst, at: now, streams: Vec::new(), next_id: 0 }
    }

    /// Bytes a second.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// Bytes that may go at once: what was asked for, or as much as lets each stream send one page.
    #[must_use]
    pub fn burst(&self) -> u64 {
        self.burst.max(self.streams.len() as u64 * MIN_ROOM as u64)
    }

    /// What one stream can save up.
    fn most(&self) -> u128 {
        u128::from(self.burst()) * TOKENS_A_BYTE / (self.streams.len() as u128).max(1)
    }

    /// A stream begins, with nothing saved up.
    pub fn join(&mut self, now: Micros) -> StreamId {
        self.refill(now);
        let id = StreamId(self.next_id);
        self.next_id += 1;
        self.streams.push(Stream { id, tokens: 0 });
        let most = self.most();
        for stream in &mut self.streams {
            stream.tokens = stream.tokens.min(most);
        }
        id
    }

    /// A stream has ended, well or not; what it has saved up is lost.
    pub fn leave(&mut self, id: StreamId, now: Micros) {
        self.refill(now);
        self.streams.retain(|stream| stream.id != id);
    }

    /// How many bytes a stream may send now. What is less than [`MIN_ROOM`] is of no use to a source: [`Budget::when`].
    pub fn room(&mut self, id: StreamId, now: Micros) -> usize {
        self.refill(now);
        self.stream(id).map_or(0, |stream| usize::try_from(stream.tokens / TOKENS_A_BYTE).unwrap_or(usize::MAX))
    }

    /// So many bytes of a stream go.
    pub fn spend(&mut self, id: StreamId, bytes: usize) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
            stream.tokens = stream.tokens.saturating_sub(bytes as u128 * TOKENS_A_BYTE);
        }
    }

    /// When a stream may send a page at the latest: earlier if others leave it some of their shares.
    #[must_use]
    pub fn when(&self, id: StreamId) -> Option<Micros> {
        let tokens = self.stream(id)?.tokens;
        let missing = (MIN_ROOM as u128 * TOKENS_A_BYTE).saturating_sub(tokens) * self.streams.len() as u128;
        let time = missing.div_ceil(u128::from(self.rate.max(1)));
        Some(self.at.saturating_add(u64::try_from(time).unwrap_or(u64::MAX)))
    }

    fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.id == id)
    }

    /// Shares out what has come in: alike, and what one cannot hold among the rest.
    fn refill(&mut self, now: Micros) {
        let mut new = u128::from(now.saturating_sub(self.at)) * u128::from(self.rate);
        self.at = self.at.max(now);
        let most = self.most();
        // The fullest first: then one pass knows what each of the rest gets.
        self.streams.sort_unstable_by_key(|stream| core::cmp::Reverse(stream.tokens));
        let mut rest = self.streams.len() as u128;
        for stream in &mut self.streams {
            let share = (new / rest).min(most.saturating_sub(stream.tokens));
            stream.tokens += share;
            new -= share;
            rest -= 1;
        }
    }
}
