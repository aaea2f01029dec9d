//! The guest's heartbeat as an onlooker sees it: `hb 12 e0`, every tenth with counts, `hb 20 e0 b5 d5 w40`.

use crate::agent::wire::Host;

/// What the guest counts about itself, since its operating system started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// When the line came, in ms.
    pub at: f64,
    /// Processes started.
    pub births: u64,
    /// Processes ended.
    pub deaths: u64,
    /// Pages written.
    pub pages_written: u64,
}

/// One heartbeat.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Beat {
    number: u64,
    errors: u64,
    counts: Option<Counts>,
}

impl Beat {
    fn parse(at: f64, text: &str) -> Option<Self> {
        let mut words = text.strip_prefix("hb ")?.split_ascii_whitespace();
        let number = words.next()?.parse().ok()?;
        let mut count = |letter: char| words.next()?.strip_prefix(letter)?.parse::<u64>().ok();
        let errors = count('e')?;
        let counts = (|| {
            let (births, deaths, pages_written) = (count('b')?, count('d')?, count('w')?);
            Some(Counts { at, births, deaths, pages_written })
        })();
        Some(Beat { number, errors, counts })
    }
}

/// The account of all heartbeats of a run.
#[derive(Debug, Default)]
pub struct Heartbeats {
    /// The number and the time of the latest since the guest's OS last started.
    last: Option<(u64, f64)>,
    /// Number of the last one that came from the source.
    pub last_at_source: Option<u64>,
    /// Number of the first one that came from the destination.
    pub first_at_destination: Option<u64>,
    /// When the very first one came, in ms.
    pub first_at: Option<f64>,
    /// How many came at the source, and at the destination.
    pub seen: [u64; 2],
    /// Numbers that never came.
    pub lost: u64,
    /// Numbers that came again without a restart: the guest ran twice.
    pub repeated: u64,
    /// The longest time between two that follow each other, in ms. While a guest restarts its OS it is silent by
    /// itself: that silence, from the last beat before to the first after, is left out.
    pub longest_gap: f64,
    /// The guest's own count of pages with a content that nobody wrote, over all of its starts.
    pub errors: u64,
    errors_before_restart: u64,
    /// The counts, as they came.
    pub counts: Vec<Counts>,
}

impl Heartbeats {
    /// Takes a console line; `false` if it is no heartbeat.
    pub fn see(&mut self, at: f64, side: Host, text: &str) -> bool {
        let Some(beat) = Beat::parse(at, text) else {
            return false;
        };
        match self.last {
            Some((last, _)) if beat.number <= last => self.repeated += 1,
            Some((last, before)) => {
                self.lost += beat.number - last - 1;
                self.longest_gap = self.longest_gap.max(at - before);
            }
            // A start is seen from its first beat on; the first line may have come before anybody listened.
            None => {}
        }
        self.last = Some((beat.number, at));
        self.first_at.get_or_insert(at);
        self.errors = self.errors_before_restart + beat.errors;
        self.counts.extend(beat.counts);
        match side {
            Host::Source => {
                self.seen[0] += 1;
                self.last_at_source = Some(beat.number);
            }
            Host::Destination => {
                self.seen[1] += 1;
                self.first_at_destination.get_or_insert(beat.number);
            }
        }
        true
    }

    /// The guest's OS restarts: its numbers and its counts begin anew.
    pub fn restarted(&mut self) {
        self.last = None;
        self.errors_before_restart = self.errors;
        self.counts.clear();
    }

    /// What the guest counted itself around an interval: from its last account before the interval to its first one
    /// after it; `at` is then the time between these two. Accounts come once a second. `None` if a restart lies
    /// between, or no account encloses the interval.
    pub fn counted(&self, start: f64, end: f64) -> Option<Counts> {
        let before = self.counts.iter().rfind(|counts| counts.at <= start)?;
        let after = self.counts.iter().find(|counts| counts.at >= end)?;
        Some(Counts {
            at: after.at - before.at,
            births: after.births.checked_sub(before.births)?,
            deaths: after.deaths.checked_sub(before.deaths)?,
            pages_written: after.pages_written.checked_sub(before.pages_written)?,
        })
    }

