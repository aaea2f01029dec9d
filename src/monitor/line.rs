//! From bytes to lines.

use alloc::string::String;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;
use core::mem;

/// The longest line that is taken, in bytes without its end.
pub const LONGEST_LINE: usize = 1024;

/// Why a line was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// It is longer than [`LONGEST_LINE`].
    TooLong,
    /// It is not UTF-8.
    NotText,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "a line of more than {LONGEST_LINE} bytes was dropped"),
            Self::NotText => f.write_str("a line that is not UTF-8 was dropped"),
        }
    }
}

impl Error for LineError {}

/// Puts bytes together to lines. Lines end with `\n`, `\r` or both; empty ones are not reported.
#[derive(Debug, Default)]
pub struct LineAssembler {
    line: Vec<u8>,
    dropping: bool,
}

impl LineAssembler {
    /// An assembler at the start of a line.
    #[must_use]
    pub const fn new() -> Self {
        Self { line: Vec::new(), dropping: false }
    }

    /// Takes one byte; gives the line, or its error, that this byte brings about.
    ///
    /// A line that is too long is reported once, when it becomes so, and dropped up to its end.
    pub fn push(&mut self, byte: u8) -> Option<Result<String, LineError>> {
        if matches!(byte, b'\n' | b'\r') {
            return self.end();
        }
        if self.dropping {
            return None;
        }
        if self.line.len() >= LONGEST_LINE {
            self.line.clear();
            self.dropping = true;
            return Some(Err(LineError::TooLong));
        }
        self.line.push(byte);
        None
    }

    /// What has come of the line that is not at its end yet.
    #[must_use]
    pub fn partial(&self) -> &[u8] {
        &self.line
    }

    fn end(&mut self) -> Option<Result<String, LineError>> {
        self.dropping = false;
        let line = mem::take(&mut self.line);
        if line.is_empty() {
            return None;
        }
        Some(String::from_utf8(line).map_err(|_| LineError::NotText))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_cut_in_two_assemblers_is_whole_again() {
        let (mut first, mut second) = (LineAssembler::new(), LineAssembler::new());
        assert!(b"hb 1".iter().all(|byte| first.push(*byte).is_none()));
        assert!(first.partial().iter().all(|byte| second.push(*byte).is_none()));
        assert!(b"0 e0".iter().all(|byte| second.push(*byte).is_none()));
        assert_eq!(second.push(b'\n'), Some(Ok("hb 10 e0".into())));
    }

    fn lines(bytes: &[u8]) -> Vec<Result<String, LineError>> {
        let mut assembler = LineAssembler::new();
        bytes.iter().filter_map(|&byte| assembler.push(byte)).collect()
    }

    fn line(text: &str) -> Result<String, LineError> {
        Ok(text.into())
    }

    #[test]
    fn lines_come_out_whole_whatever_ends_them() {
        let expected = [line("status"), line("quit"), line("x")];
        assert_eq!(lines(b"status\nquit\r\n\n\nx\rrest"), expected);
    }

    #[test]
    fn the_longest_line_passes() {
        let mut bytes = alloc::vec![b'a'; LONGEST_LINE];
        bytes.push(b'\n');
        assert_eq!(lines(&bytes), [line(&"a".repeat(LONGEST_LINE))]);
    }

    #[test]
    fn a_line_too_long_gives_one_error_and_the_next_line_is_whole() {
        let mut bytes = alloc::vec![b'a'; 5 * LONGEST_LINE];
        bytes.extend_from_slice(b"\nstatus\n");
        assert_eq!(lines(&bytes), [Err(LineError::TooLong), line("status")]);
    }

    #[test]
    fn bytes_that_are_no_text_are_an_error() {
        assert_eq!(lines(b"\xFF\xFE\nquit\n"), [Err(LineError::NotText), line("quit")]);
    }
}
