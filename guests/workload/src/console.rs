//! Lines on the console. Each byte costs a VM exit or two, so they are short, and each is one write.

use std::io::{Write, stdout};

/// Prints a line. A console that is gone is no reason to end the workload.
pub fn line(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.write_all(b"\n");
    let _ = out.flush();
}

/// Waits until the UART has sent what was printed.
pub fn drain() {
    let _ = nix::sys::termios::tcdrain(stdout());
}
