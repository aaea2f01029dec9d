//! The identifier `JS.OSIN.PCN.DPCN` of a VM's memory.

use core::fmt;
use core::str::FromStr;

use crate::fields::{self, ParseError};

/// How many digits JS is padded to in text: at the shortest jiffy of 1 ms, 10^12 of them are 31 years,
/// so that over the life of a VM the order of the texts is the order of the numbers.
pub const JS_DIGITS: usize = 12;

/// The version identifier of a VM's memory at one instant.
///
/// Identifiers are ordered field by field from the left. In text JS is padded to [`JS_DIGITS`], so two
/// texts whose JS differ sort as their numbers do; fields after JS are not padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier {
    /// Jiffies since the migration's start (between migrations: since the VM's start).
    pub js: u64,
    /// The instance of the guest's OS: 1 at the start, one more for each restart.
    pub osin: u64,
    /// Births and deaths of processes in this OS instance.
    pub pcn: u64,
    /// Pages found modified at harvests since `pcn` last moved.
    pub dpcn: u64,
}

impl Identifier {
    /// The identifier at the migration's start, `0.1.0.0`.
    pub const START: Self = Self { js: 0, osin: 1, pcn: 0, dpcn: 0 };
}

impl Default for Identifier {
    fn default() -> Self {
        Self::START
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { js, osin, pcn, dpcn } = self;
        write!(f, "{js:0JS_DIGITS$}.{osin}.{pcn}.{dpcn}")
    }
}

impl FromStr for Identifier {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let [js, osin, pcn, dpcn] = fields::parse(text, ["JS", "OSIN", "PCN", "DPCN"])?;
        Ok(Self { js, osin, pcn, dpcn })
    }
}
