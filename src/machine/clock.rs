//! Time, from the TSC alone.

use core::{
    arch::x86_64::_rdtsc,
    sync::atomic::{AtomicU64, Ordering},
};

static HZ: AtomicU64 = AtomicU64::new(1_000_000_000);
static START: AtomicU64 = AtomicU64::new(0);
/// Fixed-point factors, see [`multiply`]; 1 until [`init`].
static NANOS_A_TICK: AtomicU64 = AtomicU64::new(1 << 32);
static TICKS_A_NANO: AtomicU64 = AtomicU64::new(1 << 32);

/// The TSC, in ticks.
pub fn now() -> u64 {
    // SAFETY: RDTSC reads a counter; ring 0 may always.
    unsafe { _rdtsc() }
}

/// Ticks of the TSC a second.
pub fn hz() -> u64 {
    HZ.load(Ordering::Relaxed)
}

/// Microseconds since [`init`].
pub fn micros() -> u64 {
    to_micros(now().wrapping_sub(START.load(Ordering::Relaxed)))
}

/// Ticks of the TSC as microseconds.
pub fn to_micros(ticks: u64) -> u64 {
    to_nanos(ticks) / 1000
}

/// Ticks of the TSC as nanoseconds.
pub fn to_nanos(ticks: u64) -> u64 {
    multiply(ticks, NANOS_A_TICK.load(Ordering::Relaxed))
}

/// Nanoseconds as ticks of the TSC.
pub fn from_nanos(nanos: u64) -> u64 {
    multiply(nanos, TICKS_A_NANO.load(Ordering::Relaxed))
}

/// Microseconds as ticks of the TSC.
pub fn from_micros(micros: u64) -> u64 {
    from_nanos(micros.saturating_mul(1000))
}

/// `value * factor`, where `factor` is a fixed-point number with 32 fractional bits. A division a conversion would cost a
/// hundred times as much, and every exit converts.
fn multiply(value: u64, factor: u64) -> u64 {
    u64::try_from((u128::from(value) * u128::from(factor)) >> 32).unwrap_or(u64::MAX)
}

/// `to / from` with 32 fractional bits.
fn factor(to: u64, from: u64) -> u64 {
    u64::try_from((u128::from(to) << 32) / u128::from(from.max(1))).unwrap_or(u64::MAX)
}

/// Learns the rate of the TSC and sets the origin of [`micros`].
///
/// Under KVM its clock tells the rate exactly; two hosts that calibrate each for themselves would disagree, and a guest that
/// moves would find its TSC at another rate. Elsewhere the PIT is the measure, not CPUID leaf 0x15: that names the real CPU's
/// crystal even where an emulator runs at another rate.
pub fn init() {
    let hz = kvm_tsc_hz().unwrap_or_else(calibrate_by_pit);
    HZ.store(hz, Ordering::Relaxed);
    NANOS_A_TICK.store(factor(1_000_000_000, hz), Ordering::Relaxed);
    TICKS_A_NANO.store(factor(hz, 1_000_000_000), Ordering::Relaxed);
    START.store(now(), Ordering::Relaxed);
}

/// What KVM writes to a guest's clock page (`struct pvclock_vcpu_time_info` of Linux's KVM documentation).
#[repr(C, align(64))]
struct KvmClock {
    version: u32,
    _padding: u32,
    tsc_timestamp: u64,
    system_time: u64,
    multiplier: u32,
    shift: i8,
    flags: u8,
}

static mut KVM_CLOCK: KvmClock =
    KvmClock { version: 0, _padding: 0, tsc_timestamp: 0, system_time: 0, multiplier: 0, shift: 0, flags: 0 };

fn kvm_tsc_hz() -> Option<u64> {
    use core::arch::x86_64::__cpuid;
    use x86_64::registers::model_specific::Msr;
    const SYSTEM_TIME: u32 = 0x4b56_4d01;
    const CLOCK: u32 = 1 << 3;
    let under_hypervisor = __cpuid(1).ecx & (1 << 31) != 0;
    let signature = __cpuid(0x4000_0000);
    let is_kvm = under_hypervisor && signature.ebx.to_le_bytes() == *b"KVMK" && signature.eax >= 0x4000_0001;
    if !is_kvm || __cpuid(0x4000_0001).eax & CLOCK == 0 {
        return None;
    }
    let page = &raw mut KVM_CLOCK;
    // SAFETY: KVM offers the MSR, and fills the structure before the write returns to us; virtual is physical here. Written 0
    // afterwards, so that KVM writes there no more.
    let (multiplier, shift) = unsafe {
        Msr::new(SYSTEM_TIME).write(page as u64 | 1);
        let values = ((&raw const (*page).multiplier).read_volatile(), (&raw const (*page).shift).read_volatile());
        Msr::new(SYSTEM_TIME).write(0);
        values
    };
    // Nanoseconds are (ticks << shift) * multiplier / 2^32, so ticks a second are 10^9 * 2^32 / multiplier >> shift.
    let unshifted = (1_000_000_000u128 << 32).checked_div(u128::from(multiplier))?;
    let hz = if shift < 0 { unshifted.checked_shl(shift.unsigned_abs().into())? } else { unshifted >> shift.min(63) };
    u64::try_from(hz).ok().filter(|hz| *hz > 1_000_000)
}

/// Counts TSC ticks over 10 ms of PIT channel 2 (8254 data sheet, mode 0; port 0x61 gates it). The
/// shortest of three, because a delay between the two readings only lengthens a count.
fn calibrate_by_pit() -> u64 {
    const PIT_HZ: u64 = 1_193_182;
    const COUNT: u64 = PIT_HZ / 100;
    (0..3).map(|_| pit_interval(COUNT as u16)).min().unwrap_or(1) * PIT_HZ / COUNT
}

fn pit_interval(count: u16) -> u64 {
    use x86_64::instructions::port::Port;
    let (mut gate, mut mode, mut data) = (Port::<u8>::new(0x61), Port::<u8>::new(0x43), Port::<u8>::new(0x42));
    // SAFETY: PIT channel 2 drives the speaker only; nobody else uses it.
    unsafe {
        let before = gate.read();
        gate.write((before & !0x02) | 0x01); // gate on, speaker off
        mode.write(0xb0); // channel 2, both bytes, mode 0: OUT rises at the end of the count
        data.write(count as u8);
        data.write((count >> 8) as u8);
        let start = now();
        while gate.read() & 0x20 == 0 {}
        let ticks = now() - start;
        gate.write(before);
        ticks
    }
}

#[cfg(test)]
mod tests {
    use super::{factor, multiply};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_day_is_right_to_a_millisecond_at_any_rate(hz in 1_000_000u64..5_000_000_000, seconds in 0u64..86_400) {
            let nanos = multiply(seconds * hz, factor(1_000_000_000, hz));
            prop_assert!(nanos.abs_diff(seconds * 1_000_000_000) < 1_000_000);
        }
    }
}
