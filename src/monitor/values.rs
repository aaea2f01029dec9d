//! The values that options and commands share, and the errors that name them.

use alloc::string::{String, ToString};
use core::error::Error;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::ops::RangeInclusive;
use core::time::Duration;

/// Why a `key=value` word was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WordError {
    /// No such key here.
    Unknown {
        /// The key as it was given.
        key: String,
    },
    /// The key stands without `=value`.
    NoValue {
        /// The key as it was given.
        key: String,
    },
    /// The key was given before.
    Repeated {
        /// The key as it was given.
        key: String,
    },
    /// The value cannot be read, or lies outside its limits.
    Value {
        /// The key that it was given for.
        key: &'static str,
        /// The value as it was given.
        value: String,
        /// What the key takes.
        wanted: &'static str,
    },
}

impl fmt::Display for WordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { key } => write!(f, "unknown option `{key}`"),
            Self::NoValue { key } => write!(f, "`{key}` needs a value: {key}=..."),
            Self::Repeated { key } => write!(f, "`{key}` is given twice"),
            Self::Value { key, value, wanted } => {
                write!(f, "`{key}={value}` cannot be used: {key} takes {wanted}")
            }
        }
    }
}

impl Error for WordError {}

/// One `key=value` word, not yet believed.
#[derive(Clone, Copy, Debug)]
pub struct Word<'a> {
    /// What stands before the first `=`.
    pub key: &'a str,
    /// What stands after it.
    pub value: &'a str,
}

impl<'a> Word<'a> {
    /// Splits a word at its first `=`.
    ///
    /// # Errors
    /// The word has no `=`.
    pub fn split(word: &'a str) -> Result<Self, WordError> {
        let (key, value) = word.split_once('=').ok_or_else(|| WordError::NoValue { key: word.to_string() })?;
        Ok(Self { key, value })
    }

    /// The error for a key that has no meaning here.
    #[must_use]
    pub fn unknown(self) -> WordError {
        WordError::Unknown { key: self.key.to_string() }
    }

    /// Reads the value into `slot`; `read` gives nothing for a value that is not `wanted`.
    ///
    /// # Errors
    /// The slot is taken already, or the value cannot be read.
    pub fn into<T>(
        self,
        slot: &mut Option<T>,
        key: &'static str,
        wanted: &'static str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<(), WordError> {
        if slot.is_some() {
            return Err(WordError::Repeated { key: key.to_string() });
        }
        let value = read(self.value).ok_or_else(|| bad_value(key, self.value, wanted))?;
        *slot = Some(value);
        Ok(())
    }
}

/// The error for `key=value` where the key takes what is `wanted`.
pub(super) fn bad_value(key: &'static str, value: &str, wanted: &'static str) -> WordError {
    WordError::Value { key, value: value.to_string(), wanted }
}

/// A whole number in digits alone; `from_str` would also take a leading `+`.
#[must_use]
pub fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// `yes` or `no`.
#[must_use]
pub fn yes_or_no(text: &str) -> Option<bool> {
    match text {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// A duration: a whole number and one of `us`, `ms`, `s`, within `limits`.
#[must_use]
pub fn duration(text: &str, limits: RangeInclusive<Duration>) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at_checked(digits)?;
    let count = number(count)?;
    let duration = match unit {
        "us" => Duration::from_micros(count),
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        _ => return None,
    };
    limits.contains(&duration).then_some(duration)
}

/// A port that can be connected to or listened on.
#[must_use]
pub fn port(text: &str) -> Option<u16> {
    let port = u16::try_from(number(text)?).ok()?;
    (port != 0).then_some(port)
}

/// `IP:PORT` of one host.
#[must_use]
pub fn endpoint(text: &str) -> Option<SocketAddrV4> {
    let (address, at) = text.split_once(':')?;
    Some(SocketAddrV4::new(host_address(address)?, port(at)?))
}

/// An IPv4 address that one host can have.
#[must_use]
pub fn host_address(text: &str) -> Option<Ipv4Addr> {
    let address: Ipv4Addr = text.parse().ok()?;
    let one_host = !(address.is_unspecified() || address.is_multicast() || address.is_broadcast());
    one_host.then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_duration(text: &str) -> Option<Duration> {
        duration(text, Duration::ZERO..=Duration::MAX)
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(any_duration("4ms"), Some(Duration::from_millis(4)));
        assert_eq!(any_duration("100us"), Some(Duration::from_micros(100)));
        assert_eq!(any_duration("1s"), Some(Duration::from_secs(1)));
        let largest = Duration::from_secs(u64::MAX);
        assert_eq!(any_duration("18446744073709551615s"), Some(largest));
        for wrong in ["", "4", "ms", "4 ms", "-4ms", "+4ms", "4m", "4.5ms", "4µs", "18446744073709551616s"] {
            assert_eq!(any_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_outside_their_limits_are_refused() {
        let limits = Duration::from_millis(1)..=Duration::from_millis(100);
        assert_eq!(duration("999us", limits.clone()), None);
        assert_eq!(duration("100ms", limits.clone()), Some(*limits.end()));
        assert_eq!(duration("101ms", limits), None);
    }

    #[test]
    fn endpoints_name_one_host_and_a_port() {
        let endpoint_text = |text| endpoint(text).map(|e| e.to_string());
        assert_eq!(endpoint_text("10.0.0.2:4444").as_deref(), Some("10.0.0.2:4444"));
        for wrong in
            ["10.0.0.2", "10.0.0.2:0", "10.0.0.2:65536", "10.0.0:1", "0.0.0.0:1", "224.0.0.1:1", ":1", "10.0.0.2:+1"]
        {
            assert_eq!(endpoint_text(wrong), None, "{wrong}");
        }
    }
}
