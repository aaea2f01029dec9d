#![cfg_attr(not(test), no_std)]
//! Live migration without I/O: bytes and pages in, bytes and pages out.
//!
//! [`Source`] and [`Destination`] are the two ends. Each is driven by its owner, who moves bytes between them by
//! whatever channel there is: what comes in goes to `receive`, what is to go out is pulled with `transmit`, a broken
//! channel is told to `link_lost`, and time is a number that the owner passes in. So the hypervisor, the tests and the
//! simulator run the very same engines.
//!
//! ```text
//! source                                  destination
//!   Hello (offer)            ------------>  prepare
//!                            <------------  Accept | Refuse
//!   Pages, Round ...         ------------>  (pre-copy, hybrid: while the guest runs)
//!   Paused, Stale, Pages     ------------>  (what has changed; free pages; the rest, if the guest must wait for it)
//!   State                    ------------>  load
//!                            <------------  Ready
//!   Commit                   ------------>  run          (see `handover`)
//!                            <------------  Running
//!   Pages                    ------------>  Request ...  (paths that run early)
//!                            <------------  Complete
//!   Hashes                   ------------>  compare      (if asked for)
//!                            <------------  Verdict
//!   Done                     ------------>
//! ```
//! Before that, and over a connection of its own, a [`Probe`] may measure what the link carries.
//!
//! Everything that a peer says is a claim: lengths, counts and frame numbers are checked once, where they are read.

extern crate alloc;

mod bitmap;
mod bucket;
mod budget;
mod config;
mod destination;
pub mod encoding;
mod error;
mod handover;
pub mod link;
mod meter;
mod opening;
mod page;
mod probe;
mod report;
mod source;
mod vm;
pub mod wire;

pub use bitmap::Bitmap;
pub use budget::{Budget, StreamId};
pub use config::{Config, LinkMeasure, RateLimit};
pub use destination::{Destination, Fault};
pub use encoding::Encodings;
pub use error::Error;
pub use link::{End, Link};
pub use opening::Opening;
pub use page::{PAGE_SIZE, Page, ZERO_PAGE, hash, is_zero};
pub use probe::Probe;
pub use report::{Latency, Pages, Report, Round, Status, Verdict};
pub use source::{MIN_ROOM, Source};
pub use vm::{DestinationVm, SourceVm};
pub use wire::{Offer, Path};

/// A time or a duration, in microseconds, on a clock that the owner keeps.
pub type Micros = u64;
