//! What ours is compared with: QEMU/KVM's own migration on the same machine.

use anyhow::{Context, Result, anyhow, ensure};
use lab::peer::options::PeerOptions;
use lab::session::watch::Blind;
use libtest_mimic::Trial;

use crate::support::migration::expect;
use crate::support::{folder, trial};

/// The tests.
pub fn trials() -> Vec<Trial> {
    vec![trial("qemu_itself_moves_an_idle_guest_and_its_figures_are_read", qemu_moves_an_idle_guest)]
}

fn qemu_moves_an_idle_guest() -> Result<()> {
    let options = PeerOptions::from_words("--env bochs --workload idle --path pre-copy --limit 300s")?;
    let out = folder("nested", "peer-idle");
    let (figures, report) = lab::peer::qemu(&options, &out, &mut Blind)?;
    if let Some(error) = report.error {
        return Err(anyhow!("{error}; see {}", out.display()));
    }
    expect(&report.json, "/migration/status", &"completed".into())?;
    for zero in ["heartbeats-lost", "guest-errors"] {
        expect(&report.json, &format!("/verify/{zero}"), &0.into())?;
    }
    ensure!(!figures.never_ended, "it was given up");
    for (name, figure) in [
        ("total-time", figures.total_time),
        ("downtime", figures.downtime),
        ("heartbeat-gap", figures.heartbeat_gap),
        ("start", figures.start),
        ("host-start", figures.host_start),
    ] {
        let figure = figure.with_context(|| format!("no {name}; see {}", out.display()))?;
        ensure!(figure > 0.0, "{name} is {figure}");
    }
    // More than the guest's own kernel went over.
    let bytes = figures.bytes.context("no bytes")?;
    ensure!(bytes > 1e7, "{bytes} bytes are no guest");
    Ok(())
}
