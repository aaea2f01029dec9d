//! `lab bench`: the figures, each beside what it is compared with.

mod engines;
mod price;
mod rival;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::artifacts::{self, stamp};
use crate::env::Environment;
use crate::options::MigrateOptions;
use crate::peer::figures::Figures;
use crate::session::watch::Watch;
use crate::session::{self, Run};

/// What is measured, and where.
#[derive(Args, Clone, Debug)]
pub struct BenchOptions {
    /// Where: bochs, nested, kvm or auto; may be given more than once [default: bochs, and what auto picks]
    #[arg(long, value_name = "ENVIRONMENT")]
    pub env: Vec<Environment>,
    /// Only rows whose name holds this text, such as `unruly`, `post-copy` or `price`; `engines`: only what needs no machine
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub only: String,
    /// Leave QEMU's own migrations out: they take more than half of the time
    #[arg(long)]
    pub without_qemu: bool,
    /// An image in place of the one that is built from here
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Where the figures and the runs go [default: target/lab/bench]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// The rows: one that samples, for the price of a harvest, and those that QEMU's own migration stands beside.
const ROWS: [(&str, &str); 8] = [
    ("calm", "auto"),
    ("idle", "pre-copy"),
    ("idle", "post-copy"),
    ("calm", "pre-copy"),
    ("unruly", "pre-copy"),
    ("unruly", "post-copy"),
    ("storm", "pre-copy"),
    ("storm", "post-copy"),
];

/// The figures of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    environment: Environment,
    workload: &'static str,
    path: &'static str,
    report: Value,
    /// From the start of the hosts' clock to the guest's first heartbeat, in ms.
    start: Option<f64>,
    /// What an exit and the entry after it take, in ticks of the TSC, as the image measured when it started.
    round_trip: Option<u64>,
    /// What the hypervisor at the source holds for itself, in bytes.
    own_memory: Option<u64>,
    /// QEMU's own migration, where there is one.
    qemu: Option<Figures>,
}

/// Runs all rows, prints the tables, and returns whether every run succeeded.
pub fn bench(options: &BenchOptions, watch: &mut dyn Watch) -> Result<bool> {
    let out = options.out.clone().unwrap_or_else(|| artifacts::target().join("lab/bench"));
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let (mut rows, mut prices) = (Vec::new(), Vec::new());
    for environment in environments(&options.env) {
        prices.extend(price::all(options, &out, environment, watch)?);
        for (workload, path) in ROWS {
            if format!("{environment} {workload} {path}").contains(&options.only) {
                rows.push(run(options, &out, environment, workload, path, watch)?);
            }
        }
    }
    let engines = "engines".contains(&options.only).then(engines::measure);
    let image = fs::metadata(artifacts::image(options.image.as_deref())).map(|about| about.len()).ok();
    println!("{}\n{}", table::figures(image, &rows), table::rows(&rows));
    println!("{}", price::table(&prices));
    if let Some(engines) = &engines {
        println!("{}", engines.text());
    }
    let records: Vec<Value> = rows.iter().map(Row::record).collect();
    let text = serde_json::to_string_pretty(&json!({
        "image-size": image, "rows": records, "price": price::record(&prices),
        "engines": engines.as_ref().map(engines::Table::record),
    }))?;
    let path = out.join("bench.json");
    fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    println!("all figures: {}", path.display());
    let engines_whole = engines.is_none_or(|engines| engines.is_whole());
    Ok(engines_whole && rows.iter().all(|row| row.error().is_none() && row.qemu_error().is_none()))
}

fn environments(asked: &[Environment]) -> Vec<Environment> {
    match asked {
        [] => vec![Environment::Bochs, Environment::auto()],
        some => some.to_vec(),
    }
}

fn run(
    options: &BenchOptions,
    out: &std::path::Path,
    environment: Environment,
    workload: &'static str,
    path: &'static str,
    watch: &mut dyn Watch,
) -> Result<Row> {
    let qemu = rival::run(options, out, (environment, workload, path), watch)?;
    watch.phase(&format!("{environment} {workload} {path}"));
    let words = format!("--env {environment} --workload {workload} --path {path}");
    let mut migration = MigrateOptions::from_words(&words)?;
    migration.hosts.image.clone_from(&options.image);
    migration.hosts.out = Some(out.join(format!("{environment}-{workload}-{path}")));
    let Run { folder, report, story, own_memory } = session::migrate(&migration, watch)?;
    drop_images(&folder)?;
    Ok(Row {
        environment,
        workload,
        path,
        report: report.json,
        start: story.heartbeats.first_at,
        round_trip: fs::read_to_string(folder.join("source.log")).ok().and_then(|log| round_trip(&log)),
        own_memory,
        qemu,
    })
}

/// Removes the disks and CDs of a run: they are large and can be made again.
fn drop_images(folder: &Path) -> Result<()> {
    ["job.img", "image.iso", "guests.cpio"].iter().try_for_each(|file| stamp::remove(&folder.join(file)))
}

/// The image says at its start what an exit costs on the machine at hand.
fn round_trip(log: &str) -> Option<u64> {
    let (_, rest) = log.split_once("an exit and entry take ")?;
    rest.split_once(" ticks")?.0.parse().ok()
}

impl Row {
    /// A number of the report.
    fn number(&self, path: &[&str]) -> Option<f64> {
        path.iter().try_fold(&self.report, |value, key| value.get(key))?.as_f64()
    }

    fn error(&self) -> Option<&str> {
        self.report.get("error").and_then(Value::as_str)
    }

    fn qemu_error(&self) -> Option<&str> {
        self.qemu.as_ref()?.error.as_deref()
    }

    fn record(&self) -> Value {
        json!({
            "environment": self.environment.to_string(), "workload": self.workload, "path": self.path,
            "start": self.start, "exit-ticks": self.round_trip, "own-memory": self.own_memory, "report": self.report,
            "qemu": self.qemu.as_ref().map(Figures::record),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_of_an_exit_is_read_from_the_log() {
        let log = "[ 0.1] info  VMX: written pages are found by dirty-bits, an exit and entry take 36980 ticks\n[ 0.2] info  ready";
        assert_eq!(round_trip(log), Some(36980));
        assert_eq!(round_trip("[ 0.2] info  ready"), None);
    }
}
