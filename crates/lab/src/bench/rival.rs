//! What users would pick instead: QEMU/KVM's own migration of the same guest on the same emulated machine, run in the same
//! bench.

use std::path::Path;

use anyhow::Result;

use super::BenchOptions;
use crate::env::Environment;
use crate::peer;
use crate::peer::figures::Figures;
use crate::peer::options::PeerOptions;
use crate::session::watch::Watch;

/// QEMU's figures for a row; `None` where there is no such run: the rule decides for ours alone.
pub fn run(
    options: &BenchOptions,
    out: &Path,
    (environment, workload, path): (Environment, &str, &str),
    watch: &mut dyn Watch,
) -> Result<Option<Figures>> {
    if options.without_qemu || environment == Environment::Kvm || path == "auto" {
        return Ok(None);
    }
    let row = format!("{environment}-{workload}-{path}");
    watch.phase(&format!("QEMU/KVM beside {row}"));
    let words = format!("--env {environment} --workload {workload} --path {path}");
    let (figures, _) = peer::qemu(&PeerOptions::from_words(&words)?, &out.join(format!("qemu-{row}")), watch)?;
    Ok(Some(figures))
}
