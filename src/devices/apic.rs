//! The local APIC in x2APIC mode (SDM volume 3, 11.12): registers are MSRs, so a guest needs two exits for a timer interrupt, one
//! to arm the TSC-deadline timer and one to end the interrupt, where 8259A and 8254 take six port accesses.
//!
//! A guest that names a place in its memory may end an interrupt there, without an exit (KVM's "PV EOI",
//! Documentation/virt/kvm/x86/msr.rst, `MSR_KVM_PV_EOI_EN`).
//!
//! There is one CPU and no I/O APIC. Interrupts of the 8259As come in through LINT0 as ExtINT. It starts as firmware leaves it,
//! in virtual wire mode: enabled, LINT0 open. While a guest has disabled it they reach the CPU directly.

use super::Nanos;
use super::record::Device;
use serde::{Deserialize, Serialize};

/// IA32_TSC_DEADLINE.
pub const TSC_DEADLINE: u32 = 0x6e0;
/// IA32_APIC_BASE, and its only value: at the usual address, enabled, x2APIC mode, bootstrap processor.
pub const APIC_BASE: u32 = 0x1b;
/// See [`APIC_BASE`].
pub const APIC_BASE_VALUE: u64 = 0xfee0_0000 | 1 << 11 | 1 << 10 | 1 << 8;

/// MSR_KVM_PV_EOI_EN: bit 0 enables, bit 1 is reserved, the rest is the address of four bytes.
pub const END_IN_MEMORY: u32 = 0x4b56_4d04;

const ID: u32 = 0x802;
const VERSION: u32 = 0x803;
const TASK_PRIORITY: u32 = 0x808;
const PROCESSOR_PRIORITY: u32 = 0x80a;
const END_OF_INTERRUPT: u32 = 0x80b;
const LOGICAL_DESTINATION: u32 = 0x80d;
const SPURIOUS: u32 = 0x80f;
const IN_SERVICE: u32 = 0x810;
const TRIGGER_MODE: u32 = 0x818;
const REQUESTED: u32 = 0x820;
const ERROR_STATUS: u32 = 0x828;
const COMMAND: u32 = 0x830;
const TIMER: u32 = 0x832;
const LAST_LOCAL_VECTOR: u32 = 0x837;
const INITIAL_COUNT: u32 = 0x838;
const CURRENT_COUNT: u32 = 0x839;
const DIVIDE: u32 = 0x83e;
const SELF_INTERRUPT: u32 = 0x83f;

/// Integrated APIC, six entries in the local vector table.
const VERSION_VALUE: u64 = 0x0005_0014;
const ENABLED: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const LINT0: usize = 3;
/// Writable bits of a local vector table entry: vector, delivery mode, polarity, trigger, mask, timer mode.
const ENTRY_BITS: u32 = 0x0007_a7ff;
const DELIVERY_MODE: u32 = 7 << 8;
const EXTERNAL: u32 = 7 << 8;
const TIMER_MODE: u32 = 3 << 17;
const PERIODIC: u32 = 1 << 17;
const DEADLINE: u32 = 2 << 17;
/// A period shorter than this is taken as this long, so that a guest cannot make the host do nothing else.
const SHORTEST_PERIOD: Nanos = 50_000;

/// The APIC of the only CPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LocalApic {
    spurious: u32,
    task_priority: u8,
    /// Timer, thermal sensor, performance counters, LINT0, LINT1, error.
    entries: [u32; 6],
    in_service: [u32; 8],
    requested: [u32; 8],
    command: u64,
    divide: u32,
    initial_count: u32,
    /// When the timer fires.
    next: Option<Nanos>,
    /// What the guest wrote to [`TSC_DEADLINE`], while it waits.
    deadline: u64,
    /// What it wrote to [`END_IN_MEMORY`].
    end_in_memory: u64,
}

impl LocalApic {
    pub(super) fn new() -> Self {
        let mut entries = [MASKED; 6];
        entries[LINT0] = EXTERNAL;
        Self {
            spurious: ENABLED | 0xff,
            task_priority: 0,
            entries,
            in_service: [0; 8],
            requested: [0; 8],
            command: 0,
            divide: 0,
            initial_count: 0,
            next: None,
            deadline: 0,
            end_in_memory: 0,
        }
    }

