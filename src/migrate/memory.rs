//! A channel between two VMs on one host: one end of a simulated link.

use crate::net::{Channel, CloseReason, ConnectionState};
use alloc::sync::Arc;
use migration::{End, Link};
use spin::Mutex;

/// One end of a link in memory.
pub struct MemoryChannel {
    link: Arc<Mutex<Link>>,
    end: End,
}

impl MemoryChannel {
    /// Both ends of a new link: `bandwidth` in bytes a second (0: no limit), `latency` in microseconds, one way.
    pub fn pair(bandwidth: u64, latency: u64) -> (Self, Self) {
        let link = Arc::new(Mutex::new(Link::new(bandwidth, latency)));
        (Self { link: link.clone(), end: End::A }, Self { link, end: End::B })
    }
}

impl Channel for MemoryChannel {
    fn send(&mut self, now: u64, bytes: &[u8]) -> usize {
        self.link.lock().send(self.end, now, bytes)
    }

    fn receive(&mut self, now: u64, take: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        let mut link = self.link.lock();
        let mut total = 0;
        loop {
            let arrived = link.arrived(self.end, now);
            if arrived.is_empty() {
                return total;
            }
            let (length, taken) = (arrived.len(), take(arrived));
            link.consume(self.end, taken);
            total += taken;
            if taken < length {
                return total;
            }
        }
    }

    fn queued(&self) -> usize {
        let other = match self.end {
            End::A => End::B,
            End::B => End::A,
        };
        // The link does not count bytes; that some are on their way is what is asked.
        usize::from(self.link.lock().next_arrival(other).is_some())
    }

    fn state(&self) -> ConnectionState {
        if self.link.lock().is_open() { ConnectionState::Open } else { ConnectionState::Closed(CloseReason::Reset) }
    }

    fn close(&mut self) {
        self.link.lock().cut();
    }

    fn abort(&mut self) {
        self.link.lock().cut();
    }
}
