//! The machines that the lab starts, each ended with the lab, whatever ends the lab.

pub mod bochs;
pub mod process;
