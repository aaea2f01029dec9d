//! How the pages that a guest writes are found. Three ways, one result: what [`super::ept::Ept::harvest`] gives.

use super::{capabilities::Capabilities, controls::secondary};

/// A way to find the pages that a guest writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracker {
    /// The CPU sets a dirty flag in the leaf (SDM 29.3.5).
    DirtyBits,
    /// It also writes the page's address to a log (SDM 29.3.6), so that nothing need be searched.
    PageModificationLog,
    /// Clean pages are read-only: the first write to one is an EPT violation. For CPUs whose EPT has no flags.
    WriteProtection,
}

impl Tracker {
    /// All of them, in the order in which they are preferred: the CPU's log is as sound as its flags, but a log of 512 places is
    /// an exit each time it is full, so a guest that writes much pays more for it than a search costs.
    pub const ALL: [Self; 3] = [Self::DirtyBits, Self::PageModificationLog, Self::WriteProtection];

    /// The word for it in options and in the log.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::DirtyBits => "dirty-bits",
            Self::PageModificationLog => "pml",
            Self::WriteProtection => "write-protection",
        }
    }

    /// Whether the CPU has what it needs.
    #[must_use]
    pub fn is_offered(self, capabilities: &Capabilities) -> bool {
        match self {
            Self::DirtyBits => capabilities.has_dirty_bits(),
            Self::PageModificationLog => capabilities.has_dirty_bits() && capabilities.secondary.may(secondary::PML),
            Self::WriteProtection => true,
        }
    }
}
