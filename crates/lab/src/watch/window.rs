//! What the rule would say now: of the last Ts, as if a migration had started then.

use std::collections::VecDeque;
use std::time::Duration;

use qavns::{Decision, Policy, Reading, Sample, Version};

use super::step::{Progress, Step};

/// The steps of the last Ts.
pub struct Window {
    ts: Duration,
    jiffy: Duration,
    harvest_period: Duration,
    /// At its start.
    start: Option<Reading>,
    steps: VecDeque<Step>,
}

impl Window {
    /// An empty window of this length over what was counted with these periods.
    pub fn new(ts: Duration, jiffy: Duration, harvest_period: Duration) -> Self {
        Self { ts, jiffy, harvest_period, start: None, steps: VecDeque::new() }
    }

    /// Ts in jiffies, as the hypervisor rounds it: at least one.
    fn jiffies(&self) -> u64 {
        let jiffies = self.ts.as_nanos().div_ceil(self.jiffy.as_nanos().max(1)).max(1);
        u64::try_from(jiffies).unwrap_or(u64::MAX)
    }

    /// Takes what came, with the reading after it.
    pub fn push(&mut self, progress: &Progress, reading: Reading) {
        match progress {
            Progress::Begin => {
                self.steps.clear();
                self.start = Some(reading);
            }
            Progress::Step(step) => self.steps.push_back(step.clone()),
        }
        while self.drop_first() {}
    }

    /// Drops the steps up to the first harvest if what follows is long enough.
    fn drop_first(&mut self) -> bool {
        let Some(harvest) = self.steps.iter().position(|step| !step.restart) else { return false };
        if self.steps.iter().skip(harvest + 1).map(|step| step.jiffies).sum::<u64>() < self.jiffies() {
            return false;
        }
        let mut version = Version::resume(self.start.unwrap_or_default());
        self.steps.drain(..=harvest).for_each(|step| step.apply(&mut version));
        self.start = Some(version.reading());
        true
    }

    /// The sample that a migration would have taken, if it had started Ts ago. Nothing before the first Ts is over, and
    /// nothing between harvests.
    pub fn sample(&self) -> Option<Sample> {
        let long_enough = self.steps.iter().map(|step| step.jiffies).sum::<u64>() >= self.jiffies();
        if !long_enough || self.steps.back()?.restart {
            return None;
        }
        let mut version = Version::resume(self.start?);
        version.migration_start();
        let start = version.reading();
        self.steps.iter().for_each(|step| step.apply(&mut version));
        Some(Sample {
            start,
            end: version.reading(),
            ts: self.ts,
            jiffy: self.jiffy,
            harvest_period: self.harvest_period,
        })
    }

    /// What the policy says of it.
    pub fn decision(&self, policy: &dyn Policy) -> Option<Decision> {
        self.sample().map(|sample| policy.decide(&sample))
    }
}

#[cfg(test)]
mod tests {
    use qavns::{Condition, DEFAULT_TD, DEFAULT_TP, Paper};

    use super::*;

    fn window() -> Window {
        let mut window = Window::new(Duration::from_millis(500), Duration::from_millis(4), Duration::from_millis(100));
        window.push(&Progress::Begin, Reading::default());
        window
    }

    fn push(window: &mut Window, step: Step) {
        window.push(&Progress::Step(step), Reading::default());
    }

    fn harvest(births: u64, pages: u64) -> Step {
        Step { jiffies: 25, births, pages, ..Step::default() }
    }

    fn condition(window: &Window) -> Option<Condition> {
        window.decision(&Paper { tp: DEFAULT_TP, td: DEFAULT_TD }).map(|decision| decision.condition)
    }

    #[test]
    fn nothing_is_said_before_the_first_ts_is_over() {
        let mut window = window();
        for _ in 0..4 {
            push(&mut window, harvest(0, 1));
            assert_eq!(window.sample(), None);
        }
        push(&mut window, harvest(0, 1));
        let sample = window.sample().unwrap();
        assert_eq!((sample.jiffies(), sample.pages_modified()), (125, 5));
    }

    #[test]
    fn the_window_slides_and_its_identifier_begins_with_it() {
        let mut window = window();
        for pages in 1..=20 {
            push(&mut window, harvest(0, pages));
        }
        let sample = window.sample().unwrap();
        assert_eq!(sample.start.identifier, qavns::Identifier::START);
        assert_eq!(sample.end.identifier.to_string(), "000000000125.1.0.90");
        assert_eq!(sample.start.totals.pages_modified, (1..=15).sum::<u64>());
    }

    #[test]
    fn each_condition_shows_while_it_lies_in_the_window_and_is_then_over() {
        let mut window = window();
        let mut seen = |step: Step| {
            push(&mut window, step);
            (0..7)
                .filter_map(|_| {
                    let now = condition(&window);
                    push(&mut window, harvest(0, 1));
                    now
                })
                .map(Condition::text)
                .collect::<Vec<_>>()
        };
        assert_eq!(seen(harvest(0, 1)), ["calm"; 3]);
        let unruly = seen(harvest(0, 5000));
        assert_eq!((unruly[0], unruly[4], unruly[5]), ("unruly processes", "unruly processes", "calm"));
        let storm = seen(harvest(50, 0));
        assert_eq!((storm[0], storm[5]), ("storm of birth and death of processes", "calm"));
        // Between the harvest before a restart and the one after it nothing is said.
        let unstable = seen(Step { restart: true, jiffies: 10, ..Step::default() });
        assert_eq!(unstable[..5], ["unstable operating system"; 5]);
        assert_eq!(unstable[5..], ["calm"]);
    }

    #[test]
    fn what_no_step_explains_empties_the_window() {
        let mut window = window();
        for _ in 0..9 {
            push(&mut window, harvest(0, 1));
        }
        window.push(&Progress::Begin, Reading::default());
        assert_eq!(window.sample(), None);
    }
}
