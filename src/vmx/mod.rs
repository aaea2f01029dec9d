//! Intel VT-x, as the Software Developer's Manual (SDM), volume 3C, names it: VMX operation, the VMCS,
//! entries and exits, EPT, the preemption timer.
//!
//! This layer may execute VMX instructions and write the tables that the CPU reads; it knows nothing of guests'
//! devices or of what an exit means.
#![allow(unsafe_code)]

pub mod capabilities;
#[cfg(target_os = "none")]
pub mod context;
pub mod controls;
pub mod entry;
pub mod ept;
pub mod exit;
pub mod fields;
pub mod invalidate;
pub mod modification_log;
pub mod operation;
pub mod timer;
pub mod tracker;
pub mod vmcs;
