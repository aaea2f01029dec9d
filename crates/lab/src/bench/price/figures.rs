//! From what the guest and the image told to rates, and to what a state costs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::State;

/// What the guest told: `work 1234 at 5678`, the time in microseconds of its own clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    pub done: u64,
    pub at: u64,
}

impl Work {
    pub fn parse(text: &str) -> Option<Self> {
        let (done, at) = text.strip_prefix("work ")?.split_once(" at ")?;
        Some(Work { done: done.parse().ok()?, at: at.parse().ok()? })
    }
}

/// What the image told: its `overhead` event. Times in ms.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    at: f64,
    guest: f64,
    host: f64,
    harvests: u64,
    entries: u64,
    exits: BTreeMap<String, u64>,
}

impl Reading {
    pub fn parse(event: &Value) -> Option<Self> {
        let exits = event["exits"].as_object()?.iter();
        Some(Reading {
            at: event["at"].as_f64()?,
            guest: event["guest-time"].as_f64()?,
            host: event["host-time"].as_f64()?,
            harvests: event["harvests"].as_u64()?,
            entries: event["harvest-entries"].as_u64()?,
            exits: exits.map(|(reason, count)| Some((reason.clone(), count.as_u64()?))).collect::<Option<_>>()?,
        })
    }
}

/// A stretch of one state.
#[derive(Clone, Debug, PartialEq)]
pub struct Stretch {
    pub state: State,
    pub first: Work,
    pub last: Work,
    pub before: Reading,
    pub after: Reading,
}

impl Stretch {
    /// Work a second of the guest's clock.
    pub fn rate(&self) -> f64 {
        self.last.done.saturating_sub(self.first.done) as f64 / self.last.at.saturating_sub(self.first.at) as f64 * 1e6
    }

    fn a_second(&self, count: impl Fn(&Reading) -> u64) -> f64 {
        count(&self.after).saturating_sub(count(&self.before)) as f64 / (self.after.at - self.before.at) * 1e3
    }

    pub fn harvests(&self) -> f64 {
        self.a_second(|reading| reading.harvests)
    }

    pub fn entries(&self) -> f64 {
        self.a_second(|reading| reading.entries)
    }

    pub fn exits(&self, reason: &str) -> f64 {
        self.a_second(|reading| reading.exits.get(reason).copied().unwrap_or_default())
    }

    pub fn all_exits(&self) -> f64 {
        self.a_second(|reading| reading.exits.values().sum())
    }

    /// The part of the time in which the guest ran or would have that the hypervisor took.
    pub fn host_share(&self) -> f64 {
        let (guest, host) = (self.after.guest - self.before.guest, self.after.host - self.before.host);
        host / (guest + host)
    }
}

/// Every reason for which there was an exit.
pub fn reasons(stretches: &[Stretch]) -> BTreeSet<&str> {
    stretches.iter().flat_map(|stretch| stretch.after.exits.keys().map(String::as_str)).collect()
}

/// Several values of the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median =
            if values.len().is_multiple_of(2) { (values[half - 1] + values[half]) / 2.0 } else { values[half] };
        Some(Spread { median, least, most })
    }
}

/// The stretches of a state.
pub fn of(stretches: &[Stretch], state: State) -> impl Iterator<Item = &Stretch> {
    stretches.iter().filter(move |stretch| stretch.state == state)
}

/// The median of a figure over the stretches of a state.
pub fn median(stretches: &[Stretch], state: State, figure: impl Fn(&Stretch) -> f64) -> f64 {
    Spread::of(of(stretches, state).map(figure).collect()).map_or(0.0, |spread| spread.median)
}

/// By what part a state's rate is below that of the unwatched guest: each time below the mean of the stretches without
/// watching right before and right after it.
pub fn losses(stretches: &[Stretch], state: State) -> Option<Spread> {
    let unwatched = |stretch: &&Stretch| stretch.state == State::Off;
    let loss = |(at, stretch): (usize, &Stretch)| {
        let before = stretches[..at].iter().rfind(unwatched)?;
        let after = stretches[at..].iter().find(unwatched)?;
        (stretch.state == state).then(|| 1.0 - stretch.rate() / ((before.rate() + after.rate()) / 2.0))
    };
    Spread::of(stretches.iter().enumerate().filter_map(loss).collect())
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;

    fn reading(at: f64, host: f64, timer: u64) -> Reading {
        Reading::parse(&json!({
            "event": "overhead", "at": at, "guest-time": at - host, "host-time": host, "harvests": timer / 10,
            "harvest-entries": timer * 2, "exits": {"hlt": 5, "preemption-timer": timer}
        }))
        .unwrap()
    }

    /// Two seconds with `work` units each.
    pub fn stretch(state: State, work: u64) -> Stretch {
        Stretch {
            state,
            first: Work { done: 7, at: 1_000_000 },
            last: Work { done: 7 + 2 * work, at: 3_000_000 },
            before: reading(1000.0, 10.0, 100),
            after: reading(3000.0, 30.0, 300),
        }
    }

    #[test]
    fn what_the_guest_tells_is_read() {
        assert_eq!(Work::parse("work 12 at 34"), Some(Work { done: 12, at: 34 }));
        for other in ["hb 1 e0", "work", "work 1", "work x at 1", "works 1 at 2"] {
            assert_eq!(Work::parse(other), None, "{other}");
        }
        assert_eq!(Reading::parse(&json!({"event": "overhead", "at": 1.0})), None);
    }

    #[test]
    fn counts_become_rates_of_the_clock_that_they_were_taken_by() {
        let stretch = stretch(State::On, 500);
        assert_eq!(stretch.rate(), 500.0);
        assert_eq!((stretch.exits("preemption-timer"), stretch.exits("hlt"), stretch.exits("io")), (100.0, 0.0, 0.0));
        assert_eq!((stretch.all_exits(), stretch.harvests(), stretch.entries()), (100.0, 10.0, 200.0));
        assert_eq!(stretch.host_share(), 0.01);
    }

    #[test]
    fn a_drift_that_all_states_share_is_no_loss() {
        let rates = [(State::Off, 1000), (State::On, 990), (State::Off, 980), (State::On, 873), (State::Off, 960)];
        let stretches: Vec<Stretch> = rates.map(|(state, rate)| stretch(state, rate)).into();
        let losses = losses(&stretches, State::On).unwrap();
        assert!(losses.least.abs() < 1e-12 && (losses.most - 0.1).abs() < 1e-12, "{losses:?}");
        assert!((losses.median - 0.05).abs() < 1e-12);
        assert_eq!(super::losses(&stretches, State::Sample), None);
        assert_eq!(super::losses(&stretches[3..], State::On), None, "nothing before it");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of(vec![]), None);
        let spread = |values: &[f64]| Spread::of(values.to_vec()).unwrap();
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 3.0 });
        assert_eq!(spread(&[4.0, 1.0]).median, 2.5);
    }
}
