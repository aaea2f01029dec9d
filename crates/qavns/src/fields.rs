//! Reading the four dotted numbers that both schemes are written as.

use core::error::Error;
use core::fmt;

/// What is wrong with one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldFault {
    /// There is nothing between the dots, or the text ends before this field.
    Missing,
    /// Something other than the digits 0 to 9.
    NotDigits,
    /// The number does not fit 64 bits.
    TooLarge,
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "is missing",
            Self::NotDigits => "is not a decimal number",
            Self::TooLarge => "does not fit 64 bits",
        })
    }
}

/// Why a text is not four dotted numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// One field cannot be read.
    Field {
        /// The field's name in its scheme.
        name: &'static str,
        /// What is wrong with it.
        fault: FieldFault,
    },
    /// There is more text after the fourth field.
    TooManyFields,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field { name, fault } => write!(f, "{name} {fault}"),
            Self::TooManyFields => f.write_str("more than four fields"),
        }
    }
}

impl Error for ParseError {}

/// Reads `a.b.c.d`; `names` are the names that errors give the fields.
pub(crate) fn parse(text: &str, names: [&'static str; 4]) -> Result<[u64; 4], ParseError> {
    let mut parts = text.split('.');
    let mut numbers = [0; 4];
    for (number, name) in numbers.iter_mut().zip(names) {
        *number = decimal(parts.next().unwrap_or("")).map_err(|fault| ParseError::Field { name, fault })?;
    }
    match parts.next() {
        None => Ok(numbers),
        Some(_) => Err(ParseError::TooManyFields),
    }
}

/// Reads one number. `u64::from_str` alone would also take a leading `+`.
pub(crate) fn decimal(text: &str) -> Result<u64, FieldFault> {
    if text.is_empty() {
        return Err(FieldFault::Missing);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FieldFault::NotDigits);
    }
    text.parse().map_err(|_| FieldFault::TooLarge)
}
