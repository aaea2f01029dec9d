//! The 8254 timer (Intel 8254 datasheet): channel 0 drives IRQ 0, channel 2 is the speaker's, which Linux uses
//! as a stopwatch through port 0x61. Channel 1 (once the memory refresh) counts and does nothing.
//!
//! A channel knows when its count was loaded and derives everything from that moment, so nothing drifts and no
//! work grows with the time that passed. If several periods of channel 0 passed since the last look, they are one
//! interrupt: the others are counted as coalesced and not made up for, since a guest of this kind keeps time by
//! its TSC.
//!
//! Simplifications, none of which Linux can tell: a new count takes effect at once (the chip waits for its next
//! clock, and in modes 2 and 3 for the end of the period); mode 3 with an odd count is off by one tick within the
//! period.

use super::record::Device;
use super::{Nanos, SECOND};
use serde::{Deserialize, Serialize};

/// Ticks a second.
pub(super) const FREQUENCY: u64 = 1_193_182;
/// Periods of channel 0 shorter than this (100 us) interrupt only every n-th time, or a guest could keep the host
/// busy with interrupts alone.
const MIN_PERIOD: u64 = 120;

/// The whole ticks in a span of time.
fn ticks_in(span: Nanos) -> u64 {
    // In two parts, so that no product overflows: whole seconds, and a rest below one second.
    span / SECOND * FREQUENCY + span % SECOND * FREQUENCY / SECOND
}

/// The shortest span of time that holds so many ticks.
fn span_of(ticks: u64) -> Nanos {
    let seconds = (ticks / FREQUENCY).saturating_mul(SECOND);
    seconds.saturating_add((ticks % FREQUENCY * SECOND).div_ceil(FREQUENCY))
}

/// Which bytes of a 16-bit count a guest reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Access {
    Low,
    High,
    LowThenHigh,
}

/// How a channel stands in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Progress {
    /// No count was loaded, or it waits for its trigger.
    Stopped,
    /// Counting since a moment.
    Since(Nanos),
    /// So many ticks were counted when the gate closed.
    Paused(u64),
}

/// One channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Channel {
    mode: u8,
    access: Access,
    bcd: bool,
    gate: bool,
    loaded: bool,
    /// 1..=65536.
    count: u32,
    progress: Progress,
    /// The low byte of a count whose high byte is still to come.
    low_written: Option<u8>,
    /// The low byte was read, the high one is next.
    high_next: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    /// Periods (or one-shots) since the count was loaded for which IRQ 0 was raised or coalesced.
    periods_done: u64,
}

impl Channel {
    fn new(gate: bool) -> Self {
        Self {
            mode: 0,
            access: Access::LowThenHigh,
            bcd: false,
            gate,
            loaded: false,
            count: 65_536,
            progress: Progress::Stopped,
            low_written: None,
            high_next: false,
            latched_count: None,
            latched_status: None,
            periods_done: 0,
        }
    }

    fn is_periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    fn starts_by_gate(&self) -> bool {
        matches!(self.mode, 1 | 5)
    }

    /// Ticks counted so far.
    fn elapsed(&self, now: Nanos) -> u64 {
        match self.progress {
            Progress::Stopped => 0,
            Progress::Since(start) => ticks_in(now.saturating_sub(start)),
            Progress::Paused(ticks) => ticks,
        }
    }

    /// The level of OUT.
    fn output(&self, now: Nanos) -> bool {
        if self.progress == Progress::Stopped {
            return self.mode != 0;
        }
        let count = u64::from(self.count);
        let ticks = self.elapsed(now);
        match self.mode {
            0 | 1 => ticks >= count,
            2 => !self.gate || ticks % count != count - 1,
            3 => !self.gate || ticks % count < count.div_ceil(2),
            _ => ticks != count,
        }
    }

    /// The counting element, as a guest reads it.
    fn counter(&self, now: Nanos) -> u16 {
        let count = u64::from(self.count);
        let ticks = self.elapsed(now);
        let modulus = if self.bcd { 10_000 } else { 65_536 };
        let value = match self.mode {
            2 => count - ticks % count,
            3 => count - ticks % count * 2 % count,
            _ => (count + modulus - ticks % modulus) % modulus,
        };
        let value = (value % modulus) as u16; // below 65,536
        if self.bcd { to_bcd(value) } else { value }
    }

    fn status(&self, now: Nanos) -> u8 {
        let access = match self.access {
            Access::Low => 1,
            Access::High => 2,
            Access::LowThenHigh => 3,
        };
        let flag = |set: bool, bit: u8| u8::from(set) << bit;
        flag(self.output(now), 7) | flag(!self.loaded, 6) | access << 4 | self.mode << 1 | flag(self.bcd, 0)
    }

