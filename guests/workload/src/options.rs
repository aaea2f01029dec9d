//! Which workload, and how: from the arguments, or from the kernel command line.

use crate::clock::{MILLISECOND, Nanos};
use crate::process::Start;

/// How it is called.
pub const USAGE: &str = "usage: workload idle|calm|unruly|storm|syscalls|reboot|census [options]
  --range SIZE             memory that is kept and checked, e.g. 32M (default 4M, unruly 32M, storm 256K)
  --used SIZE              memory that is written once and given back before the first heartbeat (default none)
  --pages-per-second N     calm: pages written a second (default 10); unruly: the same, 0 = as fast as it can (default)
  --rate N                 storm: processes a second (default 200)
  --life MS                storm: how long each lives (default 0)
  --exec                   storm: each executes the program afresh, after a fork
  --spawn                  storm: the same without a fork, as posix_spawn does it
  --jobs N                 storm: how many are alive at once, at most (default 256)
  --count N                storm: how many in all (default: without end)
  --switch                 syscalls: each goes to another process and back
  --busy                   calm, unruly, storm, syscalls: works without a pause, and tells each second how much
  --after N                reboot: heartbeats before the restart (default 20)";

const PAGE: usize = 4096;
const DEFAULT_RANGE: usize = 4 << 20;
const UNRULY_RANGE: usize = 32 << 20;
/// A fork copies the page table of the range, so a large one would make each birth dear.
const STORM_RANGE: usize = 256 << 10;
/// More children than this are never alive at once: without the bound, a long life would fill the guest.
const MOST_ALIVE: usize = 256;

/// All options.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// What it does.
    pub work: Work,
    /// Pages of the checked range.
    pub range_pages: usize,
    /// Bytes that are used once, before it starts.
    pub used: usize,
    /// Works without a pause, and tells how much.
    pub busy: bool,
}

/// What a workload does beside its heartbeat.
#[derive(Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    Idle,
    /// Reads much, writes little.
    Calm {
        /// Pages written a second.
        pages_per_second: u64,
    },
    /// Writes.
    Unruly(UnrulyOptions),
    /// Starts processes that end.
    Storm(StormOptions),
    /// Makes system calls, as fast as it can.
    Syscalls {
        /// Each goes to another process and back.
        switching: bool,
    },
    /// Restarts the guest's OS.
    Reboot {
        /// After so many beats.
        after: u64,
    },
    /// Does what it is told on the console, and tells the kernel's own count of processes.
    Census,
}

impl Work {
    /// The word by which it is asked for.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Calm { .. } => "calm",
            Self::Unruly(_) => "unruly",
            Self::Storm(_) => "storm",
            Self::Syscalls { .. } => "syscalls",
            Self::Reboot { .. } => "reboot",
            Self::Census => "census",
        }
    }
}

/// How `unruly` writes.
#[derive(Debug, PartialEq, Eq)]
pub struct UnrulyOptions {
    /// Pages written a second, 0 for as many as it can.
    pub pages_per_second: u64,
}

/// How `storm` forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StormOptions {
    /// Processes started a second.
    pub rate: u64,
    /// How long each lives.
    pub life: Nanos,
    /// How each comes to be.
    pub start: Start,
    /// How many are alive at once, at most.
    pub jobs: usize,
    /// How many there are in all; without it there is no end.
    pub count: Option<u64>,
}

/// Options as arguments: `calm --range 8M`.
///
/// # Errors
/// One sentence that names the word.
pub fn from_arguments(arguments: &[String]) -> Result<Options, String> {
    let (name, rest) = arguments.split_first().ok_or("which workload?")?;
    let mut pairs = Vec::new();
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        let key = word.strip_prefix("--").ok_or_else(|| format!("`{word}` is no option"))?;
        let value = match key {
            "exec" | "spawn" | "switch" | "busy" => "yes",
            _ => words.next().ok_or_else(|| format!("`{word}` needs a value"))?,
        };
        pairs.push((key, value));
    }
    build(name, &pairs)
}

/// Options on the kernel command line: `workload=calm workload.range=8M`. Without `workload=` it is idle.
///
/// # Errors
/// One sentence that names the word.
pub fn from_command_line(line: &str) -> Result<Options, String> {
    let mut name = "idle";
    let mut pairs = Vec::new();
    for word in line.split_ascii_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or((word, "yes"));
        if key == "workload" {
            name = value;
        } else if let Some(key) = key.strip_prefix("workload.") {
            pairs.push((key, value));
        }
    }
    build(name, &pairs)
}

/// Whether the kernel command line asks for a shell on the console.
pub fn wants_shell(line: &str) -> bool {
    line.split_ascii_whitespace().any(|word| word == "shell")
}

