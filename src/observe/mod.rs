//! From ticks, restarts, CR3 loads and dirty flags to the identifier of a VM's memory.
//!
//! [`processes`] tells births and deaths from the guest's page-table roots; [`observer`] keeps the
//! version, the harvest schedule and the sample in progress. Both see the guest only through what they
//! are given, so they run in host tests as they run under the guest.

pub mod observer;
pub mod processes;

pub use observer::{Observed, Observer};
pub use processes::{Changes, GuestRoots, ProcessTable, own_values};
