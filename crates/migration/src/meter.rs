//! What the link carries, measured by what the destination acknowledges.

use crate::{Error, Micros};
use alloc::collections::VecDeque;

/// Marks of sent bytes that are kept to measure the round trip.
const MARKS: usize = 64;

/// A moment at which bytes were sent.
#[derive(Debug)]
struct Mark {
    at: Micros,
    /// Bytes sent by then, and acknowledged by then.
    sent: u64,
    acknowledged: u64,
}

/// Bytes sent and acknowledged, the bandwidth and the round trip.
#[derive(Debug)]
pub struct Meter {
    interval: Micros,
    sent: u64,
    acknowledged: u64,
    marks: VecDeque<Mark>,
    round_trip: Option<Micros>,
    /// Bytes a second, of late, from when they were sent to when they were acknowledged.
    pace: u64,
    began: Option<Micros>,
    /// When and at which count the present measurement began.
    since: (Micros, u64),
    /// Pages looked at since: with contents, of zeroes.
    data: u64,
    zero: u64,
    /// Nanoseconds since that went into encoding pages.
    encoding: u64,
    bandwidth: Option<u64>,
    capacity: Option<u64>,
}

impl Meter {
    /// A meter that measures bandwidth over at least `interval`.
    pub fn new(interval: Micros) -> Self {
        Self {
            interval: interval.max(1),
            sent: 0,
            acknowledged: 0,
            marks: VecDeque::new(),
            round_trip: None,
            pace: 0,
            began: None,
            since: (0, 0),
            data: 0,
            zero: 0,
            encoding: 0,
            bandwidth: None,
            capacity: None,
        }
    }

    /// Bytes went to the channel.
    pub fn sent(&mut self, bytes: usize, now: Micros) {
        if bytes == 0 {
            return;
        }
        if self.began.is_none() {
            self.began = Some(now);
            self.since = (now, 0);
        }
        self.sent += bytes as u64;
        if self.marks.len() < MARKS {
            let (sent, acknowledged) = (self.sent, self.acknowledged);
            self.marks.push_back(Mark { at: now, sent, acknowledged });
        }
    }

    /// Pages were looked at: scanning pages of zeroes keeps the link idle and says nothing of it.
    pub fn scanned(&mut self, data: u64, zero: u64) {
        self.data += data;
        self.zero += zero;
    }

    /// Pages were encoded.
    pub fn encoded(&mut self, nanos: u64) {
        self.encoding = self.encoding.saturating_add(nanos);
    }

    /// The destination says that it has handled so many bytes in all.
    pub fn acknowledged(&mut self, total: u64, now: Micros) -> Result<(), Error> {
        if total > self.sent {
            return Err(Error::AcknowledgedTooMuch);
        }
        self.acknowledged = self.acknowledged.max(total);
        let mut latest = None;
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.sent <= total) {
            latest = Some(mark);
        }
        if let Some(mark) = latest {
            self.learn_from(&mark, now);
        }
        self.measure(now);
        Ok(())
    }

    /// The bytes that a mark stands for are acknowledged. What was delivered meanwhile, in that time, is what the link
    /// carries, or less if less was sent (Cardwell et al., BBR, 2016).
    fn learn_from(&mut self, mark: &Mark, now: Micros) {
        let trip = now.saturating_sub(mark.at);
        self.round_trip = Some(self.round_trip.map_or(trip, |least| least.min(trip)));
        let delivered = self.acknowledged.saturating_sub(mark.acknowledged);
        self.pace = (self.pace - self.pace / 16).max(rate(delivered, trip).unwrap_or(0));
    }

    /// Bytes that are on the wire itself, not in a queue, when the link is busy.
    pub fn on_wire(&self) -> u64 {
        bytes_in(self.round_trip.unwrap_or(0), self.pace)
    }

    fn measure(&mut self, now: Micros) {
        let (start, count) = self.since;
        let time = now.saturating_sub(start);
        if time < self.interval {
            return;
        }
        // Without pages the link was idle: the destination made room, or the guest asked for nothing.
        if self.data > 0
            && self.data >= self.zero
            && let Some(rate) = rate(self.acknowledged.saturating_sub(count), time)
        {
            // Half of the past smooths what one interval happens to see.
            self.bandwidth = Some(self.bandwidth.map_or(rate, |old| old.midpoint(rate)));
            self.learn_capacity(rate, time);
        }
        self.restart(now);
    }

    /// The link carries at least the measured rate. It may carry more, if it waited for pages to be encoded: at most as
    /// much as if all that time had been lost to it. A capacity between the two is borne out; without encodings they are
    /// one.
    fn learn_capacity(&mut self, rate: u64, time: Micros) {
        let waited = u128::from(self.encoding / 1000).min(time.into());
        let most = u128::from(rate) * u128::from(time) / (u128::from(time) - waited).max(1);
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        self.capacity = Some(self.capacity.map_or(rate, |old| old.midpoint(old.clamp(rate, most))));
    }

    /// Begins a new measurement: the link was idle for a reason of its own.
    pub fn restart(&mut self, now: Micros) {
        self.since = (now, self.acknowledged);
        (self.data, self.zero, self.encoding) = (0, 0, 0);
    }

    /// Bytes a second. Before the first interval is over: of all that was acknowledged.
    pub fn bandwidth(&self, now: Micros) -> Option<u64> {
        self.bandwidth.or_else(|| {
            let began = self.began?;
            rate(self.acknowledged, now.saturating_sub(began)).filter(|rate| *rate > 0)
        })
    }

    /// Bytes a second that the link could carry if pages took no time to encode, once that was measured.
    pub fn capacity(&self) -> Option<u64> {
        self.capacity
    }

    /// The shortest time from bytes sent to bytes acknowledged.
    pub fn round_trip(&self) -> Option<Micros> {
        self.round_trip
    }

    /// Bytes on their way.
    pub fn in_flight(&self) -> u64 {
        self.sent.saturating_sub(self.acknowledged)
    }

    /// Bytes sent in all.
    pub fn total(&self) -> u64 {
        self.sent
    }

    /// A new link: counts begin anew, what was learnt about the pace is forgotten.
    pub fn new_link(&mut self) {
        *self = Self::new(self.interval);
    }
}