fn build(name: &str, pairs: &[(&str, &str)]) -> Result<Options, String> {
    let mut range = match name {
        "unruly" => UNRULY_RANGE,
        "storm" | "census" => STORM_RANGE,
        _ => DEFAULT_RANGE,
    };
    let mut work = match name {
        "idle" => Work::Idle,
        "calm" => Work::Calm { pages_per_second: 10 },
        "unruly" => Work::Unruly(UnrulyOptions { pages_per_second: 0 }),
        "storm" => Work::Storm(StormOptions { rate: 200, life: 0, start: Start::Fork, jobs: MOST_ALIVE, count: None }),
        "syscalls" => Work::Syscalls { switching: false },
        "reboot" => Work::Reboot { after: 20 },
        "census" => Work::Census,
        _ => return Err(format!("there is no workload `{name}`")),
    };
    let (mut used, mut busy) = (0, false);
    for (key, value) in pairs {
        let unreadable = || format!("`{value}` is no value of `{key}`");
        let number = || value.parse::<u64>().map_err(|_| unreadable());
        match (*key, &mut work) {
            ("range", _) => range = size(value).ok_or_else(unreadable)?,
            ("used", _) => used = size(value).ok_or_else(unreadable)?,
            ("pages-per-second", Work::Calm { pages_per_second }) => *pages_per_second = number()?,
            ("pages-per-second", Work::Unruly(unruly)) => unruly.pages_per_second = number()?,
            ("rate", Work::Storm(storm)) => storm.rate = number()?,
            ("life", Work::Storm(storm)) => storm.life = number()?.saturating_mul(MILLISECOND),
            ("exec", Work::Storm(storm)) if *value == "yes" => storm.start = Start::Exec,
            ("spawn", Work::Storm(storm)) if *value == "yes" => storm.start = Start::Spawn,
            ("jobs", Work::Storm(storm)) => storm.jobs = value.parse().map_err(|_| unreadable())?,
            ("count", Work::Storm(storm)) => storm.count = Some(number()?),
            ("switch", Work::Syscalls { switching }) if *value == "yes" => *switching = true,
            ("busy", Work::Calm { .. } | Work::Unruly(_) | Work::Storm(_) | Work::Syscalls { .. })
                if *value == "yes" =>
            {
                busy = true;
            }
            ("after", Work::Reboot { after }) => *after = number()?,
            _ => return Err(format!("`{name}` has no option `{key}`")),
        }
    }
    Ok(Options { work, range_pages: range.div_ceil(PAGE), used, busy })
}

/// `4096`, `64K`, `32M`, `1G`; more than zero.
fn size(text: &str) -> Option<usize> {
    let units = [('K', 10), ('M', 20), ('G', 30)];
    let unit = units.into_iter().find_map(|(letter, shift)| Some((text.strip_suffix(letter)?, 1usize << shift)));
    let (digits, unit) = unit.unwrap_or((text, 1));
    digits.parse::<usize>().ok()?.checked_mul(unit).filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Result<Options, String> {
        from_arguments(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_and_the_kernel_command_line_say_the_same() {
        for (as_arguments, as_command_line) in [
            (
                "calm --range 8M --pages-per-second 3",
                "quiet workload=calm workload.range=8M workload.pages-per-second=3",
            ),
            ("storm --rate 50 --life 5 --exec", "workload.rate=50 workload.life=5 workload=storm workload.exec x=y"),
            ("storm --spawn --jobs 8 --count 40", "workload=storm workload.spawn workload.count=40 workload.jobs=8"),
            ("syscalls --switch --busy", "workload.busy workload=syscalls workload.switch"),
            ("reboot --after 7", "workload=reboot workload.after=7 shell"),
            ("idle --used 2M", "workload.used=2M"),
            ("idle", "console=ttyS0"),
        ] {
            assert_eq!(arguments(as_arguments), from_command_line(as_command_line), "{as_arguments}");
        }
    }

    #[test]
    fn sizes_have_units() {
        let pages = |line| arguments(line).map(|options| options.range_pages);
        assert_eq!(pages("unruly"), Ok(8192));
        assert_eq!(pages("calm --range 64K"), Ok(16));
        assert_eq!(pages("calm --range 1"), Ok(1));
        assert_eq!(pages("calm --range 99999999999999999G"), Err("`99999999999999999G` is no value of `range`".into()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (line, part) in [
            ("", "which"),
            ("mad", "`mad`"),
            ("calm --rate 3", "no option `rate`"),
            ("storm --rate", "needs a value"),
            ("storm --rate x", "`x` is no value"),
            ("storm rate", "`rate` is no option"),
            ("calm --range 0", "`0`"),
        ] {
            let error = arguments(line).expect_err(line);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_shell_is_asked_for_by_one_word() {
        assert!(wants_shell("quiet shell workload=idle"));
        assert!(!wants_shell("shells=1 noshell"));
    }
}
