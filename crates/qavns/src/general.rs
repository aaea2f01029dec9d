//! The general scheme of the paper, `RSN.Generation.FeatureList.CorrectionList`, of which the identifier
//! of a VM's memory is one use.

use core::fmt;
use core::str::FromStr;

use crate::fields::{self, ParseError};
use crate::identifier::Identifier;

/// A version in the general scheme.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GeneralVersion {
    /// The release serial number: one more with every release, never reset.
    pub rsn: u64,
    /// The generation of the product.
    pub generation: u64,
    /// The state of the feature list within the generation.
    pub features: u64,
    /// The state of the correction list since the feature list last changed.
    pub corrections: u64,
}

/// What a release brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Corrections only.
    Corrections,
    /// New or changed features, without corrections.
    Features,
    /// Features and corrections in one.
    FeaturesAndCorrections,
    /// A new generation: both lists begin again.
    Generation,
}

impl GeneralVersion {
    /// The version after one more release. Each field stops at the largest number.
    #[must_use]
    pub fn after(self, release: Release) -> Self {
        let next = Self { rsn: self.rsn.saturating_add(1), ..self };
        match release {
            Release::Corrections => Self { corrections: self.corrections.saturating_add(1), ..next },
            Release::Features => Self { features: self.features.saturating_add(1), corrections: 0, ..next },
            Release::FeaturesAndCorrections => {
                Self { features: self.features.saturating_add(1), corrections: 1, ..next }
            }
            Release::Generation => {
                Self { generation: self.generation.saturating_add(1), features: 0, corrections: 0, ..next }
            }
        }
    }
}

impl From<Identifier> for GeneralVersion {
    /// Time serves as serial number, OS instances as generations, processes as features and written
    /// pages as corrections.
    fn from(identifier: Identifier) -> Self {
        Self { rsn: identifier.js, generation: identifier.osin, features: identifier.pcn, corrections: identifier.dpcn }
    }
}

impl fmt::Display for GeneralVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rsn, generation, features, corrections } = self;
        write!(f, "{rsn}.{generation}.{features}.{corrections}")
    }
}

impl FromStr for GeneralVersion {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let names = ["RSN", "Generation", "FeatureList", "CorrectionList"];
        let [rsn, generation, features, corrections] = fields::parse(text, names)?;
        Ok(Self { rsn, generation, features, corrections })
    }
}