    /// A control word for this channel. Counting stops until a count is loaded.
    fn control(&mut self, access: Access, mode: u8, bcd: bool) {
        *self = Self { mode, access, bcd, ..Self::new(self.gate) };
    }

    fn latch_count(&mut self, now: Nanos) {
        // A second latch command before the first was read is ignored.
        if self.latched_count.is_none() {
            self.latched_count = Some(self.counter(now));
        }
    }

    fn latch_status(&mut self, now: Nanos) {
        if self.latched_status.is_none() {
            self.latched_status = Some(self.status(now));
        }
    }

    fn read(&mut self, now: Nanos) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.counter(now)).to_le_bytes();
        let (value, last) = match self.access {
            Access::Low => (low, true),
            Access::High => (high, true),
            Access::LowThenHigh => {
                self.high_next = !self.high_next;
                if self.high_next { (low, false) } else { (high, true) }
            }
        };
        if last {
            self.latched_count = None;
        }
        value
    }

    /// True if a count was loaded.
    fn write(&mut self, value: u8, now: Nanos) -> bool {
        let raw = match (self.access, self.low_written.take()) {
            (Access::Low, _) => u16::from(value),
            (Access::High, _) => u16::from(value) << 8,
            (Access::LowThenHigh, Some(low)) => u16::from_le_bytes([low, value]),
            (Access::LowThenHigh, None) => {
                self.low_written = Some(value);
                if self.mode == 0 {
                    self.progress = Progress::Stopped; // the first byte stops the count in mode 0
                }
                return false;
            }
        };
        self.load(raw, now);
        true
    }

    fn load(&mut self, raw: u16, now: Nanos) {
        let value = if self.bcd { from_bcd(raw) } else { u32::from(raw) };
        self.count = match value {
            0 if self.bcd => 10_000,
            0 => 65_536,
            value => value,
        };
        self.loaded = true;
        self.periods_done = 0;
        self.progress = match (self.starts_by_gate(), self.gate) {
            (true, _) => Progress::Stopped,
            (false, true) => Progress::Since(now),
            (false, false) => Progress::Paused(0),
        };
    }

    fn set_gate(&mut self, gate: bool, now: Nanos) {
        let rises = gate && !self.gate;
        let falls = self.gate && !gate;
        self.gate = gate;
        if rises && self.loaded {
            self.progress = match self.progress {
                // Modes 0 and 4 go on where they stopped; all others start over.
                Progress::Paused(ticks) if !self.is_periodic() => Progress::Since(now.saturating_sub(span_of(ticks))),
                Progress::Stopped if !self.starts_by_gate() => Progress::Stopped,
                _ => Progress::Since(now),
            };
        } else if falls && !self.starts_by_gate() && self.progress != Progress::Stopped {
            self.progress = Progress::Paused(self.elapsed(now));
        }
    }

    /// Ticks between two interrupts.
    fn stride(&self) -> u64 {
        let count = u64::from(self.count);
        if self.is_periodic() { count * MIN_PERIOD.div_ceil(count) } else { count }
    }

    /// When OUT rises next in a way that interrupts.
    fn deadline(&self) -> Option<Nanos> {
        let Progress::Since(start) = self.progress else {
            return None;
        };
        if !self.is_periodic() && self.periods_done != 0 {
            return None;
        }
        let ticks = self.periods_done.saturating_add(1).saturating_mul(self.stride());
        Some(start.saturating_add(span_of(ticks)))
    }

    /// How many periods ended since the last call; 0 or 1 for a one-shot.
    fn take_periods(&mut self, now: Nanos) -> u64 {
        let ended = self.elapsed(now) / self.stride();
        let ended = if self.is_periodic() { ended } else { ended.min(1) };
        let new = ended.saturating_sub(self.periods_done);
        self.periods_done = self.periods_done.max(ended);
        new
    }

    fn accept(&self) -> Result<(), &'static str> {
        if self.mode > 5 {
            return Err("mode");
        }
        if !(1..=65_536).contains(&self.count) {
            return Err("count");
        }
        Ok(())
    }
}

fn from_bcd(raw: u16) -> u32 {
    // A nibble above 9 counts as its value; four of them stay below 65,536.
    [12, 8, 4, 0].iter().fold(0, |value, shift| value * 10 + u32::from((raw >> shift) & 0xF))
}

fn to_bcd(value: u16) -> u16 {
    [1000, 100, 10, 1].iter().fold(0, |bcd, unit| (bcd << 4) | (value / unit % 10))
}

