//! What a guest sees of the CPU: a whitelist over what the CPU has. No MTRRs, no machine check, no XSAVE: its vector state is
//! what FXSAVE holds. The local APIC, in x2APIC mode with a TSC-deadline timer, is answered in software.

/// EAX, EBX, ECX, EDX.
pub type Leaf = [u32; 4];

const LARGEST_BASIC: u32 = 0x16;
const LARGEST_EXTENDED: u32 = 0x8000_0008;
const HYPERVISOR: u32 = 0x4000_0000;
/// The interface of KVM's guests (Documentation/virt/kvm/x86/cpuid.rst), behind our own leaf: Linux keeps an x2APIC without
/// interrupt remapping only under a hypervisor that it knows.
const KVM: u32 = 0x4000_0100;
/// What of it there is: delays at ports are not needed, and interrupts can be ended in memory (`apic::END_IN_MEMORY`).
const KVM_FEATURES: u32 = 1 << 1 | 1 << 6;

/// Leaf 1 ECX: SSE3, PCLMULQDQ, SSSE3, CMPXCHG16B, PCID, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, RDRAND.
const FEATURES_ECX: u32 =
    1 | 1 << 1 | 1 << 9 | 1 << 13 | 1 << 17 | 1 << 19 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 25 | 1 << 30;
/// Leaf 1 EDX: FPU, VME, DE, PSE, TSC, MSR, PAE, CX8, SEP, PGE, CMOV, PAT, PSE-36, CLFSH, MMX, FXSR, SSE, SSE2.
const FEATURES_EDX: u32 = 0x3f
    | 1 << 6
    | 1 << 8
    | 1 << 11
    | 1 << 13
    | 1 << 15
    | 1 << 16
    | 1 << 17
    | 1 << 19
    | 1 << 23
    | 1 << 24
    | 1 << 25
    | 1 << 26;
/// What is answered in software. Leaf 1 ECX: x2APIC, TSC deadline, and that a hypervisor is there. EDX: APIC.
const EMULATED_ECX: u32 = 1 << 21 | 1 << 24 | 1 << 31;
const EMULATED_EDX: u32 = 1 << 9;
/// Leaf 7 EBX: FSGSBASE, SMEP, ERMS, INVPCID, RDSEED, ADX, SMAP, CLFLUSHOPT.
const EXTENDED_EBX: u32 = 1 | 1 << 7 | 1 << 9 | 1 << 10 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 23;
/// Leaf 7 EBX: IA32_TSC_ADJUST, which is answered in software.
const TSC_ADJUST: u32 = 1 << 1;
/// Leaf 7 ECX: UMIP.
const EXTENDED_ECX: u32 = 1 << 2;
/// Leaf 0x8000_0001 EDX: SYSCALL, NX, 1 GiB pages, LM. ECX: LAHF.
const AMD_EDX: u32 = 1 << 11 | 1 << 20 | 1 << 26 | 1 << 29;
const AMD_ECX: u32 = 1;
const INVARIANT_TSC: u32 = 1 << 8;

/// CR4 bits that guests may set: those whose CPUID features pass the whitelist.
pub fn allowed_cr4(host: impl Fn(u32, u32) -> Leaf) -> u64 {
    let [_, ebx7, ecx7, _] = answer(7, 0, 1, &host);
    let [_, _, ecx1, _] = answer(1, 0, 1, &host);
    // VME, PVI, TSD, DE, PSE, PAE, PGE, PCE, OSFXSR, OSXMMEXCPT
    let mut bits = 0x3f | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10;
    for (present, bit) in [
        (ecx7 & 1 << 2 != 0, 11),  // UMIP
        (ebx7 & 1 != 0, 16),       // FSGSBASE
        (ecx1 & 1 << 17 != 0, 17), // PCIDE
        (ebx7 & 1 << 7 != 0, 20),  // SMEP
        (ebx7 & 1 << 20 != 0, 21), // SMAP
    ] {
        if present {
            bits |= 1 << bit;
        }
    }
    bits
}

