//! The guests, and the archive in which the image finds them (docs/monitor.md, "Guests").

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::base::add_modules;
use super::cpio::Archive;
use super::stamp::{self, Ingredients};
use super::{Artifacts, BARE, cargo, target};

/// The host's own target, named so that static linking is asked of the guest's program and not of the build's.
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// What the guest's balloon needs, in the order in which it is loaded.
const BALLOON_MODULES: [&str; 6] =
    ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_balloon"];

/// What every Linux guest is told: where its console is, and what to leave out. `panic=-1` restarts at once, so that a panic
/// is seen as a restart. The other words are about time: guests/README.md
/// has the measurements.
pub fn command_line() -> String {
    const OWN: &str = "console=ttyS0 quiet nokaslr mitigations=off io_delay=none no_timer_check \
        random.trust_cpu=on cryptomgr.notests audit=0 init_on_alloc=0 clearcpuid=erms rdinit=/init panic=-1";
    format!("{OWN} {}", slow_initcalls())
}

/// Debian's kernel spends more than half of its start on tracing, BPF and self-tests, which nobody here uses: 11.5 s
/// become 7 s where a CPU makes 50 million instructions a second.
pub fn slow_initcalls() -> String {
    const SLOW: [&str; 15] = [
        "trace_eval_init",
        "ftrace_check_for_weak_functions",
        "tracer_init_tracefs",
        "init_kprobe_trace",
        "init_blk_tracer",
        "load_system_certificate_list",
        "cubictcp_register",
        "bpf_rstat_kfunc_init",
        "bpf_key_sig_kfuncs_init",
        "bpf_prog_test_run_init",
        "bpf_tcp_ca_kfunc_init",
        "kfunc_init",
        "crypto_kdf108_init",
        "slab_sysfs_init",
        "blake2s_mod_init",
    ];
    format!("initcall_blacklist={}", SLOW.join(","))
}

/// One VM's files.
pub struct Guest<'a> {
    /// The VM's name.
    pub name: &'a str,
    /// A bzImage.
    pub kernel: &'a Path,
    /// Its initramfs.
    pub initrd: Option<&'a Path>,
    /// Its memory in bytes.
    pub memory: u64,
    /// Its command line.
    pub command_line: &'a str,
}

/// Writes the archive of the guests to `product`, unless it is there.
pub fn archive(product: &Path, guests: &[Guest]) -> Result<()> {
    let mut from = Ingredients::new();
    for guest in guests {
        from = from.text(&settings(guest)).text(guest.name).file(guest.kernel)?;
        from = from.files(guest.initrd)?;
    }
    stamp::build(product, from, |partial| {
        let mut archive = Archive::new();
        for guest in guests {
            let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
            archive.directory(guest.name);
            archive.file(&format!("{}/kernel", guest.name), &read(guest.kernel)?);
            if let Some(initrd) = guest.initrd {
                archive.file(&format!("{}/initrd", guest.name), &read(initrd)?);
            }
            archive.file(&format!("{}/settings", guest.name), settings(guest).as_bytes());
        }
        Ok(fs::write(partial, archive.finish())?)
    })
}

/// The memory goes in the largest unit that loses nothing.
fn settings(guest: &Guest) -> String {
    let memory = match guest.memory {
        bytes if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        bytes if bytes.is_multiple_of(1 << 10) => format!("{}K", bytes >> 10),
        bytes => bytes.to_string(),
    };
    format!("memory={memory}\ncmdline={}\n", guest.command_line)
}

impl Artifacts {
    /// The initramfs of the Linux guest: the workloads as its init, and busybox for a shell.
    pub fn linux_initrd(&self) -> Result<PathBuf> {
        let _lock = super::lock(&self.place)?;
        let flags = ["target-feature=+crt-static", "relocation-model=static", "strip=symbols"];
        let flags = flags.map(|flag| format!("\"-C{flag}\"")).join(",");
        let flags = format!("target.{STATIC_TARGET}.rustflags=[{flags}]");
        cargo(&["build", "--release", "--package", "guest-workload", "--target", STATIC_TARGET, "--config", &flags])?;
        let workload = target().join(STATIC_TARGET).join("release/guest-workload");
        let busybox = &self.debian()?.busybox;
        let product = self.place.join("guest.cpio");
        let modules = BALLOON_MODULES.map(|module| self.debian()?.module(module));
        let modules = modules.into_iter().collect::<Result<Vec<_>>>()?;
        let from = Ingredients::new().file(&workload)?.file(busybox)?.files(&modules)?;
        stamp::build(&product, from, |partial| {
            let mut archive = Archive::new();
            for folder in ["bin", "dev", "modules", "proc", "sys"] {
                archive.directory(folder);
            }
            archive.console("dev/console");
            archive.program("init", &fs::read(&workload)?);
            archive.program("bin/busybox", &fs::read(busybox)?);
            // For the shell, that a person can start the workloads by hand.
            archive.link("bin/sh", "busybox");
            archive.link("bin/workload", "../init");
            // The names begin with numbers: init loads them in the order of their names.
            let named = BALLOON_MODULES.iter().zip(&modules).enumerate();
            let named = named.map(|(number, (name, module))| (format!("{number}-{name}.ko"), module.as_path()));
            add_modules(&mut archive, named, &partial.with_extension("modules"))?;
            Ok(fs::write(partial, archive.finish())?)
        })?;
        Ok(product)
    }

    /// The bare-metal guest, a bzImage.
    pub fn tiny_kernel(&self) -> Result<PathBuf> {
        let _lock = super::lock(&self.place)?;
        cargo(&["build", "--release", "--package", "guest-tiny", "--target", BARE])?;
        Ok(target().join(BARE).join("release/guest-tiny"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_the_memory_in_a_unit_that_loses_nothing() {
        let mut guest = Guest {
            name: "linux",
            kernel: Path::new("kernel"),
            initrd: None,
            memory: 128 << 20,
            command_line: "console=ttyS0 quiet",
        };
        assert_eq!(settings(&guest), "memory=128M\ncmdline=console=ttyS0 quiet\n");
        guest.memory = (128 << 20) + 4096;
        assert!(settings(&guest).starts_with("memory=131076K\n"));
    }
}
