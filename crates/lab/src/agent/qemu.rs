//! One host: QEMU/KVM with the image as its kernel, or with a guest that QEMU itself is to migrate.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::job::{HostJob, Job, Link};
use super::wire::Host;
use crate::artifacts::tools;

/// How long QEMU may take to load its libraries and connect, on one emulated CPU that a second QEMU shares.
const PATIENCE: Duration = Duration::from_secs(120);

/// A host that runs; dropped, it ends.
pub struct Qemu {
    /// Which host it is.
    pub host: Host,
    /// The process: its standard output is the log of the image or the guest's console (COM1), its standard error QEMU's
    /// own complaints.
    pub child: Child,
    /// The monitor of the image (COM2), or QEMU's own (QMP).
    pub monitor: UnixStream,
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Qemu {
    /// Starts a host and waits until its monitor's port is connected.
    pub fn start(job: &Job, host: &HostJob) -> Result<Self> {
        let socket = Path::new(&job.scratch).join(format!("{}.monitor", host.host.name()));
        let _ = std::fs::remove_file(&socket);
        // Listening before QEMU starts: it connects, and nothing that the image says is lost.
        let listener = UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
        listener.set_nonblocking(true)?;
        let mut command = tied_to_agent("qemu-system-x86_64");
        command.args(arguments(job, host, &socket));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start qemu-system-x86_64")?;
        match accept(&listener, &mut child) {
            Ok(monitor) => Ok(Qemu { host: host.host, child, monitor }),
            Err(error) => {
                let _ = child.kill();
                let complaints = child.wait_with_output().map(|output| output.stderr).unwrap_or_default();
                Err(error.context(String::from_utf8_lossy(&complaints).trim().to_owned()))
            }
        }
    }
}

/// A program that the kernel ends with the agent. In the emulated machine there is no `setpriv` and no need: the
/// machine ends with the agent.
fn tied_to_agent(program: &str) -> Command {
    let Some(setpriv) = tools::find("setpriv") else {
        return Command::new(program);
    };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

fn accept(listener: &UnixListener, child: &mut Child) -> Result<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((monitor, _)) => {
                monitor.set_nonblocking(false)?;
                return Ok(monitor);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()? {
            bail!("QEMU ended at its start: {status}");
        }
        if Instant::now() > deadline {
            bail!("QEMU did not connect the monitor within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// QEMU's command line.
fn arguments(job: &Job, host: &HostJob, socket: &Path) -> Vec<String> {
    let mut words = Vec::new();
    let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
    add("-accel", "kvm".into());
    add("-cpu", "host".into());
    add("-machine", "pc,hpet=off,usb=off,vmport=off".into());
    add("-m", host.memory.to_string());
    add("-display", "none".into());
    add("-kernel", host.image.clone());
    if let Some(guests) = &host.guests {
        add("-initrd", guests.clone());
    }
    add("-chardev", "stdio,id=log,signal=off".into());
    add("-serial", "chardev:log".into());
    add("-chardev", format!("socket,id=monitor,path={}", socket.display()));
    words.extend(["-nodefaults", "-no-user-config"].map(str::to_owned));
    words.extend(if job.peer.is_some() { own_migration(host) } else { of_the_image(job, host) });
    words
}

/// What the image needs beside the common: its monitor, its link, its way to power off with a status.
fn of_the_image(job: &Job, host: &HostJob) -> Vec<String> {
    let mut words = vec!["-no-reboot".to_owned()];
    let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
    add("-append", format!("{} console=virtio", host.options));
    // A byte on an emulated UART costs as much as a line on a virtio console. The device is served by the vCPU's own thread
    // (no ioeventfd): the image waits for it, and on one CPU it would wait for QEMU's other thread to have its turn.
    add("-device", "virtio-serial-pci,disable-legacy=on,ioeventfd=off".into());
    add("-device", "virtconsole,chardev=monitor".into());
    add("-netdev", netdev(job, host.host));
    // No boot ROM: SeaBIOS would run it. Both cards promise the MTU of the link.
    let mac = if host.host == Host::Source { "52:54:00:51:56:01" } else { "52:54:00:51:56:02" };
    let card = "virtio-net-pci,netdev=link,romfile=,disable-legacy=on";
    add("-device", format!("{card},mac={mac},host_mtu={}", job.mtu));
    // An image that gives up powers off with a status.
    add("-device", "isa-debug-exit,iobase=0xf4,iosize=0x4".into());
    words
}

/// What a guest needs that QEMU itself migrates.
fn own_migration(host: &HostJob) -> Vec<String> {
    let mut words = Vec::new();
    let mut add = |option: &str, value: &str| words.extend([option.to_owned(), value.to_owned()]);
    add("-append", &host.options);
    add("-mon", "chardev=monitor,mode=control");
    if host.host == Host::Destination {
        // Capabilities have to be set before anything comes.
        add("-incoming", "defer");
    }
    words
}

fn netdev(job: &Job, host: Host) -> String {
    let other = if host == Host::Source { Host::Destination } else { Host::Source };
    match job.link {
        Link::Tap { vhost } => {
            let vhost = if vhost { ",vhost=on" } else { "" };
            format!("tap,id=link,ifname={},script=no,downscript=no{vhost}", tap_name(host))
        }
        Link::Datagrams => {
            let path = |host: Host| PathBuf::from(&job.scratch).join(format!("{}.link", host.name()));
            let (local, remote) = (path(host), path(other));
            let local = format!("local.type=unix,local.path={}", local.display());
            format!("dgram,id=link,{local},remote.type=unix,remote.path={}", remote.display())
        }
        // A card with nobody at the other end.
        Link::Loopback => "hubport,id=link,hubid=0".to_owned(),
    }
}

/// The tap of a host, as a network device's name (at most 15 letters).
pub fn tap_name(host: Host) -> &'static str {
    match host {
        Host::Source => "qav-source",
        Host::Destination => "qav-dest",
    }
}
