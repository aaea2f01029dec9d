//! Faults and interrupts: counts the timer's ticks, lets [`attempt`](crate::wild) survive a fault, names any other.
#![allow(unsafe_code)]

use crate::{cpu, line, timer};
use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Ticks of the timer.
pub static TICKS: AtomicU64 = AtomicU64::new(0);

/// Where to go on after a fault, and with which RSP; 0 when none is expected. The handler takes it once.
pub static RECOVER_RIP: AtomicU64 = AtomicU64::new(0);
/// RSP to go on with.
pub static RECOVER_RSP: AtomicU64 = AtomicU64::new(0);
/// Vector of the fault that was recovered from, plus one.
pub static FAULT: AtomicU64 = AtomicU64::new(0);

/// What `trap_common` in boot.s has pushed, the last first, and above it what the CPU pushed.
#[repr(C)]
pub struct Frame {
    scratch: [u64; 9],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const VECTORS: usize = 48;
/// Bytes from one stub in boot.s to the next.
const STUB: u64 = 16;

#[repr(C, align(16))]
struct Idt(UnsafeCell<[[u64; 2]; VECTORS]>);

// SAFETY: one CPU, and `init` alone writes it, before the CPU uses it.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; VECTORS]));

#[repr(C, packed)]
struct Register {
    limit: u16,
    base: u64,
}

/// Loads the IDT.
pub fn init() {
    unsafe extern "C" {
        static trap_stubs: u8;
    }
    let first = &raw const trap_stubs as u64;
    let idt = IDT.0.get();
    for vector in 0..VECTORS {
        let stub = first + STUB * vector as u64;
        // Present interrupt gate, selector 0x10 (SDM 3A, figure 7-8).
        let low = (stub & 0xffff) | 0x10 << 16 | 0x8e00 << 32 | (stub >> 16 & 0xffff) << 48;
        // SAFETY: `vector` is in bounds, and no reference to the table exists.
        unsafe { (*idt)[vector] = [low, stub >> 32] }
    }
    let register = Register { limit: (VECTORS * 16 - 1) as u16, base: idt as u64 };
    // SAFETY: the table is static and each gate leads to a stub that preserves all registers.
    unsafe { asm!("lidt [{}]", in(reg) &register, options(readonly, nostack, preserves_flags)) }
}

/// Called by `trap_common` in boot.s.
pub extern "C" fn trap(frame: &mut Frame) {
    if frame.vector == timer::VECTOR {
        TICKS.fetch_add(1, Relaxed);
        timer::acknowledge();
        return;
    }
    let recover = RECOVER_RIP.swap(0, Relaxed);
    if recover == 0 {
        let Frame { vector, error, rip, cs, .. } = frame;
        line!("error: fault {vector} error {error:#x} at {cs:#x}:{rip:#x}");
        cpu::stop()
    }
    FAULT.store(frame.vector + 1, Relaxed);
    frame.rip = recover;
    frame.rsp = RECOVER_RSP.load(Relaxed);
    frame.cs = 0x10;
    frame.ss = 0x18;
    frame.rflags = 2;
}
