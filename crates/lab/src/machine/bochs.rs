//! Bochs 2.7, the machine with VMX that runs anywhere.
//!
//! Its serial port as the monitor: of the modes that Debian's build offers, `socket-client` is the one that works
//! both ways without a terminal. Bochs connects at its start to a port where the lab already listens, so nothing is
//! lost; `socket-server` makes Bochs wait and leaves the port's number to luck, `term` works with a pty but leaves
//! its line discipline to be tamed, and `pipe-*` exist on Windows only. The UART is emulated at its baud rate: at
//! 115200, a byte takes 87 us of emulated time.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::process::{Process, tail};
use crate::artifacts::tools;

/// How long Bochs may take to connect its serial port; it does so before it runs an instruction.
const CONNECT: Duration = Duration::from_secs(20);
/// A disk of whole cylinders: 16 heads, 63 sectors of 512 bytes.
const CYLINDER: u64 = 16 * 63 * 512;

/// A machine to start.
pub struct Config<'a> {
    /// Where its files go.
    pub folder: &'a Path,
    /// The CD that it boots.
    pub cdrom: &'a Path,
    /// Its disks, at most two.
    pub disks: &'a [PathBuf],
    /// Its memory in MiB.
    pub memory: u64,
    /// The CPU, by Bochs' name.
    pub cpu: &'a str,
    /// Where the first serial port's output goes.
    pub log: &'a Path,
}

/// The CPU with EPT A/D bits and the preemption timer whose TSC runs as fast as it claims.
pub const HASWELL: &str = "corei7_haswell_4770";
/// A CPU without these bits.
pub const IVY_BRIDGE: &str = "corei7_ivy_bridge_3770k";
/// A CPU that has page-modification logging too; what it says of its clock is not true.
pub const SKYLAKE: &str = "corei7_skylake_x";

/// A machine that runs.
pub struct Bochs {
    /// Bochs itself.
    pub process: Process,
    /// The second serial port.
    pub serial: TcpStream,
}

impl Bochs {
    /// Starts the machine.
    pub fn start(config: &Config) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen for Bochs")?;
        let port = listener.local_addr()?.port();
        fs::write(config.folder.join("bochsrc"), settings(config, port)?)?;
        // Debian's build has the debugger compiled in: it waits for this word.
        fs::write(config.folder.join("bochs.commands"), "c\n")?;
        let mut command = tools::command(&tools::BOCHS)?;
        command.args(["-q", "-f", "bochsrc", "-rc", "bochs.commands", "-unlock"]).current_dir(config.folder);
        let output = config.folder.join("bochs.out");
        let mut process = Process::start(&command, &output, |_| {})?;
        let serial =
            accept(&listener, &mut process).with_context(|| format!("Bochs did not start: {}", tail(&output, 4)))?;
        Ok(Bochs { process, serial })
    }
}

fn accept(listener: &TcpListener, process: &mut Process) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + CONNECT;
    loop {
        match listener.accept() {
            Ok((serial, _)) => {
                serial.set_nonblocking(false)?;
                serial.set_nodelay(true)?;
                return Ok(serial);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = process.ended()? {
            bail!("it ended: {status}");
        }
        ensure!(Instant::now() < deadline, "it did not connect its serial port");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The settings file. `ips` decides how instructions become time: at 50 million, emulated time is about wall time,
/// and the CD's BIOS calls do not time out.
fn settings(config: &Config, port: u16) -> Result<String> {
    let Config { cdrom, disks, memory, cpu, log, .. } = config;
    ensure!(disks.len() <= 2, "the machine has two disks at most");
    let mut text = format!(
        "display_library: rfb, options=\"timeout=0\"\n\
         plugin_ctrl: unmapped=0, biosdev=1, speaker=0, parallel=0, extfpuirq=1, gameport=0, iodebug=0\n\
         cpu: model={cpu}, count=1, ips=50000000, reset_on_triple_fault=0, cpuid_limit_winnt=0, ignore_bad_msrs=1\n\
         memory: guest={memory}, host={memory}\n\
         romimage: file=/usr/share/bochs/BIOS-bochs-latest\n\
         vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest\n\
         vga: extension=vbe, update_freq=1\n\
         pci: enabled=1, chipset=i440fx\n\
         clock: sync=none, time0=utc\n\
         boot: cdrom\n\
         log: bochs.log\n\
         panic: action=report\nerror: action=report\ninfo: action=ignore\ndebug: action=ignore\n\
         com1: enabled=1, mode=file, dev={}\n\
         com2: enabled=1, mode=socket-client, dev=127.0.0.1:{port}\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15\n\
         ata1-master: type=cdrom, path={}, status=inserted\n",
        log.display(),
        cdrom.display(),
    );
    for (disk, place) in disks.iter().zip(["master", "slave"]) {
        let cylinders = whole_cylinders(disk)?;
        text += &format!(
            "ata0-{place}: type=disk, path={}, mode=flat, cylinders={cylinders}, heads=16, spt=63\n",
            disk.display()
        );
    }
    Ok(text)
}

/// Pads a disk to whole cylinders, without which Bochs refuses it, and counts them.
fn whole_cylinders(disk: &Path) -> Result<u64> {
    let file = fs::OpenOptions::new().write(true).open(disk);
    let file = file.with_context(|| format!("cannot open the disk {}", disk.display()))?;
    let length = file.metadata()?.len();
    let cylinders = length.div_ceil(CYLINDER).max(1);
    if length != cylinders * CYLINDER {
        file.set_len(cylinders * CYLINDER)?;
    }
    Ok(cylinders)
}

/// Calls `each` with every line of a serial port until it is closed.
pub fn read_lines(serial: impl Read, mut each: impl FnMut(&str)) {
    let mut reader = BufReader::new(serial);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
        each(String::from_utf8_lossy(&bytes).trim());
        bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_padded_to_whole_cylinders_and_counted() {
        let disk = std::env::temp_dir().join(format!("qavisor-disk-{}", std::process::id()));
        for (length, cylinders) in [(0, 1), (1, 1), (CYLINDER, 1), (CYLINDER + 1, 2)] {
            fs::write(&disk, vec![0; usize::try_from(length).unwrap()]).unwrap();
            assert_eq!(whole_cylinders(&disk).unwrap(), cylinders);
            assert_eq!(fs::metadata(&disk).unwrap().len(), cylinders * CYLINDER);
        }
        fs::remove_file(&disk).unwrap();
    }

    #[test]
    fn lines_come_whole_and_without_their_ends() {
        let mut lines = Vec::new();
        read_lines(&b"one\r\ntwo\n\xffthree"[..], |line| lines.push(line.to_owned()));
        assert_eq!(lines, ["one", "two", "\u{fffd}three"]);
    }
}
