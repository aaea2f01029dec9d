//! From a sample to a migration path.
//!
//! With s and e the identifier at the start and at the end of the sample, the paper decides:
//!
//! ```text
//! OSINe > OSINs                     -> post-copy   "unstable operating system"
//! JSe / (PCNe - PCNs)   < Tp        -> post-copy   "storm of birth and death of processes"
//! JSe / (DPCNe - DPCNs) < Td        -> post-copy   "unruly processes"
//! otherwise                         -> pre-copy    "calm"
//! ```
//!
//! The quotients are compared as `JSe < T x difference` in integers. A difference of zero or less never
//! fires its line.

use core::fmt;

use crate::ratio::Ratio;
use crate::sample::Sample;

/// Tp when nobody gives one: 8 jiffies for each birth or death, 16 processes a second that come and go with the default jiffy of
/// 4 ms. A starting point, not a finding.
pub const DEFAULT_TP: Ratio = Ratio::whole(8);

/// Td when nobody gives one and no link was measured: 1/20 jiffy for each page, 20 MB/s with the default jiffy of 4 ms. That is
/// what the stream carries on an emulated machine at its best; a link of 1 Gbit/s would be near 1/120. A starting
/// point, not a finding.
pub const DEFAULT_TD: Ratio = match Ratio::new(1, 20) {
    Some(td) => td,
    None => Ratio::whole(0),
};

/// Td from the measured link, in pages a jiffy: a guest is unruly when it modifies pages faster than the link carries
/// them, for then the rounds of a pre-copy do not shrink. Over a link that carries nothing, every write is too fast.
#[must_use]
pub fn td_from_link(pages_per_jiffy: Ratio) -> Ratio {
    pages_per_jiffy.inverse().unwrap_or(Ratio::whole(u64::MAX))
}

/// The paths that the rule chooses between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChoice {
    /// Push rounds of pages while the guest runs here.
    PreCopy,
    /// Hand the guest over first, move its pages after.
    PostCopy,
}

impl fmt::Display for PathChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PreCopy => "pre-copy",
            Self::PostCopy => "post-copy",
        })
    }
}

/// The state of the guest that the rule recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The OS restarted during the sample.
    UnstableOperatingSystem,
    /// Processes come and go faster than Tp allows.
    ProcessStorm,
    /// Pages are written faster than Td allows.
    UnrulyProcesses,
    /// None of these.
    Calm,
}

impl Condition {
    /// The paper's words for it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::UnstableOperatingSystem => "unstable operating system",
            Self::ProcessStorm => "storm of birth and death of processes",
            Self::UnrulyProcesses => "unruly processes",
            Self::Calm => "calm",
        }
    }

    /// The path that this condition calls for.
    #[must_use]
    pub const fn path(self) -> PathChoice {
        match self {
            Self::Calm => PathChoice::PreCopy,
            _ => PathChoice::PostCopy,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A line of the rule. Each is a comparison `left < right` that fires when it is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Left: OS instances (or restarts) at the start. Right: at the end.
    Restarts,
    /// Left: jiffies. Right: Tp x births and deaths, in jiffies.
    Processes,
    /// Left: jiffies. Right: Td x pages, in jiffies.
    Pages,
}

impl Line {
    /// The comparison as a formula.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Restarts => "restarts before < restarts after",
            Self::Processes => "jiffies < Tp x births and deaths",
            Self::Pages => "jiffies < Td x pages modified",
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// How near the decision was: the line that fired or, when the guest is calm, the line that came
/// nearest to firing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Margin {
    /// Which comparison.
    pub line: Line,
    /// What was counted over the sample: restarts, births and deaths, or pages.
    pub count: u64,
    /// The comparison's left side.
    pub left: u64,
    /// Its right side.
    pub right: Ratio,
    /// `left / right`: below 1 the line fires, the further below the more clearly; at 1 and above it
    /// does not. For the record only: it is rounded where 64 bits do not hold it.
    pub ratio: Ratio,
}

impl Margin {
    /// Nothing when the right side is zero: such a line cannot fire, however long the sample.
    fn new(line: Line, left: u64, threshold: Ratio, count: u64) -> Option<Self> {
        Ratio::divide(left, threshold, count).map(|ratio| Self {
            line,
            count,
            left,
            right: threshold.times(count),
            ratio,
        })
    }
}

impl fmt::Display for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} against {}", self.line, self.left, self.right)
    }
}

