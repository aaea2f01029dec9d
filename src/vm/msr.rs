//! Which MSRs a guest has. The rest inject #GP, reads and writes alike.
//!
//! The bitmap lets through, without an exit, those that stay in the CPU or the VMCS; the ones listed here are answered in
//! software.

/// MSRs that guests read and write without an exit: in the VMCS (SYSENTER, FS and GS base, PAT) or switched with the
/// guest's context (STAR, LSTAR, CSTAR, FMASK, KERNEL_GS_BASE).
pub const PASSED_THROUGH: [u32; 11] = [
    0x174,
    0x175,
    0x176,
    0x277,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
];

/// IA32_TIME_STAMP_COUNTER.
pub const TSC: u32 = 0x10;
/// IA32_TSC_ADJUST. With it, and an invariant TSC, Linux trusts the TSC without a watchdog over it.
pub const TSC_ADJUST: u32 = 0x3b;
/// IA32_APIC_BASE, the x2APIC's registers and IA32_TSC_DEADLINE: the local APIC's.
pub const APIC_BASE: u32 = 0x1b;
/// The first MSR of the x2APIC.
pub const APIC_FIRST: u32 = 0x800;
/// The last MSR of the x2APIC.
pub const APIC_LAST: u32 = 0x8ff;
/// IA32_TSC_DEADLINE.
pub const TSC_DEADLINE: u32 = 0x6e0;
/// MSR_KVM_PV_EOI_EN, the local APIC's too.
pub const END_IN_MEMORY: u32 = 0x4b56_4d04;
/// IA32_EFER.
pub const EFER: u32 = 0xc000_0080;

/// EFER's bits.
pub mod efer {
    #![allow(missing_docs)]
    pub const SCE: u64 = 1;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
}

/// The value of an MSR that only ever reads one value. `None`: not there.
pub fn fixed(msr: u32) -> Option<u64> {
    match msr {
        0x17 => Some(0),  // platform id
        0x3a => Some(1),  // feature control: locked, VMX off
        0x8b => Some(0),  // microcode revision
        0xce => Some(0),  // platform info
        0xfe => Some(0),  // MTRR capabilities: none
        0x1a0 => Some(1), // misc enable: fast strings
        0x1d9 => Some(0), // debug control
        _ => None,
    }
}

/// Whether a write of `value` is taken and forgotten.
pub fn write_is_ignored(msr: u32, value: u64) -> bool {
    match msr {
        0x8b | 0x1a0 => true,
        0x1d9 => value == 0,
        _ => false,
    }
}

/// The new EFER when a guest writes `value`. `None`: #GP (SDM volume 3, 2.2.1: reserved bits; LME while paging is on).
pub fn efer_write(current: u64, value: u64, paging: bool) -> Option<u64> {
    if value & !(efer::SCE | efer::LME | efer::LMA | efer::NXE) != 0 {
        return None;
    }
    if paging && (value ^ current) & efer::LME != 0 {
        return None;
    }
    Some((value & !efer::LMA) | (current & efer::LMA))
}

/// The MSR bitmap (SDM 25.6.9): every bit set but those of [`PASSED_THROUGH`].
pub fn bitmap() -> [u8; 4096] {
    let mut bitmap = [0xff; 4096];
    for msr in PASSED_THROUGH {
        let (half, bit) = if msr < 0x2000 { (0, msr) } else { (1024, msr & 0x1fff) };
        for access in [0, 2048] {
            if let Some(byte) = bitmap.get_mut(half + access + bit as usize / 8) {
                *byte &= !(1 << (bit % 8));
            }
        }
    }
    bitmap
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_mode_cannot_be_switched_under_paging() {
        assert_eq!(efer_write(0x500, 0x401, true), None);
        assert_eq!(efer_write(0x500, 0xd01, true), Some(0xd01));
        assert_eq!(efer_write(0, 0x900, false), Some(0x900));
        assert_eq!(efer_write(0, 1 << 12, false), None);
    }

    #[test]
    fn the_bitmap_opens_only_the_listed_ones() {
        let bitmap = bitmap();
        assert_eq!(bitmap.iter().map(|byte| byte.count_zeros()).sum::<u32>(), 2 * PASSED_THROUGH.len() as u32);
        assert_eq!(bitmap[1024 + 0x82 / 8] & (1 << (0x82 % 8)), 0);
    }
}
