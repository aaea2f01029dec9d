//! The emulated machine of the environment `nested`: Debian's kernel, KVM and QEMU, built from packages once.
//!
//! The kernel and a small initrd come from a CD. The system lies on a disk and is read page by page, so that only
//! what QEMU touches is ever loaded; the job lies on a second disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::debian::Debian;
use super::guests::slow_initcalls;
use super::iso::{self, Contents, Protocol};
use super::stamp::{self, Ingredients};
use super::tools;

const START: &str = include_str!("nested/start.sh");
/// What a Linux host inside the machine runs, from the job's disk.
pub const HOST: &str = include_str!("nested/host.sh");
const INIT: &str = include_str!("nested/init.sh");

/// What the initrd needs to reach the disks.
const DISK_MODULES: [&str; 5] = ["scsi_common", "scsi_mod", "libata", "ata_piix", "sd_mod"];
/// The same for a Linux host inside the machine, and its link and consoles.
const HOST_MODULES: [&str; 10] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_console",
];
/// What the system needs: KVM, and a bridge with two taps.
const SYSTEM_MODULES: [&str; 11] =
    ["irqbypass", "kvm", "kvm-intel", "llc", "stp", "bridge", "tun", "tap", "vhost_iotlb", "vhost", "vhost_net"];

/// The firmware that QEMU loads for a machine of type `pc` without a display.
const FIRMWARE: [&str; 5] = [
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/kvmvapic.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/multiboot_dma.bin",
    "/usr/share/qemu/pvh.bin",
];

/// One emulated CPU of 50 MIPS: nothing is probed, calibrated or tested that the machine is known to have.
/// `no_timer_check`: the check waits for ticks that Bochs delivers late. `tsc=reliable` must stay off.
pub const COMMAND_LINE: &str = "console=ttyS0,115200 mitigations=off nokaslr no_timer_check nr_cpus=1 \
    random.trust_cpu=on cryptomgr.notests audit=0 panic=-1 quiet rdinit=/start";

/// The parts of the machine that do not change from job to job.
pub struct Base {
    /// The CD that the machine boots.
    pub iso: PathBuf,
    /// The disk with the system, read only.
    pub disk: PathBuf,
}

impl Base {
    /// Builds what is missing or out of date.
    pub fn get(place: &Path, debian: &Debian) -> Result<Self> {
        let initrd = place.join("start.cpio");
        build_initrd(&initrd, debian, "sd", "/sbin/init", &DISK_MODULES)?;
        let iso = place.join("nested.iso");
        let contents = Contents {
            protocol: Protocol::Linux,
            kernel: &debian.kernel,
            module: &initrd,
            command_line: &format!("{COMMAND_LINE} {}", slow_initcalls()),
        };
        iso::build(&iso, &contents)?;
        let disk = place.join("system.img");
        build_disk(&disk, debian)?;
        Ok(Base { iso, disk })
    }
}

/// The initrd of a Linux host inside the machine, which runs on the machine's own kernel and disks.
pub fn host_initrd(place: &Path, debian: &Debian) -> Result<PathBuf> {
    let initrd = place.join("host.cpio");
    build_initrd(&initrd, debian, "vd", "/bin/sh /job/host.sh", &HOST_MODULES)?;
    Ok(initrd)
}

/// An initrd that loads `modules`, finds the disks by their name without its last letter, and runs `next` on the first one.
fn build_initrd(initrd: &Path, debian: &Debian, disk: &str, next: &str, modules: &[&str]) -> Result<()> {
    let start = START.replace("@modules@", &modules.join(" ")).replace("@disk@", disk).replace("@next@", next);
    let modules = modules.iter().map(|module| debian.module(module)).collect::<Result<Vec<_>>>()?;
    let from = Ingredients::new().text(&start).file(&debian.busybox)?.files(&modules)?;
    stamp::build(initrd, from, |path| write_initrd(path, debian, &start, &modules))
}

