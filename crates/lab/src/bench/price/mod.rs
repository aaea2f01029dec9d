//! What watching costs a guest: its work in three states, by turns in one run, so that what drifts drifts for all.
//!
//! The guest works without a pause and tells how much it did, by its own clock. The image tells whose the time was and which
//! exits there were. docs/price.md has what was found.

mod figures;
mod run;
mod table;

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::BenchOptions;
use crate::env::Environment;
use crate::options::MigrateOptions;
use crate::session::watch::Watch;
use figures::Stretch;

/// How a guest is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not at all.
    Off,
    /// Its identifier is kept: the default.
    On,
    /// A sample is taken.
    Sample,
}

impl State {
    /// A sample comes last: after it the guest is mapped by small pages until somebody harvests, which `Off` does at its start.
    const ALL: [Self; 3] = [Self::Off, Self::On, Self::Sample];

    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Sample => "sample",
        }
    }
}

/// Name, workload, and more words of the guest's command line.
const GUESTS: [(&str, &str, &str); 6] = [
    ("calm", "calm", ""),
    ("unruly", "unruly", ""),
    ("storm", "storm", "workload.rate=1000000"),
    ("syscalls", "syscalls", ""),
    // Page-table isolation: two loads of CR3 a system call.
    ("syscalls-pti", "syscalls", "pti=on"),
    // Two processes that wait for each other: two loads of CR3 to another root for each round.
    ("switches", "syscalls", "workload.switch"),
];

/// The price for one guest.
pub(super) struct Price {
    environment: Environment,
    guest: &'static str,
    stretches: Vec<Stretch>,
}

/// Measures every guest whose name `--only` holds.
pub(super) fn all(
    options: &BenchOptions,
    out: &Path,
    environment: Environment,
    watch: &mut dyn Watch,
) -> Result<Vec<Price>> {
    let mut prices = Vec::new();
    for (guest, workload, words) in GUESTS {
        let name = format!("{environment} price {guest}");
        if !name.contains(&options.only) {
            continue;
        }
        watch.phase(&name);
        let mut run = MigrateOptions::from_words(&format!("--env {environment} --workload {workload}"))?;
        run.guest.append = format!("workload.busy {words}").trim().to_owned();
        run.hosts.image.clone_from(&options.image);
        run.hosts.out = Some(out.join(name.replace(' ', "-")));
        prices.push(Price { environment, guest, stretches: run::run(&run, watch)? });
    }
    Ok(prices)
}

/// The table, if there is anything to put into it.
pub(super) fn table(prices: &[Price]) -> String {
    if prices.is_empty() { String::new() } else { table::table(prices) }
}

/// For the file of all figures.
pub(super) fn record(prices: &[Price]) -> Value {
    prices.iter().map(table::record).collect()
}
