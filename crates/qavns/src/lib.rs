#![cfg_attr(not(test), no_std)]
//! The QAVNS scheme (International Journal of Engineering, 2018): a version identifier for the memory of
//! a virtual machine, and the rule that picks the live-migration path from it.
//!
//! Everything here is arithmetic: no I/O, no hardware, no heap, no floating point, so the hypervisor,
//! the host tests and the simulator run the very same code.
//!
//! The way of the data: [`Version`] runs with the VM and is read as a [`Reading`]; two readings and the
//! periods they were taken with make a [`Sample`]; a [`Policy`] turns a sample into a [`Decision`].
//!
//! | thing | unit |
//! |---|---|
//! | JS | jiffies: ticks of the hypervisor's timer since the migration's start |
//! | OSIN | instances of the guest's OS: 1, and one more for each restart |
//! | PCN | births and deaths of processes since the OS instance began |
//! | DPCN | pages found modified at harvests since PCN last moved |
//! | Tp | jiffies for each birth or death |
//! | Td | jiffies for each modified page |

mod fields;
mod general;
mod identifier;
mod policy;
mod ratio;
mod sample;
mod version;

pub use fields::{FieldFault, ParseError};
pub use general::{GeneralVersion, Release};
pub use identifier::{Identifier, JS_DIGITS};
pub use policy::{
    Condition, DEFAULT_TD, DEFAULT_TP, Decision, Line, Margin, Paper, PathChoice, Policy, Robust, td_from_link,
};
pub use ratio::{ParseRatioError, Ratio};
pub use sample::Sample;
pub use version::{Reading, Totals, Version};
