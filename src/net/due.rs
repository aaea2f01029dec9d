//! When the network is to be polled although nobody forces it.

/// What is known of the card's interrupts and the stack's timers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Due {
    /// Interrupts of the card at the last poll.
    interrupts: u64,
    /// When the stack's first timer ends, in microseconds.
    timer: u64,
    /// A frame interrupts.
    armed: bool,
}

impl Due {
    /// Whether a frame may have come, or a timer has ended.
    pub fn is_due(&self, interrupts: u64, now: u64) -> bool {
        interrupts != self.interrupts || now >= self.timer
    }

    /// It is polled. Returns whether interrupts are to be switched off meanwhile.
    pub fn begin(&mut self, interrupts: u64) -> bool {
        self.interrupts = interrupts;
        core::mem::take(&mut self.armed)
    }

    /// It was polled, and its first timer ends then.
    pub fn end(&mut self, timer: u64) {
        self.timer = timer;
    }

    /// Whether a frame interrupts.
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    /// Interrupts were asked for. If a frame was there already, so that it was no use, no interrupt comes for that one: a poll is
    /// due at once, or the frame would lie there, and forbid every rest, until a timer ends.
    pub fn arm(&mut self, armed: bool) {
        self.armed = armed;
        if !armed {
            self.timer = 0;
        }
    }

    /// When the first timer ends, if one runs.
    pub fn timer(&self) -> Option<u64> {
        (self.timer != u64::MAX).then_some(self.timer)
    }
}

#[cfg(test)]
mod tests {
    use super::Due;

    #[test]
    fn a_poll_is_due_by_a_frame_or_a_timer() {
        let mut due = Due::default();
        assert!(due.is_due(0, 0), "the first one");
        due.begin(0);
        due.end(1000);
        assert!(!due.is_due(0, 999) && due.is_due(1, 999) && due.is_due(0, 1000));
    }

    #[test]
    fn a_frame_that_came_before_interrupts_were_asked_for_is_polled_at_once() {
        let mut due = Due::default();
        due.begin(3);
        due.end(1_000_000);
        due.arm(false);
        assert!(due.is_due(3, 5) && !due.is_armed());
        due.begin(3);
        due.end(u64::MAX);
        due.arm(true);
        assert!(!due.is_due(3, 1_000_000) && due.is_armed() && due.timer().is_none());
        assert!(due.begin(4), "interrupts are on");
    }
}
