//! The wire format.
//!
//! A message is a header of 8 bytes (kind; its number, 24 bits; length of what follows) and its payload; integers are
//! little-endian. The messages of one direction of one link are numbered from 0 on, so that none can be lost or come twice
//! unseen. Most are small and handled whole. [`Kind::Pages`] is a batch: its payload is a row of page records,
//! each handled as soon as it is whole, so that a page goes from the channel's buffer to the VM's memory in one copy
//! and a batch of any length needs no buffer of its own.
//!
//! A page record is a word of 8 bytes (40 bits gfn, 8 bits kind, 16 bits argument) and what its kind calls for:
//!
//! | kind | argument | follows |
//! |---|---|---|
//! | 0 zero | pages in the run | nothing |
//! | 1 data | 0 | the page |
//! | 2 same | 0 | 8 bytes: the gfn of the page whose content it has |
//! | 3 delta | length of what follows | what changed since the version before, see [`crate::encoding::delta`] |
//! | 4 LZ4 | length of what follows | the page as an LZ4 block |
//!
//! Kinds 2 and 3 build on what the destination holds when the record comes, and are errors once it may run the guest.
//!
//! A hello (and a recover) begins with a magic number and the version; these stay where they are in every version, so
//! that each version can name the other.

mod decode;
mod encode;
mod fields;
mod message;
mod number;

pub use decode::{Body, Decoder, Item, Record};
pub use encode::{Batch, write, write_probe, write_words};
pub use message::{Chunk, Gfns, Kind, Message, Offer, Path};
pub use number::Numbering;

/// What every stream begins with.
pub const MAGIC: u64 = u64::from_le_bytes(*b"QAVISOR\x1a");

/// The version of the protocol that this code speaks.
pub const VERSION: u16 = 2;

/// Bytes of a message's header, and of a page record's.
pub const HEADER: usize = 8;

/// Bytes of a record with a whole page.
pub const PAGE_RECORD: usize = HEADER + crate::PAGE_SIZE;

/// Bytes of a record that names another page.
pub const SAME_RECORD: usize = HEADER + size_of::<u64>();

/// The kinds of page records.
mod record {
    pub const ZERO: u8 = 0;
    pub const DATA: u8 = 1;
    pub const SAME: u8 = 2;
    pub const DELTA: u8 = 3;
    pub const LZ4: u8 = 4;
}

/// The longest payload of a message that is handled whole: what a decoder may have to buffer.
pub const MAX_WHOLE: usize = 32 * 1024;

/// The longest batch of pages.
pub const MAX_BATCH: usize = 1 << 20;

/// The longest state package.
pub const MAX_STATE: usize = 16 << 20;

/// The longest reason, in bytes.
pub const MAX_REASON: usize = 512;

/// The longest name of a VM, in bytes.
pub const MAX_NAME: usize = 64;

/// The most pages a VM can have: what a gfn of 40 bits reaches.
pub const MAX_PAGES: u64 = 1 << 40;
