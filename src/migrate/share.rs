//! One bandwidth for all streams that leave this host.

use crate::machine::clock;
use alloc::sync::Arc;
use core::num::NonZeroU64;
use migration::{Budget, StreamId};
use spin::Mutex;

/// What may go at once, as a part of a second: the host looks after its streams more often.
const BURSTS_A_SECOND: u64 = 20;

/// The bandwidth of this host.
pub struct Bandwidth(Arc<Mutex<Budget>>);

impl Bandwidth {
    /// So many bytes a second.
    pub fn new(rate: NonZeroU64) -> Self {
        let rate = rate.get();
        Self(Arc::new(Mutex::new(Budget::new(rate, rate / BURSTS_A_SECOND, clock::micros()))))
    }

    /// A stream begins.
    pub fn share(&self) -> Share {
        Share { stream: self.0.lock().join(clock::micros()), budget: self.0.clone() }
    }
}

/// What one stream has of it. Dropped, it leaves that to the others.
pub struct Share {
    budget: Arc<Mutex<Budget>>,
    stream: StreamId,
}

impl Share {
    /// How many bytes may go now.
    pub fn room(&self) -> usize {
        self.budget.lock().room(self.stream, clock::micros())
    }

    /// So many went.
    pub fn spend(&self, bytes: usize) {
        self.budget.lock().spend(self.stream, bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.lock().leave(self.stream, clock::micros());
    }
}
