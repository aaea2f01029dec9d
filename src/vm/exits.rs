//! What each exit means. Whatever a guest does ends in one of three ways: it goes on, it gets the exception that a CPU would
//! give it, or its VM stops with a reason.

use super::{
    cpuid,
    machine::{Stop, Vm},
    msr,
    vcpu::{Event, host_cpuid},
};
use crate::{
    devices::{RestartCause, Width},
    machine::{PAGE_SIZE, clock, interrupts},
    vmx::{
        entry::register::{RAX, RBX, RCX, RDX},
        exit::{CrAccess, IoAccess, Reason},
        fields,
    },
};
use alloc::format;

/// How it goes on.
pub enum Outcome {
    /// Into the guest again.
    Continue,
    /// Back to the host.
    Stop(Stop),
}

const LOW: u64 = 0xffff_ffff;

/// Handles one exit.
pub fn handle(vm: &mut Vm, reason: Reason) -> Outcome {
    match reason {
        Reason::PreemptionTimer | Reason::InterruptWindow => return Outcome::Continue,
        Reason::ModificationLogFull => vm.take_modification_log(),
        Reason::ExternalInterrupt | Reason::ExceptionOrNmi => {
            interrupts::take_pending();
            return Outcome::Stop(Stop::Yield);
        }
        Reason::TripleFault => return Outcome::Stop(Stop::Restart(triple_fault(vm))),
        Reason::Hlt => {
            vm.vcpu.skip_instruction();
            vm.vcpu.halted = true;
        }
        Reason::Cpuid => read_cpuid(vm),
        Reason::Rdmsr => read_msr(vm),
        Reason::Wrmsr => write_msr(vm),
        Reason::Io => return access_port(vm),
        Reason::CrAccess => return access_cr(vm),
        Reason::EptViolation => return ept_violation(vm),
        // Write-back caches are coherent with everything a guest can reach.
        Reason::Wbinvd | Reason::Invd => vm.vcpu.skip_instruction(),
        Reason::Vmx | Reason::Monitor | Reason::Mwait => vm.vcpu.event = Some(Event::undefined_instruction()),
        Reason::Rdpmc | Reason::Xsetbv => vm.vcpu.event = Some(Event::general_protection()),
        Reason::EntryFailure | Reason::EptMisconfiguration | Reason::Other(_) => return unhandled(vm, reason),
    }
    Outcome::Continue
}

/// Whoever wants a triple fault empties the IDT first; nothing but LIDT does that.
fn triple_fault(vm: &Vm) -> RestartCause {
    const SMALLEST_GATE: u64 = 8;
    match vm.vcpu.read(fields::GUEST_IDTR_LIMIT) + 1 < SMALLEST_GATE {
        true => RestartCause::TripleFault,
        false => RestartCause::Crash,
    }
}

fn unhandled(vm: &Vm, reason: Reason) -> Outcome {
    Outcome::Stop(Stop::Dead(format!(
        "{} (exit reason {:#x}, qualification {:#x}) at rip {:#x}",
        reason.name(),
        vm.vcpu.read(fields::EXIT_REASON),
        vm.vcpu.read(fields::EXIT_QUALIFICATION),
        vm.vcpu.read(fields::GUEST_RIP),
    )))
}

fn read_cpuid(vm: &mut Vm) {
    let general = &mut vm.vcpu.registers.general;
    let [eax, ebx, ecx, edx] = cpuid::answer(general[RAX] as u32, general[RCX] as u32, clock::hz(), host_cpuid);
    for (register, value) in [(RAX, eax), (RBX, ebx), (RCX, ecx), (RDX, edx)] {
        general[register] = u64::from(value);
    }
    vm.vcpu.skip_instruction();
}

fn read_msr(vm: &mut Vm) {
    let number = vm.vcpu.registers.general[RCX] as u32;
    let value = match number {
        msr::TSC => Some(vm.vcpu.tsc()),
        msr::TSC_ADJUST => Some(vm.vcpu.tsc_adjust),
        msr::EFER => Some(vm.vcpu.read(fields::GUEST_EFER)),
        msr::APIC_BASE | msr::APIC_FIRST..=msr::APIC_LAST | msr::TSC_DEADLINE | msr::END_IN_MEMORY => {
            vm.chipset.read_apic(number, vm.now())
        }
        _ => msr::fixed(number),
    };
    match value {
        Some(value) => {
            vm.vcpu.registers.general[RAX] = value & LOW;
            vm.vcpu.registers.general[RDX] = value >> 32;
            vm.vcpu.skip_instruction();
        }
        None => {
            log::debug!("{}: RDMSR of unknown {number:#x}: #GP", vm.name);
            vm.vcpu.event = Some(Event::general_protection());
        }
    }
}

