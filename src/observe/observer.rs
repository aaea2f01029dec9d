//! The version of one VM, when its dirty flags are due, and the sample in progress.

use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use qavns::{Identifier, Reading, Sample, Version};

use super::processes::Changes;

/// How many identifiers a sample keeps. A longer one keeps every second, every fourth, ...
const MOST_IDENTIFIERS: usize = 1024;

/// Without a sample, dirty flags are collected so many times less often. Every harvest makes each page's next write dear
/// (nested, an exit to the hypervisor beneath us), and nobody decides on the identifier then.
const IDLE_FACTOR: u64 = 8;

/// Watches one VM.
///
/// The caller feeds what happens, in this order whenever [`Observer::tick`] says that a harvest is due:
/// collect the dirty flags, sweep the process table, [`Observer::processes`], [`Observer::harvested`].
/// Births and deaths go first because PCN sets DPCN to zero, and the pages belong to what runs now.
#[derive(Debug)]
pub struct Observer {
    version: Version,
    jiffy: Duration,
    harvest_jiffies: u64,
    /// Jiffies since the last harvest.
    since_harvest: u64,
    /// Asked to watch without a sample, too.
    watched: bool,
    /// Asked to look at nothing but samples and watches.
    off: bool,
    sample: Option<Running>,
}

/// A sample in progress.
#[derive(Debug)]
struct Running {
    start: Reading,
    ts: Duration,
    /// JS at which it is over.
    last_jiffy: u64,
    identifiers: Vec<(Duration, Identifier)>,
    uncounted: u64,
    /// One harvest of so many is kept.
    stride: usize,
    harvests: usize,
}

/// A sample that is over.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What the policy decides from.
    pub sample: Sample,
    /// The identifier after each harvest, with the caller's time of it.
    pub identifiers: Vec<(Duration, Identifier)>,
    /// Loads of CR3 after which births and deaths may have gone unseen, because too many processes were watched.
    pub uncounted: u64,
}

impl Observer {
    /// An observer of a VM that starts now. A harvest period of zero jiffies is taken as one.
    #[must_use]
    pub fn new(jiffy: Duration, harvest_jiffies: u64) -> Self {
        Self::resume(Version::new(), jiffy, harvest_jiffies)
    }

    /// An observer of a VM that arrived with its version.
    #[must_use]
    pub fn resume(version: Version, jiffy: Duration, harvest_jiffies: u64) -> Self {
        Self {
            version,
            jiffy,
            harvest_jiffies: harvest_jiffies.max(1),
            since_harvest: 0,
            watched: false,
            off: false,
            sample: None,
        }
    }

    /// The version as it is now.
    #[must_use]
    pub fn reading(&self) -> Reading {
        self.version.reading()
    }

    /// Whether a sample is in progress.
    #[must_use]
    pub fn sampling(&self) -> bool {
        self.sample.is_some()
    }

    /// Whether CR3 loads are to be watched: in a sample, and as long as somebody wants to watch.
    #[must_use]
    pub fn watching(&self) -> bool {
        self.watched || self.sampling()
    }

    /// Watches at the pace of a sample from now on, or no longer.
    pub fn watch(&mut self, on: bool) {
        self.watched = on;
    }

    /// Keeps the identifier from now on, or no longer: then nobody looks at dirty flags until it is kept again, or a sample or a
    /// watch begins, and what was modified meanwhile counts with the next harvest. JS goes on.
    pub fn keep_identifier(&mut self, on: bool) {
        self.off = !on;
    }

    /// Whether somebody looks at dirty flags now and then.
    #[must_use]
    pub fn active(&self) -> bool {
        !self.off || self.watching()
    }

    /// The period of the tick, and that of the harvests in a sample.
    #[must_use]
    pub fn periods(&self) -> (Duration, Duration) {
        let jiffies = u32::try_from(self.harvest_jiffies).unwrap_or(u32::MAX);
        (self.jiffy, self.jiffy.saturating_mul(jiffies))
    }

    /// `jiffies` have passed. True if a harvest is due, because its period or the sample is over; it
    /// stays due until [`Observer::harvested`].
    pub fn tick(&mut self, jiffies: u64) -> bool {
        self.version.tick(jiffies);
        self.since_harvest = self.since_harvest.saturating_add(jiffies);
        self.since_harvest >= self.period() || self.sample_is_over()
    }

    /// Jiffies until [`Observer::tick`] next says that a harvest is due, at least one: until then nobody needs to look.
    #[must_use]
    pub fn due_in(&self) -> u64 {
        let harvest = self.period().saturating_sub(self.since_harvest);
        let js = self.reading().identifier.js;
        let end = self.sample.as_ref().map_or(u64::MAX, |running| running.last_jiffy.saturating_sub(js));
        harvest.min(end).max(1)
    }

