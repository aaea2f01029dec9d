//! The registers of a guest that neither the VMCS nor an exit saves: they stay in the CPU while one guest runs, and
//! change when another takes its turn.

use x86_64::registers::model_specific::Msr;

const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const FMASK: u32 = 0xc000_0084;
const KERNEL_GS_BASE: u32 = 0xc000_0102;

/// The MSRs that guests read and write without an exit and that stay in the CPU.
pub const SWITCHED_MSRS: [u32; 5] = [STAR, LSTAR, CSTAR, FMASK, KERNEL_GS_BASE];

/// The x87/SSE state as FXSAVE writes it (SDM volume 1, 10.5.1).
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct FxArea(pub [u8; 512]);

/// One guest's share of the CPU's registers.
#[derive(Clone, Copy)]
pub struct Context {
    /// x87 and SSE.
    pub fx: FxArea,
    /// The values of [`SWITCHED_MSRS`].
    pub msrs: [u64; 5],
    /// CR2.
    pub cr2: u64,
    /// DR0 to DR3, and DR6.
    pub debug: [u64; 5],
}

impl Context {
    /// As after a reset (SDM table 10-1): FCW 0x40 would be the hardware's; the one after FINIT is what loaders leave.
    pub fn new() -> Self {
        let mut fx = [0; 512];
        fx[0] = 0x7f; // FCW 0x037f
        fx[1] = 0x03;
        fx[24] = 0x80; // MXCSR 0x1f80
        fx[25] = 0x1f;
        Self { fx: FxArea(fx), msrs: [0; 5], cr2: 0, debug: [0, 0, 0, 0, 0xffff_0ff0] }
    }

    /// Takes the values out of the CPU.
    pub fn save(&mut self) {
        // SAFETY: the area is 512 bytes, aligned to 16; the MSRs exist on every 64-bit CPU; reading has no effect.
        unsafe {
            core::arch::asm!("fxsave64 [{}]", in(reg) self.fx.0.as_mut_ptr());
            for (value, msr) in self.msrs.iter_mut().zip(SWITCHED_MSRS) {
                *value = Msr::new(msr).read();
            }
            core::arch::asm!("mov {}, cr2", out(reg) self.cr2);
            core::arch::asm!("mov {}, dr0", out(reg) self.debug[0]);
            core::arch::asm!("mov {}, dr1", out(reg) self.debug[1]);
            core::arch::asm!("mov {}, dr2", out(reg) self.debug[2]);
            core::arch::asm!("mov {}, dr3", out(reg) self.debug[3]);
            core::arch::asm!("mov {}, dr6", out(reg) self.debug[4]);
        }
    }

    /// Puts the values into the CPU. They came from [`Context::save`] or went through [`Context::sanitize`].
    pub fn load(&self) {
        // SAFETY: values that the CPU itself held, or that `sanitize` made acceptable, do not fault; this program
        // uses none of these registers.
        unsafe {
            core::arch::asm!("fxrstor64 [{}]", in(reg) self.fx.0.as_ptr());
            for (value, msr) in self.msrs.iter().zip(SWITCHED_MSRS) {
                Msr::new(msr).write(*value);
            }
            core::arch::asm!("mov cr2, {}", in(reg) self.cr2);
            core::arch::asm!("mov dr0, {}", in(reg) self.debug[0]);
            core::arch::asm!("mov dr1, {}", in(reg) self.debug[1]);
            core::arch::asm!("mov dr2, {}", in(reg) self.debug[2]);
            core::arch::asm!("mov dr3, {}", in(reg) self.debug[3]);
            core::arch::asm!("mov dr6, {}", in(reg) self.debug[4]);
        }
    }

    /// Makes claims from the wire acceptable to the CPU: canonical addresses, no reserved bit of MXCSR, FMASK or DR6.
    pub fn sanitize(&mut self) {
        for (value, msr) in self.msrs.iter_mut().zip(SWITCHED_MSRS) {
            *value = match msr {
                LSTAR | CSTAR | KERNEL_GS_BASE => x86_64::VirtAddr::new_truncate(*value).as_u64(),
                FMASK => *value & 0xffff_ffff,
                _ => *value,
            };
        }
        self.fx.0[26] = 0;
        self.fx.0[27] = 0;
        self.debug[4] &= 0xffff_ffff;
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}
