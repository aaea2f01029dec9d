//! One experiment: hosts up, guest at work, migration, guest at work there, report.

pub mod driver;
pub mod heartbeat;
pub mod report;
pub(crate) mod stage;
pub mod story;
pub mod table;
pub mod watch;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::artifacts::Artifacts;
use crate::artifacts::guests::{self, Guest};
use crate::env::{Environment, Machines};
use crate::options::{GuestKind, GuestOptions, HostOptions, MigrateOptions, RESTART_AFTER, Workload};
use driver::{Driver, Patience};
use report::Report;
use stage::Stage;
use story::Story;
use watch::Watch;

/// An experiment that is over.
pub struct Run {
    /// Where everything about it lies.
    pub folder: PathBuf,
    /// The report.
    pub report: Report,
    /// What the events said.
    pub story: Story,
    /// What the hypervisor at the source holds for itself, in bytes, where it came to its `status`.
    pub own_memory: Option<u64>,
}

/// All of the source's memory but what is free, what its VMs have, and the archive of its guests.
fn own_memory(machines: &Machines, environment: Environment, status: &Value) -> Option<u64> {
    let all = machines.source_memory(environment).ok()? << 20;
    let vms = status.get("vms")?.as_array()?;
    let guests: u64 = vms.iter().filter_map(|vm| vm.get("memory")?.as_u64()).sum();
    all.checked_sub(status.get("memory-free")?.as_u64()? + guests + machines.archive_size().ok()?)
}

/// Runs one migration and writes everything about it to a folder. An error is one of the lab's own; what went
/// wrong in the experiment is in the report.
pub fn migrate(options: &MigrateOptions, watch: &mut dyn Watch) -> Result<Run> {
    let folder = folder(&options.hosts, &format!("{}-{}", options.hosts.env, options.guest.workload))?;
    watch.phase("building");
    let stage = Stage::set(&options.hosts, &options.guest, folder)?;
    let machines = stage.machines(&options.hosts, &options.guest);
    let start = || options.hosts.env.start(&machines);
    let (report, story) = Driver::run(options, &stage.folder, Patience::of(options.hosts.env), start, watch)?;
    write_json(&stage.folder.join("report.json"), &report.json)?;
    let own_memory = story.status[0].as_ref().and_then(|status| own_memory(&machines, options.hosts.env, status));
    Ok(Run { folder: stage.folder, report, story, own_memory })
}

/// The folder of a run, made and free of an earlier run's report.
pub(crate) fn folder(options: &HostOptions, default: &str) -> Result<PathBuf> {
    let folder = match &options.out {
        Some(out) => out.clone(),
        None => crate::artifacts::target().join("lab").join(default),
    };
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for stale in ["report.json", "events.jsonl", "source.log", "destination.log"] {
        crate::artifacts::stamp::remove(&folder.join(stale))?;
    }
    Ok(fs::canonicalize(&folder)?)
}

/// Writes a record that a person can read, too.
pub(crate) fn write_json(path: &Path, json: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(json)?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// A file of the run.
fn create(folder: &Path, name: &str) -> Result<File> {
    let path = folder.join(name);
    File::create(&path).with_context(|| format!("cannot write {}", path.display()))
}

/// Builds the guest that was asked for, and hands it on.
pub(crate) fn with_guest<T>(
    guest: &GuestOptions,
    artifacts: &Artifacts,
    then: impl FnOnce(&Guest) -> Result<T>,
) -> Result<T> {
    let command_line = command_line(guest.guest, guest.workload, &guest.append)?;
    let built = match guest.guest {
        GuestKind::Linux => artifacts.debian()?.kernel.clone(),
        GuestKind::Tiny => artifacts.tiny_kernel()?,
    };
    let initrd = match (&guest.initrd, guest.guest) {
        (Some(initrd), _) => Some(initrd.clone()),
        (None, GuestKind::Linux) => Some(artifacts.linux_initrd()?),
        (None, GuestKind::Tiny) => None,
    };
    let one = Guest {
        name: vm(guest),
        kernel: guest.kernel.as_ref().unwrap_or(&built),
        initrd: initrd.as_deref(),
        memory: guest.bytes(),
        command_line: &command_line,
    };
    then(&one)
}

/// The name of the VM.
pub(crate) fn vm(options: &GuestOptions) -> &'static str {
    match options.guest {
        GuestKind::Linux => "linux",
        GuestKind::Tiny => "tiny",
    }
}

/// How a guest is told what to do.
fn command_line(guest: GuestKind, workload: Workload, more: &str) -> Result<String> {
    let own = match (guest, workload) {
        (GuestKind::Linux, workload) => format!("{} workload={workload}", guests::command_line()),
        (GuestKind::Tiny, Workload::Idle) => "mode=hlt".to_owned(),
        (GuestKind::Tiny, Workload::Calm) => "mode=write rate=1".to_owned(),
        (GuestKind::Tiny, Workload::Unruly) => "mode=write rate=200".to_owned(),
        (GuestKind::Tiny, Workload::Reboot) => format!("mode=cf9 after={RESTART_AFTER}"),
        (GuestKind::Tiny, Workload::Storm | Workload::Syscalls) => {
            bail!("the guest tiny has no processes: no workload {workload}")
        }
    };
    Ok(format!("{own} {more}").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_guest_is_told_its_workload_in_its_own_words() {
        let linux = command_line(GuestKind::Linux, Workload::Unruly, "workload.range=8M").unwrap();
        assert!(linux.starts_with("console=ttyS0 ") && linux.ends_with(" workload=unruly workload.range=8M"));
        assert!(!linux.contains("  "));
        assert_eq!(command_line(GuestKind::Tiny, Workload::Idle, "").unwrap(), "mode=hlt");
        assert!(command_line(GuestKind::Tiny, Workload::Storm, "").is_err());
    }
}
