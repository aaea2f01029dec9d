//! One VMCS (SDM chapter 25). Reading and writing make it current first, so the caller cannot reach another's.

use super::{fields::Field, operation};
use crate::machine::frames;
use core::sync::atomic::{AtomicU64, Ordering};

/// The physical address of the current VMCS of this CPU, or 0. (One CPU runs guests; with more, this goes per CPU.)
static CURRENT: AtomicU64 = AtomicU64::new(0);

/// A VMCS region that this CPU may make current.
#[derive(Debug)]
pub struct Vmcs {
    region: u64,
    launched: bool,
}

impl Vmcs {
    /// A cleared VMCS, with no field set.
    ///
    /// # Errors
    /// When there is no memory for its page.
    pub fn new() -> Result<Self, &'static str> {
        let region = frames::allocate(1).ok_or("no memory for a VMCS")?;
        // SAFETY: a zeroed frame of ours; its first word is the revision identifier (SDM 25.2).
        unsafe { (region as *mut u32).write(operation::capabilities().revision) };
        let vmcs = Self { region, launched: false };
        vmcs.clear();
        Ok(vmcs)
    }

    fn clear(&self) {
        // SAFETY: the region is ours; VMCLEAR writes it back and forgets it.
        unsafe { core::arch::asm!("vmclear [{}]", in(reg) &raw const self.region) };
        let _ = CURRENT.compare_exchange(self.region, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Makes this the current VMCS.
    #[inline]
    pub fn make_current(&self) {
        if CURRENT.load(Ordering::Relaxed) != self.region {
            // SAFETY: the region is ours and holds a cleared or launched VMCS of this CPU.
            unsafe { core::arch::asm!("vmptrld [{}]", in(reg) &raw const self.region) };
            CURRENT.store(self.region, Ordering::Relaxed);
        }
    }

    /// Reads a field.
    #[inline]
    pub fn read(&self, field: Field) -> u64 {
        self.make_current();
        let value: u64;
        // SAFETY: a VMCS is current, and `Field`s are encodings that every CPU which passed the capability check has.
        unsafe {
            core::arch::asm!("vmread {}, {}", out(reg) value, in(reg) u64::from(field.0), options(nostack));
        }
        value
    }

    /// Writes a field.
    ///
    /// # Panics
    /// When the CPU does not have the field: a fault of this program, seen at the first start.
    #[inline]
    pub fn write(&self, field: Field, value: u64) {
        self.make_current();
        let failed: u8;
        // SAFETY: a VMCS is current; what an entry does with a wrong value is checked by the CPU (SDM 27.2, 27.3).
        unsafe {
            core::arch::asm!(
                "vmwrite {}, {}",
                "setbe {}",
                in(reg) u64::from(field.0),
                in(reg) value,
                out(reg_byte) failed,
                options(nostack)
            );
        }
        assert!(failed == 0, "VMWRITE of field {:#x} failed", field.0);
    }

    /// Whether VMLAUNCH has succeeded since the last clear.
    pub fn launched(&self) -> bool {
        self.launched
    }

    /// Notes that VMLAUNCH has succeeded.
    pub fn set_launched(&mut self) {
        self.launched = true;
    }
}

impl Drop for Vmcs {
    fn drop(&mut self) {
        self.clear();
        // SAFETY: cleared, so the CPU refers to the region no more (SDM 25.11.1).
        unsafe { frames::free(self.region, 1) };
    }
}
