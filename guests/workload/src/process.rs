//! Starting and reaping processes. The one place with `unsafe`.
#![allow(unsafe_code)]

use crate::clock::{self, Nanos};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::process::Command;

/// The argument by which this program, when it executes itself, knows that it is a child of `storm`.
pub const CHILD: &str = "storm-child";

/// Forks a child that lives for `life` and ends. `None` when there are too many processes.
pub fn fork_child(life: Nanos) -> Option<Pid> {
    // SAFETY: this program never starts a thread, so no lock can be held by one that the child lacks.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => Some(child),
        Ok(ForkResult::Child) => {
            if life > 0 {
                clock::sleep_until(clock::now().saturating_add(life));
            }
            // SAFETY: ends the process; nothing of it is used after, and no buffered output is to be flushed twice.
            unsafe { nix::libc::_exit(0) }
        }
        Err(_) => None,
    }
}

/// Forks a child that executes this program afresh.
pub fn spawn_child() -> Option<Pid> {
    let child = Command::new("/proc/self/exe").arg(CHILD).spawn().ok()?;
    i32::try_from(child.id()).ok().map(Pid::from_raw)
}

/// The next child that has ended, without waiting.
pub fn reap() -> Option<Pid> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => Some(pid),
        _ => None,
    }
}