    /// Jiffies from one harvest to the next.
    fn period(&self) -> u64 {
        match (self.watching(), self.off) {
            (true, _) => self.harvest_jiffies,
            (false, false) => self.harvest_jiffies.saturating_mul(IDLE_FACTOR),
            (false, true) => u64::MAX,
        }
    }

    /// The guest's OS restarted.
    pub fn restart(&mut self) {
        self.version.restart();
    }

    /// Births and deaths were seen.
    pub fn processes(&mut self, changes: Changes) {
        self.version.processes(changes.births, changes.deaths);
        if let Some(running) = &mut self.sample {
            running.uncounted = running.uncounted.saturating_add(changes.uncounted);
        }
    }

    /// Pages were modified that no dirty flag shows: a device model, the loader or an incoming
    /// migration wrote them.
    pub fn modified(&mut self, pages: u64) {
        self.version.modified(pages);
    }

    /// The dirty flags were collected and cleared at time `at`, with `pages` of them set. Gives the
    /// sample if this harvest ends it.
    pub fn harvested(&mut self, at: Duration, pages: u64) -> Option<Observed> {
        self.since_harvest = 0;
        self.version.modified(pages);
        let identifier = self.reading().identifier;
        if let Some(running) = &mut self.sample {
            running.keep(at, identifier);
        }
        if self.sample_is_over() { self.finish() } else { None }
    }

    /// The migration starts (MST) and with it a sample of length `ts`: at least one jiffy, whole
    /// jiffies. A sample in progress is given up.
    ///
    /// Harvest first, and feed it to [`Observer::harvested`]: what was written before must not count.
    pub fn start_sample(&mut self, ts: Duration) {
        self.version.migration_start();
        self.since_harvest = 0;
        let start = self.reading();
        let jiffies = ts.as_nanos().div_ceil(self.jiffy.as_nanos().max(1)).max(1);
        let jiffies = u64::try_from(jiffies).unwrap_or(u64::MAX);
        self.sample = Some(Running {
            start,
            ts,
            last_jiffy: start.identifier.js.saturating_add(jiffies),
            identifiers: Vec::new(),
            uncounted: 0,
            stride: 1,
            harvests: 0,
        });
    }

    /// Gives up the sample in progress; the identifier runs on.
    pub fn cancel_sample(&mut self) {
        self.sample = None;
    }

    /// Whether the next harvest ends the sample.
    #[must_use]
    pub fn sample_is_over(&self) -> bool {
        let js = self.reading().identifier.js;
        self.sample.as_ref().is_some_and(|running| js >= running.last_jiffy)
    }

    fn finish(&mut self) -> Option<Observed> {
        let running = self.sample.take()?;
        let (jiffy, harvest_period) = self.periods();
        let sample = Sample { start: running.start, end: self.reading(), ts: running.ts, jiffy, harvest_period };
        Some(Observed { sample, identifiers: running.identifiers, uncounted: running.uncounted })
    }
}

