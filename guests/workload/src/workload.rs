//! Runs a workload: beats, works a slice, sleeps until either is due.

use crate::census::Census;
use crate::clock::{self, MILLISECOND, Nanos};
use crate::console;
use crate::heartbeat::{Counts, Heartbeat};
use crate::options::{Options, UnrulyOptions, Work};
use crate::pace::Pace;
use crate::pattern::{Mismatch, Range};
use crate::process;
use crate::storm::Storm;
use crate::syscalls::Syscalls;
use std::hint;

/// The time from one slice of work to the next.
const SLICE: Nanos = 10 * MILLISECOND;

/// Pages verified in a slice of `calm`: 2000 a second, some 4 % of a CPU of 60 million instructions a second.
const CALM_VERIFIED: u64 = 20;

/// Pages verified at each slice, or beat, of the workloads that are not about memory.
const LIGHT_VERIFIED: u64 = 8;

/// Pages that `unruly` writes before it looks at the clock again when it writes as fast as it can.
const UNBOUNDED_PORTION: u64 = 32;

/// System calls that `syscalls` makes before it looks at the clock again; of those to another process and back fewer.
const SYSCALLS_PORTION: u64 = 512;
const SWITCHES_PORTION: u64 = 16;

/// So many errors are printed; the others are counted only.
const ERRORS_PRINTED: u64 = 20;

/// Runs for ever, or until `reboot` restarts the guest.
pub fn run(options: &Options) -> ! {
    let mut memory = Memory { range: Range::new(options.range_pages), counts: Counts::default() };
    use_once(options.used);
    console::line(&format!("start {}", options.work.name()));
    let start = clock::now();
    let mut activity = Activity::new(&options.work, start);
    let mut heartbeat = Heartbeat::new(start);
    loop {
        let now = clock::now();
        if let Some(line) = heartbeat.beat(now, &memory.counts) {
            console::line(&line);
            if let Some(line) = heartbeat.work(now, &memory.counts).filter(|_| options.busy) {
                console::line(&line);
            }
            activity.reap(&mut memory.counts);
            memory.verify(LIGHT_VERIFIED);
            if let Work::Reboot { after } = options.work
                && heartbeat.number() >= after
            {
                restart()
            }
        }
        let next = activity.step(now, &mut memory).min(heartbeat.deadline());
        if next > now && !options.busy {
            clock::sleep_until(next);
        }
    }
}

/// Leaves free memory as it is in a guest that has been at work for a while: no two pages alike. (Numbers by Marsaglia's
/// xorshift64.)
fn use_once(bytes: usize) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let numbers = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    drop(hint::black_box(numbers.take(bytes / size_of::<u64>()).collect::<Vec<_>>()));
}

/// The checked range, and what was counted.
struct Memory {
    range: Range,
    counts: Counts,
}

impl Memory {
    fn verify(&mut self, pages: u64) {
        for _ in 0..pages {
            let mismatch = self.range.verify_next();
            self.note(mismatch);
        }
    }

    fn write(&mut self, pages: u64) {
        for _ in 0..pages {
            let mismatch = self.range.write_next();
            self.note(mismatch);
        }
        self.counts.pages_written += pages;
        self.counts.work += pages;
    }

    fn note(&mut self, mismatch: Option<Mismatch>) {
        let Some(Mismatch { page, word, expected, found }) = mismatch else {
            return;
        };
        self.counts.errors += 1;
        if self.counts.errors <= ERRORS_PRINTED {
            console::line(&format!("error: page {page} word {word}: expected {expected:#x} found {found:#x}"));
        }
    }
}

/// What a workload does between the beats.
enum Activity {
    Nothing,
    Calm(Pace),
    Paced(Pace),
    Unbounded,
    Storm(Storm),
    Syscalls(Syscalls),
    Census(Census),
}

impl Activity {
    fn new(work: &Work, now: Nanos) -> Self {
        match work {
            Work::Idle | Work::Reboot { .. } => Self::Nothing,
            Work::Calm { pages_per_second } => Self::Calm(Pace::new(*pages_per_second, now)),
            Work::Unruly(UnrulyOptions { pages_per_second: 0 }) => Self::Unbounded,
            Work::Unruly(UnrulyOptions { pages_per_second }) => Self::Paced(Pace::new(*pages_per_second, now)),
            Work::Storm(options) => Self::Storm(Storm::new(options, now)),
            Work::Syscalls { switching } => match Syscalls::new(*switching) {
                Ok(syscalls) => Self::Syscalls(syscalls),
                Err(error) => {
                    console::line(&format!("workload: no other process to switch to: {error}"));
                    Self::Nothing
                }
            },
            Work::Census => match Census::new() {
                Ok(census) => Self::Census(census),
                Err(error) => {
                    console::line(&format!("workload: the kernel does not tell of processes: {error}"));
                    Self::Nothing
                }
            },
        }
    }

    /// Reaps who has ended: as init we inherit every orphan.
    fn reap(&mut self, counts: &mut Counts) {
        match self {
            Self::Storm(storm) => storm.reap(counts),
            Self::Census(census) => census.reap(counts),
            _ => while process::reap().is_some() {},
        }
    }

    /// Works a slice; returns when the next is due.
    fn step(&mut self, now: Nanos, memory: &mut Memory) -> Nanos {
        match self {
            Self::Nothing => return Nanos::MAX,
            Self::Calm(pace) => {
                memory.verify(CALM_VERIFIED);
                memory.counts.work += CALM_VERIFIED;
                memory.write(pace.due(now));
            }
            Self::Paced(pace) => memory.write(pace.due(now)),
            Self::Unbounded => {
                memory.write(UNBOUNDED_PORTION);
                return now;
            }
            Self::Storm(storm) => {
                storm.step(now, &mut memory.counts);
                memory.verify(LIGHT_VERIFIED);
            }
            Self::Syscalls(syscalls) => {
                let portion = match syscalls {
                    Syscalls::Plain => SYSCALLS_PORTION,
                    Syscalls::Switching(..) => SWITCHES_PORTION,
                };
                (0..portion).for_each(|_| syscalls.make());
                memory.counts.work += portion;
                return now;
            }
            Self::Census(census) => census.step(now, &mut memory.counts),
        }
        now + SLICE
    }
}

/// Restarts the guest's OS.
fn restart() -> ! {
    console::line("restarting");
    console::drain();
    nix::unistd::sync();
    match nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT) {
        Ok(never) => match never {},
        Err(error) => {
            console::line(&format!("cannot restart: {error}"));
            std::process::exit(1)
        }
    }
}
