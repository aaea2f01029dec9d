//! The lab's program.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use lab::artifacts::{self, Artifacts};
use lab::bench::BenchOptions;
use lab::env::{Environment, Machines};
use lab::machine::bochs::HASWELL;
use lab::options::{HostOptions, MigrateOptions};
use lab::peer::{self, options::PeerOptions};
use lab::session::{self, table, watch};
use lab::watch::options::{ReplayOptions, WatchOptions};
use lab::watch::{plain::Plain, terminal::Screen, view::View};

/// Experiments with Qavisor: starts the machines, moves a guest, checks and reports
#[derive(Parser)]
#[command(version)]
struct Lab {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Move a running guest and report what happened; exits 0 only if it runs on with nothing lost
    Migrate(MigrateOptions),
    /// What `make run` shows: the same as `migrate --verify`
    Run(MigrateOptions),
    /// Watch the identifier of a running guest, and what the rule would say of it now; q ends it
    Watch(WatchOptions),
    /// Count a recording of `watch --record` again, and decide by it
    Replay(ReplayOptions),
    /// Have QEMU/KVM migrate the same guest on the same emulated machine, and print its figures beside ours
    Peer(PeerOptions),
    /// Measure, and print each figure beside what it is compared with; what `make bench` runs
    Bench(BenchOptions),
    /// Build what the experiments are made of: image, guests, emulated machine
    Build,
    /// Start the hosts with an archive of guests and talk to their monitors
    Hosts(TalkOptions),
}

#[derive(Args)]
struct TalkOptions {
    /// The archive of the source's guests, see docs/monitor.md
    #[arg(long, value_name = "FILE")]
    guests: PathBuf,
    /// The memory of all guests together
    #[arg(long, default_value = "128M", value_name = "SIZE", value_parser = lab::units::size)]
    memory: u64,
    #[command(flatten)]
    hosts: HostOptions,
}

fn main() -> ExitCode {
    let done = lab::interrupt::listen().and_then(|()| match Lab::parse().command {
        Command::Migrate(options) => migrate(&options),
        Command::Run(mut options) => {
            options.movement.verify = true;
            migrate(&options)
        }
        Command::Watch(options) => look(&options),
        Command::Replay(options) => replay(&options),
        Command::Peer(options) => compare(&options),
        Command::Bench(options) => bench(&options),
        Command::Build => build(),
        Command::Hosts(options) => talk(&options),
    });
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn migrate(options: &MigrateOptions) -> Result<ExitCode> {
    let mut person = watch::Person::new();
    let run = session::migrate(options, &mut person)?;
    drop(person);
    print!("{}", table::table(&run.report.json));
    println!("report, events and logs: {}", run.folder.display());
    if let Some(error) = run.report.error {
        eprintln!("lab: {error}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn look(options: &WatchOptions) -> Result<ExitCode> {
    let mut view: Box<dyn View> = if options.plain || !std::io::stdout().is_terminal() {
        Box::new(Plain::new(std::io::stdout()))
    } else {
        Box::new(Screen::default())
    };
    let over = lab::watch::watch(options, &mut *view)?;
    // The terminal is given back before anything is printed on it.
    drop(view);
    if let Some((path, bytes)) = over.recording {
        println!("recording: {} ({bytes} bytes)", path.display());
    }
    println!("lines and logs: {}", over.folder.display());
    Ok(ExitCode::SUCCESS)
}

fn replay(options: &ReplayOptions) -> Result<ExitCode> {
    lab::watch::replay::replay(&options.file, &options.rule, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn compare(options: &PeerOptions) -> Result<ExitCode> {
    let mut person = watch::Person::new();
    let over = peer::peer(options, &mut person)?;
    drop(person);
    print!("{}", over.table);
    println!("figures, reports and logs: {}", over.folder.display());
    for error in &over.errors {
        eprintln!("lab: {error}");
    }
    Ok(if over.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bench(options: &BenchOptions) -> Result<ExitCode> {
    let whole = lab::bench::bench(options, &mut watch::Person::new())?;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn build() -> Result<ExitCode> {
    Environment::Nested.require()?;
    let artifacts = Artifacts::get(None)?.with_debian()?;
    artifacts.linux_initrd()?;
    artifacts.tiny_kernel()?;
    artifacts.base()?;
    println!("image: {}\neverything else: {}", artifacts.image.display(), artifacts.place.display());
    Ok(ExitCode::SUCCESS)
}

fn talk(options: &TalkOptions) -> Result<ExitCode> {
    options.hosts.env.require()?;
    let artifacts = Artifacts::get(options.hosts.image.as_deref())?.with_debian()?;
    let default = || artifacts::target().join("lab/hosts");
    let folder = std::path::absolute(options.hosts.out.clone().unwrap_or_else(default))?;
    let machines = Machines {
        artifacts: &artifacts,
        guests: &options.guests,
        guest_memory: options.memory,
        options: &options.hosts.options,
        mtu: options.hosts.mtu,
        cpu: HASWELL,
        folder: &folder,
    };
    lab::hosts::talk(options.hosts.env, &machines)?;
    Ok(ExitCode::SUCCESS)
}
