//! System calls, one after the other.

use crate::process;
use nix::unistd::getppid;
use std::hint;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};

/// Makes system calls.
pub enum Syscalls {
    /// Of the cheapest kind.
    Plain,
    /// That go to another process and back: a byte through one pipe, and an answer through a second one.
    Switching(PipeWriter, PipeReader),
}

impl Syscalls {
    /// With `switching` each goes to another process and back.
    pub fn new(switching: bool) -> std::io::Result<Self> {
        if !switching {
            return Ok(Self::Plain);
        }
        let ((asked, ask), (answer, answered)) = (pipe()?, pipe()?);
        let started = process::fork_child(|| echo(&asked, &answered));
        started.map(|_| Self::Switching(ask, answer)).ok_or_else(|| std::io::Error::other("no process is left"))
    }

    /// Makes one.
    pub fn make(&mut self) {
        match self {
            Self::Plain => {
                hint::black_box(getppid());
            }
            Self::Switching(ask, answer) => {
                // Where the other has ended there is nobody to switch to, and the count stands still.
                let _ = ask.write_all(&[0]).and_then(|()| answer.read_exact(&mut [0]));
            }
        }
    }
}

/// Answers each byte until nobody asks.
fn echo(mut asked: &PipeReader, mut answered: &PipeWriter) {
    let mut byte = [0];
    while asked.read_exact(&mut byte).and_then(|()| answered.write_all(&byte)).is_ok() {}
}
