//! Versioned records: how a device becomes bytes and how bytes become a device.
//!
//! A record is a version followed by the device's fields (postcard). A change of a device's fields is a new
//! version; a record with any other version is refused by name, since guessing at fields would run a guest on
//! wrong state. A device is built whole from its record or not at all, so a refusal leaves the old one untouched.

use alloc::vec::Vec;
use core::fmt;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a record was refused. The devices are as they were before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// The bytes end too early or cannot be the fields of this device.
    Malformed {
        /// The device whose record it is.
        device: &'static str,
    },
    /// The record was written by another version of the device.
    Version {
        /// The device whose record it is.
        device: &'static str,
        /// The version that the record claims.
        found: u16,
        /// The only version that is read here.
        expected: u16,
    },
    /// A field holds a value that the device can never have.
    Refused {
        /// The device whose record it is.
        device: &'static str,
        /// The field with the impossible value.
        field: &'static str,
    },
    /// Bytes follow the last device.
    TrailingBytes,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { device } => {
                write!(f, "the record of the {device} is cut short or malformed")
            }
            Self::Version { device, found, expected } => {
                write!(f, "the record of the {device} has version {found}, this hypervisor reads {expected}")
            }
            Self::Refused { device, field } => {
                write!(f, "the record of the {device} has an impossible value in `{field}`")
            }
            Self::TrailingBytes => f.write_str("bytes follow the last device record"),
        }
    }
}

impl core::error::Error for RestoreError {}

/// A device that saves and restores itself.
pub(super) trait Device: Serialize + DeserializeOwned {
    /// The name that errors use.
    const NAME: &'static str;
    /// The version of the record; raised with every change of the fields.
    const VERSION: u16;

    /// Checks a device whose fields are still claims, and rebuilds what is derived from them. Names the field
    /// that no honest device could have.
    fn accept(&mut self) -> Result<(), &'static str>;
}

/// Appends the record of a device.
pub(super) fn save<D: Device>(device: &D, out: &mut Vec<u8>) {
    // Writing to a Vec fails only for types that do not know their length; no device has such a field. If one
    // ever did, the record would be missing and its restore refused.
    let record = postcard::to_allocvec(&(D::VERSION, device)).unwrap_or_default();
    out.extend_from_slice(&record);
}

/// Takes the record of a device off the front of `bytes`.
pub(super) fn restore<D: Device>(bytes: &mut &[u8]) -> Result<D, RestoreError> {
    let malformed = |_| RestoreError::Malformed { device: D::NAME };
    let (found, rest) = postcard::take_from_bytes::<u16>(bytes).map_err(malformed)?;
    if found != D::VERSION {
        return Err(RestoreError::Version { device: D::NAME, found, expected: D::VERSION });
    }
    let (mut device, rest) = postcard::take_from_bytes::<D>(rest).map_err(malformed)?;
    device.accept().map_err(|field| RestoreError::Refused { device: D::NAME, field })?;
    *bytes = rest;
    Ok(device)
}
