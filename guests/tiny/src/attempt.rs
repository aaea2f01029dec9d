//! Single instructions with wild operands: each takes, or faults and is survived.
#![allow(unsafe_code)]

use crate::trap::{FAULT, RECOVER_RIP, RECOVER_RSP};
use core::arch::{asm, global_asm};
use core::sync::atomic::Ordering::Relaxed;

global_asm!(include_str!("wild.s"));

/// `None` if the instruction took, else the vector of its fault.
pub type Outcome = Option<u64>;

/// Runs an instruction with a way out: on a fault the handler goes on at `2:` with the RSP of before.
macro_rules! attempt {
    ($instruction:literal, $($operand:tt)*) => {{
        FAULT.store(0, Relaxed);
        // SAFETY: the operands name every register that the instruction writes. What it may do beyond them is up to
        // the callers below, each of which says why the program survives it.
        unsafe {
            asm!(
                "lea r11, [rip + 2f]",
                "mov [rip + {recover_rip}], r11",
                "mov [rip + {recover_rsp}], rsp",
                $instruction,
                "2:",
                "mov qword ptr [rip + {recover_rip}], 0",
                recover_rip = sym RECOVER_RIP,
                recover_rsp = sym RECOVER_RSP,
                out("r11") _,
                $($operand)*
            )
        }
        FAULT.load(Relaxed).checked_sub(1)
    }};
}

/// IN of 1, 2 or 4 bytes.
pub fn port_in(port: u16, width: u64) -> Outcome {
    match width {
        1 => attempt!("in al, dx", in("dx") port, out("al") _),
        2 => attempt!("in ax, dx", in("dx") port, out("ax") _),
        _ => attempt!("in eax, dx", in("dx") port, out("eax") _),
    }
}

/// OUT of 1, 2 or 4 bytes. The caller spares the ports that reset the machine or hold the console.
pub fn port_out(port: u16, width: u64, value: u32) -> Outcome {
    match width {
        1 => attempt!("out dx, al", in("dx") port, in("eax") value),
        2 => attempt!("out dx, ax", in("dx") port, in("eax") value),
        _ => attempt!("out dx, eax", in("dx") port, in("eax") value),
    }
}

/// RDMSR.
pub fn read_msr(msr: u32) -> Result<u64, Outcome> {
    let (low, high): (u32, u32);
    let outcome = attempt!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high);
    if outcome.is_some() { Err(outcome) } else { Ok(u64::from(high) << 32 | u64::from(low)) }
}

/// WRMSR, and the old value back if it took. With interrupts off and no user mode, none of them is used in between;
/// paging and long mode cannot be switched off by EFER alone.
pub fn write_msr(msr: u32, value: u64) -> Outcome {
    let before = read_msr(msr);
    let outcome = write_msr_once(msr, value);
    if let (Ok(before), None) = (before, outcome) {
        write_msr_once(msr, before);
    }
    outcome
}

fn write_msr_once(msr: u32, value: u64) -> Outcome {
    attempt!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32)
}

/// CPUID, which no guest can be refused.
pub fn cpuid(leaf: u32, subleaf: u32) -> Outcome {
    attempt!(
        "mov r10, rbx\ncpuid\nmov rbx, r10",
        inout("eax") leaf => _, inout("ecx") subleaf => _, out("edx") _, out("r10") _
    )
}

/// MOV to CR0 with one bit changed, and back. In 64-bit mode PE and PG cannot be cleared; no other bit changes what
/// this program, which uses no FPU and no user pages, does.
pub fn flip_cr0(bit: u32) -> Outcome {
    attempt!(
        "mov r10, cr0\nmov r9, r10\nbtc r9, rax\nmov cr0, r9\nmov cr0, r10",
        in("rax") u64::from(bit), out("r9") _, out("r10") _
    )
}

/// MOV to CR4 with one bit changed, and back; as for [`flip_cr0`].
pub fn flip_cr4(bit: u32) -> Outcome {
    attempt!(
        "mov r10, cr4\nmov r9, r10\nbtc r9, rax\nmov cr4, r9\nmov cr4, r10",
        in("rax") u64::from(bit), out("r9") _, out("r10") _
    )
}

/// MOV to CR3 with one bit set, and back. The caller takes reserved bits only, which fault.
pub fn set_cr3(bit: u32) -> Outcome {
    attempt!(
        "mov r10, cr3\nmov r9, r10\nbts r9, rax\nmov cr3, r9\nmov cr3, r10",
        in("rax") u64::from(bit), out("r9") _, out("r10") _
    )
}

/// XSETBV; CR4.OSXSAVE is never set here, so it is undefined.
pub fn xsetbv(register: u32, value: u64) -> Outcome {
    attempt!("xsetbv", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32)
}

/// A read and a write back where there may be no RAM, or no mapping.
pub fn touch(address: u64) -> Outcome {
    attempt!("mov eax, [rdi]\nmov [rdi], eax", in("rdi") address, out("eax") _)
}

/// How many instructions wild.s has.
pub fn instructions() -> u64 {
    let (first, last) = bounds();
    (last - first) / SNIPPET
}

/// One of the instructions of wild.s; each of them returns, or faults.
pub fn instruction(index: u64) -> Outcome {
    let (first, _) = bounds();
    let function = first + SNIPPET * index.min(instructions() - 1);
    attempt!("call {function}", function = in(reg) function, clobber_abi("C"),)
}

const SNIPPET: u64 = 32;

fn bounds() -> (u64, u64) {
    unsafe extern "C" {
        static wild_first: u8;
        static wild_last: u8;
    }
    (&raw const wild_first as u64, &raw const wild_last as u64)
}
