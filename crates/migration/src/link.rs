//! A link that exists in memory alone, with a bandwidth, a latency, a bounded queue, and an end if it is cut. Tests run
//! over it, and two VMs on one host.

use crate::Micros;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// One end.
    A,
    /// The other.
    B,
}

/// Two pipes, one each way.
#[derive(Debug)]
pub struct Link {
    to_a: Pipe,
    to_b: Pipe,
    open: bool,
}

impl Link {
    /// A link that carries `bandwidth` bytes a second (0: no limit) each way and delivers them `latency` later.
    #[must_use]
    pub fn new(bandwidth: u64, latency: Micros) -> Self {
        // As a TCP connection whose buffers are tuned: twice what is on the wire at full speed.
        let on_wire = u128::from(bandwidth) * u128::from(latency) / 1_000_000;
        let capacity = usize::try_from(on_wire * 2).unwrap_or(usize::MAX).clamp(256 * 1024, 64 << 20);
        Self::with_capacity(bandwidth, latency, capacity)
    }

    /// As [`Link::new`], with at most `capacity` bytes sent and not yet received, each way.
    #[must_use]
    pub fn with_capacity(bandwidth: u64, latency: Micros, capacity: usize) -> Self {
        let pipe = || Pipe::new(bandwidth, latency, capacity);
        Self { to_a: pipe(), to_b: pipe(), open: true }
    }

    /// How many bytes `send` would take.
    #[must_use]
    pub fn room(&self, from: End) -> usize {
        if self.open { self.leaving(from).room() } else { 0 }
    }

    /// Sends from one end. Returns how many bytes were taken: the first so many.
    pub fn send(&mut self, from: End, now: Micros, bytes: &[u8]) -> usize {
        if !self.open {
            return 0;
        }
        match from {
            End::A => self.to_b.send(now, bytes),
            End::B => self.to_a.send(now, bytes),
        }
    }

    /// Bytes that have arrived at one end by now: the first run of them. There may be more after they are consumed.
    #[must_use]
    pub fn arrived(&self, at: End, now: Micros) -> &[u8] {
        if self.open { self.arriving(at).arrived(now) } else { &[] }
    }

    /// Forgets the first `count` bytes that arrived.
    pub fn consume(&mut self, at: End, count: usize) {
        match at {
            End::A => self.to_a.consume(count),
            End::B => self.to_b.consume(count),
        }
    }

    /// When the next bytes can be there. None if nothing is on its way.
    #[must_use]
    pub fn next_arrival(&self, at: End) -> Option<Micros> {
        if self.open { self.arriving(at).next_arrival() } else { None }
    }

    /// Cuts the link: what is on its way is lost, and both ends see it closed.
    pub fn cut(&mut self) {
        self.open = false;
        self.to_a.chunks.clear();
        self.to_b.chunks.clear();
    }

    /// Whether it carries anything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    fn arriving(&self, at: End) -> &Pipe {
        match at {
            End::A => &self.to_a,
            End::B => &self.to_b,
        }
    }

    fn leaving(&self, from: End) -> &Pipe {
        match from {
            End::A => &self.to_b,
            End::B => &self.to_a,
        }
    }
}

/// Nanoseconds in a microsecond. A byte at 10 Gbit/s takes less than one of these, so times on the wire are finer.
const NANOS: u128 = 1000;

/// Buffers that are kept to be used again.
const SPARE: usize = 4;

/// Bytes that went in at one time.
#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    taken: usize,
    /// When its first bit leaves, in nanoseconds.
    leaves: u128,
}

/// One way.
#[derive(Debug)]
struct Pipe {
    bandwidth: u64,
    latency: Micros,
    capacity: usize,
    chunks: VecDeque<Chunk>,
    held: usize,
    /// When the wire is free, in nanoseconds.
    free: u128,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
}

impl Pipe {
    fn new(bandwidth: u64, latency: Micros, capacity: usize) -> Self {
        Self { bandwidth, latency, capacity, chunks: VecDeque::new(), held: 0, free: 0, spare: Vec::new() }
    }

    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.held)
    }

    /// Nanoseconds that so many bytes take on the wire.
    fn wire_time(&self, bytes: usize) -> u128 {
        match self.bandwidth {
            0 => 0,
            rate => (bytes as u128 * 1_000_000_000).div_ceil(u128::from(rate)),
        }
    }

    fn send(&mut self, now: Micros, bytes: &[u8]) -> usize {
        let (taken, _) = bytes.split_at(bytes.len().min(self.room()));
        if taken.is_empty() {
            return 0;
        }
        // A full link takes little at a time: a large buffer for each such piece would be far more than the capacity.
        let mut buffer = self.spare.pop_if(|spare| spare.capacity() <= 2 * taken.len()).unwrap_or_default();
        buffer.extend_from_slice(taken);
        let leaves = self.free.max(u128::from(now) * NANOS);
        self.free = leaves + self.wire_time(taken.len());
        self.held += taken.len();
        self.chunks.push_back(Chunk { bytes: buffer, taken: 0, leaves });
        taken.len()
    }

    fn arrived(&self, now: Micros) -> &[u8] {
        let Some(chunk) = self.chunks.front() else {
            return &[];
        };
        let latency = u128::from(self.latency) * NANOS;
        let Some(passed) = (u128::from(now) * NANOS).checked_sub(chunk.leaves + latency) else {
            return &[];
        };
        let there = match self.bandwidth {
            0 => usize::MAX,
            rate => usize::try_from(passed * u128::from(rate) / 1_000_000_000).unwrap_or(usize::MAX),
        };
        chunk.bytes.get(chunk.taken..there.min(chunk.bytes.len())).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        let Some(chunk) = self.chunks.front_mut() else {
            return;
        };
        let count = count.min(chunk.bytes.len() - chunk.taken);
        chunk.taken += count;
        self.held -= count;
        if chunk.taken == chunk.bytes.len()
            && let Some(mut chunk) = self.chunks.pop_front()
            && self.spare.len() < SPARE
        {
            chunk.bytes.clear();
            self.spare.push(chunk.bytes);
        }
    }

    /// When the rest of the first chunk, or some of it, is there.
    fn next_arrival(&self) -> Option<Micros> {
        // A few pages at a time: often enough for who waits for a page, seldom enough to be cheap.
        const STEP: usize = 8 * 1024;
        let chunk = self.chunks.front()?;
        let until = (chunk.taken + STEP).min(chunk.bytes.len());
        let at = (chunk.leaves + self.wire_time(until)).div_ceil(NANOS);
        Some(u64::try_from(at).unwrap_or(u64::MAX).saturating_add(self.latency))
    }
}

