//! Monotonic time in nanoseconds, and sleeping to a moment of it.

use nix::errno::Errno;
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

/// A moment, or a span, in nanoseconds.
pub type Nanos = u64;

/// Nanoseconds in a microsecond.
pub const MICROSECOND: Nanos = 1_000;
/// Nanoseconds in a millisecond.
pub const MILLISECOND: Nanos = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: Nanos = 1_000_000_000;

/// Now, since the guest's boot.
pub fn now() -> Nanos {
    // CLOCK_MONOTONIC exists on every Linux and is never negative.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.num_nanoseconds().unsigned_abs())
}

/// Sleeps until `moment`; returns at once when it is past. An absolute moment, so that time which the guest did
/// not run (a migration) does not add to each later beat.
pub fn sleep_until(moment: Nanos) {
    let moment = TimeSpec::nanoseconds(i64::try_from(moment).unwrap_or(i64::MAX));
    let flags = ClockNanosleepFlags::TIMER_ABSTIME;
    while clock_nanosleep(ClockId::CLOCK_MONOTONIC, flags, &moment) == Err(Errno::EINTR) {}
}
