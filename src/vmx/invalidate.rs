//! INVEPT and INVVPID (SDM 29.4.3). A count goes beside each, because an emulator that never shows a stale translation
//! cannot show that one is missing: tests compare the counts with what should have caused them.

use core::sync::atomic::{AtomicU64, Ordering};

static INVEPT_COUNT: AtomicU64 = AtomicU64::new(0);

#[repr(C)]
struct Descriptor {
    first: u64,
    second: u64,
}

/// Single-context INVEPT: drops what the CPU has cached of the tables under `ept_pointer`.
pub fn invept(ept_pointer: u64) {
    const SINGLE_CONTEXT: u64 = 1;
    let descriptor = Descriptor { first: ept_pointer, second: 0 };
    // SAFETY: capabilities::check has seen the type supported; dropping cached translations is always sound.
    unsafe {
        core::arch::asm!("invept {}, [{}]", in(reg) SINGLE_CONTEXT, in(reg) &raw const descriptor);
    }
    INVEPT_COUNT.fetch_add(1, Ordering::Relaxed);
}

/// How many INVEPTs were executed.
pub fn invept_count() -> u64 {
    INVEPT_COUNT.load(Ordering::Relaxed)
}

/// Single-context INVVPID: drops the linear and combined translations of one guest.
pub fn invvpid(vpid: u16) {
    const SINGLE_CONTEXT: u64 = 1;
    let descriptor = Descriptor { first: u64::from(vpid), second: 0 };
    // SAFETY: as in `invept`; VPIDs are never 0 here.
    unsafe {
        core::arch::asm!("invvpid {}, [{}]", in(reg) SINGLE_CONTEXT, in(reg) &raw const descriptor);
    }
}
