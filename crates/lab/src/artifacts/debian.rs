//! Debian's cloud kernel, its modules, and busybox: downloaded once, unpacked, installed nowhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::stamp::remove;
use super::tools;

/// The kernel package of today: a package without content whose one dependency is the kernel.
const KERNEL_META: &str = "linux-image-cloud-amd64";

/// What lies in Debian's packages, unpacked.
pub struct Debian {
    /// The kernel, a bzImage.
    pub kernel: PathBuf,
    /// The folder with all of the kernel's modules.
    modules: PathBuf,
    /// One static program with all of the small tools.
    pub busybox: PathBuf,
}

impl Debian {
    /// Downloads and unpacks what is not there yet.
    pub fn get(place: &Path) -> Result<Self> {
        let kernel = unpacked(place, "kernel", kernel_package)?;
        let busybox = unpacked(place, "busybox", || Ok("busybox-static".to_owned()))?;
        let boot = kernel.join("boot");
        let found = fs::read_dir(&boot)?.flatten().map(|entry| entry.path());
        let vmlinuz = found.into_iter().find(|path| name(path).starts_with("vmlinuz-"));
        Ok(Debian {
            kernel: vmlinuz.with_context(|| format!("no kernel in {}", boot.display()))?,
            modules: kernel.join("lib/modules"),
            busybox: busybox.join("bin/busybox"),
        })
    }

    /// The file of one kernel module.
    pub fn module(&self, module: &str) -> Result<PathBuf> {
        let wanted = format!("{module}.ko");
        find(&self.modules, &wanted)?.with_context(|| format!("the kernel package has no module {module}"))
    }
}

/// The package that `KERNEL_META` depends on.
fn kernel_package() -> Result<String> {
    let list = tools::run(Command::new("apt-cache").args(["depends", KERNEL_META]));
    let parse = |list: String| {
        let line = list.lines().find_map(|line| line.trim().strip_prefix("Depends:").map(str::trim).map(str::to_owned));
        line.with_context(|| format!("{KERNEL_META} is unknown to apt-cache"))
    };
    match list.and_then(parse) {
        Ok(package) => Ok(package),
        // A fresh machine has no package lists yet.
        Err(_) => {
            tools::apt_get(&["update", "-qq"])?;
            parse(tools::run(Command::new("apt-cache").args(["depends", KERNEL_META]))?)
        }
    }
}

/// Downloads a package and unpacks it into `place/label`, once.
fn unpacked(place: &Path, label: &str, package: impl FnOnce() -> Result<String>) -> Result<PathBuf> {
    let product = place.join(label);
    if product.exists() {
        return Ok(product);
    }
    let package = package()?;
    let downloads = place.join(format!("{label}.deb"));
    remove(&downloads)?;
    fs::create_dir_all(&downloads)?;
    tools::run(Command::new("apt-get").args(["download", "-qq", &package]).current_dir(&downloads))
        .with_context(|| format!("cannot download the Debian package {package}"))?;
    let Some(deb) = fs::read_dir(&downloads)?.flatten().map(|entry| entry.path()).next() else {
        bail!("apt-get downloaded no {package}");
    };
    let partial = place.join(format!("{label}.partial"));
    remove(&partial)?;
    tools::run(tools::command(&tools::DPKG_DEB)?.arg("-x").arg(&deb).arg(&partial))?;
    fs::rename(&partial, &product)?;
    remove(&downloads)?;
    Ok(product)
}

fn find(folder: &Path, wanted: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&entry.path(), wanted)? {
                return Ok(Some(found));
            }
        } else if entry.file_name() == wanted {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
