//! What can end a migration, one variant for each cause.

use alloc::string::String;
use core::fmt;

/// Why a migration, or an attempt at it, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The stream does not begin as one of ours does.
    NotAMigration,
    /// The peer speaks another version of the protocol.
    Version {
        /// What the peer speaks.
        theirs: u16,
        /// What this side speaks.
        ours: u16,
    },
    /// The destination did not take the VM; its reason.
    Refused(String),
    /// The peer gave up; its reason.
    Aborted(String),
    /// This side was asked to give up.
    Cancelled,
    /// It was asked to give up after the hand-over, when the VM is no longer its to keep.
    HandedOver,
    /// The link broke.
    LinkLost,
    /// There is nothing to resume.
    NothingToResume,
    /// The VM's state cannot be saved; the device's reason.
    StateNotSaved(String),
    /// The VM's state cannot be loaded; the device's reason.
    StateNotLoaded(String),
    /// A message of a kind that is not known.
    UnknownMessage(u8),
    /// A message is longer than its kind may be.
    TooLong {
        /// The kind of the message.
        kind: u8,
        /// The length that it claims.
        length: u32,
    },
    /// Before this message, of a kind, one was lost, or it came twice.
    OutOfOrder(u8),
    /// A message ends before its last field.
    Truncated(u8),
    /// A message goes on after its last field.
    Trailing(u8),
    /// A field has a value that it cannot have.
    BadField(&'static str),
    /// A message that does not belong here.
    Unexpected(u8),
    /// A page that lies outside the VM's memory.
    PageOutside(u64),
    /// A page record that does not fit its batch.
    BadRecord,
    /// A page record that builds on a page of which nothing is held.
    NoBase(u64),
    /// The state is not the one that was announced, or longer than a state may be.
    BadState,
    /// The source offered the hand-over before these many pages had come.
    PagesMissing(u64),
    /// The peer acknowledges bytes that were never sent.
    AcknowledgedTooMuch,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAMigration => write!(f, "the peer does not speak the migration protocol"),
            Self::Version { theirs, ours } => {
                write!(f, "the peer speaks version {theirs} of the migration protocol, this host speaks {ours}")
            }
            Self::Refused(reason) => write!(f, "the destination refused: {reason}"),
            Self::Aborted(reason) => write!(f, "the peer gave up: {reason}"),
            Self::Cancelled => write!(f, "cancelled"),
            Self::HandedOver => write!(f, "too late: the VM is handed over"),
            Self::LinkLost => write!(f, "the link broke"),
            Self::NothingToResume => write!(f, "there is no migration to resume"),
            Self::StateNotSaved(reason) => write!(f, "the VM's state cannot be saved: {reason}"),
            Self::StateNotLoaded(reason) => write!(f, "the VM's state cannot be loaded: {reason}"),
            Self::UnknownMessage(kind) => {
                write!(f, "broken stream: a message of the unknown kind {kind}")
            }
            Self::TooLong { kind, length } => {
                write!(f, "broken stream: a message of kind {kind} claims {length} bytes")
            }
            Self::OutOfOrder(kind) => {
                write!(f, "broken stream: a message before one of kind {kind} was lost, or this came twice")
            }
            Self::Truncated(kind) => {
                write!(f, "broken stream: a message of kind {kind} is too short")
            }
            Self::Trailing(kind) => {
                write!(f, "broken stream: a message of kind {kind} is too long")
            }
            Self::BadField(field) => write!(f, "broken stream: {field} has an impossible value"),
            Self::Unexpected(kind) => write!(f, "broken stream: a message of kind {kind} at the wrong time"),
            Self::PageOutside(gfn) => write!(f, "broken stream: page {gfn:#x} lies outside the VM's memory"),
            Self::BadRecord => write!(f, "broken stream: a page record that cannot be"),
            Self::NoBase(gfn) => write!(f, "broken stream: a page record builds on page {gfn:#x}, which is not held"),
            Self::BadState => write!(f, "broken stream: the pieces of the VM's state do not fit together"),
            Self::PagesMissing(count) => {
                write!(f, "the source handed over while {count} pages were missing")
            }
            Self::AcknowledgedTooMuch => {
                write!(f, "broken stream: bytes acknowledged that were never sent")
            }
        }
    }
}

impl core::error::Error for Error {}
