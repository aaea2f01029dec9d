//! The few instructions that Rust has no words for.
#![allow(unsafe_code)]

use core::arch::asm;

/// Writes a byte to a port.
pub fn out8(port: u16, value: u8) {
    // SAFETY: what a port does is up to the machine; none of those that we use reaches our memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
}

/// Reads a byte from a port.
pub fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: as for `out8`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Lets interrupts in.
pub fn open_interrupts() {
    // SAFETY: the handlers of `trap` preserve every register, and the stack has no red zone on this target.
    unsafe { asm!("sti", options(preserves_flags)) }
}

/// Keeps interrupts out.
pub fn close_interrupts() {
    // SAFETY: changes nothing but when the handlers run.
    unsafe { asm!("cli", options(preserves_flags)) }
}

/// Halts until an interrupt. Called with interrupts closed, so that none slips in between the caller's check and the
/// halt: STI takes effect after the next instruction.
pub fn open_interrupts_and_halt() {
    // SAFETY: as for `open_interrupts`.
    unsafe { asm!("sti", "hlt", options(preserves_flags)) }
}

/// Halts for ever.
pub fn stop() -> ! {
    loop {
        // SAFETY: nothing runs after it.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

/// Faults with a stack that takes nothing: neither the fault nor the double fault can be delivered.
pub fn crash() -> ! {
    // SAFETY: the end of this run is what is asked for.
    unsafe { asm!("mov rsp, {}", "ud2", in(reg) 1u64 << 63, options(noreturn)) }
}

/// Faults with no IDT to deliver the fault, nor the double fault: the CPU shuts down.
pub fn triple_fault() -> ! {
    let nothing = [0u8; 10];
    // SAFETY: the end of this run is what is asked for.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &nothing, options(noreturn)) }
}
