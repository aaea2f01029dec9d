//! Starting and reaping processes. The one place with `unsafe`.
#![allow(unsafe_code)]

use crate::clock::{self, MILLISECOND, Nanos};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execv, fork};
use std::ffi::{CStr, CString};
use std::process::Command;

/// The argument by which this program, when it executes itself, knows that it is a child of `storm`. The time that it
/// lives follows, in milliseconds.
pub const CHILD: &str = "storm-child";
/// The same for a child that starts threads; their number follows.
pub const THREADS: &str = "threads-child";

const SELF: &CStr = c"/proc/self/exe";
/// Threads that are alive at once.
const THREADS_AT_ONCE: u64 = 8;

/// How a child comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// By fork alone.
    Fork,
    /// By fork, then exec.
    Exec,
    /// In the parent's address space until it executes, as `vfork` and `posix_spawn` do.
    Spawn,
}

/// Starts a child that lives for `life`. `None` when there are too many processes.
pub fn start(how: Start, life: Nanos) -> Option<Pid> {
    let milliseconds = (life / MILLISECOND).to_string();
    match how {
        Start::Fork => fork_child(|| {
            if life > 0 {
                clock::sleep_until(clock::now().saturating_add(life));
            }
        }),
        Start::Exec => {
            let arguments = [SELF.to_owned(), CString::new(CHILD).ok()?, CString::new(milliseconds).ok()?];
            fork_child(|| {
                // It returns only when it failed, and the child ends then.
                let _ = execv(SELF, &arguments);
            })
        }
        Start::Spawn => spawn(Command::new("/proc/self/exe").args([CHILD, &milliseconds])),
    }
}

/// Starts a program.
pub fn spawn(command: &mut Command) -> Option<Pid> {
    let child = command.spawn().ok()?;
    i32::try_from(child.id()).ok().map(Pid::from_raw)
}

/// Forks a child that does `work` and ends.
pub fn fork_child(work: impl FnOnce()) -> Option<Pid> {
    // SAFETY: this process never starts a thread, so no lock can be held by one that the child lacks.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => Some(child),
        Ok(ForkResult::Child) => {
            work();
            // SAFETY: ends the process; nothing of it is used after, and no buffered output is to be flushed twice.
            unsafe { nix::libc::_exit(0) }
        }
        Err(_) => None,
    }
}

/// The next child that has ended, without waiting.
pub fn reap() -> Option<Pid> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => Some(pid),
        _ => None,
    }
}

/// What this program does when it was executed as a child. `None` when it was not.
pub fn run_as_child(arguments: &[String]) -> Option<()> {
    let [kind, number] = arguments else { return None };
    let number: u64 = number.parse().ok()?;
    match kind.as_str() {
        CHILD if number > 0 => clock::sleep_until(clock::now().saturating_add(number.saturating_mul(MILLISECOND))),
        CHILD => {}
        THREADS => run_threads(number),
        _ => return None,
    }
    Some(())
}

fn run_threads(count: u64) {
    let mut left = count;
    while left > 0 {
        let now = left.min(THREADS_AT_ONCE);
        let threads: Vec<_> = (0..now).map(|_| std::thread::spawn(std::thread::yield_now)).collect();
        threads.into_iter().for_each(|thread| drop(thread.join()));
        left -= now;
    }
}
