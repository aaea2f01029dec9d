//! What users would pick instead: two QEMU/KVM that migrate the guest themselves, on the same emulated machine.
//!
//! The destination is started first and waits, so that the time until the guest's first heartbeat is the source's alone.

use std::path::Path;

use anyhow::{Context, Result};

use super::{Environment, nested};
use crate::agent::job::{HostJob, Job, Link, PeerJob};
use crate::agent::wire::Host;
use crate::artifacts::Artifacts;
use crate::artifacts::guests::Guest;
use crate::machine::bochs::HASWELL;
use crate::testbed::Testbed;

/// Makes sure that what it needs is installed.
pub fn require() -> Result<()> {
    Environment::Nested.require()
}

/// Starts the machine with both QEMUs.
pub fn start(artifacts: &Artifacts, guest: &Guest, peer: PeerJob, folder: &Path) -> Result<Testbed> {
    let initrd = guest.initrd.context("QEMU's guest needs an initramfs")?;
    let files = [(guest.kernel, "kernel"), (initrd, "initrd")];
    nested::emulate(artifacts, folder, HASWELL, &job(guest, peer), &files)
}

fn job(guest: &Guest, peer: PeerJob) -> Job {
    let host = |host| HostJob {
        host,
        image: "/job/kernel".to_owned(),
        guests: Some("/job/initrd".to_owned()),
        memory: guest.memory.div_ceil(1 << 20),
        options: guest.command_line.to_owned(),
    };
    let hosts = vec![host(Host::Destination), host(Host::Source)];
    Job { hosts, peer: Some(peer), link: Link::Loopback, mtu: 65521, scratch: "/tmp".to_owned() }
}
