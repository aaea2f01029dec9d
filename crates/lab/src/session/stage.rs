//! What is built for a run before its machines start.

use std::path::PathBuf;
use std::slice;

use anyhow::Result;

use super::with_guest;
use crate::artifacts::Artifacts;
use crate::artifacts::guests;
use crate::env::Machines;
use crate::machine::bochs::HASWELL;
use crate::options::{GuestOptions, HostOptions};

/// The artifacts, and the archive of the guest in the run's folder.
pub(crate) struct Stage {
    artifacts: Artifacts,
    archive: PathBuf,
    /// Everything about the run.
    pub folder: PathBuf,
}

impl Stage {
    /// Builds it, if the machines can run here at all.
    pub fn set(hosts: &HostOptions, guest: &GuestOptions, folder: PathBuf) -> Result<Self> {
        hosts.env.require()?;
        let artifacts = Artifacts::get(hosts.image.as_deref())?.with_debian()?;
        let archive = folder.join("guests.cpio");
        with_guest(guest, &artifacts, |guest| guests::archive(&archive, slice::from_ref(guest)))?;
        Ok(Self { artifacts, archive, folder })
    }

    /// The machines that the options ask for.
    pub fn machines<'a>(&'a self, hosts: &'a HostOptions, guest: &GuestOptions) -> Machines<'a> {
        Machines {
            artifacts: &self.artifacts,
            guests: &self.archive,
            guest_memory: guest.bytes(),
            options: &hosts.options,
            mtu: hosts.mtu,
            cpu: HASWELL,
            folder: &self.folder,
        }
    }
}
