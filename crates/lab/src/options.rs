//! What a person can ask of an experiment.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::env::Environment;
use crate::units;

/// Which guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GuestKind {
    /// Debian's cloud kernel with the workloads as its init
    Linux,
    /// The bare-metal guest: boots in milliseconds, writes at a set rate, checks what it wrote
    Tiny,
}

/// What the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Nothing but a heartbeat
    Idle,
    /// Reads much, writes little
    Calm,
    /// Starts and ends processes
    Storm,
    /// Writes memory
    Unruly,
    /// Makes system calls
    Syscalls,
    /// Restarts its operating system
    Reboot,
}

/// How the guest moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Path {
    /// As the policy decides
    Auto,
    /// Pause, send all, run there
    StopAndCopy,
    /// Pause, run there, fetch each page when it is touched
    Demand,
    /// Push rounds while the guest runs here, then the rest
    PreCopy,
    /// Run there, fetch and push the pages
    PostCopy,
    /// A bounded push, then post-copy
    Hybrid,
}

/// Which rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// The paper's rule to the letter
    Paper,
    /// The same on counters that never reset
    Robust,
}

/// A value of a list, as the image, the guests and the report write it.
macro_rules! shown_as_typed {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let value = self.to_possible_value();
                f.write_str(value.as_ref().map_or("", |value| value.get_name()))
            }
        }
    )*};
}
shown_as_typed!(GuestKind, Workload, Path, Policy);

/// Which guest, and what it does.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Guest")]
pub struct GuestOptions {
    /// The guest
    #[arg(long, default_value = "linux")]
    pub guest: GuestKind,
    /// A bzImage in place of Debian's kernel
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// An initramfs in place of the workloads'
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// The guest's memory [default: 128M, for tiny 16M]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub memory: Option<u64>,
    /// What the guest does
    #[arg(long, default_value = "calm")]
    pub workload: Workload,
    /// More words for the guest's command line, such as `workload.range=8M`
    #[arg(long, default_value = "", value_name = "WORDS")]
    pub append: String,
}

/// Where the hosts run, and how.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Hosts")]
pub struct HostOptions {
    /// Where the hosts run: auto, kvm, nested or bochs
    #[arg(long, default_value = "auto", value_name = "ENVIRONMENT")]
    pub env: Environment,
    /// An image in place of the one that is built from here
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// More options for the image, such as `jiffy=1ms harvest=50ms log=debug`
    #[arg(long, default_value = "", value_name = "WORDS")]
    pub options: String,
    /// The largest IP packet between the hosts
    #[arg(long, default_value_t = 9000, value_parser = clap::value_parser!(u32).range(576..=65521))]
    pub mtu: u32,
    /// Where the report, the events and the logs go [default: target/lab/ENVIRONMENT-WORKLOAD]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// How the guest moves.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Migration")]
pub struct MoveOptions {
    /// The path
    #[arg(long, default_value = "auto")]
    pub path: Path,
    /// The policy that decides
    #[arg(long, default_value = "paper")]
    pub policy: Policy,
    /// The sampling time
    #[arg(long, default_value = "500ms", value_name = "TIME", value_parser = units::duration)]
    pub ts: Duration,
    /// Jiffies for each birth or death of a process below which it is a storm [default: the policy's]
    #[arg(long, value_name = "N/M", value_parser = units::ratio)]
    pub tp: Option<String>,
    /// Jiffies for each modified page below which processes are unruly [default: the policy's]
    #[arg(long, value_name = "N/M", value_parser = units::ratio)]
    pub td: Option<String>,
    /// The most that the stream may take, such as 1Gbit [default: what the link carries]
    #[arg(long, value_name = "RATE", value_parser = units::bandwidth)]
    pub bandwidth: Option<u64>,
    /// The latency of the link between two VMs on one host (environment bochs)
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub latency: Option<Duration>,
    /// The downtime that a pre-copy may end with [default: 300ms]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub downtime_limit: Option<Duration>,
    /// Slow a guest that dirties pages too fast for a pre-copy
    #[arg(long)]
    pub auto_converge: bool,
    /// The most that rounds take: they begin with a fifth of it and follow the dirty rate [default: what there is]
    #[arg(long, value_name = "RATE", value_parser = units::bandwidth)]
    pub rate_limit: Option<u64>,
    /// Rounds of a pre-copy after which the guest is paused in any case [default: 30]
    #[arg(long, value_name = "N")]
    pub max_rounds: Option<u32>,
    /// Bytes after which rounds end in any case, such as 256M [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub max_bytes: Option<u64>,
    /// Rounds of a hybrid before it turns to post-copy [default: 1]
    #[arg(long, value_name = "N")]
    pub hybrid_rounds: Option<u32>,
    /// How long a demand migration fetches only what is touched, before it pushes the rest [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub demand_period: Option<Duration>,
    /// How pages may be encoded: all, none, or some of zero,same,delta,lz4 [default: all, each where it saves time]
    #[arg(long, value_name = "LIST", value_parser = units::encodings)]
    pub encodings: Option<String>,
    /// Compare every page with the source's at the hand-over
    #[arg(long)]
    pub verify: bool,
}

/// Everything about one migration.
#[derive(Args, Clone, Debug)]
pub struct MigrateOptions {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a flattened group has no help of its own")]
    pub guest: GuestOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a flattened group has no help of its own")]
    pub movement: MoveOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a flattened group has no help of its own")]
    pub hosts: HostOptions,
}

/// Heartbeats before a restart, unless told otherwise.
pub const RESTART_AFTER: u64 = 20;
/// The time from one heartbeat of a guest to the next.
pub const HEARTBEAT: Duration = Duration::from_millis(100);

impl GuestOptions {
    /// Heartbeats before the workload `reboot` restarts the guest's OS: `workload.after=N` for Linux, `after=N` for
    /// tiny, where the last one counts.
    pub fn beats_before_restart(&self) -> u64 {
        let value = |word: &str| word.trim_start_matches("workload.").strip_prefix("after=")?.parse().ok();
        self.append.split_whitespace().filter_map(value).next_back().unwrap_or(RESTART_AFTER)
    }

