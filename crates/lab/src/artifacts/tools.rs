//! The host's programs: found, installed where that is allowed, or named in one line.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program (or, with a full path, a file), and the Debian packages that bring it.
pub struct Tool {
    program: &'static str,
    packages: &'static [&'static str],
}

const fn tool(program: &'static str, packages: &'static [&'static str]) -> Tool {
    Tool { program, packages }
}

/// Emulates a machine with VMX. `bochs` alone would pull in a graphical display.
pub const BOCHS: Tool = tool("bochs-bin", &["bochs", "bochs-term", "bochsbios", "vgabios"]);
/// Runs the two hosts under KVM.
pub const QEMU: Tool = tool("qemu-system-x86_64", &["qemu-system-x86", "seabios"]);
/// Makes a CD that boots.
pub const GRUB_MKRESCUE: Tool = tool("grub-mkrescue", &["grub-common", "grub-pc-bin", "xorriso", "mtools"]);
/// GRUB for machines with a BIOS, which the package of [`GRUB_MKRESCUE`] does not bring.
pub const GRUB_PC: Tool = tool("/usr/lib/grub/i386-pc/modinfo.sh", &["grub-pc-bin"]);
/// Makes the CD's file system, called by [`GRUB_MKRESCUE`].
pub const XORRISO: Tool = tool("xorriso", &["xorriso"]);
/// Makes the emulated machine's disks.
pub const MKE2FS: Tool = tool("mke2fs", &["e2fsprogs"]);
/// Opens Debian's packages.
pub const DPKG_DEB: Tool = tool("dpkg-deb", &["dpkg"]);
/// Takes the debugging information out of kernel modules.
pub const OBJCOPY: Tool = tool("objcopy", &["binutils"]);
/// Links Rust programs for the host.
pub const CC: Tool = tool("cc", &["gcc", "libc6-dev"]);
/// Ends a machine when the lab is gone, whatever ended the lab.
pub const SETPRIV: Tool = tool("setpriv", &["util-linux"]);

/// Where a program lies, if it is installed.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Some(PathBuf::from(program)).filter(|file| file.is_file());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    // mke2fs and others lie in sbin, which is not on every user's path.
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether apt-get may be asked to install.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes sure that all of `tools` are there: as root by installing, else by naming what is missing.
pub fn require(tools: &[&Tool]) -> Result<()> {
    let missing: Vec<&&Tool> = tools.iter().filter(|tool| find(tool.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs = missing.iter().map(|tool| tool.program).collect::<Vec<_>>().join(", ");
    let mut packages: Vec<&str> = missing.iter().flat_map(|tool| tool.packages).copied().collect();
    packages.sort_unstable();
    packages.dedup();
    if !is_root() || find("apt-get").is_none() {
        bail!("missing: {programs}; on Debian: sudo apt-get install {}", packages.join(" "));
    }
    eprintln!("installing {}", packages.join(" "));
    apt_get(&["update", "-qq"])?;
    let mut words = vec!["install", "-y", "-qq", "--no-install-recommends"];
    words.extend(packages);
    apt_get(&words)?;
    match tools.iter().find(|tool| find(tool.program).is_none()) {
        Some(tool) => bail!("{} is still missing after apt-get install", tool.program),
        None => Ok(()),
    }
}

/// `apt-get`, without questions.
pub fn apt_get(words: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive");
    run(&mut command).map(drop)
}

/// The command for a tool, by its full path.
pub fn command(tool: &Tool) -> Result<Command> {
    let path = find(tool.program).with_context(|| format!("{} is not installed", tool.program))?;
    Ok(Command::new(path))
}

/// Runs a command to its end and returns what it printed; its complaints are the error.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{} {}", Path::new(command.get_program()).display(), first_words(command));
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = complaint.lines().rev().take(8).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        bail!("{shown}: {}: {}", output.status, last.join(" | "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn first_words(command: &Command) -> String {
    command.get_args().take(4).map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
