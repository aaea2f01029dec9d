//! The one rule of the hand-over.
//!
//! **At every moment at most one side may run the guest.** The source holds the right to run it until it has sent
//! COMMIT, the destination has none until it has received it. So:
//!
//! - `pause` and `resume` of the source's VM are called here and nowhere else, and `resume` only while the right is
//!   held; `run` of the destination's VM is called here and nowhere else.
//! - COMMIT is put into the stream here and nowhere else, and only after the right is given up: from then on the bytes
//!   may be on their way, whatever becomes of the link.
//! - COMMIT is sent only to a destination that has said READY: it has loaded the state, so what can fail has not.
//! - Between COMMIT sent and COMMIT received nobody runs the guest. If the link breaks just then, neither side decides
//!   alone; a new link and [`crate::Source::recover`] deliver COMMIT again.

use crate::wire::{self, Message};
use crate::{DestinationVm, SourceVm};
use alloc::vec::Vec;

/// The source's side of the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRight {
    /// The guest runs here.
    Running,
    /// It is paused and may go on here.
    Paused,
    /// It is the destination's.
    Given,
}

impl SourceRight {
    /// Pauses the guest.
    pub fn pause(&mut self, vm: &mut impl SourceVm) {
        if *self == Self::Running {
            vm.pause();
            *self = Self::Paused;
        }
    }

    /// The attempt failed: the guest goes on here, if it is still ours. Returns whether it is.
    pub fn take_back(&mut self, vm: &mut impl SourceVm) -> bool {
        if *self == Self::Paused {
            vm.resume();
            *self = Self::Running;
        }
        *self == Self::Running
    }

    /// Gives the right up and sends COMMIT, for the first time or, when the first may have been lost, again.
    pub fn commit(&mut self, out: &mut Vec<u8>) {
        *self = Self::Given;
        wire::write(out, &Message::Commit);
    }

    /// Whether the guest runs here.
    pub fn guest_runs(self) -> bool {
        self == Self::Running
    }

    /// Whether the guest is the destination's.
    pub fn is_given(self) -> bool {
        self == Self::Given
    }
}

/// The destination's side of the rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DestinationRight {
    committed: bool,
}

impl DestinationRight {
    /// COMMIT has come: the guest runs here. A second COMMIT changes nothing.
    pub fn receive_commit(&mut self, vm: &mut impl DestinationVm) {
        if !self.committed {
            self.committed = true;
            vm.run();
        }
    }

    /// Whether COMMIT has come.
    pub fn is_held(self) -> bool {
        self.committed
    }
}