#[cfg(test)]
mod tests {
    use super::{End, Link};
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn a_link_that_is_full_keeps_little_more_memory_than_its_bytes_take() {
        let mut link = Link::with_capacity(1_000_000, 0, 64 * 1024);
        let (mut now, mut noise, mut most) = (0, 1u64, 0);
        for _ in 0..20_000 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Now and then it has time to drain; else there is room for as much as has just left.
            now += if (noise >> 33).is_multiple_of(100) { 100_000 } else { (noise >> 40) % 500 };
            while let count @ 1.. = link.arrived(End::B, now).len() {
                link.consume(End::B, count);
            }
            while link.send(End::A, now, &[7; 16 * 1024]) > 0 {}
            let pipe = &link.to_b;
            let buffers = pipe.chunks.iter().map(|chunk| &chunk.bytes).chain(&pipe.spare);
            most = most.max(buffers.map(Vec::capacity).sum());
        }
        assert!(most <= 4 * 64 * 1024, "{most} bytes");
    }

    #[test]
    fn bytes_arrive_at_the_pace_of_the_bandwidth_and_after_the_latency() {
        let mut link = Link::with_capacity(1_000_000, 50, 1000);
        assert_eq!(link.send(End::A, 0, &[7; 100]), 100);
        assert_eq!(link.arrived(End::B, 49), &[]);
        assert_eq!(link.arrived(End::B, 60), &[7; 10]);
        assert_eq!(link.arrived(End::B, 150), &[7; 100]);
        assert_eq!(link.next_arrival(End::B), Some(150));
        assert_eq!(link.arrived(End::A, 1000), &[]);
    }

    #[test]
    fn a_full_queue_takes_no_more_until_the_other_end_has_read() {
        let mut link = Link::with_capacity(0, 0, 10);
        assert_eq!(link.send(End::B, 0, &[1; 16]), 10);
        assert_eq!((link.room(End::B), link.room(End::A)), (0, 10));
        link.consume(End::A, 4);
        assert_eq!(link.room(End::B), 4);
    }

    #[test]
    fn a_cut_link_carries_nothing_and_loses_what_was_on_its_way() {
        let mut link = Link::new(1000, 10);
        link.send(End::A, 0, &[1; 8]);
        link.cut();
        assert!(!link.is_open());
        assert_eq!(link.send(End::A, 0, &[1]), 0);
        assert_eq!(link.arrived(End::B, 1_000_000), &[]);
        assert_eq!((link.room(End::A), link.next_arrival(End::B)), (0, None));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            bandwidth in prop_oneof![Just(0u64), 1_000u64..10_000_000],
            latency in 0u64..1000,
            capacity in 1usize..3000,
            sizes in proptest::collection::vec(0usize..2000, 1..20),
        ) {
            let mut link = Link::with_capacity(bandwidth, latency, capacity);
            let (mut now, mut counter, mut sent, mut got) = (0u64, 0u8, Vec::new(), Vec::new());
            for size in sizes {
                let bytes: Vec<u8> = (0..size).map(|_| { counter = counter.wrapping_add(1); counter }).collect();
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let taken = link.send(End::A, now, rest);
                    rest = &rest[taken..];
                    if taken == 0 {
                        now = now.max(link.next_arrival(End::B).unwrap());
                        let arrived = link.arrived(End::B, now).to_vec();
                        prop_assert!(!arrived.is_empty(), "next_arrival must name a time when something is there");
                        link.consume(End::B, arrived.len());
                        got.extend(arrived);
                    }
                }
                sent.extend(bytes);
            }
            while let Some(at) = link.next_arrival(End::B) {
                now = now.max(at);
                let arrived = link.arrived(End::B, now).to_vec();
                prop_assert!(!arrived.is_empty());
                link.consume(End::B, arrived.len());
                got.extend(arrived);
            }
            prop_assert_eq!(got, sent);
            prop_assert_eq!(vec![link.room(End::A)], vec![capacity]);
        }
    }
}
