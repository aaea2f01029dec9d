//! The wire between the hosts, where it is a bridge and two taps.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::job::{Job, Link};
use super::qemu::tap_name;
use super::wire::Host;
use crate::env::DESTINATION_ADDRESS;

const BRIDGE: &str = "qav-bridge";

/// Makes what the job's link needs. It ends with the emulated machine, which holds nothing else.
pub fn make(job: &Job) -> Result<()> {
    match job.link {
        Link::Datagrams => return Ok(()),
        // The destination's address, for QEMUs that talk to each other on this host.
        Link::Loopback => return run(&["ip", "address", "add", &format!("{DESTINATION_ADDRESS}/24"), "dev", "lo"]),
        Link::Tap { .. } => {}
    }
    run(&["ip", "link", "add", BRIDGE, "type", "bridge"])?;
    for host in &job.hosts {
        // Made here and not by QEMU: it has to be up before the image looks for its link.
        let tap = tap_name(host.host);
        run(&["tunctl", "-t", tap])?;
        // A bridge carries what its narrowest port carries.
        run(&["ip", "link", "set", tap, "mtu", &job.mtu.to_string()])?;
        run(&["ip", "link", "set", tap, "master", BRIDGE])?;
        run(&["ip", "link", "set", tap, "up"])?;
    }
    run(&["ip", "link", "set", BRIDGE, "up"])
}

/// Takes the link down or up again, at the destination's end. Neither host sees it: their cards keep their carrier.
pub fn set(job: &Job, up: bool) -> Result<()> {
    ensure!(matches!(job.link, Link::Tap { .. }), "a link between two processes cannot be cut");
    run(&["ip", "link", "set", tap_name(Host::Destination), if up { "up" } else { "down" }])
}

fn run(words: &[&str]) -> Result<()> {
    let (program, options) = words.split_first().context("a command has a name")?;
    let output = Command::new(program).args(options).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", words.join(" "), complaint.trim());
    }
    Ok(())
}
