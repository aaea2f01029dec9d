//! One host: QEMU/KVM with the image as its kernel, or with a guest that QEMU itself is to migrate.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::job::{HostJob, Job, Link, PeerJob};
use super::wire::Host;
use crate::artifacts::tools;

/// How long QEMU may take to load its libraries and connect, on one emulated CPU that a second QEMU shares.
const PATIENCE: Duration = Duration::from_secs(120);

/// The emulated machine's disks: its system, and the job.
const DISKS: [(&str, &str); 2] = [("system", "/dev/sda"), ("job", "/dev/sdb")];

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
    let mut words = machine(host);
    let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
    // In a host, the kernel's console and the guest's share it.
    let mux = if job.peer.is_some_and(|peer| peer.below) { ",mux=on" } else { "" };
    add("-chardev", format!("stdio,id=log,signal=off{mux}"));
    add("-serial", "chardev:log".into());
    add("-chardev", format!("socket,id=monitor,path={}", socket.display()));
    words.extend(match job.peer {
        None => of_the_image(job, host),
        Some(peer) if !peer.below => of_a_guest(host, peer),
        Some(_) => of_a_host(job, host),
    });
    words
}

/// What every machine has, whatever runs on it.
fn machine(host: &HostJob) -> Vec<String> {
    let mut words = vec!["-nodefaults".to_owned(), "-no-user-config".to_owned()];
    let mut add = |option: &str, value: &str| words.extend([option.to_owned(), value.to_owned()]);
    add("-accel", "kvm");
    add("-cpu", "host");
    add("-machine", "pc,hpet=off,usb=off,vmport=off");
    add("-m", &host.memory.to_string());
    add("-display", "none");
    add("-kernel", &host.image);
    if let Some(guests) = &host.guests {
        add("-initrd", guests);
    }
    add("-append", &host.options);
    words
}

/// A link to the other host, and a monitor that is no UART: a byte there costs as much as a line on a virtio console.
fn link_and_console(job: &Job, host: &HostJob) -> Vec<String> {
    let mut words = Vec::new();
    let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
    // The device is served by the vCPU's own thread (no ioeventfd): the image waits for it, and on one CPU it would wait for
    // QEMU's other thread to have its turn.
    add("-device", "virtio-serial-pci,disable-legacy=on,ioeventfd=off".into());
    add("-device", "virtconsole,chardev=monitor".into());
    add("-netdev", netdev(job, host.host));
    // No boot ROM: SeaBIOS would run it. Both cards promise the MTU of the link.
    let mac = if host.host == Host::Source { "52:54:00:51:56:01" } else { "52:54:00:51:56:02" };
    let card = "virtio-net-pci,netdev=link,romfile=,disable-legacy=on";
    add("-device", format!("{card},mac={mac},host_mtu={}", job.mtu));
    words
}