/// What a policy decided, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The policy's name.
    pub policy: &'static str,
    /// The path it picks.
    pub path: PathChoice,
    /// The condition it saw.
    pub condition: Condition,
    /// The threshold Tp it used: jiffies for each birth or death.
    pub tp: Ratio,
    /// The threshold Td it used: jiffies for each modified page.
    pub td: Ratio,
    /// How near it was. Nothing when calm and neither threshold line had anything to compare.
    pub margin: Option<Margin>,
}

/// A way to decide. A further policy is a further type.
pub trait Policy {
    /// The name it goes by in commands and records.
    fn name(&self) -> &'static str;

    /// Picks the path for a guest that showed this sample.
    fn decide(&self, sample: &Sample) -> Decision;
}

/// The paper's rule, to the letter: it sees the identifier alone. JSe counts from the migration's start,
/// and a DPCN that fell back to zero hides what was written before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paper {
    /// Jiffies for each birth or death, below which there is a storm.
    pub tp: Ratio,
    /// Jiffies for each modified page, below which processes are unruly.
    pub td: Ratio,
}

impl Policy for Paper {
    fn name(&self) -> &'static str {
        "paper"
    }

    fn decide(&self, sample: &Sample) -> Decision {
        let (start, end) = (sample.start.identifier, sample.end.identifier);
        let seen = Seen {
            restarts: (start.osin, end.osin),
            jiffies: end.js,
            process_changes: end.pcn.saturating_sub(start.pcn),
            pages: end.dpcn.saturating_sub(start.dpcn),
        };
        seen.decide(self.name(), self.tp, self.td)
    }
}

/// The same rule over the counters that never reset and over the sample's own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Robust {
    /// Jiffies for each birth or death, below which there is a storm.
    pub tp: Ratio,
    /// Jiffies for each modified page, below which processes are unruly.
    pub td: Ratio,
}

impl Policy for Robust {
    fn name(&self) -> &'static str {
        "robust"
    }

    fn decide(&self, sample: &Sample) -> Decision {
        let seen = Seen {
            restarts: (sample.start.totals.restarts, sample.end.totals.restarts),
            jiffies: sample.jiffies(),
            process_changes: sample.births().saturating_add(sample.deaths()),
            pages: sample.pages_modified(),
        };
        seen.decide(self.name(), self.tp, self.td)
    }
}

/// What a policy takes from a sample. Differences that are not positive are zero here.
struct Seen {
    restarts: (u64, u64),
    jiffies: u64,
    process_changes: u64,
    pages: u64,
}

impl Seen {
    fn decide(&self, policy: &'static str, tp: Ratio, td: Ratio) -> Decision {
        let (condition, margin) = self.judge(tp, td);
        Decision { policy, path: condition.path(), condition, tp, td, margin }
    }

    fn judge(&self, tp: Ratio, td: Ratio) -> (Condition, Option<Margin>) {
        let (before, after) = self.restarts;
        let processes = Margin::new(Line::Processes, self.jiffies, tp, self.process_changes);
        let pages = Margin::new(Line::Pages, self.jiffies, td, self.pages);
        if after > before {
            (Condition::UnstableOperatingSystem, restarts(before, after))
        } else if tp.times_exceeds(self.process_changes, self.jiffies) {
            (Condition::ProcessStorm, processes)
        } else if td.times_exceeds(self.pages, self.jiffies) {
            (Condition::UnrulyProcesses, pages)
        } else {
            let nearest = [processes, pages].into_iter().flatten();
            (Condition::Calm, nearest.min_by_key(|margin| margin.ratio))
        }
    }
}

fn restarts(before: u64, after: u64) -> Option<Margin> {
    Ratio::new(before, after).map(|ratio| Margin {
        line: Line::Restarts,
        count: after.saturating_sub(before),
        left: before,
        right: Ratio::whole(after),
        ratio,
    })
}
