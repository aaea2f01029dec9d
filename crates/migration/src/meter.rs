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
    /// Whether bytes waited for the link since.
    full: bool,
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
            full: false,
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

    /// The channel takes no more for now.
    pub fn full(&mut self) {
        self.full = true;
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

    /// The link carries at least the measured rate. If bytes waited for it, it carries no more than if all the time that
    /// went into encoding had been lost to it: a capacity between the two is borne out, and without encodings they are
    /// one. If none did, the host is what is slow: by its own work, or by the encoding. In the latter case the link may
    /// carry more than is known, a little more each time, until encoding does not pay and it is measured again.
    fn learn_capacity(&mut self, rate: u64, time: Micros) {
        let waited = u128::from(self.encoding / 1000).min(time.into());
        let most = u128::from(rate) * u128::from(time) / (u128::from(time) - waited).max(1);
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        self.capacity = match self.capacity {
            None => self.full.then_some(rate),
            Some(old) if self.full => Some(old.midpoint(old.clamp(rate, most))),
            Some(old) => (waited > 0).then(|| old.max(rate).saturating_add(old / 16)),
        };
    }

    /// Begins a new measurement: the link was idle for a reason of its own.
    pub fn restart(&mut self, now: Micros) {
        self.since = (now, self.acknowledged);
        (self.data, self.zero, self.encoding, self.full) = (0, 0, 0, false);
    }

    /// Bytes a second. Before the first interval is over: of all that was acknowledged.
    pub fn bandwidth(&self, now: Micros) -> Option<u64> {
        self.bandwidth.or_else(|| {
            let began = self.began?;
            rate(self.acknowledged, now.saturating_sub(began)).filter(|rate| *rate > 0)
        })
    }

    /// Bytes a second that the link could carry if pages took no time to encode. None while that is not measured, or
    /// while no byte waits for the link: then fewer bytes save no time.
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

    /// The same over a link for which bytes wait.
    fn full_interval(meter: &mut Meter, now: &mut u64, bytes: usize, encoding: u64) {
        meter.full();
        interval(meter, now, bytes, encoding);
    }

    #[test]
    fn a_link_that_waits_for_encoded_pages_is_not_taken_for_a_slow_one() {
        let (mut meter, mut now) = (Meter::new(1000), 0);
        full_interval(&mut meter, &mut now, 1_000_000, 0);
        assert_eq!(meter.capacity(), Some(1_000_000_000));
        for _ in 0..20 {
            full_interval(&mut meter, &mut now, 200_000, 900);
        }
        assert_eq!(meter.capacity(), Some(1_000_000_000));
        assert!(meter.bandwidth(now).unwrap() < 201_000_000);
    }

    #[test]
    fn a_link_that_became_slower_or_faster_is_seen() {
        let (mut meter, mut now) = (Meter::new(1000), 0);
        full_interval(&mut meter, &mut now, 1_000_000, 0);
        // Even without the encoding it would have carried no more than twice this.
        for _ in 0..40 {
            full_interval(&mut meter, &mut now, 100_000, 500);
        }
        assert_eq!(meter.capacity(), Some(200_000_000));
        for _ in 0..40 {
            full_interval(&mut meter, &mut now, 400_000, 500);
        }
        let capacity = meter.capacity().unwrap();
        assert!((399_000_000..=400_000_000).contains(&capacity), "{capacity}");
    }

    #[test]
    fn a_link_for_which_no_byte_waits_has_no_capacity_that_fewer_bytes_would_save() {
        let (mut meter, mut now) = (Meter::new(1000), 0);
        interval(&mut meter, &mut now, 20_000, 0);
        assert_eq!(meter.capacity(), None);
        full_interval(&mut meter, &mut now, 20_000, 0);
        assert_eq!(meter.capacity(), Some(20_000_000));
        interval(&mut meter, &mut now, 20_000, 0);
        assert_eq!(meter.capacity(), None);
    }

    #[test]
    fn a_link_that_encoding_leaves_idle_is_measured_again_in_the_end() {
        let (mut meter, mut now) = (Meter::new(1000), 0);
        full_interval(&mut meter, &mut now, 100_000, 0);
        interval(&mut meter, &mut now, 10_000, 900);
        assert_eq!(meter.capacity(), Some(106_250_000));
        for _ in 0..100 {
            interval(&mut meter, &mut now, 10_000, 900);
        }
        assert!(meter.capacity().unwrap() > 10_000_000_000);
    }

    #[test]
    fn the_time_in_which_the_destination_makes_room_says_nothing_of_the_link() {
        let (mut meter, mut now) = (Meter::new(1000), 0);
        meter.sent(100, 0);
        now += 500_000;
        meter.acknowledged(100, now).unwrap();
        full_interval(&mut meter, &mut now, 1_000_000, 0);
        assert_eq!((meter.bandwidth(now), meter.capacity()), (Some(1_000_000_000), Some(1_000_000_000)));
    }

    /// A tenth of a second in which so many bytes go over, and are acknowledged at its end.
    fn tenth(meter: &mut Meter, from: u64, bytes: usize) -> u64 {
        meter.sent(bytes, from);
        let total = meter.total();
        meter.acknowledged(total, from + 100_000).unwrap();
        from + 100_000
    }

    #[test]
    fn bandwidth_is_not_measured_while_pages_of_zeroes_are_scanned() {
        let mut meter = Meter::new(100_000);
        meter.scanned(250, 0);
        let now = tenth(&mut meter, 0, 1_000_000);
        assert_eq!(meter.bandwidth(now), Some(10_000_000));
        meter.scanned(1, 5000);
        let now = tenth(&mut meter, now, 5_000);
        assert_eq!(meter.bandwidth(now), Some(10_000_000));
        meter.scanned(500, 10);
        let now = tenth(&mut meter, now, 2_000_000);
        assert_eq!(meter.bandwidth(now), Some(15_000_000));
    }

    #[test]
    fn less_than_an_interval_changes_nothing() {
        let mut meter = Meter::new(100_000);
        meter.scanned(250, 0);
        let now = tenth(&mut meter, 0, 1_000_000);
        meter.sent(1000, now);
        meter.acknowledged(1_001_000, now + 99_999).unwrap();
        assert_eq!(meter.bandwidth(now + 99_999), Some(10_000_000));
    }
}
