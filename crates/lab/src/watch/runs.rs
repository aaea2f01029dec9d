//! A set of pages as runs: what the image tells of a harvest, and what a recording keeps of it.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Pages in rising order, as ranges that neither overlap nor are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(Vec<Range<u64>>);

/// A run as it is written: the pages left out since the last run's end, and the pages in it.
type Written = (u64, u64);

impl Runs {
    /// Reads a line of the image, see docs/monitor.md.
    pub fn from_text(text: &str) -> Result<Self> {
        let bytes = STANDARD_NO_PAD.decode(text).context("the runs are no base64")?;
        let mut rest = bytes.as_slice();
        let mut written = Vec::new();
        while !rest.is_empty() {
            let (run, after) = postcard::take_from_bytes::<Written>(rest).context("the runs end within a number")?;
            written.push(run);
            rest = after;
        }
        Self::from_written(&written)
    }

    fn from_written(written: &[Written]) -> Result<Self> {
        let mut runs = Self::default();
        for &(left_out, length) in written {
            let start = runs.end().checked_add(left_out);
            let end = start.and_then(|start| start.checked_add(length));
            let (start, end) = start.zip(end).context("a run ends beyond every memory")?;
            ensure!(start < end, "a run is empty");
            runs.0.push(start..end);
        }
        Ok(runs)
    }

    /// Adds the pages of another line of the same harvest: they all come later.
    pub fn append(&mut self, later: &Self) -> Result<()> {
        let from = later.0.first().map_or(u64::MAX, |run| run.start);
        ensure!(from >= self.end(), "the lines of a harvest are not in order");
        self.0.extend_from_slice(&later.0);
        Ok(())
    }

    /// The page after the last one.
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |run| run.end)
    }

    /// How many pages there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|run| run.end - run.start).sum()
    }

    /// The pages.
    pub fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(Clone::clone)
    }
}

impl FromIterator<u64> for Runs {
    /// Of pages in rising order.
    fn from_iter<I: IntoIterator<Item = u64>>(pages: I) -> Self {
        let mut runs = Self::default();
        for page in pages {
            match runs.0.last_mut() {
                Some(run) if run.end == page => run.end += 1,
                _ => runs.0.push(page..page + 1),
            }
        }
        runs
    }
}

impl Serialize for Runs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut end = 0;
        let written = self.0.iter().map(|run| {
            let left_out = run.start - end;
            end = run.end;
            (left_out, run.end - run.start)
        });
        serializer.collect_seq(written.collect::<Vec<Written>>())
    }
}

impl<'de> Deserialize<'de> for Runs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Vec::<Written>::deserialize(deserializer)?;
        Self::from_written(&written).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_image_is_read_and_lines_follow_each_other() {
        let mut runs = Runs::from_text("gAQDVQE").unwrap();
        assert_eq!(runs.pages().collect::<Vec<_>>(), [512, 513, 514, 600]);
        let later: Runs = [601, 700].into_iter().collect();
        runs.append(&later).unwrap();
        assert_eq!((runs.count(), runs.end()), (6, 701));
        assert!(runs.append(&later).is_err());
        runs.append(&Runs::default()).unwrap();
    }

    #[test]
    fn text_that_is_no_runs_is_refused() {
        for text in ["?", "g", "gA", "AAA", "////////////AQE"] {
            assert!(Runs::from_text(text).is_err(), "{text}");
        }
        // Two runs whose ends leave 64 bits.
        let beyond = postcard::to_allocvec(&(u64::MAX - 1, 1u64)).unwrap();
        let twice = STANDARD_NO_PAD.encode([beyond.clone(), beyond].concat());
        assert!(Runs::from_text(&twice).unwrap_err().to_string().contains("beyond"));
    }
}
