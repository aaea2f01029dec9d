//! What this CPU's VMX can do (SDM appendix A), and whether that is enough.

use core::arch::x86_64::__cpuid;
use x86_64::registers::model_specific::Msr;

const IA32_FEATURE_CONTROL: u32 = 0x3a;
const IA32_VMX_BASIC: u32 = 0x480;
const IA32_VMX_MISC: u32 = 0x485;
const IA32_VMX_CR0_FIXED0: u32 = 0x486;
const IA32_VMX_CR0_FIXED1: u32 = 0x487;
const IA32_VMX_CR4_FIXED0: u32 = 0x488;
const IA32_VMX_CR4_FIXED1: u32 = 0x489;
const IA32_VMX_PROCBASED_CTLS2: u32 = 0x48b;
const IA32_VMX_EPT_VPID_CAP: u32 = 0x48c;
const IA32_VMX_TRUE_PINBASED_CTLS: u32 = 0x48d;
const IA32_VMX_TRUE_PROCBASED_CTLS: u32 = 0x48e;
const IA32_VMX_TRUE_EXIT_CTLS: u32 = 0x48f;
const IA32_VMX_TRUE_ENTRY_CTLS: u32 = 0x490;

/// CPUs whose preemption timer does not count as it should, as CPUID.1:EAX without its reserved bits: Intel's
/// specification updates name them (errata BA86, AAX65, AAT65, AAN59, AAO60, AAP86, AAJ124, AAK81, AAL60, AAM126,
/// BV70), and Linux keeps the same nine as `vmx_preemption_cpu_tfms`.
const BROKEN_TIMER_SIGNATURES: [u32; 9] = [
    0x0002_06e6,
    0x0002_0652,
    0x0002_0655,
    0x0001_06e5,
    0x0001_06a0,
    0x0001_06a1,
    0x0001_06a4,
    0x0001_06a5,
    0x0003_06a8,
];

/// Bits allowed and required of one word of controls: low half must be 1, high half may be 1.
#[derive(Clone, Copy, Debug)]
pub struct Allowed(pub u64);

impl Allowed {
    /// The word with `wanted` and the required bits.
    ///
    /// # Errors
    /// The wanted bits that the CPU does not grant.
    pub fn grant(self, wanted: u32) -> Result<u32, u32> {
        let missing = wanted & !(self.0 >> 32) as u32;
        if missing == 0 { Ok(wanted | self.0 as u32) } else { Err(missing) }
    }

    /// Whether `bits` may all be 1.
    pub fn may(self, bits: u32) -> bool {
        bits & !(self.0 >> 32) as u32 == 0
    }
}

/// The capability MSRs, read once.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// VMCS revision identifier (SDM 25.2).
    pub revision: u32,
    /// Pin-based controls.
    pub pin: Allowed,
    /// Primary processor-based controls.
    pub primary: Allowed,
    /// Secondary processor-based controls.
    pub secondary: Allowed,
    /// VM-exit controls.
    pub exit: Allowed,
    /// VM-entry controls.
    pub entry: Allowed,
    /// The preemption timer counts once each 2^shift TSC ticks.
    pub timer_shift: u32,
    /// How many CR3-target values the CPU takes; 4 are defined (SDM 25.6.7).
    pub cr3_targets: usize,
    /// CR0 bits that must be 1, and that may be 1, in VMX operation.
    pub cr0: [u64; 2],
    /// CR4 bits that must be 1, and that may be 1.
    pub cr4: [u64; 2],
    /// IA32_VMX_EPT_VPID_CAP.
    pub ept_vpid: u64,
}

impl Capabilities {
    /// EPT sets accessed and dirty flags.
    #[must_use]
    pub fn has_dirty_bits(&self) -> bool {
        self.ept_vpid & (1 << 21) != 0
    }

    /// A leaf of EPT may map 2 MiB.
    #[must_use]
    pub fn has_large_leaves(&self) -> bool {
        self.ept_vpid & (1 << 16) != 0
    }
}

fn read(msr: u32) -> u64 {
    // SAFETY: only called for MSRs that exist where CPUID reports VMX (and, for the TRUE ones, where VMX_BASIC does).
    unsafe { Msr::new(msr).read() }
}

