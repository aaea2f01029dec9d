//! From one reading of a VM's version to the next, through the very code that counts in the hypervisor.

use qavns::{Reading, Totals, Version};
use serde::{Deserialize, Serialize};

use super::runs::Runs;

/// The four fields of an identifier, as a recording has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fields {
    /// Jiffies.
    pub js: u64,
    /// Instances of the OS.
    pub osin: u64,
    /// Births and deaths.
    pub pcn: u64,
    /// Pages.
    pub dpcn: u64,
}

impl From<qavns::Identifier> for Fields {
    fn from(id: qavns::Identifier) -> Self {
        Self { js: id.js, osin: id.osin, pcn: id.pcn, dpcn: id.dpcn }
    }
}

impl From<Fields> for qavns::Identifier {
    fn from(fields: Fields) -> Self {
        Self { js: fields.js, osin: fields.osin, pcn: fields.pcn, dpcn: fields.dpcn }
    }
}

/// What happened since the step before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Microseconds.
    pub after: u64,
    /// The step ends with a restart of the guest's OS; every other one ends with a harvest.
    pub restart: bool,
    /// Jiffies.
    pub jiffies: u64,
    /// Births of processes.
    pub births: u64,
    /// Deaths of processes.
    pub deaths: u64,
    /// Pages found modified.
    pub pages: u64,
    /// Which pages these were, where all of them are known.
    pub dirty: Option<Runs>,
}

impl Step {
    /// Counts this step in the version. Births and deaths come first: a restart ends what they began, and the pages
    /// of a harvest belong to what runs now.
    pub fn apply(&self, version: &mut Version) {
        version.tick(self.jiffies);
        version.processes(self.births, self.deaths);
        if self.restart {
            version.restart();
        }
        version.modified(self.pages);
    }
}

/// What a reading is to the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The first one; or something was missed, or the identifier began anew: no step leads there.
    Begin,
    /// This happened.
    Step(Step),
}

/// Follows the readings of one VM.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    last: Option<(u64, Reading)>,
}

impl Tracker {
    /// Takes a reading of this time in microseconds; `restart` says that it was taken at a restart, `dirty` which pages
    /// were modified since the reading before, where that is known.
    pub fn see(&mut self, at: u64, reading: Reading, restart: bool, dirty: Option<Runs>) -> Progress {
        let before = self.last.replace((at, reading));
        let step = before.and_then(|(then, last)| {
            let mut step = difference(&last, &reading)?;
            step.after = at.checked_sub(then)?;
            step.restart = restart;
            step.dirty = dirty.filter(|runs| runs.count() == step.pages);
            let mut version = Version::resume(last);
            step.apply(&mut version);
            (version.reading() == reading).then_some(step)
        });
        step.map_or(Progress::Begin, Progress::Step)
    }

    /// The latest reading.
    pub fn reading(&self) -> Option<Reading> {
        self.last.map(|(_, reading)| reading)
    }
}

/// Nothing if a count has fallen.
fn difference(before: &Reading, after: &Reading) -> Option<Step> {
    let count = |of: fn(&Totals) -> u64| of(&after.totals).checked_sub(of(&before.totals));
    Some(Step {
        jiffies: after.identifier.js.checked_sub(before.identifier.js)?,
        births: count(|totals| totals.births)?,
        deaths: count(|totals| totals.deaths)?,
        pages: count(|totals| totals.pages_modified)?,
        ..Step::default()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step(jiffies: u64, births: u64, deaths: u64, pages: u64, restart: bool) -> Step {
        Step { after: 4000 * jiffies, restart, jiffies, births, deaths, pages, dirty: None }
    }

    #[test]
    fn what_no_step_explains_is_a_new_beginning() {
        let mut tracker = Tracker::default();
        let mut version = Version::new();
        assert_eq!(tracker.see(0, version.reading(), false, None), Progress::Begin);
        step(25, 0, 0, 9, false).apply(&mut version);
        assert!(matches!(tracker.see(1, version.reading(), false, None), Progress::Step(step) if step.pages == 9));
        // The migration starts: JS falls back.
        version.migration_start();
        assert_eq!(tracker.see(2, version.reading(), false, None), Progress::Begin);
        // A restart that nobody told of.
        version.restart();
        assert_eq!(tracker.see(3, version.reading(), false, None), Progress::Begin);
        // Pages, then a birth: as one step, the pages would still count.
        step(1, 0, 0, 5, false).apply(&mut version);
        step(1, 1, 0, 2, false).apply(&mut version);
        assert_eq!(tracker.see(4, version.reading(), false, None), Progress::Begin);
    }

    #[test]
    fn pages_are_kept_only_if_they_are_all_there() {
        let two = || Some([3, 4].into_iter().collect::<Runs>());
        let dirty_of = |pages| {
            let (mut tracker, mut version) = (Tracker::default(), Version::new());
            tracker.see(0, version.reading(), false, None);
            version.modified(pages);
            match tracker.see(1, version.reading(), false, two()) {
                Progress::Step(step) => step.dirty,
                Progress::Begin => panic!("no step"),
            }
        };
        assert_eq!(dirty_of(2), two());
        assert_eq!(dirty_of(3), None);
    }

    proptest! {
        #[test]
        fn every_step_is_found_again_from_the_readings_alone(
            steps in proptest::collection::vec((0u64..50, 0u64..4, 0u64..4, 0u64..500, any::<bool>()), 0..50)
        ) {
            let (mut tracker, mut version) = (Tracker::default(), Version::new());
            let mut at = 0;
            tracker.see(at, version.reading(), false, None);
            for (jiffies, births, deaths, pages, restart) in steps {
                // At a restart nothing is harvested.
                let step = step(jiffies, births, deaths, if restart { 0 } else { pages }, restart);
                step.apply(&mut version);
                at += step.after;
                prop_assert_eq!(tracker.see(at, version.reading(), restart, None), Progress::Step(step));
            }
        }
    }
}
