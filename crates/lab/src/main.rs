//! The lab's program.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lab::artifacts::Artifacts;
use lab::env::{Environment, Machines};

/// Experiments with Qavisor: machines, guests, migrations
#[derive(Parser)]
struct Lab {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the hosts and talk to their monitors
    Hosts {
        #[arg(long, default_value = "auto")]
        env: Environment,
        #[arg(long)]
        guests: PathBuf,
        #[arg(long, default_value = "")]
        options: String,
        #[arg(long, default_value = "target/lab/hosts")]
        out: PathBuf,
        #[arg(long, default_value_t = 1500)]
        mtu: u32,
        #[arg(long)]
        image: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    lab::interrupt::listen()?;
    match Lab::parse().command {
        Command::Hosts {
            env,
            guests,
            options,
            out,
            mtu,
            image,
        } => {
            let artifacts = Artifacts::get(image.as_deref())?.with_debian()?;
            let machines = Machines {
                artifacts: &artifacts,
                guests: &guests,
                guest_memory: 128 << 20,
                options: &options,
                mtu,
                folder: &std::path::absolute(out)?,
            };
            lab::hosts::talk(env, &machines)
        }
    }
}
