//! Two QEMU/KVM hosts inside one emulated machine with VMX.

use std::fs;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};

use super::Machines;
use crate::agent::job::Link;
use crate::agent::wire::Line;
use crate::artifacts::base::make_disk;
use crate::artifacts::stamp;
use crate::machine::bochs::{Bochs, Config, read_lines};
use crate::testbed::{Testbed, Wiring};

/// What the emulated machine needs beside its hosts' memory, in MiB: the kernel, KVM, and QEMU's pages.
const MACHINE_OVERHEAD: u64 = 288;

/// Starts the emulated machine. What its own kernel says is in `machine.log`.
pub fn start(machines: &Machines) -> Result<Testbed> {
    let base = machines.artifacts.base()?;
    let job = machines.job("/job/qavisor", "/job/guests.cpio", Link::Tap { vhost: true }, "/tmp")?;
    let disk = machines.file("job.img");
    let tree = machines.file("job");
    stamp::remove(&tree)?;
    fs::create_dir_all(&tree)?;
    fs::copy(&machines.artifacts.image, tree.join("qavisor"))?;
    fs::copy(machines.guests, tree.join("guests.cpio")).context("cannot copy the guests")?;
    fs::copy(&machines.artifacts.agent, tree.join("qavisor-agent")).context("cannot copy the agent")?;
    fs::write(tree.join("job.json"), job.to_json())?;
    make_disk(&tree, &disk)?;
    stamp::remove(&tree)?;
    let log = machines.file("machine.log");
    let memory = job.hosts.iter().map(|host| host.memory).sum::<u64>() + MACHINE_OVERHEAD;
    let bochs = Bochs::start(&Config {
        folder: machines.folder,
        cdrom: &base.iso,
        disks: &[base.disk, disk],
        memory,
        cpu: machines.cpu,
        log: &log,
    })?;
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
        machine_logs: vec![log, machines.file("bochs.out")],
        record: machines.record()?,
    })
}