/// What a write does to the interrupt line of channel 0 at once. It rises in [`Pit::advance`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Irq0 {
    /// Nothing.
    Unchanged,
    /// OUT went low.
    Lower,
}

/// The timer, and port 0x61 that holds the gate and the output of channel 2.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pit {
    channels: [Channel; 3],
    /// The low four bits of port 0x61.
    control_b: u8,
    coalesced: u64,
    /// When channel 0 interrupts next: kept because every exit asks.
    #[serde(skip)]
    deadline: Option<Nanos>,
}

impl Pit {
    pub(super) fn new() -> Self {
        let channels = [Channel::new(true), Channel::new(true), Channel::new(false)];
        Self { channels, control_b: 0, coalesced: 0, deadline: None }
    }

    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.deadline
    }

    /// Periods of channel 0 that shared an interrupt with a later one.
    pub(super) fn coalesced(&self) -> u64 {
        self.coalesced
    }

    /// True if IRQ 0 is to be raised.
    pub(super) fn advance(&mut self, now: Nanos) -> bool {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return false;
        }
        let periods = self.channels[0].take_periods(now);
        self.deadline = self.channels[0].deadline();
        self.coalesced = self.coalesced.saturating_add(periods.saturating_sub(1));
        periods != 0
    }

    /// Reads port 0x40..=0x42.
    pub(super) fn read(&mut self, port: u16, now: Nanos) -> u8 {
        match self.channel(port & 3) {
            Some(channel) => channel.read(now),
            None => 0xFF, // the control word cannot be read
        }
    }

    /// Writes port 0x40..=0x43.
    pub(super) fn write(&mut self, port: u16, value: u8, now: Nanos) -> Irq0 {
        let irq0 = match port & 3 {
            3 => self.control(value, now),
            number => {
                let Some(channel) = self.channel(number) else {
                    return Irq0::Unchanged;
                };
                let loaded = channel.write(value, now);
                // OUT of mode 0 goes low with a new count.
                if number == 0 && loaded && channel.mode == 0 { Irq0::Lower } else { Irq0::Unchanged }
            }
        };
        self.deadline = self.channels[0].deadline();
        irq0
    }

    fn channel(&mut self, number: u16) -> Option<&mut Channel> {
        self.channels.get_mut(usize::from(number))
    }

    fn control(&mut self, value: u8, now: Nanos) -> Irq0 {
        let number = u16::from(value >> 6);
        let Some(channel) = self.channel(number) else {
            self.read_back(value, now);
            return Irq0::Unchanged;
        };
        let access = match value >> 4 & 3 {
            0 => {
                channel.latch_count(now);
                return Irq0::Unchanged;
            }
            1 => Access::Low,
            2 => Access::High,
            _ => Access::LowThenHigh,
        };
        // Modes 6 and 7 are 2 and 3.
        let mode = match value >> 1 & 7 {
            6 => 2,
            7 => 3,
            mode => mode,
        };
        channel.control(access, mode, value & 1 != 0);
        if number == 0 && mode == 0 { Irq0::Lower } else { Irq0::Unchanged }
    }

    /// The read-back command: count and status of several channels at once (bits 5 and 4 are active low).
    fn read_back(&mut self, value: u8, now: Nanos) {
        for (number, channel) in self.channels.iter_mut().enumerate() {
            if value >> 1 >> number & 1 == 0 {
                continue;
            }
            if value & 0x20 == 0 {
                channel.latch_count(now);
            }
            if value & 0x10 == 0 {
                channel.latch_status(now);
            }
        }
    }

    /// Reads port 0x61: gate 2, speaker, the memory refresh that toggles each 15 us, and the output of channel 2.
    pub(super) fn control_b(&self, now: Nanos) -> u8 {
        let refresh = ((now / 15_085) & 1) as u8;
        let output = u8::from(self.channels[2].output(now));
        self.control_b | refresh << 4 | output << 5
    }

    /// Writes port 0x61.
    pub(super) fn set_control_b(&mut self, value: u8, now: Nanos) {
        self.control_b = value & 0x0F;
        self.channels[2].set_gate(value & 1 != 0, now);
    }
}

impl Device for Pit {
    const NAME: &'static str = "timer";
    const VERSION: u16 = 1;

    fn accept(&mut self) -> Result<(), &'static str> {
        for channel in &self.channels {
            channel.accept()?;
        }
        if self.control_b > 0x0F {
            return Err("control_b");
        }
        self.deadline = self.channels[0].deadline();
        Ok(())
    }
}