/// Bytes a second, if time has passed.
pub fn rate(bytes: u64, time: Micros) -> Option<u64> {
    u64::try_from(u128::from(bytes) * 1_000_000 / u128::from(time.max(1))).ok().filter(|_| time > 0)
}

/// How long `bytes` take at `bandwidth` bytes a second.
pub fn time_for(bytes: u64, bandwidth: u64) -> Micros {
    u64::try_from(u128::from(bytes) * 1_000_000 / u128::from(bandwidth.max(1))).unwrap_or(u64::MAX)
}

/// How many bytes `bandwidth` bytes a second carry in a time.
fn bytes_in(time: Micros, bandwidth: u64) -> u64 {
    u64::try_from(u128::from(time) * u128::from(bandwidth) / 1_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Meter;

    /// Sends and acknowledges `bytes` in the time of one interval, of which `encoding` goes into encoding.
    fn interval(meter: &mut Meter, now: &mut u64, bytes: usize, encoding: u64) {
        meter.sent(bytes, *now);
        meter.scanned(1, 0);
        meter.encoded(encoding * 1000);
        *now += 1000;
        meter.acknowledged(meter.total(), *now).unwrap();
    }

    #[test]
    fn a_link_that_waits_for_encoded_pages_is_not_taken_for_a_slow_one() {
        let (mut meter, mut now) = (Meter::new(1000), 0);
        interval(&mut meter, &mut now, 1_000_000, 0);
        assert_eq!(meter.capacity(), Some(1_000_000_000));
        for _ in 0..20 {
            interval(&mut meter, &mut now, 200_000, 900);
        }
        assert_eq!(meter.capacity(), Some(1_000_000_000));
        assert!(meter.bandwidth(now).unwrap() < 201_000_000);
    }

    #[test]
    fn a_link_that_became_slower_or_faster_is_seen() {
        let (mut meter, mut now) = (Meter::new(1000), 0);
        interval(&mut meter, &mut now, 1_000_000, 0);
        // Even without the encoding it would have carried no more than twice this.
        for _ in 0..40 {
            interval(&mut meter, &mut now, 100_000, 500);
        }
        assert_eq!(meter.capacity(), Some(200_000_000));
        for _ in 0..40 {
            interval(&mut meter, &mut now, 400_000, 500);
        }
        let capacity = meter.capacity().unwrap();
        assert!((399_000_000..=400_000_000).contains(&capacity), "{capacity}");
    }

    #[test]
    fn the_time_in_which_the_destination_makes_room_says_nothing_of_the_link() {
        let (mut meter, mut now) = (Meter::new(1000), 0);
        meter.sent(100, 0);
        now += 500_000;
        meter.acknowledged(100, now).unwrap();
        interval(&mut meter, &mut now, 1_000_000, 0);
        assert_eq!((meter.bandwidth(now), meter.capacity()), (Some(1_000_000_000), Some(1_000_000_000)));
    }
}
