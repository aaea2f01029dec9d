//! What users would pick instead: two QEMU/KVM that migrate the guest themselves, on the same emulated machine.
//!
//! Beside `bochs`, where the image has the machine, they run in the machine's own Linux. Beside `nested`, each runs in a
//! Linux with KVM that stands where the image stands there. The destination is started first and waits, so that the time
//! until the guest's first heartbeat is the source's alone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{DESTINATION_ADDRESS, Environment, SOURCE_ADDRESS, nested};
use crate::agent::job::{HostJob, Job, Link, PeerJob};
use crate::agent::qemu::command_below;
use crate::agent::wire::Host;
use crate::artifacts::Artifacts;
use crate::artifacts::base::{COMMAND_LINE, HOST};
use crate::artifacts::guests::{Guest, slow_initcalls};
use crate::machine::bochs::HASWELL;
use crate::testbed::Testbed;

/// What a Linux host inside the machine needs beside its guest's memory, in MiB: the kernel, KVM, QEMU and what is read of it.
const HOST_OVERHEAD: u64 = 192;
/// The largest IP packet between two such hosts, as between two of ours.
const MTU: u32 = 9000;

/// Makes sure that what it needs is installed.
pub fn require() -> Result<()> {
    Environment::Nested.require()
}

/// Starts the machine with both QEMUs.
pub fn start(artifacts: &Artifacts, guest: &Guest, peer: PeerJob, folder: &Path) -> Result<Testbed> {
    let initrd = guest.initrd.context("QEMU's guest needs an initramfs")?;
    let mut files = vec![(guest.kernel.to_owned(), "kernel"), (initrd.to_owned(), "initrd")];
    let guests = [Host::Destination, Host::Source].map(|host| guest_job(guest, host));
    let hosts = if peer.below {
        files.extend(host_files(artifacts, &guests, peer, folder)?);
        guests.map(|guest| host_job(&guest))
    } else {
        guests
    };
    let link = if peer.below { Link::Tap { vhost: true } } else { Link::Loopback };
    let job = Job { hosts: hosts.to_vec(), peer: Some(peer), link, mtu: MTU, scratch: "/tmp".to_owned() };
    let files: Vec<(&Path, &str)> = files.iter().map(|(path, name)| (path.as_path(), *name)).collect();
    nested::emulate(artifacts, folder, HASWELL, &job, &files)
}

fn guest_job(guest: &Guest, host: Host) -> HostJob {
    HostJob {
        host,
        image: "/job/kernel".to_owned(),
        guests: Some("/job/initrd".to_owned()),
        memory: guest.memory.div_ceil(1 << 20),
        options: guest.command_line.to_owned(),
    }
}

/// The Linux host that runs such a guest.
fn host_job(guest: &HostJob) -> HostJob {
    let own = match guest.host {
        Host::Source => SOURCE_ADDRESS,
        Host::Destination => DESTINATION_ADDRESS,
    };
    let side = guest.host.name();
    HostJob {
        host: guest.host,
        image: "/job/host-kernel".to_owned(),
        guests: Some("/job/host-initrd".to_owned()),
        memory: guest.memory + HOST_OVERHEAD,
        options: format!("{COMMAND_LINE} {} lab.side={side} lab.address={own}/24", slow_initcalls()),
    }
}

/// What Linux hosts need on the job's disk: Debian's kernel, whatever the guest's is, and the command for each side's guest.
fn host_files(
    artifacts: &Artifacts,
    guests: &[HostJob],
    peer: PeerJob,
    folder: &Path,
) -> Result<Vec<(PathBuf, &'static str)>> {
    let script = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok::<_, anyhow::Error>(path)
    };
    let mut files = vec![
        (artifacts.debian()?.kernel.clone(), "host-kernel"),
        (artifacts.host_initrd()?, "host-initrd"),
        (script("host.sh", HOST)?, "host.sh"),
    ];
    for guest in guests {
        let name = match guest.host {
            Host::Source => "source.sh",
            Host::Destination => "destination.sh",
        };
        files.push((script(name, &shell(&command_below(guest, peer)))?, name));
    }
    Ok(files)
}

/// A command as a line of a shell script, every word as it is.
fn shell(words: &[String]) -> String {
    let quoted = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    quoted.collect::<Vec<_>>().join(" ") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_shell_as_they_are() {
        let words = ["echo", "a  b", "it's", "$HOME"].map(str::to_owned);
        let output = std::process::Command::new("sh").arg("-c").arg(shell(&words)).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "a  b it's $HOME\n");
    }

    #[test]
    fn a_host_has_its_own_address_and_knows_its_side() {
        let guest =
            Guest { name: "linux", kernel: Path::new("k"), initrd: None, memory: 128 << 20, command_line: "quiet" };
        let host = host_job(&guest_job(&guest, Host::Destination));
        assert!(host.options.ends_with(" lab.side=destination lab.address=10.0.0.2/24"), "{}", host.options);
        assert_eq!(host.memory, 128 + HOST_OVERHEAD);
    }
}
