//! The IDT. The host runs with interrupts off but for one instruction at a time ([`take_pending`]): all
//! that an interrupt does is to be counted, and work is found by looking.

use core::sync::atomic::{AtomicU64, Ordering};

/// Vector of the network card's MSI-X message.
pub const NETWORK_VECTOR: u8 = 0x41;
/// Where the (masked) PICs' vectors lie; a spurious interrupt comes with the seventh of each.
const PIC_VECTORS: core::ops::RangeInclusive<u8> = 0x20..=0x2f;

static COUNTS: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];

/// How often `vector` has come since the start.
pub fn count(vector: u8) -> u64 {
    COUNTS[usize::from(vector)].load(Ordering::Relaxed)
}

/// Lets pending interrupts in, for one instruction. Where an emulator leaves interrupts masked after an exit
/// (Bochs 2.7 after an entry with IF = 0), this takes what waited.
#[inline]
pub fn take_pending() {
    // SAFETY: every vector has a handler that only counts; STI takes effect after the NOP.
    unsafe { core::arch::asm!("sti", "nop", "cli", options(nomem, nostack)) };
}

/// What the stubs push: the general registers, the vector, and the CPU's own frame.
#[repr(C)]
#[derive(Debug)]
struct Frame {
    registers: [u64; 9],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

#[unsafe(no_mangle)]
extern "C" fn interrupt_entry(frame: &Frame) {
    let vector = frame.vector as u8;
    COUNTS[usize::from(vector)].fetch_add(1, Ordering::Relaxed);
    match vector {
        2 => {}
        0..=31 => panic!(
            "CPU exception {vector} in the hypervisor: error {:#x}, rip {:#x}, rsp {:#x}, cr2 {:#x}",
            frame.error,
            frame.rip,
            frame.rsp,
            x86_64::registers::control::Cr2::read_raw(),
        ),
        _ if PIC_VECTORS.contains(&vector) => {}
        _ => local_apic::end_of_interrupt(),
    }
}

#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("../../boot/interrupts.s"));

/// Loads the IDT, moves the PICs' vectors out of the exceptions' way and masks every line; turns the local APIC on.
#[cfg(target_os = "none")]
pub fn init() {
    use super::segments::FAULT_STACK;
    use spin::Once;
    use x86_64::{VirtAddr, structures::idt::InterruptDescriptorTable};

    unsafe extern "C" {
        static interrupt_stubs: u8;
    }
    static IDT: Once<InterruptDescriptorTable> = Once::new();
    let idt = IDT.call_once(|| {
        let mut idt = InterruptDescriptorTable::new();
        let stubs = &raw const interrupt_stubs as u64;
        let stub = |vector: u64| VirtAddr::new_truncate(stubs + 16 * vector);
        // SAFETY: boot/interrupts.s has a stub of 16 bytes for each vector, with the error code that the CPU pushes
        // for it; the fault stack is set in the TSS and used by nothing else.
        unsafe {
            idt.divide_error.set_handler_addr(stub(0));
            idt.debug.set_handler_addr(stub(1));
            idt.non_maskable_interrupt.set_handler_addr(stub(2)).set_stack_index(FAULT_STACK);
            idt.breakpoint.set_handler_addr(stub(3));
            idt.overflow.set_handler_addr(stub(4));
            idt.bound_range_exceeded.set_handler_addr(stub(5));
            idt.invalid_opcode.set_handler_addr(stub(6));
            idt.device_not_available.set_handler_addr(stub(7));
            idt.double_fault.set_handler_addr(stub(8)).set_stack_index(FAULT_STACK);
            idt.invalid_tss.set_handler_addr(stub(10));
            idt.segment_not_present.set_handler_addr(stub(11));
            idt.stack_segment_fault.set_handler_addr(stub(12)).set_stack_index(FAULT_STACK);
            idt.general_protection_fault.set_handler_addr(stub(13));
            idt.page_fault.set_handler_addr(stub(14)).set_stack_index(FAULT_STACK);
            idt.x87_floating_point.set_handler_addr(stub(16));
            idt.alignment_check.set_handler_addr(stub(17));
            idt.machine_check.set_handler_addr(stub(18));
            idt.simd_floating_point.set_handler_addr(stub(19));
            for vector in 32..=255u8 {
                idt[vector].set_handler_addr(stub(u64::from(vector)));
            }
        }
        idt
    });
    idt.load();
    mask_pics();
    local_apic::enable();
}

#[cfg(target_os = "none")]
fn mask_pics() {
    use x86_64::instructions::port::Port;
    // SAFETY: the 8259A's initialisation (ICW1-4), then every line masked; nobody else drives the PICs.
    unsafe {
        let first = *PIC_VECTORS.start();
        for (command, data, vector, cascade) in [(0x20u16, 0x21u16, first, 4u8), (0xa0, 0xa1, first + 8, 2)] {
            Port::<u8>::new(command).write(0x11u8);
            let mut data = Port::<u8>::new(data);
            for byte in [vector, cascade, 1, 0xff] {
                data.write(byte);
            }
        }
    }
}

/// The local APIC: only to receive messages (MSI-X) and to end them.
pub mod local_apic {
    use x86_64::registers::model_specific::Msr;

    const APIC_BASE: u32 = 0x1b;
    const X2APIC_ENABLED: u64 = 1 << 10;
    const REGISTER_ID: u64 = 0x20;
    const REGISTER_EOI: u64 = 0xb0;
    const REGISTER_SPURIOUS: u64 = 0xf0;
    /// Software enable, spurious vector 0xff (SDM 11.9).
    const ENABLE: u32 = 0x1ff;

    fn base() -> u64 {
        // SAFETY: IA32_APIC_BASE is there on every CPU with VMX.
        unsafe { Msr::new(APIC_BASE).read() }
    }

    fn write(register: u64, value: u32) {
        let base = base();
        // SAFETY: the register page is mapped uncached at the base (machine::paging), or the MSR exists in x2APIC
        // mode (SDM 11.12.1.2); EOI and the spurious register have no effect on memory.
        unsafe {
            if base & X2APIC_ENABLED != 0 {
                Msr::new(0x800 + (register >> 4) as u32).write(u64::from(value));
            } else {
                (((base & 0xf_ffff_f000) + register) as *mut u32).write_volatile(value);
            }
        }
    }

    /// This CPU's APIC id, as MSI addresses want it.
    pub fn id() -> u8 {
        let base = base();
        // SAFETY: as in `write`; reading the id has no effect.
        unsafe {
            if base & X2APIC_ENABLED != 0 {
                Msr::new(0x802).read() as u8
            } else {
                ((((base & 0xf_ffff_f000) + REGISTER_ID) as *const u32).read_volatile() >> 24) as u8
            }
        }
    }

    /// Turns it on.
    pub fn enable() {
        write(REGISTER_SPURIOUS, ENABLE);
    }

    /// Ends the interrupt in service.
    pub fn end_of_interrupt() {
        write(REGISTER_EOI, 0);
    }
}
