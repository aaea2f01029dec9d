//! What a person can ask of a comparison with QEMU's own migration.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::agent::job::PeerJob;
use crate::env::Environment;
use crate::options::{GuestKind, GuestOptions, MigrateOptions};
use crate::units;

/// The paths that both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PeerPath {
    /// Push rounds while the guest runs here, then the rest
    PreCopy,
    /// Run there, fetch and push the pages
    PostCopy,
    /// One round, then post-copy
    Hybrid,
}

impl fmt::Display for PeerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerPath::PreCopy => "pre-copy",
            PeerPath::PostCopy => "post-copy",
            PeerPath::Hybrid => "hybrid",
        })
    }
}

/// Everything about a comparison.
#[derive(Args, Clone, Debug)]
pub struct PeerOptions {
    /// What of ours it is compared with. bochs: QEMU's guests run on KVM in the emulated machine. nested: two Linux hosts with
    /// KVM run inside that, and QEMU's guests one level down
    #[arg(long, default_value = "bochs", value_name = "ENVIRONMENT")]
    pub env: Environment,
    /// The path
    #[arg(long, default_value = "pre-copy")]
    pub path: PeerPath,
    /// Slow a guest that dirties pages too fast for a pre-copy
    #[arg(long)]
    pub auto_converge: bool,
    /// QEMU sends requested pages on a connection of their own (its `postcopy-preempt`)
    #[arg(long)]
    pub postcopy_preempt: bool,
    /// QEMU's guest has a balloon that reports its free pages (`free-page-reporting`), as ours always has
    #[arg(long)]
    pub free_page_reporting: bool,
    /// Emulated time after which QEMU's migration counts as one that never ends
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = units::duration)]
    pub limit: Duration,
    /// An image in place of the one that is built from here
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Where the figures and the runs go [default: target/lab/peer-ENVIRONMENT-WORKLOAD-PATH]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a flattened group has no help of its own")]
    pub guest: GuestOptions,
}

impl PeerOptions {
    /// The options as a person would type them; for tests and for the bench.
    pub fn from_words(words: &str) -> Result<Self, clap::Error> {
        #[derive(clap::Parser)]
        struct Words {
            #[command(flatten)]
            options: PeerOptions,
        }
        let words = std::iter::once("lab").chain(words.split_whitespace());
        <Words as clap::Parser>::try_parse_from(words).map(|words| words.options)
    }

    /// The same migration by our own hand, with everything about it in `out`.
    pub fn migration(&self, out: PathBuf) -> Result<MigrateOptions> {
        let converge = if self.auto_converge { "--auto-converge" } else { "" };
        let words = format!("--env {} --path {} {converge}", self.env, self.path);
        let mut migration = MigrateOptions::from_words(&words)?;
        migration.guest = self.guest.clone();
        migration.hosts.image.clone_from(&self.image);
        migration.hosts.out = Some(out);
        Ok(migration)
    }

    /// What is asked of the two QEMUs.
    pub fn job(&self) -> PeerJob {
        let limit = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
        PeerJob {
            limit,
            preempt: self.postcopy_preempt,
            free_pages: self.free_page_reporting,
            below: self.env == Environment::Nested,
        }
    }

    /// Refuses what cannot be compared.
    pub fn check(&self) -> Result<()> {
        ensure!(self.env != Environment::Kvm, "only emulated machines have both: bochs or nested");
        ensure!(self.guest.guest == GuestKind::Linux, "QEMU does not start the guest {}", self.guest.guest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> PeerOptions {
        PeerOptions::from_words(words).unwrap()
    }

    #[test]
    fn ours_is_asked_for_the_same_migration() {
        let options = read("--workload unruly --path hybrid --auto-converge --memory 64M --append workload.range=8M");
        let ours = options.migration("out/qavisor".into()).unwrap();
        let command = ours.movement.command("linux", "memory");
        assert_eq!(command, "migrate vm=linux to=memory path=hybrid policy=paper ts=500ms auto-converge=yes");
        assert_eq!((ours.guest.bytes(), ours.guest.append.as_str()), (64 << 20, "workload.range=8M"));
        assert_eq!(ours.hosts.env, Environment::Bochs);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        assert!(read("").check().is_ok());
        assert!(read("--guest tiny").check().is_err());
        assert!(read("--env kvm").check().is_err());
        assert!(PeerOptions::from_words("--path demand").is_err());
    }

    #[test]
    fn the_limit_is_told_to_the_agent_in_milliseconds() {
        let job = PeerJob { limit: 1500, preempt: true, free_pages: true, below: false };
        assert_eq!(read("--limit 1.5s --postcopy-preempt --free-page-reporting").job(), job);
    }
}
