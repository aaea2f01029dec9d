//! The workloads that run inside a Linux guest, and the guest's init: one static program, so that a guest boots
//! with nothing else in its initramfs.
//!
//! As PID 1 it takes its options from the kernel command line (`workload=calm workload.range=8M shell`), else
//! from its arguments (`workload calm --range 8M`). What it prints is described in `guests/README.md`.

mod census;
mod clock;
mod console;
mod heartbeat;
mod init;
mod kernel;
mod options;
mod pace;
mod pattern;
mod process;
mod storm;
mod syscalls;
mod workload;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run()
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if process::run_as_child(&arguments).is_some() {
        return ExitCode::SUCCESS;
    }
    match options::from_arguments(&arguments) {
        Ok(options) => workload::run(&options),
        Err(error) => {
            eprintln!("workload: {error}\n{}", options::USAGE);
            ExitCode::from(2)
        }
    }
}
