//! The image on an emulated machine, under Bochs' strict checks of VMX: real guests, real migrations, wild guests, and
//! input that cannot be used.

mod input;
mod migrations;
#[path = "../support/mod.rs"]
mod support;
mod watch;
mod wild;

use std::process::ExitCode;

fn main() -> ExitCode {
    let trials = [wild::trials(), input::trials(), migrations::trials(), watch::trials()];
    support::run(trials.into_iter().flatten().collect()).exit_code()
}
