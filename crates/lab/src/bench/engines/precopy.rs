//! Bytes of a pre-copy against the best schedule of rounds in hindsight, for the same writes.

use migration::{Config, Encodings, Micros, Path};

use super::sim::{Outcome, Program, Setting, floor, memory, migrate};
use super::{Table, traces};

/// The downtime that rounds may end with: a tenth of the default, since the guests are small.
const DOWNTIME_LIMIT: Micros = 30_000;

/// The most rounds of a schedule in hindsight.
const MOST_ROUNDS: u32 = 12;

/// A guest's writes, and the link that it leaves by.
pub struct Trace {
    pub name: String,
    /// Pages of the guest.
    pub pages: u64,
    /// Bytes a second.
    pub bandwidth: u64,
    /// The writes from the start of the migration on, without end.
    pub writes: Box<dyn Fn() -> Program>,
}

/// A schedule that ended well.
struct Schedule {
    bytes: u64,
    downtime: Micros,
    rounds: usize,
    floor: u64,
}

impl Trace {
    fn run(&self, path: Path, config: Config) -> Option<Schedule> {
        let config = Config { encodings: Encodings::plain(), ..config };
        let setting = Setting { path, config, bandwidth: self.bandwidth, latency: super::LATENCY, tick: 20 };
        let Outcome { source, memory, .. } = migrate(&setting, memory(self.pages, |_| true), (self.writes)())?;
        let rounds = source.rounds.len();
        Some(Schedule { bytes: source.bytes, downtime: source.downtime?, rounds, floor: floor(&memory) })
    }

    /// The rounds that the engine chooses.
    fn chosen(&self) -> Option<Schedule> {
        self.run(Path::PreCopy, Config { downtime_limit: DOWNTIME_LIMIT, ..Config::default() })
    }

    /// Of all schedules that keep the guest waiting for no longer than `most`, the one that sends least: with each number of
    /// rounds, and with the writable working set in all rounds or left for last. The rounds are the engine's own; only when
    /// they end is known better here.
    fn best(&self, most: Micros) -> Option<Schedule> {
        let fixed = |round_limit, stalled_rounds| {
            let never = Config { downtime_limit: 0, stalled_rounds, round_limit, ..Config::default() };
            self.run(Path::PreCopy, never)
        };
        let all = std::iter::once_with(|| self.run(Path::StopAndCopy, Config::default()));
        let rounds = (1..=MOST_ROUNDS).flat_map(|rounds| [fixed(rounds, 0), fixed(rounds, u32::MAX)]);
        let schedules = all.chain(rounds).flatten().chain(self.chosen());
        schedules.filter(|schedule| schedule.downtime <= most).min_by_key(|schedule| schedule.bytes)
    }
}

/// Adds the rows.
pub fn rows(table: &mut Table) {
    for trace in traces::all() {
        let chosen = trace.chosen();
        let most = chosen.as_ref().map(|chosen| chosen.downtime.max(DOWNTIME_LIMIT));
        let best = most.and_then(|most| trace.best(most));
        let name = &trace.name;
        let (bytes, floor) = (chosen.as_ref().map(|chosen| chosen.bytes), chosen.as_ref().map(|chosen| chosen.floor));
        let rounds = |schedule: &Option<Schedule>| {
            let of = |schedule: &Schedule| format!("{} rounds, {} ms down", schedule.rounds, schedule.downtime / 1000);
            schedule.as_ref().map(of).unwrap_or_default()
        };
        let hint = format!("{}; the best: {}", rounds(&chosen), rounds(&best));
        table.ratio(&format!("pre-copy {name}: bytes / best stop"), bytes, best.map(|best| best.bytes), &hint);
        table.ratio(&format!("pre-copy {name}: bytes / each page once"), bytes, floor, "");
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim::Access;
    use super::*;

    /// Writes one page again and again, and the pages below `range` once, `every` so many microseconds.
    fn trace(range: u64, every: Micros) -> Trace {
        let writes = move || -> Program {
            let all = (0..).map(move |step| if step % 2 == 0 { 0 } else { step / 2 % range });
            Box::new(all.map(move |gfn| Access { after: every, gfn, write: true }))
        };
        Trace { name: "test".into(), pages: 512, bandwidth: 10_000_000, writes: Box::new(writes) }
    }

    #[test]
    fn the_best_schedule_in_hindsight_sends_no_less_than_each_page_once() {
        for (range, every) in [(500, 100_000), (500, 1000), (500, 100), (20, 500)] {
            let trace = trace(range, every);
            let chosen = trace.chosen().unwrap();
            let best = trace.best(chosen.downtime).unwrap();
            assert!(best.bytes <= chosen.bytes && best.downtime <= chosen.downtime, "{range} {every}");
            assert!(chosen.floor <= best.bytes, "{range} {every}");
        }
    }
}
