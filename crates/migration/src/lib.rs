#![cfg_attr(not(test), no_std)]
//! Live migration without I/O.

extern crate alloc;

mod bitmap;

pub use bitmap::Bitmap;