    /// RDMSR; `None` is #GP.
    pub(super) fn read(&self, msr: u32, now: Nanos) -> Option<u64> {
        Some(match msr {
            APIC_BASE => APIC_BASE_VALUE,
            TSC_DEADLINE => self.deadline,
            END_IN_MEMORY => self.end_in_memory,
            ID => 0,
            VERSION => VERSION_VALUE,
            TASK_PRIORITY => self.task_priority.into(),
            PROCESSOR_PRIORITY => self.priority().into(),
            LOGICAL_DESTINATION => 1,
            SPURIOUS => self.spurious.into(),
            IN_SERVICE..TRIGGER_MODE => word(&self.in_service, msr - IN_SERVICE),
            TRIGGER_MODE..REQUESTED => 0,
            REQUESTED..ERROR_STATUS => word(&self.requested, msr - REQUESTED),
            ERROR_STATUS => 0,
            COMMAND => self.command,
            TIMER..=LAST_LOCAL_VECTOR => self.entries.get((msr - TIMER) as usize).copied()?.into(),
            INITIAL_COUNT => self.initial_count.into(),
            CURRENT_COUNT => self.current_count(now),
            DIVIDE => self.divide.into(),
            _ => return None,
        })
    }

    /// WRMSR. `deadline` is the guest time at which a TSC of `value` is reached, for [`TSC_DEADLINE`]. False is #GP.
    pub(super) fn write(&mut self, msr: u32, value: u64, now: Nanos, deadline: Nanos) -> bool {
        let Ok(low) = u32::try_from(value) else {
            return match msr {
                TSC_DEADLINE => self.arm_deadline(value, deadline),
                COMMAND => self.send(value),
                END_IN_MEMORY => self.set_end_in_memory(value),
                _ => false,
            };
        };
        match msr {
            APIC_BASE => value == APIC_BASE_VALUE,
            TSC_DEADLINE => self.arm_deadline(value, deadline),
            END_IN_MEMORY => self.set_end_in_memory(value),
            TASK_PRIORITY => self.set_task_priority(value),
            END_OF_INTERRUPT => {
                self.end_interrupt();
                low == 0
            }
            SPURIOUS => {
                self.spurious = low & 0x1ff;
                if low & ENABLED == 0 {
                    // SDM volume 3, 11.4.7.2, but for LINT0: without an I/O APIC the 8259As have no other way to the CPU, and
                    // Linux (setup_local_APIC) takes a LINT0 that comes up masked for a sign that there is one.
                    let others = self.entries.iter_mut().enumerate().filter(|(index, _)| *index != LINT0);
                    others.for_each(|(_, entry)| *entry |= MASKED);
                }
                true
            }
            ERROR_STATUS => low == 0,
            COMMAND => self.send(value),
            TIMER..=LAST_LOCAL_VECTOR => self.set_entry((msr - TIMER) as usize, low),
            INITIAL_COUNT => {
                self.initial_count = low;
                let counts = self.entries[0] & TIMER_MODE != DEADLINE && low != 0;
                self.next = counts.then(|| now.saturating_add(self.period()));
                true
            }
            DIVIDE => {
                self.divide = low & 0xb;
                low & !0xb == 0
            }
            SELF_INTERRUPT => {
                self.request(low as u8);
                low <= 0xff
            }
            _ => false,
        }
    }

    fn arm_deadline(&mut self, value: u64, deadline: Nanos) -> bool {
        // SDM volume 3, 11.5.4.1: outside of this mode a write has no effect; 0 disarms.
        if self.entries[0] & TIMER_MODE == DEADLINE {
            self.deadline = value;
            self.next = (value != 0).then_some(deadline);
        }
        true
    }