fn write_initrd(path: &Path, debian: &Debian, start: &str, modules: &[PathBuf]) -> Result<()> {
    let mut archive = Archive::new();
    for folder in ["bin", "dev", "modules", "system"] {
        archive.directory(folder);
    }
    archive.console("dev/console");
    archive.program("start", start.as_bytes());
    archive.program("bin/busybox", &fs::read(&debian.busybox)?);
    let named = modules.iter().map(|module| (name(module), module.as_path()));
    add_modules(&mut archive, named, &path.with_extension("modules"))?;
    Ok(fs::write(path, archive.finish())?)
}

/// Adds stripped modules under `modules/`, by the names that are given.
pub(super) fn add_modules<'a>(
    archive: &mut Archive,
    modules: impl Iterator<Item = (String, &'a Path)>,
    scratch: &Path,
) -> Result<()> {
    fs::create_dir_all(scratch)?;
    for (name, module) in modules {
        let stripped = strip_module(module, scratch)?;
        archive.file(&format!("modules/{name}"), &fs::read(stripped)?);
    }
    stamp::remove(scratch)
}

fn build_disk(disk: &Path, debian: &Debian) -> Result<()> {
    let qemu = tools::find("qemu-system-x86_64").context("qemu-system-x86_64 is not installed")?;
    let libraries = libraries(&qemu)?;
    let modules = SYSTEM_MODULES.map(|module| debian.module(module)).into_iter().collect::<Result<Vec<_>>>()?;
    let from = Ingredients::new().text(INIT).files([&qemu, &debian.busybox])?.files(&libraries)?.files(&modules)?;
    stamp::build(disk, from, |path| {
        let tree = path.with_extension("tree");
        stamp::remove(&tree)?;
        for folder in ["bin", "sbin", "usr/bin", "dev", "proc", "sys", "tmp", "run", "job", "modules"] {
            fs::create_dir_all(tree.join(folder))?;
        }
        fs::copy(&debian.busybox, tree.join("bin/busybox"))?;
        for applet in ["sh", "mount", "insmod", "ip", "tunctl", "stty", "poweroff", "echo", "["] {
            std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet))?;
        }
        write_program(&tree.join("sbin/init"), INIT)?;
        for module in &modules {
            strip_module(module, &tree.join("modules"))?;
        }
        for file in libraries.iter().map(PathBuf::as_path).chain([qemu.as_path()]) {
            copy_in(&tree, file)?;
        }
        for file in FIRMWARE.map(Path::new).into_iter().filter(|file| file.exists()) {
            copy_in(&tree, file)?;
        }
        make_disk(&tree, path)?;
        stamp::remove(&tree)
    })
}

/// The shared libraries that a program loads, by the names that it asks for.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let list = tools::run(Command::new("ldd").arg(program))?;
    let paths = list.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

/// Copies a file to the same place under `tree`, following links.
fn copy_in(tree: &Path, file: &Path) -> Result<()> {
    let to = tree.join(file.strip_prefix("/")?);
    fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
    fs::copy(file, &to).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Copies a module without its debugging and type information, which are two thirds of its bytes, and without the
/// symbols that nothing refers to: while a module is loaded, the kernel looks for a symbol at every function entry
/// (ftrace), each time through all of the module's symbols.
fn strip_module(module: &Path, folder: &Path) -> Result<PathBuf> {
    let to = folder.join(name(module));
    let mut objcopy = tools::command(&tools::OBJCOPY)?;
    objcopy.args(["--strip-unneeded", "-R", ".BTF"]).arg(module).arg(&to);
    tools::run(&mut objcopy)?;
    Ok(to)
}

/// Makes a disk whose ext4 file system holds a folder's files, with room to spare for its own tables.
pub fn make_disk(tree: &Path, disk: &Path) -> Result<()> {
    let megabytes = size_of(tree)? / (1 << 20) * 21 / 20 + 8;
    let mut mke2fs = tools::command(&tools::MKE2FS)?;
    // Read only and thrown away: no journal, no reserve.
    mke2fs.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"]).arg(tree).arg(disk);
    tools::run(mke2fs.arg(format!("{megabytes}M"))).map(drop)
}

fn size_of(folder: &Path) -> Result<u64> {
    fs::read_dir(folder)?.try_fold(0, |sum, entry| {
        let entry = entry?;
        let about = entry.metadata()?;
        Ok(sum + if about.is_dir() { size_of(&entry.path())? } else { about.len().next_multiple_of(4096) })
    })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
