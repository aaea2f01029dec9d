//! The physical machine: what the firmware left us, memory, descriptor tables, time, interrupts,
//! the serial ports and the log.
//!
//! This layer may touch hardware and raw memory; what it hands up is safe to use. Physical memory is
//! identity-mapped: a physical address below the end of RAM is also a pointer.
#![allow(unsafe_code)]

pub mod boot;
pub mod clock;
pub mod console;
pub mod frames;
pub mod interrupts;
pub mod log;
pub mod paging;
pub mod pci;
pub mod power;
pub mod rtc;
pub mod segments;
pub mod serial;
pub mod virtio;

#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
pub mod start;

/// Bytes of a page and of a frame.
pub const PAGE_SIZE: usize = 4096;
