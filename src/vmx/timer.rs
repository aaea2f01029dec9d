//! The preemption timer (SDM 26.5.1): the only clock of the hypervisor. It does not count in root mode, so every entry
//! arms it anew, towards a deadline in absolute TSC ticks.

/// The value that makes the timer exit no earlier than `deadline`, with a timer that counts each 2^`shift` ticks.
/// 0, an exit before the first instruction, when the deadline has passed.
pub fn value_until(now: u64, deadline: u64, shift: u32) -> u32 {
    match deadline.checked_sub(now) {
        None | Some(0) => 0,
        // The timer counts when bit `shift` of the TSC changes, so the first count may come at once: one more.
        Some(ticks) => u32::try_from(ticks.checked_shr(shift).unwrap_or(0).saturating_add(1)).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::value_until;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_never_fires_early_nor_a_count_too_late(now in 0u64..1 << 60, ticks in 0u64..1 << 36, shift in 0u32..8) {
            let value = u64::from(value_until(now, now + ticks, shift));
            if ticks == 0 {
                prop_assert_eq!(value, 0);
            } else if value < u64::from(u32::MAX) {
                // `value` counts take at least (value - 1) and at most value times 2^shift ticks.
                prop_assert!(value << shift >= ticks);
                prop_assert!((value - 1) << shift <= ticks);
            }
        }
    }

    #[test]
    fn a_deadline_that_has_passed_exits_at_once() {
        assert_eq!(value_until(100, 50, 5), 0);
    }
}
