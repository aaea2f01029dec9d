//! What the agent is to start: written by the lab, read by the agent.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::wire::Host;

/// One host: a QEMU with the image, or with a guest that QEMU itself is to migrate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostJob {
    /// Which of the two it is.
    pub host: Host,
    /// The image, or the guest's kernel, as a path where the agent runs.
    pub image: String,
    /// The archive of its guests, or the guest's initramfs.
    pub guests: Option<String>,
    /// The machine's memory, in MiB.
    pub memory: u64,
    /// The command line of the image or of the guest's kernel.
    pub options: String,
}

/// What joins the hosts' network cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// A bridge and two taps, with or without the kernel's virtio back end.
    Tap {
        /// Whether vhost serves the queues.
        vhost: bool,
    },
    /// Datagrams between the two QEMUs: needs no right to make network devices.
    Datagrams,
    /// None between the machines: the QEMUs themselves talk, on one host's loopback.
    Loopback,
}

/// What is asked of QEMU where it migrates the guest itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerJob {
    /// After so many milliseconds a migration that has not ended is given up.
    pub limit: u64,
    /// Requested pages go by a connection of their own (QEMU's `postcopy-preempt`).
    pub preempt: bool,
    /// The guest has a balloon that reports its free pages.
    pub free_pages: bool,
    /// Each host runs a Linux with KVM, and the guest runs there, one level down.
    pub below: bool,
}

/// The whole job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The hosts, in the order in which they are started.
    pub hosts: Vec<HostJob>,
    /// Present where QEMU migrates the guest itself.
    pub peer: Option<PeerJob>,
    /// What joins them.
    pub link: Link,
    /// The largest IP packet on the link.
    pub mtu: u32,
    /// A folder for sockets.
    pub scratch: String,
}

impl Job {
    /// As a file.
    pub fn to_json(&self) -> String {
        let hosts: Vec<Value> = self.hosts.iter().map(HostJob::to_json).collect();
        let link = match self.link {
            Link::Tap { vhost: true } => "tap+vhost",
            Link::Tap { vhost: false } => "tap",
            Link::Datagrams => "datagrams",
            Link::Loopback => "loopback",
        };
        let peer = self.peer.map(|peer| json!({"limit": peer.limit, "preempt": peer.preempt, "free-pages": peer.free_pages, "below": peer.below}));
        json!({"hosts": hosts, "link": link, "mtu": self.mtu, "scratch": self.scratch, "peer": peer}).to_string()
    }

    /// From a file.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("the job is not JSON")?;
        let hosts = value["hosts"].as_array().context("the job has no hosts")?;
        Ok(Job {
            hosts: hosts.iter().map(HostJob::from_json).collect::<Result<_>>()?,
            link: match word(&value, "link")?.as_str() {
                "tap+vhost" => Link::Tap { vhost: true },
                "tap" => Link::Tap { vhost: false },
                "loopback" => Link::Loopback,
                _ => Link::Datagrams,
            },
            peer: match &value["peer"] {
                Value::Null => None,
                peer => Some(PeerJob {
                    limit: peer["limit"].as_u64().context("the job has no limit")?,
                    preempt: peer["preempt"] == true,
                    free_pages: peer["free-pages"] == true,
                    below: peer["below"] == true,
                }),
            },
            mtu: value["mtu"].as_u64().and_then(|mtu| u32::try_from(mtu).ok()).context("the job has no mtu")?,
            scratch: word(&value, "scratch")?,
        })
    }
}

impl HostJob {
    fn to_json(&self) -> Value {
        json!({
            "host": self.host.name(), "image": self.image, "guests": self.guests,
            "memory": self.memory, "options": self.options,
        })
    }

    fn from_json(value: &Value) -> Result<Self> {
        Ok(HostJob {
            host: if word(value, "host")? == "source" { Host::Source } else { Host::Destination },
            image: word(value, "image")?,
            guests: value["guests"].as_str().map(str::to_owned),
            memory: value["memory"].as_u64().context("a host has no memory")?,
            options: word(value, "options")?,
        })
    }
}

fn word(value: &Value, key: &str) -> Result<String> {
    value[key].as_str().map(str::to_owned).with_context(|| format!("the job has no {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_reads_back() {
        let host = |host, guests: Option<&str>| HostJob {
            host,
            image: "/job/qavisor".into(),
            guests: guests.map(str::to_owned),
            memory: 192,
            options: "ip=10.0.0.1/24 jiffy=4ms".into(),
        };
        let peer = Some(PeerJob { limit: 60_000, preempt: true, free_pages: true, below: false });
        for (link, peer) in [
            (Link::Tap { vhost: true }, None),
            (Link::Tap { vhost: false }, peer),
            (Link::Datagrams, None),
            (Link::Loopback, peer.map(|peer| PeerJob { below: true, ..peer })),
        ] {
            let job = Job {
                hosts: vec![host(Host::Source, Some("/job/guests.cpio")), host(Host::Destination, None)],
                peer,
                link,
                mtu: 9000,
                scratch: "/tmp".into(),
            };
            assert_eq!(Job::from_json(&job.to_json()).unwrap(), job);
        }
        assert!(Job::from_json("{}").unwrap_err().to_string().contains("hosts"));
    }
}
