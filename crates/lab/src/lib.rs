//! The lab: starts the machines of an experiment, drives a migration, and reports what happened.
//!
//! Data flows one way: [`artifacts`] builds files, [`env`] starts machines from them and hands out a
//! [`testbed::Testbed`], [`session`] drives it and writes the report. The [`agent`] is the lab's hand where KVM is.

pub mod agent;
pub mod artifacts;
pub mod bench;
pub mod env;
pub mod hosts;
pub mod interrupt;
pub mod machine;
pub mod options;
pub mod peer;
pub mod session;
pub mod testbed;
pub mod units;
pub mod watch;
