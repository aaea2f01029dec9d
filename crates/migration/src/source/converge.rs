//! Auto-converge: a guest that dirties memory too fast to be copied is slowed in steps, as QEMU does it.

use crate::{Micros, PAGE_SIZE, SourceVm};

/// QEMU's `cpu-throttle-initial`, `cpu-throttle-increment` and `max-cpu-throttle`.
const FIRST: u8 = 20;
const STEP: u8 = 10;
const MOST: u8 = 99;

/// Periods in a row in which the guest must be too fast.
const PERIODS: u8 = 2;

/// How much the guest is slowed, and what of the present period is known.
#[derive(Debug)]
pub struct Converge {
    period: Micros,
    percent: u8,
    highest: u8,
    too_fast: u8,
    /// When the period began, and the bytes sent by then.
    since: (Micros, u64),
    dirtied: u64,
}

impl Converge {
    /// Begins with the first round.
    pub fn new(period: Micros, now: Micros, bytes: u64) -> Self {
        Self { period: period.max(1), percent: 0, highest: 0, too_fast: 0, since: (now, bytes), dirtied: 0 }
    }

    /// So many more pages were found modified; so many bytes are sent in all, or would be if no page were encoded.
    pub fn look(&mut self, dirtied: u64, bytes: u64, now: Micros, vm: &mut impl SourceVm) {
        self.dirtied += dirtied;
        let (since, before) = self.since;
        if now.saturating_sub(since) < self.period {
            return;
        }
        // More than half of what goes out comes back (QEMU's `throttle-trigger-threshold`).
        let fast = self.dirtied.saturating_mul(2 * PAGE_SIZE as u64) > bytes.saturating_sub(before);
        self.too_fast = if fast { self.too_fast + 1 } else { 0 };
        (self.since, self.dirtied) = ((now, bytes), 0);
        if self.too_fast >= PERIODS && self.can_slow() {
            self.too_fast = 0;
            let next = if self.percent == 0 { FIRST } else { (self.percent + STEP).min(MOST) };
            (self.percent, self.highest) = (next, next);
            vm.throttle(next);
        }
    }

    /// Whether the guest can be slowed further.
    pub fn can_slow(&self) -> bool {
        self.percent < MOST
    }

    /// The guest goes at its full speed again.
    pub fn release(&mut self, vm: &mut impl SourceVm) {
        if self.percent > 0 {
            self.percent = 0;
            vm.throttle(0);
        }
    }

    /// The most that it was slowed by.
    pub fn highest(&self) -> u8 {
        self.highest
    }
}