/// The guest's view of a leaf. `host` asks the CPU; `tsc_hz` is the rate of the guest's TSC.
pub fn answer(leaf: u32, subleaf: u32, tsc_hz: u64, host: impl Fn(u32, u32) -> Leaf) -> Leaf {
    let [eax, ebx, ecx, edx] = host(leaf, subleaf);
    match leaf {
        0 => [LARGEST_BASIC, ebx, ecx, edx],
        // Initial APIC id and the number of logical processors read 0; bit 31 says that a hypervisor is there.
        1 => [eax, ebx & 0x0000_ff00, (ecx & FEATURES_ECX) | EMULATED_ECX, (edx & FEATURES_EDX) | EMULATED_EDX],
        // The APIC's timer runs in every sleep state (ARAT): else Linux prefers the 8254.
        6 => [1 << 2, 0, 0, 0],
        7 if subleaf == 0 => [0, ebx & EXTENDED_EBX | TSC_ADJUST, ecx & EXTENDED_ECX, 0],
        // TSC = crystal * EBX / EAX (SDM volume 2, CPUID): a crystal of 1 MHz, and the rate in kHz over 1000.
        0x15 => [1000, u32::try_from(tsc_hz / 1000).unwrap_or(u32::MAX), 1_000_000, 0],
        0x16 => {
            let mhz = u32::try_from(tsc_hz / 1_000_000).unwrap_or(0).min(0xffff);
            [mhz, mhz, 100, 0]
        }
        HYPERVISOR => [HYPERVISOR, name(b"Qavi"), name(b"sorQ"), name(b"avis")],
        KVM => [KVM + 1, name(b"KVMK"), name(b"VMKV"), name(b"M\0\0\0")],
        0x4000_0101 => [KVM_FEATURES, 0, 0, 0],
        0x8000_0000 => [LARGEST_EXTENDED, ebx, ecx, edx],
        0x8000_0001 => [eax, 0, ecx & AMD_ECX, edx & AMD_EDX],
        0x8000_0002..=0x8000_0004 => [eax, ebx, ecx, edx],
        0x8000_0007 => [0, 0, 0, INVARIANT_TSC],
        0x8000_0008 => [eax & 0xffff, 0, 0, 0],
        _ => [0; 4],
    }
}

const fn name(text: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything(_: u32, _: u32) -> Leaf {
        [u32::MAX; 4]
    }

    #[test]
    fn what_is_not_whitelisted_is_not_there() {
        let [_, _, ecx, edx] = answer(1, 0, 1, everything);
        for (word, bit, feature) in [(ecx, 5, "VMX"), (ecx, 26, "XSAVE"), (ecx, 28, "AVX"), (edx, 12, "MTRR")] {
            assert_eq!(word & 1 << bit, 0, "{feature}");
        }
        for leaf in [2, 4, 5, 9, 0xb, 0xd, 0x14, 0x17, 0x8000_0005, 0xc000_0000, 0x4000_0001] {
            assert_eq!(answer(leaf, 0, 1, everything), [0; 4], "{leaf:#x}");
        }
    }

    #[test]
    fn nothing_is_promised_that_the_cpu_has_not() {
        let [_, _, ecx, edx] = answer(1, 0, 1, |_, _| [0; 4]);
        assert_eq!((ecx, edx), (EMULATED_ECX, EMULATED_EDX));
        assert_eq!(allowed_cr4(|_, _| [0; 4]) & (1 << 17 | 1 << 20 | 1 << 13), 0);
    }

    #[test]
    fn the_tsc_leaf_gives_the_rate() {
        let [denominator, numerator, crystal, _] = answer(0x15, 0, 2_599_998_000, everything);
        assert_eq!(u64::from(crystal) * u64::from(numerator) / u64::from(denominator), 2_599_998_000);
    }
}