/// Reads the capabilities, or says in one line what is missing.
///
/// # Errors
/// The first missing feature, by its name.
pub fn check() -> Result<Capabilities, &'static str> {
    use super::{
        controls::{pin, primary, secondary},
        fields,
    };
    let version = __cpuid(1);
    if version.ecx & (1 << 5) == 0 {
        return Err(
            "this CPU has no VMX (CPUID.1:ECX[5] is 0): enable it in the firmware, or give the virtual CPU +vmx",
        );
    }
    enable_in_feature_control()?;
    let basic = read(IA32_VMX_BASIC);
    if basic & (1 << 55) == 0 {
        return Err("this CPU has no TRUE VMX controls (IA32_VMX_BASIC[55] is 0)");
    }
    let misc = read(IA32_VMX_MISC);
    let capabilities = Capabilities {
        revision: basic as u32 & 0x7fff_ffff,
        pin: Allowed(read(IA32_VMX_TRUE_PINBASED_CTLS)),
        primary: Allowed(read(IA32_VMX_TRUE_PROCBASED_CTLS)),
        secondary: Allowed(read(IA32_VMX_PROCBASED_CTLS2)),
        exit: Allowed(read(IA32_VMX_TRUE_EXIT_CTLS)),
        entry: Allowed(read(IA32_VMX_TRUE_ENTRY_CTLS)),
        timer_shift: (misc & 0x1f) as u32,
        cr3_targets: ((misc >> 16 & 0x1ff) as usize).min(fields::CR3_TARGETS.len()),
        cr0: [read(IA32_VMX_CR0_FIXED0), read(IA32_VMX_CR0_FIXED1)],
        cr4: [read(IA32_VMX_CR4_FIXED0), read(IA32_VMX_CR4_FIXED1)],
        ept_vpid: 0,
    };
    if !capabilities.primary.may(primary::SECONDARY) || !capabilities.secondary.may(secondary::EPT) {
        return Err("this CPU has no EPT");
    }
    let ept_vpid = read(IA32_VMX_EPT_VPID_CAP);
    let needs: [(bool, &str); 7] = [
        (ept_vpid & (1 << 6) != 0, "this CPU has no 4-level EPT"),
        (ept_vpid & (1 << 14) != 0, "this CPU has no write-back EPT tables"),
        (ept_vpid & (1 << 20) != 0 && ept_vpid & (1 << 25) != 0, "this CPU has no single-context INVEPT"),
        (
            capabilities.secondary.may(secondary::VPID) && ept_vpid & (1 << 32) != 0 && ept_vpid & (1 << 41) != 0,
            "this CPU has no VPID with single-context INVVPID",
        ),
        (capabilities.secondary.may(secondary::UNRESTRICTED), "this CPU has no unrestricted guest"),
        (capabilities.pin.may(pin::PREEMPTION_TIMER), "this CPU has no VMX preemption timer"),
        (
            !BROKEN_TIMER_SIGNATURES.contains(&(version.eax & 0x0fff_3fff)),
            "this CPU's VMX preemption timer is broken (Intel erratum, see the list in src/vmx/capabilities.rs)",
        ),
    ];
    match needs.iter().find(|(met, _)| !met) {
        Some((_, missing)) => Err(missing),
        None => Ok(Capabilities { ept_vpid, ..capabilities }),
    }
}

/// SDM 24.7: VMXON faults unless IA32_FEATURE_CONTROL is locked with VMX outside SMX enabled.
fn enable_in_feature_control() -> Result<(), &'static str> {
    const LOCKED: u64 = 1;
    const VMX_OUTSIDE_SMX: u64 = 1 << 2;
    let value = read(IA32_FEATURE_CONTROL);
    if value & LOCKED == 0 {
        // SAFETY: the MSR exists with VMX and is not locked.
        unsafe { Msr::new(IA32_FEATURE_CONTROL).write(value | LOCKED | VMX_OUTSIDE_SMX) };
    } else if value & VMX_OUTSIDE_SMX == 0 {
        return Err("the firmware has locked VMX off (IA32_FEATURE_CONTROL)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Allowed;

    #[test]
    fn a_control_that_is_not_granted_is_named() {
        let allowed = Allowed(0x0000_00ff_0000_0016);
        assert_eq!(allowed.grant(0x41), Ok(0x57));
        assert_eq!(allowed.grant(0x141), Err(0x100));
    }
}
