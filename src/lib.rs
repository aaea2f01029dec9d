#![cfg_attr(not(test), no_std)]
//! Qavisor: a Type-1 hypervisor that keeps a version identifier of every VM's memory and picks the
//! live-migration path from it.
//!
//! Data flows one way: tick -> harvest -> identifier -> sample -> decision -> engine -> channel.
//! The layers, from the bottom: [`machine`] (the physical machine), [`vmx`] (Intel VT-x), [`vm`] (one
//! VM), [`devices`] (what a guest sees), [`observe`] (the identifier), [`net`] (the channel),
//! [`migrate`] (engines tied to VMs and channel), [`monitor`] (commands in, events out).
//! `unsafe` is denied everywhere but in `machine`, `vmx` and `vm::memory`.

extern crate alloc;

pub mod devices;
pub mod host;
pub mod machine;
#[cfg(target_os = "none")]
pub mod migrate;
pub mod monitor;
pub mod net;
pub mod observe;
pub mod vm;
pub mod vmx;
