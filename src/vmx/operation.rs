//! VMX operation on this CPU: VMXON (SDM 24.7).

use super::capabilities::{self, Capabilities};
use crate::machine::frames;
use spin::Once;
use x86_64::registers::control::{Cr0, Cr4, Cr4Flags};

static CAPABILITIES: Once<Capabilities> = Once::new();

/// Enters VMX operation.
///
/// # Errors
/// One line that names what is missing.
pub fn enter() -> Result<(), &'static str> {
    let capabilities = capabilities::check()?;
    let region = frames::allocate(1).ok_or("no memory for the VMXON region")?;
    let cr0 = (Cr0::read_raw() | capabilities.cr0[0]) & capabilities.cr0[1];
    let cr4 =
        (Cr4::read_raw() | capabilities.cr4[0] | Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS.bits()) & capabilities.cr4[1];
    let failed: u8;
    // SAFETY: CR0 and CR4 only gain the bits that VMX operation requires; the region is a zeroed frame of ours that is
    // never freed, with the revision identifier in its first word.
    unsafe {
        Cr0::write_raw(cr0);
        Cr4::write_raw(cr4);
        (region as *mut u32).write(capabilities.revision);
        core::arch::asm!("vmxon [{}]", "setbe {}", in(reg) &raw const region, out(reg_byte) failed);
    }
    if failed != 0 {
        return Err("VMXON failed");
    }
    CAPABILITIES.call_once(|| capabilities);
    Ok(())
}

/// This CPU's capabilities.
///
/// # Panics
/// Before [`enter`] has succeeded.
pub fn capabilities() -> &'static Capabilities {
    CAPABILITIES.get().expect("vmx::operation::enter ran first")
}
