//! The duties of PID 1 in an initramfs that holds little more than this program.

use crate::{clock, console, options, workload};
use nix::mount::{MsFlags, mount};
use std::process::Command;

/// Starts a shell again when it ends. `setsid -c` gives it the console as its controlling terminal, so that ^C works.
const SHELL: &str = "while :; do /bin/busybox setsid -c /bin/busybox sh; done";

/// Takes the options from the kernel command line and runs the workload for ever: a kernel whose init ends panics.
pub fn run() -> ! {
    mount_at("proc", "/proc");
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if options::wants_shell(&line) {
        start_shell();
    }
    match options::from_command_line(&line) {
        Ok(options) => workload::run(&options),
        Err(error) => {
            console::line(&format!("workload: {error}"));
            loop {
                clock::sleep_until(clock::now() + clock::SECOND);
            }
        }
    }
}

fn mount_at(kind: &str, place: &str) {
    let _ = std::fs::create_dir(place);
    if let Err(error) = mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>) {
        console::line(&format!("cannot mount {place}: {error}"));
    }
}

fn start_shell() {
    mount_at("sysfs", "/sys");
    mount_at("devtmpfs", "/dev");
    let shell = Command::new("/bin/busybox").args(["sh", "-c", SHELL]).env("PATH", "/bin").spawn();
    if let Err(error) = shell {
        console::line(&format!("no shell: /bin/busybox: {error}"));
    }
}