    /// MOV to CR8 sets its upper half.
    pub(super) fn set_task_priority(&mut self, value: u64) -> bool {
        match u8::try_from(value) {
            Ok(priority) => {
                self.task_priority = priority;
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn task_priority(&self) -> u8 {
        self.task_priority
    }

    /// The end of the interrupt in service.
    pub(super) fn end_interrupt(&mut self) {
        if let Some(vector) = highest(&self.in_service) {
            clear(&mut self.in_service, vector);
        }
    }

    fn set_end_in_memory(&mut self, value: u64) -> bool {
        let valid = value & 2 == 0;
        if valid {
            self.end_in_memory = value;
        }
        valid
    }

    /// Where the guest may tell the end of the interrupt in service. With another one in service or waiting it must tell the
    /// APIC, which then delivers that one.
    pub(super) fn end_in_memory(&self) -> Option<u64> {
        let ones = |bits: &[u32; 8]| bits.iter().map(|word| word.count_ones()).sum::<u32>();
        let possible = self.end_in_memory & 1 == 1 && ones(&self.in_service) == 1 && ones(&self.requested) == 0;
        possible.then_some(self.end_in_memory & !3)
    }

    fn set_entry(&mut self, index: usize, value: u32) -> bool {
        let Some(entry) = self.entries.get_mut(index) else { return false };
        let disabled = if self.spurious & ENABLED == 0 && index != LINT0 { MASKED } else { 0 };
        let mode_changed = index == 0 && (*entry ^ value) & TIMER_MODE != 0;
        *entry = value & ENTRY_BITS | disabled;
        if mode_changed {
            self.next = None;
            self.deadline = 0;
        }
        true
    }

    /// An interrupt command. There is one CPU: what is for it comes back, what is for others is lost, and INIT and NMI to itself are
    /// not modelled.
    fn send(&mut self, command: u64) -> bool {
        self.command = command & !(1 << 12);
        let (shorthand, destination) = (command >> 18 & 3, command >> 32);
        let to_self = match shorthand {
            0 => destination == 0 || destination == 0xffff_ffff || command >> 11 & 1 == 1 && destination & 1 == 1,
            1 | 2 => true,
            _ => false,
        };
        let fixed = command as u32 & DELIVERY_MODE <= 1 << 8;
        if to_self && fixed {
            self.request(command as u8);
        }
        true
    }

    fn request(&mut self, vector: u8) {
        // SDM volume 3, 11.5.2: the first sixteen vectors are illegal.
        if vector >= 16 {
            set(&mut self.requested, vector);
        }
    }

    /// Counts take a nanosecond each before division.
    fn period(&self) -> Nanos {
        // Bits 3, 1 and 0: 0 divides by 2, 6 by 128, 7 by 1 (SDM volume 3, figure 11-10).
        let exponent = (((self.divide & 3) | (self.divide >> 1 & 4)) + 1) & 7;
        (Nanos::from(self.initial_count) << exponent).max(SHORTEST_PERIOD)
    }

    fn current_count(&self, now: Nanos) -> u64 {
        let Some(next) = self.next.filter(|_| self.entries[0] & TIMER_MODE != DEADLINE) else { return 0 };
        let left = u128::from(next.saturating_sub(now)) * u128::from(self.initial_count);
        u64::try_from(left / u128::from(self.period().max(1))).unwrap_or(0)
    }

    /// When the timer fires next.
    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        self.next
    }

    /// Lets the timer run up to `now`. Periods that a late host missed share one interrupt.
    pub(super) fn advance(&mut self, now: Nanos) {
        let Some(due) = self.next.filter(|due| *due <= now) else { return };
        let entry = self.entries[0];
        self.deadline = 0;
        self.next = (entry & TIMER_MODE == PERIODIC).then(|| {
            let period = self.period();
            due.saturating_add(((now - due) / period + 1).saturating_mul(period))
        });
        if entry & MASKED == 0 {
            self.request(entry as u8);
        }
    }

    /// The priority class below which nothing is delivered, with its sub-class.
    fn priority(&self) -> u8 {
        self.task_priority.max(highest(&self.in_service).unwrap_or(0) & 0xf0)
    }

    /// The vector that may be delivered now.
    pub(super) fn deliverable(&self) -> Option<u8> {
        highest(&self.requested).filter(|vector| vector & 0xf0 > self.priority() & 0xf0)
    }

    /// The vector that is delivered now.
    pub(super) fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.deliverable()?;
        clear(&mut self.requested, vector);
        set(&mut self.in_service, vector);
        Some(vector)
    }

    /// Whether interrupts of the 8259As reach the CPU.
    pub(super) fn passes_external(&self) -> bool {
        let lint0 = self.entries[LINT0];
        self.spurious & ENABLED == 0 || lint0 & (MASKED | DELIVERY_MODE) == EXTERNAL
    }
}

fn word(bits: &[u32; 8], index: u32) -> u64 {
    bits.get(index as usize).copied().unwrap_or(0).into()
}

fn set(bits: &mut [u32; 8], vector: u8) {
    bits[usize::from(vector >> 5)] |= 1 << (vector & 31);
}

fn clear(bits: &mut [u32; 8], vector: u8) {
    bits[usize::from(vector >> 5)] &= !(1 << (vector & 31));
}

fn highest(bits: &[u32; 8]) -> Option<u8> {
    let (index, word) = bits.iter().enumerate().rev().find(|(_, word)| **word != 0)?;
    u8::try_from(index as u32 * 32 + 31 - word.leading_zeros()).ok()
}

impl Device for LocalApic {
    const NAME: &'static str = "local APIC";
    const VERSION: u16 = 1;

