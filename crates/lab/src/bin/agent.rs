//! The agent's program: reads the job, then speaks with the lab over its standard input and output.

use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use lab::agent::job::Job;

/// Starts the hosts of a job where KVM is and relays what they say
#[derive(Parser)]
struct Options {
    /// The job, as the lab wrote it
    #[arg(long)]
    job: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let text = std::fs::read_to_string(&options.job)
        .with_context(|| format!("cannot read the job {}", options.job.display()))?;
    lab::agent::run(&Job::from_json(&text)?, io::stdin(), io::stdout().lock())
}
