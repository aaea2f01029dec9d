//! Interval after interval: write, verify, wait for the clock, beat.

use crate::flip::Roots;
use crate::memory::Range;
use crate::options::{Clock, Mode, Options};
use crate::pattern::Mismatch;
use crate::{cpu, line, restart, trap};
use core::sync::atomic::Ordering::Relaxed;

/// Ticks of 10 ms from one heartbeat to the next.
const TICKS: u64 = 10;
/// So many errors are printed; the others are counted only.
const ERRORS_PRINTED: u64 = 20;

/// Runs for ever, or until a restart.
pub fn run(options: &Options, mut range: Range, mut roots: Option<Roots>) -> ! {
    if options.clock == Clock::Pit {
        cpu::open_interrupts();
    }
    let mut errors = 0;
    // The fill before the first beat has written each page.
    let mut distinct = range.pages();
    let mut deadline = trap::TICKS.load(Relaxed) + TICKS;
    for beat in 1u64.. {
        if options.mode == Mode::Write {
            for _ in 0..options.rate {
                note(&mut errors, range.write_next());
            }
            distinct = distinct.max(options.rate.min(range.pages()));
        }
        if let Some(roots) = &mut roots {
            (0..options.rate).for_each(|_| roots.flip());
        }
        for _ in 0..options.verify {
            note(&mut errors, range.verify_next());
        }
        if options.clock == Clock::Pit {
            deadline = wait(deadline);
        }
        line!("hb {beat} e{errors}");
        if options.mode == Mode::Write {
            line!("w {distinct}");
            distinct = 0;
        }
        if let Mode::Restart(kind) = options.mode
            && beat >= options.after
        {
            restart::run(kind)
        }
    }
    cpu::stop()
}

/// Halts until the deadline; returns the next. A long silence is not made up for.
fn wait(deadline: u64) -> u64 {
    loop {
        cpu::close_interrupts();
        let now = trap::TICKS.load(Relaxed);
        if now >= deadline {
            cpu::open_interrupts();
            return if now - deadline < TICKS { deadline + TICKS } else { now + TICKS };
        }
        cpu::open_interrupts_and_halt();
    }
}

fn note(errors: &mut u64, found: Option<(u64, Mismatch)>) {
    let Some((page, Mismatch { word, expected, found })) = found else {
        return;
    };
    *errors += 1;
    if *errors <= ERRORS_PRINTED {
        line!("error: page {page} word {word}: expected {expected:#x} found {found:#x}");
    }
}
