//! The wire between the hosts, where it is a bridge and two taps.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::job::{Job, Link};
use super::qemu::tap_name;
use super::wire::Host;

const BRIDGE: &str = "qav-bridge";

/// The bridge; gone when dropped.
pub struct Network {
    made: bool,
}

impl Network {
    /// Makes what the job's link needs.
    pub fn make(job: &Job) -> Result<Self> {
        if job.link == Link::Datagrams {
            return Ok(Network { made: false });
        }
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        let network = Network { made: true };
        ip(&["link", "set", BRIDGE, "up"])?;
        Ok(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.made {
            let _ = ip(&["link", "del", BRIDGE]);
        }
    }
}

/// Joins a host's tap, which QEMU made, to the bridge.
pub fn attach(job: &Job, host: Host) -> Result<()> {
    if job.link == Link::Datagrams {
        return Ok(());
    }
    let tap = tap_name(host);
    // A bridge carries what its narrowest port carries.
    ip(&["link", "set", tap, "mtu", &job.mtu.to_string()])?;
    ip(&["link", "set", tap, "master", BRIDGE])?;
    ip(&["link", "set", tap, "up"])
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(words)
        .output()
        .context("cannot start ip")?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