fn write_msr(vm: &mut Vm) {
    let general = &vm.vcpu.registers.general;
    let number = general[RCX] as u32;
    let value = (general[RAX] & LOW) | general[RDX] << 32;
    let taken = match number {
        msr::TSC => {
            vm.vcpu.write_tsc(value);
            true
        }
        msr::TSC_ADJUST => {
            vm.vcpu.write_tsc_adjust(value);
            true
        }
        msr::EFER => vm.vcpu.write_efer(value),
        msr::APIC_BASE | msr::APIC_FIRST..=msr::APIC_LAST | msr::TSC_DEADLINE | msr::END_IN_MEMORY => {
            let now = vm.now();
            vm.chipset.write_apic(number, value, now, clock::to_nanos(value))
        }
        _ => msr::write_is_ignored(number, value),
    };
    if taken {
        vm.vcpu.skip_instruction();
    } else {
        log::debug!("{}: WRMSR of {value:#x} to {number:#x}: #GP", vm.name);
        vm.vcpu.event = Some(Event::general_protection());
    }
}

fn access_port(vm: &mut Vm) -> Outcome {
    let access = IoAccess::from_qualification(vm.vcpu.read(fields::EXIT_QUALIFICATION));
    if access.string {
        // No device here has a use for INS and OUTS.
        vm.vcpu.event = Some(Event::general_protection());
        return Outcome::Continue;
    }
    let (width, mask) = match access.bytes {
        1 => (Width::Byte, 0xff),
        2 => (Width::Word, 0xffff),
        _ => (Width::Dword, LOW),
    };
    let now = vm.now();
    vm.vcpu.skip_instruction();
    let rax = vm.vcpu.registers.general[RAX];
    if access.input {
        let value = u64::from(vm.chipset.read_port(access.port, width, now)) & mask;
        // A 32-bit result clears the upper half, smaller ones keep the rest (SDM volume 1, 3.4.1.1).
        vm.vcpu.registers.general[RAX] = if mask == LOW { value } else { (rax & !mask) | value };
    } else if let Some(cause) = vm.chipset.write_port(access.port, width, (rax & mask) as u32, now) {
        return Outcome::Stop(Stop::Restart(cause));
    }
    Outcome::Continue
}

fn access_cr(vm: &mut Vm) -> Outcome {
    let access = CrAccess::from_qualification(vm.vcpu.read(fields::EXIT_QUALIFICATION));
    let mut loaded = None;
    let done = match access {
        CrAccess::MoveTo { cr: 0, register } => vm.vcpu.write_cr0(vm.vcpu.general(register)),
        CrAccess::MoveTo { cr: 3, register } => {
            let old = vm.vcpu.read(fields::GUEST_CR3);
            loaded = Some((old, vm.vcpu.general(register)));
            vm.vcpu.write_cr3(vm.vcpu.general(register))
        }
        CrAccess::MoveTo { cr: 4, register } => vm.vcpu.write_cr4(vm.vcpu.general(register)),
        CrAccess::MoveTo { cr: 8, register } => {
            let value = vm.vcpu.general(register);
            vm.chipset.set_cr8(value)
        }
        CrAccess::MoveFrom { cr: 8, register } => {
            vm.vcpu.set_general(register, vm.chipset.cr8());
            true
        }
        _ => false,
    };
    if !done {
        vm.vcpu.event = Some(Event::general_protection());
        return Outcome::Continue;
    }
    vm.vcpu.skip_instruction();
    match loaded {
        Some((old, new)) => Outcome::Stop(Stop::AddressSpace(old, new)),
        None => Outcome::Continue,
    }
}

/// A page that has not come yet, a write that tracking stopped, or an address where the guest has no memory.
fn ept_violation(vm: &mut Vm) -> Outcome {
    let gpa = vm.vcpu.read(fields::GUEST_PHYSICAL_ADDRESS);
    let gfn = gpa / PAGE_SIZE as u64;
    if vm.is_missing(gfn) {
        vm.wait_for(gfn);
        return Outcome::Stop(Stop::PageMissing(gfn));
    }
    if gfn < vm.memory.pages() as u64 {
        const WRITE: u64 = 1 << 1;
        if vm.vcpu.read(fields::EXIT_QUALIFICATION) & WRITE != 0 {
            vm.write_stopped(gfn);
        }
        // Else the page came between the fault and now.
        return Outcome::Continue;
    }
    Outcome::Stop(Stop::Dead(format!(
        "the guest touched guest-physical {gpa:#x}, where it has no memory, at rip {:#x}",
        vm.vcpu.read(fields::GUEST_RIP)
    )))
}
