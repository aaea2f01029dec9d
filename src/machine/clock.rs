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
/// Asks a hypervisor beneath us first (leaf 0x4000_0010, the TSC's kHz, a convention of VMware that
/// KVM and QEMU keep); else counts against the PIT, because CPUID leaf 0x15 names the real CPU's crystal even where
/// an emulator runs at another rate.
pub fn init() {
    let hz = hypervisor_tsc_hz().unwrap_or_else(calibrate_by_pit);
    HZ.store(hz, Ordering::Relaxed);
    NANOS_A_TICK.store(factor(1_000_000_000, hz), Ordering::Relaxed);
    TICKS_A_NANO.store(factor(hz, 1_000_000_000), Ordering::Relaxed);
    START.store(now(), Ordering::Relaxed);
}

fn hypervisor_tsc_hz() -> Option<u64> {
    use core::arch::x86_64::__cpuid;
    let under_hypervisor = __cpuid(1).ecx & (1 << 31) != 0;
    if !under_hypervisor || __cpuid(0x4000_0000).eax < 0x4000_0010 {
        return None;
    }
    let khz = u64::from(__cpuid(0x4000_0010).eax);
    (khz != 0).then_some(khz * 1000)
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
    let (mut gate, mut mode, mut data) =
        (Port::<u8>::new(0x61), Port::<u8>::new(0x43), Port::<u8>::new(0x42));
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
