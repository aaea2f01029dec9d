//! A guest whose every step is known, so that a twin which never migrated tells what its memory must be; and a world
//! with two hosts and a link, in which time is a number.
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

pub mod mishap;
pub mod recovery;
pub mod vm;
pub mod world;

pub use mishap::{Mishap, Tap};
pub use recovery::{At, config, encoded, encoded_paths, encodings, survives};
pub use vm::{Program, SimVm};
pub use world::{Cut, World};

use migration::{Offer, Path};

pub const PATHS: [Path; 5] = [Path::StopAndCopy, Path::Demand, Path::PreCopy, Path::PostCopy, Path::Hybrid];

pub fn offer(path: Path, pages: u64) -> Offer {
    Offer {
        name: "guest".into(),
        session: 42,
        page_count: pages,
        tsc_khz: 2_000_000,
        path,
        verify: true,
        acknowledge_every: 16 * 1024,
    }
}
