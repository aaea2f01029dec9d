//! Two QEMU/KVM hosts inside one emulated machine with VMX.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};

use super::{Machines, record};
use crate::agent::job::{Job, Link};
use crate::agent::wire::Line;
use crate::artifacts::Artifacts;
use crate::artifacts::base::make_disk;
use crate::artifacts::stamp;
use crate::machine::bochs::{Bochs, Config, read_lines};
use crate::testbed::{Testbed, Wiring};

/// What the emulated machine needs beside its hosts' memory, in MiB: the kernel, KVM, and QEMU's pages.
const MACHINE_OVERHEAD: u64 = 288;

/// Starts the emulated machine with two hosts that run the image.
pub fn start(machines: &Machines) -> Result<Testbed> {
    let job = machines.job("/job/qavisor", "/job/guests.cpio", Link::Tap { vhost: true }, "/tmp")?;
    let files = [(machines.artifacts.image.as_path(), "qavisor"), (machines.guests, "guests.cpio")];
    emulate(machines.artifacts, machines.folder, machines.cpu, &job, &files)
}

/// Starts the emulated machine with a job and the files that it names, which lie in `/job` there. What the machine's own
/// kernel says is in `machine.log`.
pub(super) fn emulate(
    artifacts: &Artifacts,
    folder: &Path,
    cpu: &str,
    job: &Job,
    files: &[(&Path, &str)],
) -> Result<Testbed> {
    let base = artifacts.base()?;
    let disk = folder.join("job.img");
    let tree = folder.join("job");
    stamp::remove(&tree)?;
    fs::create_dir_all(&tree)?;
    for (file, name) in [(artifacts.agent.as_path(), "qavisor-agent")].iter().chain(files) {
        fs::copy(file, tree.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    fs::write(tree.join("job.json"), job.to_json())?;
    make_disk(&tree, &disk)?;
    stamp::remove(&tree)?;
    let log = folder.join("machine.log");
    let memory = job.hosts.iter().map(|host| host.memory).sum::<u64>() + MACHINE_OVERHEAD;
    let bochs = Bochs::start(&Config { folder, cdrom: &base.iso, disks: &[base.disk, disk], memory, cpu, log: &log })?;
    let (sender, lines) = mpsc::channel();
    let serial = bochs.serial.try_clone()?;
    thread::spawn(move || {
        read_lines(serial, |text| {
            if let Some(line) = Line::parse(text) {
                let _ = sender.send(line);
            }
        });
    });
    Ok(Testbed {
        commands: Box::new(bochs.serial),
        lines,
        wiring: Wiring::Agent,
        process: bochs.process,
        machine_logs: vec![log, folder.join("bochs.out")],
        record: record(folder)?,
    })
}
