//! What the experiments are made of: the image, the guests, and the emulated machine. All built on demand, all
//! under `target/lab`, and only what changed.

pub mod base;
pub mod cpio;
pub mod debian;
pub mod guests;
pub mod iso;
pub mod stamp;
pub mod tools;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use base::Base;
use debian::Debian;

/// The bare machine's target.
const BARE: &str = "x86_64-unknown-none";

/// Files that are ready to use.
pub struct Artifacts {
    /// Where the lab keeps what it built.
    pub place: PathBuf,
    /// The image.
    pub image: PathBuf,
    /// The agent's program.
    pub agent: PathBuf,
    debian: Option<Debian>,
}

/// The workspace's root.
pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest)
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |path| root().join(path))
}

/// The image that is given, else where cargo puts it.
pub fn image(given: Option<&Path>) -> PathBuf {
    given.map_or_else(|| target().join(BARE).join("release/qavisor"), Path::to_owned)
}

impl Artifacts {
    /// Builds the agent, and the image unless one is given.
    pub fn get(image: Option<&Path>) -> Result<Self> {
        let place = target().join("lab");
        let _lock = lock(&place)?;
        tools::require(&[&tools::CC, &tools::DPKG_DEB, &tools::SETPRIV])?;
        let image = match image {
            Some(image) => image.to_owned(),
            None => {
                cargo(&["kbuild", "--release"])?;
                self::image(None)
            }
        };
        cargo(&["build", "--release", "--package", "qavisor-lab", "--bin", "qavisor-agent"])?;
        Ok(Artifacts { place, image, agent: target().join("release/qavisor-agent"), debian: None })
    }

    /// Debian's kernel and busybox, downloaded when first asked for.
    pub fn with_debian(mut self) -> Result<Self> {
        let _lock = lock(&self.place)?;
        self.debian = Some(Debian::get(&self.place)?);
        Ok(self)
    }

    /// The emulated machine of the environment `nested`.
    pub fn base(&self) -> Result<Base> {
        let _lock = lock(&self.place)?;
        Base::get(&self.place, self.debian()?)
    }

    /// The initrd of a Linux host inside that machine.
    pub fn host_initrd(&self) -> Result<PathBuf> {
        let _lock = lock(&self.place)?;
        base::host_initrd(&self.place, self.debian()?)
    }

    /// Debian's kernel and busybox.
    pub fn debian(&self) -> Result<&Debian> {
        self.debian.as_ref().context("Debian's packages were not asked for")
    }
}

/// Held while files are built, so that two labs do not build the same one.
pub fn lock(place: &Path) -> Result<File> {
    fs::create_dir_all(place).with_context(|| format!("cannot create {}", place.display()))?;
    let file = File::create(place.join("lock"))?;
    file.lock().context("cannot lock the lab's folder")?;
    Ok(file)
}

/// Runs cargo in the workspace. RUSTFLAGS would take the place of the flags that the image needs.
pub fn cargo(words: &[&str]) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(words).arg("--quiet").current_dir(root()).env_remove("RUSTFLAGS");
    tools::run(&mut command).map(drop)
}