    /// Whether the guest is a person's own, of which no heartbeat is promised.
    pub fn is_foreign(&self) -> bool {
        self.kernel.is_some() || self.initrd.is_some()
    }

    /// The guest's memory in bytes.
    pub fn bytes(&self) -> u64 {
        let default = match self.guest {
            GuestKind::Linux => 128 << 20,
            GuestKind::Tiny => 16 << 20,
        };
        self.memory.unwrap_or(default)
    }
}

impl MigrateOptions {
    /// The options as a person would type them; for tests and for experiments made of several migrations.
    pub fn from_words(words: &str) -> Result<Self, clap::Error> {
        #[derive(clap::Parser)]
        struct Words {
            #[command(flatten)]
            options: MigrateOptions,
        }
        let words = std::iter::once("lab").chain(words.split_whitespace());
        <Words as clap::Parser>::try_parse_from(words).map(|words| words.options)
    }
}

impl MoveOptions {
    /// The monitor's command.
    pub fn command(&self, vm: &str, to: &str) -> String {
        let mut text = format!("migrate vm={vm} to={to} path={} policy={}", self.path, self.policy);
        let mut add = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                text += &format!(" {key}={value}");
            }
        };
        add("ts", Some(units::show_duration(self.ts)));
        add("tp", self.tp.clone());
        add("td", self.td.clone());
        add("bandwidth", self.bandwidth.map(|rate| rate.to_string()));
        add("latency", self.latency.map(units::show_duration));
        add("downtime-limit", self.downtime_limit.map(units::show_duration));
        add("auto-converge", self.auto_converge.then(|| "yes".to_owned()));
        add("rate-limit", self.rate_limit.map(|rate| rate.to_string()));
        add("max-rounds", self.max_rounds.map(|rounds| rounds.to_string()));
        add("max-bytes", self.max_bytes.map(|bytes| bytes.to_string()));
        add("hybrid-rounds", self.hybrid_rounds.map(|rounds| rounds.to_string()));
        add("demand-period", self.demand_period.map(units::show_duration));
        add("encodings", self.encodings.clone());
        add("verify", self.verify.then(|| "yes".to_owned()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> MigrateOptions {
        MigrateOptions::from_words(words).unwrap()
    }

    #[test]
    fn the_options_become_the_monitors_command() {
        let plain = read("").movement.command("linux", "memory");
        assert_eq!(plain, "migrate vm=linux to=memory path=auto policy=paper ts=500ms");
        let full = read(
            "--path post-copy --policy robust --ts 1s --tp 5/2 --td 1/4 --bandwidth 1Gbit \
             --latency 100us --downtime-limit 50ms --auto-converge --rate-limit 500Mbit --max-rounds 9 \
             --max-bytes 1M --hybrid-rounds 2 --demand-period 3s --encodings zero,lz4 --verify",
        );
        assert_eq!(
            full.movement.command("linux", "10.0.0.2:4444"),
            "migrate vm=linux to=10.0.0.2:4444 path=post-copy policy=robust ts=1000ms tp=5/2 td=1/4 \
             bandwidth=125000000 latency=100us downtime-limit=50ms auto-converge=yes rate-limit=62500000 \
             max-rounds=9 max-bytes=1048576 hybrid-rounds=2 demand-period=3000ms encodings=zero,lz4 verify=yes"
        );
    }

    #[test]
    fn an_option_that_cannot_be_read_is_refused() {
        for words in ["--ts 500", "--env mars", "--tp 1/0", "--mtu 12", "--memory much", "--max-rounds -1"] {
            assert!(MigrateOptions::from_words(words).is_err(), "{words}");
        }
        let refused = MigrateOptions::from_words("--encodings zero,zip").unwrap_err().to_string();
        assert!(
            refused.contains("`zero,zip` is no list of encodings: all, none, or some of zero,same,delta,lz4"),
            "{refused}"
        );
    }
}
