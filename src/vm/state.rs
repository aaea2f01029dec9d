//! What a vCPU is, as a record that travels: saved at the source, checked and restored at the destination.

use super::{
    cpuid, msr,
    vcpu::{Event, Vcpu, host_cpuid},
};
use crate::vmx::{
    context::FxArea,
    controls::entry,
    entry::Registers,
    fields::{self, Field, Segment},
};
use alloc::{format, string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// The version of the record; another one is refused.
const VERSION: u16 = 1;

/// Guest-state fields that are saved as they are, in this order.
const FIELDS: [Field; 22] = [
    fields::GUEST_CR0,
    fields::CR0_SHADOW,
    fields::GUEST_CR3,
    fields::GUEST_CR4,
    fields::CR4_SHADOW,
    fields::GUEST_EFER,
    fields::GUEST_PAT,
    fields::GUEST_DEBUGCTL,
    fields::GUEST_DR7,
    fields::GUEST_GDTR_BASE,
    fields::GUEST_GDTR_LIMIT,
    fields::GUEST_IDTR_BASE,
    fields::GUEST_IDTR_LIMIT,
    fields::GUEST_RSP,
    fields::GUEST_RIP,
    fields::GUEST_RFLAGS,
    fields::GUEST_INTERRUPTIBILITY,
    fields::GUEST_PENDING_DEBUG,
    fields::GUEST_SYSENTER_CS,
    fields::GUEST_SYSENTER_ESP,
    fields::GUEST_SYSENTER_EIP,
    fields::ENTRY_CONTROLS,
];

#[derive(Serialize, Deserialize)]
struct Record {
    version: u16,
    tsc_hz: u64,
    fields: Vec<u64>,
    segments: Vec<[u64; 4]>,
    general: Vec<u64>,
    fx: Vec<u8>,
    msrs: [u64; 5],
    cr2: u64,
    debug: [u64; 5],
    tsc: u64,
    tsc_adjust: u64,
    halted: bool,
    event: Option<(u32, u32, u32)>,
}

/// The vCPU's record. Its context must have been saved from the CPU.
///
/// # Errors
/// When it cannot be encoded.
pub fn save(vcpu: &Vcpu) -> Result<Vec<u8>, String> {
    let record = Record {
        version: VERSION,
        tsc_hz: crate::machine::clock::hz(),
        fields: FIELDS.iter().map(|field| vcpu.read(*field)).collect(),
        segments: Segment::ALL
            .iter()
            .map(|segment| {
                [segment.selector(), segment.base(), segment.limit(), segment.rights()].map(|field| vcpu.read(field))
            })
            .collect(),
        general: vcpu.registers.general.to_vec(),
        fx: vcpu.context.fx.0.to_vec(),
        msrs: vcpu.context.msrs,
        cr2: vcpu.context.cr2,
        debug: vcpu.context.debug,
        tsc: vcpu.tsc(),
        tsc_adjust: vcpu.tsc_adjust,
        halted: vcpu.halted,
        event: vcpu.event.map(|event| (event.info, event.error, event.length)),
    };
    postcard::to_allocvec(&record).map_err(|error| format!("cannot save the vCPU: {error}"))
}

/// Restores a record. Nothing is changed when it is refused. What is wrong in a way that only the CPU sees makes the first VM
/// entry fail, which stops the VM.
///
/// # Errors
/// One sentence that names what was refused.
pub fn restore(vcpu: &mut Vcpu, bytes: &[u8]) -> Result<(), String> {
    let record: Record = postcard::from_bytes(bytes).map_err(|error| format!("vCPU record: {error}"))?;
    if record.version != VERSION {
        return Err(format!("vCPU record: version {} (this host reads {VERSION})", record.version));
    }
    check_clock(record.tsc_hz)?;
    let fx =
        <[u8; 512]>::try_from(record.fx.as_slice()).map_err(|_| "vCPU record: the FXSAVE area is not 512 bytes")?;
    let general = <[u64; 16]>::try_from(record.general.as_slice()).map_err(|_| "vCPU record: not 16 registers")?;
    if record.fields.len() != FIELDS.len() || record.segments.len() != Segment::ALL.len() {
        return Err("vCPU record: a wrong number of fields".into());
    }
    check_fields(&record.fields)?;
    if record.event.is_some_and(|(info, _, length)| info & 0x7fff_f000 != 0 || length > 15) {
        return Err("vCPU record: an event that no CPU delivers".into());
    }

    for (field, value) in FIELDS.iter().zip(&record.fields) {
        let value = match *field {
            fields::ENTRY_CONTROLS => {
                let long = u64::from(entry::GUEST_64);
                (vcpu.read(fields::ENTRY_CONTROLS) & !long) | (value & long)
            }
            _ => *value,
        };
        vcpu.vmcs.write(*field, value);
    }
    for (segment, [selector, base, limit, rights]) in Segment::ALL.iter().zip(&record.segments) {
        vcpu.vmcs.write(segment.selector(), *selector & 0xffff);
        vcpu.vmcs.write(segment.base(), *base);
        vcpu.vmcs.write(segment.limit(), *limit & 0xffff_ffff);
        vcpu.vmcs.write(segment.rights(), *rights & 0xffff_ffff);
    }
    vcpu.vmcs.write(fields::GUEST_ACTIVITY, 0);
    vcpu.registers = Registers::new(general);
    vcpu.context.fx = FxArea(fx);
    vcpu.context.msrs = record.msrs;
    vcpu.context.cr2 = record.cr2;
    vcpu.context.debug = record.debug;
    vcpu.context.sanitize();
    vcpu.halted = record.halted;
    vcpu.event = record.event.map(|(info, error, length)| Event { info, error, length });
    vcpu.set_tsc(record.tsc);
    vcpu.tsc_adjust = record.tsc_adjust;
    Ok(())
}

/// Without TSC scaling a guest keeps time only where the TSC runs as fast: 0.1 % is what NTP can still correct.
fn check_clock(hz: u64) -> Result<(), String> {
    let here = crate::machine::clock::hz();
    if here.abs_diff(hz) > here / 1000 {
        return Err(format!("the guest's TSC runs at {hz} Hz, this host's at {here} Hz, and the CPU cannot scale it"));
    }
    Ok(())
}

/// The values that the host relies on; the rest is checked by the CPU at the entry (SDM 27.3.1).
fn check_fields(values: &[u64]) -> Result<(), String> {
    const VMXE: u64 = 1 << 13;
    let allowed_cr4 = cpuid::allowed_cr4(host_cpuid);
    for (field, value) in FIELDS.iter().zip(values) {
        let wrong = match *field {
            fields::GUEST_CR0 => value >> 32 != 0 || value & 1 << 5 == 0,
            fields::GUEST_CR4 => value & !(allowed_cr4 | VMXE) != 0 || value & VMXE == 0,
            fields::CR4_SHADOW => value & !allowed_cr4 != 0,
            fields::GUEST_EFER => value & !(msr::efer::SCE | msr::efer::LME | msr::efer::LMA | msr::efer::NXE) != 0,
            _ => false,
        };
        if wrong {
            return Err(format!(
                "vCPU record: field {:#x} holds {value:#x}, which this host cannot give a guest",
                field.0
            ));
        }
    }
    Ok(())
}