/// What the image needs beside the common: its monitor, its link, its way to power off with a status.
fn of_the_image(job: &Job, host: &HostJob) -> Vec<String> {
    let mut words = link_and_console(job, host);
    // An image that gives up powers off with a status.
    words.extend(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"].map(str::to_owned));
    words
}

/// What a guest needs that QEMU itself migrates.
fn of_a_guest(host: &HostJob, peer: PeerJob) -> Vec<String> {
    let mut words = ["-mon", "chardev=monitor,mode=control"].map(str::to_owned).to_vec();
    if peer.free_pages {
        words.extend(["-device", "virtio-balloon-pci,free-page-reporting=on"].map(str::to_owned));
    }
    if host.host == Host::Destination {
        // Capabilities have to be set before anything comes.
        words.extend(["-incoming", "defer"].map(str::to_owned));
    }
    words
}

/// What a Linux needs that has KVM and runs such a guest: this machine's disks, and a second console, for its guest.
fn of_a_host(job: &Job, host: &HostJob) -> Vec<String> {
    let mut words = link_and_console(job, host);
    let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
    add("-device", "virtconsole,chardev=log".into());
    for (name, disk) in DISKS {
        add("-drive", format!("file={disk},id={name},if=none,format=raw,readonly=on"));
        add("-device", format!("virtio-blk-pci,drive={name},disable-legacy=on"));
    }
    words
}

/// The command for such a guest on a host whose consoles are the monitor's and the guest's.
pub fn command_below(host: &HostJob, peer: PeerJob) -> Vec<String> {
    let mut words = vec!["qemu-system-x86_64".to_owned()];
    words.extend(machine(host));
    let consoles = ["serial,id=monitor,path=/dev/hvc0", "serial,id=log,path=/dev/hvc1"];
    words.extend(consoles.into_iter().flat_map(|console| ["-chardev".to_owned(), console.to_owned()]));
    words.extend(["-serial", "chardev:log"].map(str::to_owned));
    words.extend(of_a_guest(host, peer));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn job(host: Host, link: Link, peer: Option<PeerJob>) -> (Job, HostJob) {
        let host = HostJob {
            host,
            image: "/job/kernel".into(),
            guests: Some("/job/initrd".into()),
            memory: 128,
            options: "console=ttyS0 quiet".into(),
        };
        let job = Job { hosts: vec![host.clone()], peer, link, mtu: 9000, scratch: "/tmp".into() };
        (job, host)
    }

    /// Whether the words have these ones in a row.
    fn has(words: &[String], row: &[&str]) -> bool {
        words.windows(row.len()).any(|window| window == row)
    }

    const PEER: PeerJob = PeerJob { limit: 1000, preempt: false, free_pages: false, below: false };

    #[test]
    fn the_image_has_a_link_and_may_power_off_with_a_status() {
        let (job, host) = job(Host::Source, Link::Tap { vhost: true }, None);
        let words = arguments(&job, &host, Path::new("/tmp/monitor"));
        assert!(has(&words, &["-device", "virtconsole,chardev=monitor"]));
        assert!(has(&words, &["-netdev", "tap,id=link,ifname=qav-source,script=no,downscript=no,vhost=on"]));
        assert!(has(&words, &["-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"]));
        assert!(has(&words, &["-append", "console=ttyS0 quiet"]));
    }

    #[test]
    fn a_guest_of_qemus_own_has_qmp_and_the_destination_waits_for_it() {
        let (job, host) = job(Host::Destination, Link::Loopback, Some(PEER));
        let words = arguments(&job, &host, Path::new("/tmp/monitor"));
        assert!(has(&words, &["-chardev", "socket,id=monitor,path=/tmp/monitor"]));
        assert!(has(&words, &["-mon", "chardev=monitor,mode=control", "-incoming", "defer"]));
        assert!(!words.iter().any(|word| word.contains("virtio") || word == "-netdev"));
        let source = HostJob { host: Host::Source, ..host };
        assert!(!arguments(&job, &source, Path::new("/tmp/monitor")).contains(&"-incoming".to_owned()));
    }

    #[test]
    fn one_level_down_the_guest_is_the_same_and_its_host_passes_its_disks_on() {
        let (job, host) = job(Host::Source, Link::Tap { vhost: true }, Some(PeerJob { below: true, ..PEER }));
        let above = arguments(&job, &host, Path::new("/tmp/monitor"));
        assert!(has(&above, &["-drive", "file=/dev/sdb,id=job,if=none,format=raw,readonly=on"]));
        assert!(has(&above, &["-device", "virtconsole,chardev=log"]));
        assert!(!above.contains(&"-mon".to_owned()));
        let below = command_below(&host, PeerJob { free_pages: true, ..PEER });
        assert!(has(&below, &["-device", "virtio-balloon-pci,free-page-reporting=on"]));
        assert!(has(&below, &["-chardev", "serial,id=log,path=/dev/hvc1"]));
        assert!(machine(&host).iter().all(|word| below.contains(word)));
    }
}
