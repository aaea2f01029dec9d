//! Input that cannot be used: one clear line that names what is wrong, and nothing else changes.

use std::fs;

use anyhow::{Result, ensure};
use lab::agent::wire::Host::Source;
use lab::artifacts::cpio::Archive;
use lab::env::Environment::Bochs;
use libtest_mimic::Trial;

use crate::support::machine::Machine;
use crate::support::{artifacts, trial};

/// The tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_kernel_that_is_no_bzimage_is_named", || {
            let archive = archive(&[0x90; 64 << 10], "memory=16M\n");
            refused("no-bzimage", &archive, "", "VM `tiny`: kernel: not a bzImage")
        }),
        trial("too_little_memory_for_the_kernel_is_named", || {
            let kernel = fs::read(&artifacts()?.debian()?.kernel)?;
            refused("little-memory", &archive(&kernel, "memory=8M\n"), "", "too little memory")
        }),
        trial("a_truncated_archive_is_named", || {
            let whole = archive(&[0x90; 64 << 10], "memory=16M\n");
            let half = whole.get(..whole.len() / 2).unwrap_or_default();
            refused("truncated", half, "", "guests' archive: truncated")
        }),
        trial("an_unknown_option_is_named", || {
            let archive = archive(&[0x90; 1024], "memory=16M\n");
            refused("unknown-option", &archive, "jify=4ms", "unknown option `jify`")
        }),
        trial("a_migration_of_nobody_is_an_error_and_changes_nothing", nobody),
    ]
}

/// An archive with one VM, `tiny`.
fn archive(kernel: &[u8], settings: &str) -> Vec<u8> {
    let mut archive = Archive::new();
    archive.directory("tiny");
    archive.file("tiny/kernel", kernel);
    archive.file("tiny/settings", settings.as_bytes());
    archive.finish()
}

/// The image powers off, and its log says why.
fn refused(test: &str, archive: &[u8], options: &str, why: &str) -> Result<()> {
    let log = Machine::with_archive(Bochs, test, archive, options)?.log_at_its_end()?;
    ensure!(log.contains(why), "the log does not say `{why}`: {log}");
    ensure!(!log.contains("panicked"), "the image panicked: {log}");
    Ok(())
}

fn nobody() -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, "nobody", "mode=hlt")?;
    machine.heartbeats(Source, 2)?;
    machine.command("migrate vm=nobody to=memory")?;
    let error = machine.until("error", |event| event.is("error"))?;
    ensure!(error.text("message").contains("nobody"), "the error does not name the VM: {}", error.json);
    machine.heartbeats(Source, 3)?;
    let state = machine.state()?;
    ensure!(state == "running", "the VM is {state}");
    Ok(())
}
