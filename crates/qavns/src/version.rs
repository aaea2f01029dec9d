//! The version of one VM's memory as it runs.

use crate::identifier::Identifier;

/// Counters that never fall back. The identifier's fields do: DPCN returns to zero whenever PCN moves,
/// so its difference over a sample can be zero while the guest writes hard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Totals {
    /// Restarts of the guest's OS.
    pub restarts: u64,
    /// Processes born.
    pub births: u64,
    /// Processes ended.
    pub deaths: u64,
    /// Pages found modified, counted anew at each harvest.
    pub pages_modified: u64,
}

/// Identifier and totals at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reading {
    /// The identifier.
    pub identifier: Identifier,
    /// The counters beside it.
    pub totals: Totals,
}

/// The running version of one VM's memory: what happened goes in, a [`Reading`] comes out.
///
/// A count that reaches the largest number stays there; nothing here can panic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    now: Reading,
}

impl Version {
    /// The version at the start of a VM: `0.1.0.0`, all totals zero.
    #[must_use]
    pub const fn new() -> Self {
        let totals = Totals { restarts: 0, births: 0, deaths: 0, pages_modified: 0 };
        Self::resume(Reading { identifier: Identifier::START, totals })
    }

    /// Goes on from a reading, for a VM that arrived from another host.
    #[must_use]
    pub const fn resume(now: Reading) -> Self {
        Self { now }
    }

    /// What the version is now.
    #[must_use]
    pub const fn reading(&self) -> Reading {
        self.now
    }

    /// `jiffies` more have passed.
    pub fn tick(&mut self, jiffies: u64) {
        add(&mut self.now.identifier.js, jiffies);
    }

    /// The guest's OS has restarted: no process and no written page of the old instance counts on.
    pub fn restart(&mut self) {
        add(&mut self.now.totals.restarts, 1);
        add(&mut self.now.identifier.osin, 1);
        self.now.identifier.pcn = 0;
        self.now.identifier.dpcn = 0;
    }

    /// A process was born.
    pub fn birth(&mut self) {
        self.processes(1, 0);
    }

    /// A process has ended.
    pub fn death(&mut self) {
        self.processes(0, 1);
    }

    /// Several births and deaths at once. None at all moves nothing.
    pub fn processes(&mut self, births: u64, deaths: u64) {
        if births == 0 && deaths == 0 {
            return;
        }
        add(&mut self.now.totals.births, births);
        add(&mut self.now.totals.deaths, deaths);
        add(&mut self.now.identifier.pcn, births.saturating_add(deaths));
        self.now.identifier.dpcn = 0;
    }

    /// A harvest found `pages` pages modified.
    pub fn modified(&mut self, pages: u64) {
        add(&mut self.now.totals.pages_modified, pages);
        add(&mut self.now.identifier.dpcn, pages);
    }

    /// A migration begins (MST): the identifier starts anew, the totals run on.
    pub fn migration_start(&mut self) {
        self.now.identifier = Identifier::START;
    }
}

fn add(counter: &mut u64, more: u64) {
    *counter = counter.saturating_add(more);
}
