//! The hypervisor's own guests, of a few bytes each: one that waits, and one that shows at boot that dirty flags work.

use super::{memory::GuestMemory, vcpu::Vcpu};
use crate::{
    machine::{PAGE_SIZE, clock, interrupts},
    vmx::{ept::Ept, exit::Reason},
};
use alloc::{format, string::String};
use migration::Bitmap;

const CODE: u64 = 0x1000;
const DATA: u64 = 0x2000;
const DATA_PAGE: u64 = DATA / PAGE_SIZE as u64;
const PAGES: usize = 4;

struct OwnGuest {
    vcpu: Vcpu,
    ept: Ept,
    _memory: GuestMemory,
}

impl OwnGuest {
    fn new(code: &[u8], vpid: u16) -> Result<Self, String> {
        let mut memory = GuestMemory::new(PAGES)?;
        memory.write(CODE, code).map_err(|error| format!("{error}"))?;
        let ept = Ept::new(memory.host(), PAGES)?;
        let vcpu = Vcpu::new(ept.pointer(), vpid)?;
        Ok(Self { vcpu, ept, _memory: memory })
    }
}

/// The guest that the host enters when it has nothing to do: its CPU is halted, so the real CPU rests too, until an interrupt of
/// the host or the preemption timer ends the wait.
pub struct Idle(OwnGuest);

impl Idle {
    /// Sets it up.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn new(vpid: u16) -> Result<Self, String> {
        // 1: hlt; jmp 1b
        OwnGuest::new(&[0xf4, 0xeb, 0xfd], vpid).map(Self)
    }

    /// Waits for an interrupt, at the latest until `deadline` (TSC ticks).
    pub fn wait(&mut self, deadline: u64) {
        self.0.vcpu.start_real_mode(CODE, true);
        // Whatever ended the wait, the host looks for work anew.
        let _ = self.0.vcpu.run(deadline);
        interrupts::take_pending();
    }
}

/// Shows on this very machine that a write sets the dirty flag, that it can be cleared, that it stays clear without a write,
/// and that it is set again by the next write.
///
/// # Errors
/// One sentence that says which step failed.
pub fn test_dirty_flags(vpid: u16) -> Result<(), String> {
    // mov [0x2000], al; hlt; jmp 0 (back to the start)
    let mut guest = OwnGuest::new(&[0xa2, 0x00, 0x20, 0xf4, 0xeb, 0xfa], vpid)?;
    guest.vcpu.start_real_mode(CODE, false);
    let mut dirty = Bitmap::new(PAGES as u64);
    let mut step = |guest: &mut OwnGuest, run: bool, expected: bool, what: &str| {
        if run {
            run_to_halt(&mut guest.vcpu)?;
        }
        dirty.clear_all();
        guest.ept.harvest(&mut dirty);
        if dirty.test(DATA_PAGE) == expected {
            Ok(())
        } else {
            Err(format!("EPT dirty flags do not work here: {what}"))
        }
    };
    step(&mut guest, true, true, "a write did not set the flag")?;
    step(&mut guest, false, false, "the flag did not stay clear")?;
    step(&mut guest, true, true, "after clearing and INVEPT, a write did not set the flag again")
}

/// What an exit and the entry after it take on this machine, in TSC ticks: the mean over a few HLTs of a guest of three
/// instructions.
///
/// # Errors
/// When the guest does not run.
pub fn exit_round_trip(vpid: u16) -> Result<u64, String> {
    const TURNS: u64 = 32;
    // hlt; jmp back to it
    let mut guest = OwnGuest::new(&[0xf4, 0xeb, 0xfd], vpid)?;
    guest.vcpu.start_real_mode(CODE, false);
    run_to_halt(&mut guest.vcpu)?;
    let start = clock::now();
    for _ in 0..TURNS {
        run_to_halt(&mut guest.vcpu)?;
    }
    Ok((clock::now() - start) / TURNS)
}

fn run_to_halt(vcpu: &mut Vcpu) -> Result<(), String> {
    let patience = clock::now() + clock::from_micros(1_000_000);
    loop {
        match vcpu.run(patience) {
            Ok(Reason::Hlt) => break,
            Ok(Reason::ExternalInterrupt | Reason::ExceptionOrNmi) => interrupts::take_pending(),
            Ok(reason) => {
                return Err(format!(
                    "the self-test's guest ended by {} at rip {:#x}",
                    reason.name(),
                    vcpu.read(crate::vmx::fields::GUEST_RIP)
                ));
            }
            Err(number) => return Err(format!("VM entry failed, VM-instruction error {number}")),
        }
    }
    vcpu.skip_instruction();
    Ok(())
}
