//! `lab peer`: what users would pick instead. QEMU/KVM migrates the same guest on the same emulated machine, and both
//! stand side by side. The guest's heartbeat is read and judged by one code for both.

pub mod figures;
pub mod options;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::artifacts::{self, Artifacts, stamp, tools};
use crate::env::{Environment, peer};
use crate::session::driver::{Driver, Patience};
use crate::session::report::Report;
use crate::session::watch::Watch;
use crate::session::{self, Run};
use figures::{Below, Figures, kvm_ready, table};
use options::PeerOptions;

/// A comparison that is over.
pub struct Comparison {
    /// Where everything about it lies.
    pub folder: PathBuf,
    /// Both columns, for a person.
    pub table: String,
    /// What went wrong on either side.
    pub errors: Vec<String>,
}

/// Runs QEMU's migration, then ours, and writes both to `peer.json`.
pub fn peer(options: &PeerOptions, watch: &mut dyn Watch) -> Result<Comparison> {
    options.check()?;
    let folder = options.out.clone().unwrap_or_else(|| {
        let name = format!("peer-{}-{}-{}", options.env, options.guest.workload, options.path);
        artifacts::target().join("lab").join(name)
    });
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let record = folder.join("peer.json");
    stamp::remove(&record)?;
    watch.phase("QEMU/KVM");
    let (theirs, their_report) = qemu(options, &folder.join("qemu"), watch)?;
    watch.phase("Qavisor");
    let Run { report, story, .. } = session::migrate(&options.migration(folder.join("qavisor"))?, watch)?;
    let ours = Figures::ours(&report, &story);
    let columns = [("qemu", &theirs, &their_report), ("qavisor", &ours, &report)];
    session::write_json(&record, &comparison(options, columns)?)?;
    let title = format!("{} | {} | {}", options.env, options.guest.workload, options.path);
    let errors = columns.iter().filter_map(|(name, figures, _)| Some(format!("{name}: {}", figures.error.as_ref()?)));
    Ok(Comparison { table: table(&title, &theirs, &ours), errors: errors.collect(), folder })
}

fn comparison(options: &PeerOptions, columns: [(&str, &Figures, &Report); 2]) -> Result<Value> {
    let version = tools::run(tools::command(&tools::QEMU)?.arg("--version"))?;
    let mut all = json!({
        "environment": options.env.to_string(), "workload": options.guest.workload.to_string(),
        "path": options.path.to_string(), "memory": options.guest.bytes(), "auto-converge": options.auto_converge,
        "postcopy-preempt": options.postcopy_preempt, "free-page-reporting": options.free_page_reporting, "limit": options.job().limit,
        "qemu-version": version.lines().next().unwrap_or_default(),
    });
    for (name, figures, report) in columns {
        let mut column = figures.record();
        column["report"] = report.json.clone();
        all[name] = column;
    }
    Ok(all)
}

/// QEMU's column: two QEMU/KVM in the emulated machine, and the guest from one to the other.
pub fn qemu(options: &PeerOptions, out: &Path, watch: &mut dyn Watch) -> Result<(Figures, Report)> {
    let migration = options.migration(out.to_owned())?;
    let folder = session::folder(&migration.hosts, "")?;
    watch.phase("building");
    peer::require()?;
    // The image has no part in this: the one that is given stands for it, so that none is built.
    let artifacts = Artifacts::get(Some(&artifacts::image(options.image.as_deref())))?.with_debian()?;
    let (mut report, story) = session::with_guest(&migration.guest, &artifacts, |guest| {
        let start = || peer::start(&artifacts, guest, options.job(), &folder);
        Driver::run(&migration, &folder, Patience::of_peer(options.env, options.limit), start, watch)
    })?;
    report.json["environment"] = "QEMU/KVM".into();
    session::write_json(&folder.join("report.json"), &report.json)?;
    let log = fs::read(folder.join("machine.log")).unwrap_or_default();
    let below = match options.env {
        Environment::Nested => Below::Machine,
        Environment::Bochs | Environment::Kvm => Below::Kernel { kvm: kvm_ready(&String::from_utf8_lossy(&log)) },
    };
    // The disk of a run is large and can be made again.
    stamp::remove(&folder.join("job.img"))?;
    Ok((Figures::qemus(&report, &story, &below), report))
}