    fn accept(&mut self) -> Result<(), &'static str> {
        if self.spurious & !0x1ff != 0 {
            return Err("spurious");
        }
        if self.entries.iter().any(|entry| entry & !ENTRY_BITS != 0) {
            return Err("entries");
        }
        if self.divide & !0xb != 0 {
            return Err("divide");
        }
        if self.end_in_memory & 2 != 0 {
            return Err("end_in_memory");
        }
        if self.requested[0] & 0xffff != 0 || self.in_service[0] & 0xffff != 0 {
            return Err("vectors");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_tsc_deadline_fires_once_and_its_end_lets_the_next_through() {
        let mut apic = LocalApic::new();
        assert!(apic.write(TIMER, u64::from(DEADLINE) | 0xec, 0, 0));
        assert!(apic.write(TSC_DEADLINE, 5000, 0, 100));
        apic.advance(99);
        assert_eq!(apic.acknowledge(), None);
        apic.advance(100);
        assert_eq!(apic.read(TSC_DEADLINE, 100), Some(0));
        assert_eq!((apic.acknowledge(), apic.next_deadline()), (Some(0xec), None));
        apic.request(0xe0);
        assert_eq!(apic.deliverable(), None, "the same class waits");
        assert!(apic.write(END_OF_INTERRUPT, 0, 0, 0));
        assert_eq!(apic.deliverable(), Some(0xe0));
    }

    #[test]
    fn an_end_in_memory_is_offered_only_while_nothing_else_waits_for_it() {
        let mut apic = LocalApic::new();
        apic.request(0xec);
        assert_eq!(apic.acknowledge(), Some(0xec));
        assert_eq!(apic.end_in_memory(), None, "no place is named");
        assert!(!apic.write(END_IN_MEMORY, 0x1003, 0, 0), "bit 1 is reserved");
        assert!(apic.write(END_IN_MEMORY, 0x1001, 0, 0));
        assert_eq!(apic.end_in_memory(), Some(0x1000));
        apic.request(0x30);
        assert_eq!(apic.end_in_memory(), None, "a lower one waits");
        apic.end_interrupt();
        assert_eq!((apic.acknowledge(), apic.end_in_memory()), (Some(0x30), Some(0x1000)));
    }

    #[test]
    fn external_interrupts_pass_through_lint0_and_past_a_disabled_apic() {
        let mut apic = LocalApic::new();
        assert!(apic.passes_external());
        apic.write(0x835, u64::from(MASKED), 0, 0);
        assert!(!apic.passes_external());
        apic.write(SPURIOUS, 0xff, 0, 0);
        assert!(apic.passes_external());
        apic.write(0x835, u64::from(EXTERNAL), 0, 0);
        apic.write(SPURIOUS, 0x1ff, 0, 0);
        assert!(apic.passes_external(), "LINT0 stays open while Linux sets the APIC up");
    }

    #[test]
    fn registers_that_are_not_there_are_faults() {
        let mut apic = LocalApic::new();
        assert_eq!(apic.read(0x80e, 0), None);
        assert!(!apic.write(VERSION, 0, 0, 0));
        assert!(!apic.write(APIC_BASE, 0, 0, 0));
        assert!(!apic.write(SPURIOUS, 1 << 32, 0, 0));
    }

    proptest! {
        #[test]
        fn nothing_that_is_written_can_panic_it(writes in proptest::collection::vec((0x800u32..0x840, any::<u64>(), 0u64..1 << 50), 0..60)) {
            let mut apic = LocalApic::new();
            let mut now = 0;
            for (msr, value, step) in writes {
                now += step;
                apic.write(msr, value, now, value);
                apic.write(TSC_DEADLINE, value, now, value);
                apic.advance(now);
                apic.read(msr, now);
                apic.acknowledge();
                prop_assert!(apic.accept().is_ok());
            }
        }
    }
}
