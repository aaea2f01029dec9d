//! The image on an emulated machine, under Bochs' strict checks of VMX: real guests, real migrations, wild guests, and
//! input that cannot be used.

mod cancel;
mod dirty;
mod engines;
mod free;
mod input;
mod migrations;
mod paused;
mod price;
mod processes;
mod restarts;
mod several;
#[path = "../support/mod.rs"]
mod support;
mod time;
mod watch;
mod wild;

use std::process::ExitCode;

fn main() -> ExitCode {
    let trials = [
        wild::trials(),
        input::trials(),
        dirty::trials(),
        migrations::trials(),
        engines::trials(),
        free::trials(),
        several::trials(),
        cancel::trials(),
        paused::trials(),
        processes::trials(),
        restarts::trials(),
        price::trials(),
        time::trials(),
        watch::trials(),
    ];
    support::run(trials.into_iter().flatten().collect()).exit_code()
}
