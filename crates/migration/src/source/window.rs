//! How many bytes of pushed pages may be on their way. Enough that the link is never idle, and few enough that a page that
//! the guest waits for does not wait behind them for long.

use crate::meter::Meter;

/// A look at the pace that finds it grown by less than this part has found the link full.
const GROWTH: u64 = 4;

/// So many looks in a row: one may have met a link that was idle for another reason.
const LOOKS: u8 = 2;

/// The window. What the link itself holds at full speed is the pace times the round trip; but the pace is known only as far
/// as the link was filled. So the window is twice that while it makes the pace grow, and then a fourth more, which is what
/// queues (after Cardwell et al., BBR, 2016).
#[derive(Debug, Default)]
pub struct Window {
    is_full: bool,
    /// Looks that found the pace as it was.
    flat: u8,
    /// The pace then, and the bytes whose acknowledgement is the next look.
    before: u64,
    next: u64,
}

impl Window {
    /// Bytes that may be on their way: at least `least`; of a link that is full, at most `queue` more than it holds.
    pub fn bytes(&mut self, meter: &Meter, least: u64, queue: u64) -> u64 {
        let on_wire = meter.on_wire();
        if !self.is_full && meter.total() - meter.in_flight() >= self.next {
            let grows = on_wire > self.before.saturating_add(self.before / GROWTH);
            self.flat = if grows { 0 } else { self.flat + 1 };
            self.is_full = self.flat >= LOOKS;
            (self.before, self.next) = (on_wire, meter.total() + 1);
        }
        let more = if self.is_full { (on_wire / 4).min(queue) } else { on_wire };
        on_wire.saturating_add(more).max(least)
    }
}
