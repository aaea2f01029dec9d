//! Exact fractions, so that thresholds need no floating point.

use core::cmp::Ordering;
use core::error::Error;
use core::fmt;
use core::str::FromStr;

use crate::fields::{self, FieldFault};

/// A fraction `N/M` of two 64-bit numbers, M not zero.
///
/// Two ratios are equal when their values are: `1/2 == 2/4`. The text keeps the numbers that were given.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    numerator: u64,
    denominator: u64,
}

impl Ratio {
    /// `numerator / denominator`, or nothing for a denominator of zero.
    #[must_use]
    pub const fn new(numerator: u64, denominator: u64) -> Option<Self> {
        if denominator == 0 {
            return None;
        }
        Some(Self { numerator, denominator })
    }

    /// `number / 1`.
    #[must_use]
    pub const fn whole(number: u64) -> Self {
        Self { numerator: number, denominator: 1 }
    }

    /// N of N/M.
    #[must_use]
    pub const fn numerator(self) -> u64 {
        self.numerator
    }

    /// M of N/M, never zero.
    #[must_use]
    pub const fn denominator(self) -> u64 {
        self.denominator
    }

    /// `1 / self`, or nothing for zero.
    #[must_use]
    pub const fn inverse(self) -> Option<Self> {
        Self::new(self.denominator, self.numerator)
    }

    /// Whether `left < self x factor`, exactly.
    #[must_use]
    pub fn times_exceeds(self, factor: u64, left: u64) -> bool {
        wide(left, self.denominator) < wide(self.numerator, factor)
    }

    /// `self x factor` in lowest terms; rounded where 64 bits do not hold it.
    #[must_use]
    pub fn times(self, factor: u64) -> Self {
        Self::rounded(wide(self.numerator, factor), u128::from(self.denominator))
    }

    /// `number / (self x factor)` in lowest terms, rounded where 64 bits do not hold it; nothing when
    /// the divisor is zero.
    #[must_use]
    pub fn divide(number: u64, by: Self, factor: u64) -> Option<Self> {
        let divisor = wide(by.numerator, factor);
        (divisor != 0).then(|| Self::rounded(wide(number, by.denominator), divisor))
    }

    /// Lowest terms; then both numbers lose their low bits until they fit, the smaller staying at 1 or
    /// more (so a ratio beyond 64 bits becomes the largest or the smallest there is).
    fn rounded(numerator: u128, denominator: u128) -> Self {
        let divisor = greatest_common_divisor(numerator, denominator).max(1);
        let (top, bottom) = (numerator / divisor, denominator / divisor);
        let excess = (u128::BITS - (top | bottom).leading_zeros()).saturating_sub(u64::BITS);
        let fit = |number: u128| {
            let kept = u64::try_from(number >> excess).unwrap_or(u64::MAX);
            if number == 0 { 0 } else { kept.max(1) }
        };
        Self { numerator: fit(top), denominator: fit(bottom).max(1) }
    }
}

fn wide(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

fn greatest_common_divisor(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Ord for Ratio {
    fn cmp(&self, other: &Self) -> Ordering {
        let left = wide(self.numerator, other.denominator);
        left.cmp(&wide(other.numerator, self.denominator))
    }
}

impl PartialOrd for Ratio {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ratio {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ratio {}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.denominator {
            1 => write!(f, "{}", self.numerator),
            denominator => write!(f, "{}/{denominator}", self.numerator),
        }
    }
}

/// Why a text is not `N` or `N/M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseRatioError {
    /// N cannot be read.
    Numerator(FieldFault),
    /// M cannot be read.
    Denominator(FieldFault),
    /// M is zero.
    ZeroDenominator,
}

impl fmt::Display for ParseRatioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numerator(fault) => write!(f, "N of N/M {fault}"),
            Self::Denominator(fault) => write!(f, "M of N/M {fault}"),
            Self::ZeroDenominator => f.write_str("M of N/M is zero"),
        }
    }
}

impl Error for ParseRatioError {}

impl FromStr for Ratio {
    type Err = ParseRatioError;

    fn from_str(text: &str) -> Result<Self, ParseRatioError> {
        let (top, bottom) = text.split_once('/').unwrap_or((text, "1"));
        let numerator = fields::decimal(top).map_err(ParseRatioError::Numerator)?;
        let denominator = fields::decimal(bottom).map_err(ParseRatioError::Denominator)?;
        Self::new(numerator, denominator).ok_or(ParseRatioError::ZeroDenominator)
    }
}
