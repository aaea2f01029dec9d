//! `tiny`: a guest of our own for exact tests. It boots in milliseconds, writes known patterns at a set rate, checks
//! them, restarts in each way that a PC can, and tries wild values on whatever the hypervisor intercepts.
//!
//! It is a bzImage, so the hypervisor needs no second loader. Options and output: `guests/README.md`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(any(target_os = "none", test))]
mod options;
#[cfg(any(target_os = "none", test))]
mod pattern;

#[cfg(target_os = "none")]
mod attempt;
#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod flip;
#[cfg(target_os = "none")]
mod interval;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod restart;
#[cfg(target_os = "none")]
mod ring;
#[cfg(target_os = "none")]
mod timer;
#[cfg(target_os = "none")]
mod trap;
#[cfg(target_os = "none")]
mod uart;
#[cfg(target_os = "none")]
mod wild;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this guest is bare-metal: build it with --target x86_64-unknown-none");
}
