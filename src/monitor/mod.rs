//! The monitor: what a person or the lab says to the image, and what it answers (docs/monitor.md).
//!
//! This module is the language alone, without the port it is spoken on: [`mod@line`] puts bytes together,
//! [`command`] reads a line, [`event`] and [`report`] write one, [`options`] reads the image's command
//! line. Whatever comes in is a claim; none of it can make these panic.

pub mod command;
pub mod event;
pub mod line;
pub mod options;
pub mod pages;
pub mod report;
pub mod runs;
pub mod values;
