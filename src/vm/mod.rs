//! One VM: its memory, its vCPU, what its exits mean, and how its guest is loaded.

pub mod acpi;
pub mod archive;
pub mod cpuid;
#[cfg(target_os = "none")]
pub mod exits;
pub mod free;
pub mod linux;
#[cfg(target_os = "none")]
mod machine;
pub mod memory;
pub mod msr;
#[cfg(target_os = "none")]
pub mod own;
pub mod settings;
#[cfg(target_os = "none")]
pub mod state;
#[cfg(target_os = "none")]
pub mod vcpu;

#[cfg(target_os = "none")]
pub use machine::{Activity, GuestFiles, Harvests, Stop, Vm};
