//! From host to host, to a second VM there, and home: each hop by another path and with other options of the engines.

use anyhow::{Result, ensure};
use lab::agent::wire::Host::{self, Destination, Source};
use lab::env::{DESTINATION_ADDRESS, Environment::Nested, PORT, SOURCE_ADDRESS};
use libtest_mimic::Trial;

use crate::support::machine::Machine;
use crate::support::moves::{beats_at, move_vm};
use crate::support::trial;

/// Where a hop starts and ends, and what it is asked for.
const HOPS: [(Host, Host, &str); 5] = [
    (
        Source,
        Destination,
        "path=pre-copy auto-converge=yes rate-limit=8000000 max-rounds=5 max-bytes=100000000 encodings=zero,delta",
    ),
    (Destination, Destination, "path=post-copy bandwidth=8000000 encodings=lz4"),
    (Destination, Source, "path=hybrid hybrid-rounds=2 downtime-limit=1ms encodings=all"),
    (Source, Destination, "path=stop-and-copy encodings=same,lz4"),
    (Destination, Source, "path=demand demand-period=500ms encodings=none"),
];

/// The tests.
pub fn trials() -> Vec<Trial> {
    vec![trial("a_chain_of_moves_each_by_another_path_and_other_options_loses_nothing", chain)]
}

fn chain() -> Result<()> {
    let mut machine = Machine::with_tiny(Nested, "chain", "mode=write rate=20")?;
    beats_at(&mut machine, "tiny", Source)?;
    for (from, to, words) in HOPS {
        let target = match to {
            _ if from == to => "memory".to_owned(),
            Source => format!("{SOURCE_ADDRESS}:{PORT}"),
            Destination => format!("{DESTINATION_ADDRESS}:{PORT}"),
        };
        let report = move_vm(&mut machine, "tiny", from, &format!("to={target} {words}"))?;
        let path = report["path"].as_str().unwrap_or_default();
        ensure!(words.starts_with(&format!("path={path}")), "asked for {words}, it went by {path}");
        beats_at(&mut machine, "tiny", to)?;
    }
    machine.beats.whole("tiny")?;
    Ok(())
}