    /// The number and the time in ms of the latest since the guest's OS last started.
    pub fn last(&self) -> Option<(u64, f64)> {
        self.last
    }

    /// The number of the latest since the guest's OS last started.
    pub fn last_number(&self) -> Option<u64> {
        self.last.map(|(number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(beats: &[(f64, Host, &str)]) -> Heartbeats {
        let mut heartbeats = Heartbeats::default();
        for (at, side, text) in beats {
            assert!(heartbeats.see(*at, *side, text), "{text}");
        }
        heartbeats
    }

    use Host::{Destination, Source};

    #[test]
    fn a_run_without_loss_has_none_and_knows_its_longest_silence() {
        let run = run(&[
            (100.0, Source, "hb 1 e0"),
            (200.0, Source, "hb 2 e0"),
            (550.0, Destination, "hb 3 e0"),
            (650.0, Destination, "hb 4 e0"),
        ]);
        assert_eq!((run.lost, run.repeated, run.errors), (0, 0, 0));
        assert_eq!((run.last_at_source, run.first_at_destination), (Some(2), Some(3)));
        assert_eq!(run.longest_gap, 350.0);
        assert_eq!(run.seen, [2, 2]);
    }

    #[test]
    fn numbers_that_are_missing_are_lost_and_numbers_that_come_again_are_repeated() {
        let run = run(&[
            (1.0, Source, "hb 7 e0"),
            (2.0, Destination, "hb 10 e0"),
            (3.0, Destination, "hb 10 e0"),
            (4.0, Destination, "hb 9 e0"),
        ]);
        assert_eq!((run.lost, run.repeated), (2, 2));
    }

    #[test]
    fn a_restart_begins_a_new_count_keeps_the_errors_and_is_no_silence() {
        let mut run = run(&[(0.0, Source, "hb 19 e1"), (100.0, Source, "hb 20 e3")]);
        run.restarted();
        assert!(run.see(9000.0, Destination, "hb 1 e0"));
        assert!(run.see(9100.0, Destination, "hb 2 e1"));
        assert_eq!((run.lost, run.repeated, run.errors), (0, 0, 4));
        assert_eq!(run.longest_gap, 100.0);
        assert_eq!((run.last_at_source, run.first_at_destination), (Some(20), Some(1)));
    }

    #[test]
    fn counts_are_read_where_they_are() {
        let run = run(&[(1.0, Source, "hb 9 e0"), (2.0, Source, "hb 10 e0 b5 d4 w40")]);
        let counts = Counts { at: 2.0, births: 5, deaths: 4, pages_written: 40 };
        assert_eq!(run.counts, [counts]);
    }

    #[test]
    fn what_the_guest_counted_around_a_sample_comes_from_the_accounts_that_enclose_it() {
        let run = run(&[
            (1000.0, Source, "hb 10 e0 b1 d1 w10"),
            (2000.0, Source, "hb 20 e0 b3 d2 w40"),
            (3000.0, Destination, "hb 30 e0 b8 d6 w90"),
        ]);
        let around = Counts { at: 1000.0, births: 5, deaths: 4, pages_written: 50 };
        assert_eq!(run.counted(2100.0, 2600.0), Some(around));
        assert_eq!(run.counted(1500.0, 2600.0).map(|counts| counts.births), Some(7));
        assert_eq!(run.counted(500.0, 900.0), None);
        assert_eq!(run.counted(2900.0, 3400.0), None);
    }

    #[test]
    fn other_lines_are_no_heartbeats() {
        let mut heartbeats = Heartbeats::default();
        for text in ["", "hb", "hb x e0", "hb 1", "hb 1 x0", "start calm", "[ 1.0] hb 1 e0"] {
            assert!(!heartbeats.see(0.0, Source, text), "{text}");
        }
        assert_eq!(heartbeats.seen, [0, 0]);
    }
}
