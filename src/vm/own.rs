//! The hypervisor's own guests, of a few bytes each: one that waits, and one that shows at boot that written pages are found.

use super::{memory::GuestMemory, vcpu::Vcpu};
use crate::{
    machine::{PAGE_SIZE, clock, interrupts},
    vmx::{
        ept::{Ept, tables::PATIENCE},
        exit::Reason,
        fields, operation,
        tracker::Tracker,
    },
};
use alloc::{format, string::String, vec::Vec};

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
    fn new(code: &[u8], vpid: u16, tracker: Tracker) -> Result<Self, String> {
        let mut memory = GuestMemory::new(PAGES)?;
        while !memory.zero_some() {}
        memory.write(CODE, code).map_err(|error| format!("{error}"))?;
        let ept = Ept::new(memory.host(), PAGES, tracker)?;
        let vcpu = Vcpu::new(&ept, vpid)?;
        Ok(Self { vcpu, ept, _memory: memory })
    }

    fn harvest(&mut self) -> Vec<u64> {
        let mut found = Vec::new();
        self.vcpu.take_modification_log(|gfn| self.ept.logged(gfn));
        self.ept.harvest(|gfn| found.push(gfn));
        found
    }

    fn run_to_halt(&mut self) -> Result<(), String> {
        let patience = clock::now() + clock::from_micros(1_000_000);
        loop {
            match self.vcpu.run(patience) {
                Ok(Reason::Hlt) => break,
                Ok(Reason::ExternalInterrupt | Reason::ExceptionOrNmi) => interrupts::take_pending(),
                Ok(Reason::EptViolation) if self.write_was_stopped() => {}
                Ok(reason) => {
                    return Err(format!(
                        "the self-test's guest ended by {} at rip {:#x}",
                        reason.name(),
                        self.vcpu.read(fields::GUEST_RIP)
                    ));
                }
                Err(number) => return Err(format!("VM entry failed, VM-instruction error {number}")),
            }
        }
        self.vcpu.skip_instruction();
        Ok(())
    }

    fn write_was_stopped(&mut self) -> bool {
        self.ept.written(self.vcpu.read(fields::GUEST_PHYSICAL_ADDRESS) / PAGE_SIZE as u64)
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
        OwnGuest::new(&[0xf4, 0xeb, 0xfd], vpid, Tracker::WriteProtection).map(Self)
    }

    /// Waits for an interrupt, at the latest until `deadline` (TSC ticks).
    pub fn wait(&mut self, deadline: u64) {
        self.0.vcpu.start_real_mode(CODE, true);
        // Whatever ended the wait, the host looks for work anew.
        let _ = self.0.vcpu.run(deadline);
        interrupts::take_pending();
    }
}

/// Picks how written pages are found on this machine: the way that is asked for, or else the first that works, log aside
/// (see [`Tracker::ALL`]).
///
/// # Errors
/// One sentence: the CPU has not what was asked for, or no way works.
pub fn choose_tracker(asked: Option<Tracker>, vpid: u16) -> Result<Tracker, String> {
    if let Some(tracker) = asked {
        return test_tracker(tracker, vpid).map(|()| tracker);
    }
    let flags = test_tracker(Tracker::DirtyBits, vpid);
    let Err(why) = flags else { return Ok(Tracker::DirtyBits) };
    log::warn!("{why}: written pages are found by write protection, an exit for each");
    test_tracker(Tracker::WriteProtection, vpid).map(|()| Tracker::WriteProtection)
}

/// Shows on this very machine that a write is found, once; that nothing is found without one; and that the next write is found
/// again, also after the page was clean for so long that its region is looked at no more.
fn test_tracker(tracker: Tracker, vpid: u16) -> Result<(), String> {
    if !tracker.is_offered(operation::capabilities()) {
        return Err(format!("this CPU has not what `tracker={}` needs", tracker.text()));
    }
    // mov [0x2000], al; hlt; jmp 0 (back to the start)
    let mut guest = OwnGuest::new(&[0xa2, 0x00, 0x20, 0xf4, 0xeb, 0xfa], vpid, tracker)?;
    guest.vcpu.start_real_mode(CODE, false);
    let step = |guest: &mut OwnGuest, run: bool, what: &str| {
        if run {
            guest.run_to_halt()?;
        }
        let found = guest.harvest();
        let expected: &[u64] = if run { &[DATA_PAGE] } else { &[] };
        if found == expected {
            Ok(())
        } else {
            let way = tracker.text();
            Err(format!("written pages cannot be found by {way} here: {what}: found {found:?}, written {expected:?}"))
        }
    };
    step(&mut guest, true, "the first write")?;
    step(&mut guest, false, "no write")?;
    step(&mut guest, true, "a write after a harvest")?;
    for _ in 0..PATIENCE {
        step(&mut guest, false, "no write")?;
    }
    step(&mut guest, true, "a write after many clean harvests")
}

/// What leaving a guest and entering it again takes on this machine, in TSC ticks.
#[derive(Clone, Copy, Debug)]
pub struct ExitCost {
    /// An exit, its handling, and the entry after it.
    pub round_trip: u64,
    /// The part of it that passes between the last reading of the clock before the entry and the first one after the exit: the
    /// world switch, and in a nested machine what the hypervisor beneath us does for it. The least of several: what comes in
    /// between only lengthens it.
    pub switch: u64,
}

/// Measures it by a few HLTs of a guest of three instructions; the round trip as their mean.
///
/// # Errors
/// When the guest does not run.
pub fn exit_cost(vpid: u16) -> Result<ExitCost, String> {
    const TURNS: u64 = 32;
    // hlt; jmp back to it
    let mut guest = OwnGuest::new(&[0xf4, 0xeb, 0xfd], vpid, Tracker::WriteProtection)?;
    guest.vcpu.start_real_mode(CODE, false);
    guest.run_to_halt()?;
    let (start, mut switch) = (clock::now(), u64::MAX);
    for _ in 0..TURNS {
        let before = guest.vcpu.guest_ticks(0);
        guest.run_to_halt()?;
        switch = switch.min(guest.vcpu.guest_ticks(0) - before);
    }
    Ok(ExitCost { round_trip: (clock::now() - start) / TURNS, switch })
}
