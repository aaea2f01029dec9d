//! What the image tests share: machines that are driven event by event, and migrations that are judged by their report.

pub mod dirty;
#[allow(dead_code, reason = "each test program uses its part")]
pub mod heartbeats;
#[allow(dead_code, reason = "each test program uses its part")]
pub mod machine;
pub mod migration;
#[allow(dead_code, reason = "each test program uses its part")]
pub mod moves;

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use lab::artifacts::Artifacts;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

/// The image and what it needs, built once for each test program.
pub fn artifacts() -> Result<&'static Artifacts> {
    static ARTIFACTS: OnceLock<Result<Artifacts, String>> = OnceLock::new();
    let build = || Artifacts::get(None).and_then(Artifacts::with_debian).map_err(|error| format!("{error:#}"));
    ARTIFACTS.get_or_init(build).as_ref().map_err(|error| anyhow!("{error}"))
}

/// The folder of a test's logs: it stays, for whoever looks into a failure.
pub fn folder(environment: &str, test: &str) -> PathBuf {
    lab::artifacts::target().join("lab/tests").join(environment).join(test)
}

/// A test, with its whole chain of causes when it fails.
pub fn trial(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:#}"))))
}

/// Runs the tests one at a time: an emulated machine takes a whole CPU.
pub fn run(trials: Vec<Trial>) -> Conclusion {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials)
}
