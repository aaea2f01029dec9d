//! The environments: where the hosts run. See DESIGN.md, section 6.

pub mod bochs;
pub mod kvm;
pub mod nested;
pub mod peer;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};

use crate::agent::job::{HostJob, Job, Link};
use crate::agent::wire::Host;
use crate::artifacts::Artifacts;
use crate::artifacts::tools::{self, Tool};
use crate::testbed::Testbed;

/// The address of the source on the link between the hosts.
pub const SOURCE_ADDRESS: &str = "10.0.0.1";
/// The address of the destination.
pub const DESTINATION_ADDRESS: &str = "10.0.0.2";
/// The port where both hosts take in migrations.
pub const PORT: u16 = 4444;

/// Where the hosts run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// Two QEMU/KVM machines on this machine, which offers VMX to guests.
    Kvm,
    /// The same two inside one emulated machine with VMX.
    Nested,
    /// The image itself on one emulated machine: two VMs on one host.
    Bochs,
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Environment::Kvm => "kvm",
            Environment::Nested => "nested",
            Environment::Bochs => "bochs",
        })
    }
}

impl FromStr for Environment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::auto()),
            "kvm" => Ok(Environment::Kvm),
            "nested" => Ok(Environment::Nested),
            "bochs" => Ok(Environment::Bochs),
            _ => Err(format!("`{text}` is no environment: auto, kvm, nested or bochs")),
        }
    }
}

impl Environment {
    /// `kvm` where VMX is there for guests, else `nested`.
    pub fn auto() -> Self {
        if kvm::offers_vmx().is_ok() { Environment::Kvm } else { Environment::Nested }
    }

    /// The programs that it needs.
    fn tools(self) -> &'static [&'static Tool] {
        use tools::{BOCHS, GRUB_MKRESCUE, GRUB_PC, MKE2FS, OBJCOPY, QEMU, XORRISO};
        match self {
            Environment::Kvm => &[&QEMU],
            Environment::Bochs => &[&BOCHS, &GRUB_MKRESCUE, &GRUB_PC, &XORRISO],
            Environment::Nested => &[&BOCHS, &GRUB_MKRESCUE, &GRUB_PC, &XORRISO, &QEMU, &MKE2FS, &OBJCOPY],
        }
    }

    /// Makes sure that what it needs is installed.
    pub fn require(self) -> Result<()> {
        if self == Environment::Kvm {
            kvm::offers_vmx()?;
        }
        tools::require(self.tools())
    }

    /// Starts the hosts.
    pub fn start(self, machines: &Machines) -> Result<Testbed> {
        std::fs::create_dir_all(machines.folder)
            .with_context(|| format!("cannot create {}", machines.folder.display()))?;
        match self {
            Environment::Kvm => kvm::start(machines),
            Environment::Nested => nested::start(machines),
            Environment::Bochs => bochs::start(machines),
        }
    }
}

/// What the hosts are to be.
pub struct Machines<'a> {
    /// The files that the lab built.
    pub artifacts: &'a Artifacts,
    /// The archive of the source's guests.
    pub guests: &'a Path,
    /// The memory of all guests together, in bytes.
    pub guest_memory: u64,
    /// Options of the image beside the network's: `jiffy=4ms`, `harvest=100ms`, `log=debug`.
    pub options: &'a str,
    /// The largest IP packet between the hosts.
    pub mtu: u32,
    /// The CPU of an emulated machine, by Bochs' name.
    pub cpu: &'a str,
    /// Where logs go.
    pub folder: &'a Path,
}

impl Machines<'_> {
    /// What a host needs beside its guests' memory, in MiB: the hypervisor's own (at most 16 MiB plus 0.5 %), its
    /// image, the firmware's, and room for the archive while guests are loaded from it.
    const HOST_OVERHEAD: u64 = 48;

    /// The memory of the source, in MiB. Where there is one host, both VMs are on it.
    pub fn source_memory(&self, environment: Environment) -> Result<u64> {
        let one = self.host_memory(self.archive_size()?);
        Ok(match environment {
            Environment::Bochs => one + self.guest_memory.div_ceil(1 << 20),
            Environment::Kvm | Environment::Nested => one,
        })
    }

    /// A host's memory in MiB, with one VM on it.
    fn host_memory(&self, archive: u64) -> u64 {
        (self.guest_memory * 201 / 200 + archive).div_ceil(1 << 20) + Self::HOST_OVERHEAD
    }

    /// The size of the guests' archive, which lies in the source's memory.
    pub fn archive_size(&self) -> Result<u64> {
        let about = std::fs::metadata(self.guests);
        Ok(about.with_context(|| format!("cannot read {}", self.guests.display()))?.len())
    }

    /// The two hosts of an agent's job; `place` is where their files lie for the agent.
    fn job(&self, image: &str, guests: &str, link: Link, scratch: &str) -> Result<Job> {
        // Both listen: a VM can come back.
        let options = |own: &str| {
            let all = format!("{} ip={own}/24 mtu={} listen={PORT} console=virtio", self.options, self.mtu);
            all.trim().to_owned()
        };
        let source = HostJob {
            host: Host::Source,
            image: image.to_owned(),
            guests: Some(guests.to_owned()),
            memory: self.host_memory(self.archive_size()?),
            options: options(SOURCE_ADDRESS),
        };
        let destination = HostJob {
            host: Host::Destination,
            guests: None,
            memory: self.host_memory(0),
            options: options(DESTINATION_ADDRESS),
            ..source.clone()
        };
        let hosts = vec![source, destination];
        Ok(Job { hosts, peer: None, link, mtu: self.mtu, scratch: scratch.to_owned() })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The file of everything that comes.
fn record(folder: &Path) -> Result<File> {
    let path = folder.join("lines.log");
    File::create(&path).with_context(|| format!("cannot write {}", path.display()))
}
