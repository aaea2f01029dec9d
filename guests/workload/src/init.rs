//! The duties of PID 1 in an initramfs that holds little more than this program.

use crate::{clock, console, options, workload};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

/// Starts a shell again when it ends. `setsid -c` gives it the console as its controlling terminal, so that ^C works.
const SHELL: &str = "while :; do /bin/busybox setsid -c /bin/busybox sh; done";

/// Takes the options from the kernel command line and runs the workload for ever: a kernel whose init ends panics.
pub fn run() -> ! {
    mount_at("proc", "/proc");
    load_modules();
    report_small_runs();
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
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

/// Loads the modules of the initramfs, in the order of their names. A kernel that they are not for goes without.
fn load_modules() {
    let mut modules: Vec<_> =
        fs::read_dir("/modules").into_iter().flatten().flatten().map(|file| file.path()).collect();
    modules.sort();
    for module in modules {
        if let Err(error) = load_module(&module) {
            return console::line(&format!("cannot load {}: {error}", module.display()));
        }
    }
}

/// Linux reports free runs of 2 MiB, and only while 32 of them and more are free: never, in a guest of 128 MiB. Loading the
/// balloon sets this, so the kernel's command line cannot.
fn report_small_runs() {
    const ORDER: &str = "/sys/module/page_reporting/parameters/page_reporting_order";
    const RUNS_OF_128_KIB: &str = "5";
    mount_at("sysfs", "/sys");
    // A kernel without it goes without.
    let _ = fs::write(ORDER, RUNS_OF_128_KIB);
}

fn load_module(module: &Path) -> io::Result<()> {
    Ok(finit_module(File::open(module)?, c"", ModuleInitFlags::empty())?)
}

fn mount_at(kind: &str, place: &str) {
    let _ = fs::create_dir(place);
    if let Err(error) = mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>) {
        console::line(&format!("cannot mount {place}: {error}"));
    }
}

fn start_shell() {
    mount_at("devtmpfs", "/dev");
    let shell = Command::new("/bin/busybox").args(["sh", "-c", SHELL]).env("PATH", "/bin").spawn();
    if let Err(error) = shell {
        console::line(&format!("no shell: /bin/busybox: {error}"));
    }
}
