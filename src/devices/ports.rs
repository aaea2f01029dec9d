//! Which ports nobody answered, for the log.

/// How many different ports are told apart.
const KEPT: usize = 16;

/// The first ports that nobody answered, each with its number of accesses, and the sum for all others. It is a
/// note for people, no state of the machine: a migration starts it anew.
#[derive(Clone, Debug, Default)]
pub struct UnknownPorts {
    kept: [(u16, u64); KEPT],
    others: u64,
}

impl UnknownPorts {
    pub(super) fn note(&mut self, port: u16) {
        let slot = self.kept.iter_mut().find(|(kept, count)| *count == 0 || *kept == port);
        match slot {
            Some((kept, count)) => {
                *kept = port;
                *count = count.saturating_add(1);
            }
            None => self.others = self.others.saturating_add(1),
        }
    }

    /// The ports in the order of their first access, with how often each was accessed.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.kept.iter().copied().filter(|(_, count)| *count != 0)
    }

    /// Accesses to ports that found no place in the list.
    pub fn others(&self) -> u64 {
        self.others
    }
}