impl Running {
    fn keep(&mut self, at: Duration, identifier: Identifier) {
        if self.identifiers.len() >= MOST_IDENTIFIERS {
            let every_second = mem::take(&mut self.identifiers).into_iter().step_by(2);
            self.identifiers = every_second.collect();
            self.stride = self.stride.saturating_mul(2);
        }
        if self.harvests.is_multiple_of(self.stride) {
            self.identifiers.push((at, identifier));
        }
        self.harvests = self.harvests.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    const JIFFY: Duration = Duration::from_millis(4);

    fn observer() -> Observer {
        Observer::new(JIFFY, 25)
    }

    /// Ticks one jiffy at a time, harvesting `pages` whenever due, until the sample is over.
    fn run(observer: &mut Observer, pages: u64) -> Observed {
        for jiffy in 1..100_000 {
            let at = JIFFY * jiffy;
            if observer.tick(1)
                && let Some(observed) = observer.harvested(at, pages)
            {
                return observed;
            }
        }
        panic!("the sample never ended");
    }

    #[test]
    fn a_harvest_is_due_after_its_period_until_it_is_done() {
        let mut observer = observer();
        let idle = 25 * IDLE_FACTOR;
        assert!(!observer.tick(idle - 1));
        assert!(observer.tick(1));
        assert!(observer.tick(1), "still due");
        assert!(observer.harvested(JIFFY, 3).is_none());
        assert!(!observer.tick(idle - 1));
        assert_eq!(observer.reading().identifier.to_string(), "000000000400.1.0.3");
        assert_eq!(observer.due_in(), 1);
        observer.start_sample(JIFFY * 1000);
        assert_eq!(observer.due_in(), 25);
        assert!(!observer.tick(24));
        assert!(observer.tick(1), "more often in a sample");
        observer.start_sample(JIFFY * 7);
        assert_eq!(observer.due_in(), 7, "the end of a sample is looked at in time");
    }

    #[test]
    fn who_watches_harvests_at_the_pace_of_a_sample_before_and_after_one() {
        let mut observer = observer();
        observer.watch(true);
        assert!(observer.watching() && !observer.sampling());
        assert!(!observer.tick(24));
        assert!(observer.tick(1));
        observer.start_sample(Duration::from_millis(500));
        run(&mut observer, 1);
        assert!(observer.watching() && !observer.sampling());
        assert!(!observer.tick(24));
        assert!(observer.tick(1));
        observer.watch(false);
        assert!(!observer.watching() && !observer.tick(1));
    }

    #[test]
    fn switched_off_nothing_is_due_but_time_goes_on_and_a_sample_still_counts() {
        let mut observer = observer();
        observer.keep_identifier(false);
        assert!(!observer.active() && !observer.tick(1_000_000));
        assert_eq!(observer.due_in(), u64::MAX - 1_000_000);
        observer.start_sample(Duration::from_millis(500));
        assert!(observer.active());
        assert_eq!(run(&mut observer, 7).sample.pages_modified(), 35);
        assert!(!observer.active() && !observer.tick(1_000_000));
        observer.keep_identifier(true);
        assert!(observer.active() && observer.tick(1), "due at once");
        observer.harvested(JIFFY, 9);
        assert_eq!(observer.reading().identifier.to_string(), "000001000126.1.0.44");
    }

    #[test]
    fn a_sample_starts_the_identifier_anew_and_ends_after_ts() {
        let mut observer = observer();
        observer.tick(1000);
        observer.harvested(JIFFY, 50);
        observer.start_sample(Duration::from_millis(500));
        assert!(observer.sampling());
        let Observed { sample, identifiers, .. } = run(&mut observer, 7);
        assert!(!observer.sampling());
        assert_eq!(sample.start.identifier, Identifier::START);
        assert_eq!(sample.end.identifier.to_string(), "000000000125.1.0.35");
        assert_eq!((sample.jiffies(), sample.pages_modified()), (125, 35));
        assert_eq!(sample.harvest_period, Duration::from_millis(100));
        let seen: Vec<_> = identifiers.iter().map(|(at, id)| (at.as_millis(), id.js, id.dpcn)).collect();
        assert_eq!(seen, [(100, 25, 7), (200, 50, 14), (300, 75, 21), (400, 100, 28), (500, 125, 35)]);
    }

    #[test]
    fn a_ts_of_uneven_length_ends_with_a_harvest_of_its_own() {
        let mut observer = observer();
        observer.start_sample(Duration::from_millis(130));
        let Observed { sample, identifiers, .. } = run(&mut observer, 1);
        assert_eq!((sample.jiffies(), sample.pages_modified()), (33, 2));
        assert_eq!(identifiers.len(), 2);
    }

    #[test]
    fn a_restart_and_processes_show_in_the_sample() {
        let mut observer = observer();
        observer.start_sample(Duration::from_millis(100));
        observer.processes(Changes { births: 3, deaths: 2, uncounted: 4 });
        observer.restart();
        observer.processes(Changes { births: 1, deaths: 0, uncounted: 1 });
        observer.modified(2);
        let Observed { sample, uncounted, .. } = run(&mut observer, 5);
        assert_eq!(uncounted, 5);
        assert_eq!(sample.end.identifier.to_string(), "000000000025.2.1.7");
        assert_eq!((sample.restarts(), sample.births(), sample.deaths()), (1, 4, 2));
    }

    #[test]
    fn a_cancelled_sample_never_ends() {
        let mut observer = observer();
        observer.start_sample(Duration::from_millis(100));
        observer.cancel_sample();
        assert!(observer.tick(100_000));
        assert!(observer.harvested(JIFFY, 0).is_none());
    }

    #[test]
    fn a_long_sample_keeps_a_bounded_number_of_identifiers_evenly() {
        let mut observer = Observer::new(JIFFY, 1);
        observer.start_sample(JIFFY * 5000);
        let identifiers = run(&mut observer, 0).identifiers;
        assert!(identifiers.len() <= MOST_IDENTIFIERS);
        let even = identifiers.windows(2).all(|pair| pair[1].1.js - pair[0].1.js == 8);
        assert!(even);
    }

    #[test]
    fn odd_periods_do_not_panic() {
        let mut observer = Observer::new(Duration::ZERO, 0);
        observer.start_sample(Duration::MAX);
        assert!(observer.tick(u64::MAX));
        assert!(observer.tick(u64::MAX));
        assert!(observer.harvested(Duration::MAX, u64::MAX).is_some());
    }
}
