//! One virtual CPU: its VMCS, its registers, the event that its next entry delivers.

use super::{cpuid, linux, msr};
use crate::{
    machine::{PAGE_SIZE, clock, frames, segments},
    vmx::{
        context::Context,
        controls::{entry, exit, pin, primary, secondary},
        entry::{Registers, exit_address, register, run},
        ept::Ept,
        exit::Reason,
        fields::{self, Segment},
        modification_log::{EMPTY_INDEX, ModificationLog},
        operation, timer,
        tracker::Tracker,
        vmcs::Vmcs,
    },
};
use alloc::{format, string::String};
use core::arch::x86_64::__cpuid_count;
use spin::Once;

/// CR0.NE, which VMX operation keeps set.
const CR0_NE: u64 = 1 << 5;
/// CR4.VMXE, likewise; guests read it as 0.
const CR4_VMXE: u64 = 1 << 13;
/// IA32_PAT after a reset (SDM table 12-12).
const RESET_PAT: u64 = 0x0007_0406_0007_0406;
/// CR4.PCIDE.
const CR4_PCIDE: u64 = 1 << 17;
/// RFLAGS.IF.
const INTERRUPT_FLAG: u64 = 1 << 9;
/// Blocking by STI or by MOV SS (SDM table 25-3).
const BLOCKING: u64 = 3;

/// An event for the next entry to deliver, as the VM-entry interruption-information field has it (SDM 25.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The information field, valid bit included.
    pub info: u32,
    /// The error code, where the information says that there is one.
    pub error: u32,
    /// The instruction's length, for software interrupts and exceptions.
    pub length: u32,
}

impl Event {
    const VALID: u32 = 1 << 31;
    const ERROR_CODE: u32 = 1 << 11;

    /// An external interrupt.
    pub fn interrupt(vector: u8) -> Self {
        Self { info: Self::VALID | u32::from(vector), error: 0, length: 0 }
    }

    /// #UD.
    pub fn undefined_instruction() -> Self {
        Self { info: Self::VALID | 3 << 8 | 6, error: 0, length: 0 }
    }

    /// #GP(0).
    pub fn general_protection() -> Self {
        Self { info: Self::VALID | Self::ERROR_CODE | 3 << 8 | 13, error: 0, length: 0 }
    }
}

/// The bitmaps, alike for all VMs: every port exits, and every MSR but those that `msr` lists.
struct Bitmaps {
    io: u64,
    msr: u64,
}

static BITMAPS: Once<Option<Bitmaps>> = Once::new();

fn bitmaps() -> Result<&'static Bitmaps, &'static str> {
    let make = || {
        let io = frames::allocate_filled(&[0xff; 2 * PAGE_SIZE])?;
        Some(Bitmaps { io, msr: frames::allocate_filled(&msr::bitmap())? })
    };
    BITMAPS.call_once(make).as_ref().ok_or("no memory for the I/O and MSR bitmaps")
}

/// Access rights (SDM table 25-2) and limit of flat segments.
struct SegmentRights {
    code: u64,
    data: u64,
    limit: u64,
}

/// The virtual CPU.
pub struct Vcpu {
    pub(super) vmcs: Vmcs,
    modification_log: Option<ModificationLog>,
    /// General registers at the last exit.
    pub registers: Registers,
    pub(super) context: Context,
    /// Delivered by the next entry.
    pub event: Option<Event>,
    /// The guest executed HLT and waits for an interrupt.
    pub halted: bool,
    primary: u32,
    tsc_offset: u64,
    /// IA32_TSC_ADJUST: what the guest added to its TSC (SDM 18.17.3).
    pub(super) tsc_adjust: u64,
    allowed_cr4: u64,
    vpid: u16,
    timer_shift: u32,
    /// Entries so far.
    entries: u64,
    /// TSC ticks from right before each entry to right after its exit, together.
    inside: u64,
}

impl Vcpu {
    /// A vCPU with its controls set and its guest state not yet.
    ///
    /// # Errors
    /// When memory runs out or the CPU does not grant a control.
    pub fn new(ept: &Ept, vpid: u16) -> Result<Self, String> {
        let vmcs = Vmcs::new()?;
        let logs = ept.tracker() == Tracker::PageModificationLog;
        let mut vcpu = Self {
            vmcs,
            modification_log: logs.then(ModificationLog::new).transpose()?,
            registers: Registers::default(),
            context: Context::new(),
            event: None,
            halted: false,
            primary: 0,
            tsc_offset: 0,
            tsc_adjust: 0,
            allowed_cr4: cpuid::allowed_cr4(host_cpuid),
            vpid,
            timer_shift: operation::capabilities().timer_shift,
            entries: 0,
            inside: 0,
        };
        vcpu.write_controls(ept.pointer())?;
        vcpu.write_host_state();
        Ok(vcpu)
    }

    fn write_controls(&mut self, ept_pointer: u64) -> Result<(), String> {
        let capabilities = operation::capabilities();
        let granted = |word: &str, allowed: crate::vmx::capabilities::Allowed, wanted: u32| {
            allowed.grant(wanted).map_err(|missing| format!("this CPU does not grant the {word} controls {missing:#x}"))
        };
        let pin = pin::EXTERNAL_INTERRUPT | pin::NMI | pin::PREEMPTION_TIMER;
        self.primary = primary::TSC_OFFSETTING
            | primary::HLT
            | primary::MWAIT
            | primary::RDPMC
            | primary::CR8_LOAD
            | primary::CR8_STORE
            | primary::IO_BITMAPS
            | primary::MSR_BITMAPS
            | primary::MONITOR
            | primary::SECONDARY;
        let mut second = secondary::EPT | secondary::VPID | secondary::WBINVD | secondary::UNRESTRICTED;
        if capabilities.secondary.may(secondary::INVPCID) {
            second |= secondary::INVPCID;
        }
        if let Some(log) = &self.modification_log {
            second |= secondary::PML;
            self.vmcs.write(fields::PML_ADDRESS, log.address());
            self.vmcs.write(fields::PML_INDEX, u64::from(EMPTY_INDEX));
        }
        let exits =
            exit::SAVE_DEBUG | exit::HOST_64 | exit::SAVE_PAT | exit::LOAD_PAT | exit::SAVE_EFER | exit::LOAD_EFER;
        let entries = entry::LOAD_DEBUG | entry::GUEST_64 | entry::LOAD_PAT | entry::LOAD_EFER;
        self.primary = granted("primary", capabilities.primary, self.primary)?;
        let bitmaps = bitmaps()?;
        for (field, value) in [
            (fields::PIN_CONTROLS, granted("pin-based", capabilities.pin, pin)?),
            (fields::PRIMARY_CONTROLS, self.primary),
            (fields::SECONDARY_CONTROLS, granted("secondary", capabilities.secondary, second)?),
            (fields::EXIT_CONTROLS, granted("exit", capabilities.exit, exits)?),
            (fields::ENTRY_CONTROLS, granted("entry", capabilities.entry, entries)?),
            (fields::EXCEPTION_BITMAP, 0),
            (fields::PAGE_FAULT_ERROR_MASK, 0),
            (fields::PAGE_FAULT_ERROR_MATCH, 0),
            (fields::CR3_TARGET_COUNT, 0),
            (fields::EXIT_MSR_STORE_COUNT, 0),
            (fields::EXIT_MSR_LOAD_COUNT, 0),
            (fields::ENTRY_MSR_LOAD_COUNT, 0),
            (fields::ENTRY_INTERRUPTION_INFO, 0),
        ] {
            self.vmcs.write(field, u64::from(value));
        }
        for (field, value) in [
            (fields::VPID, u64::from(self.vpid)),
            (fields::EPT_POINTER, ept_pointer),
            (fields::IO_BITMAP_A, bitmaps.io),
            (fields::IO_BITMAP_B, bitmaps.io + PAGE_SIZE as u64),
            (fields::MSR_BITMAP, bitmaps.msr),
            (fields::VMCS_LINK_POINTER, u64::MAX),
            (fields::CR0_MASK, CR0_NE),
            (fields::CR4_MASK, !self.allowed_cr4),
        ] {
            self.vmcs.write(field, value);
        }
        Ok(())
    }

    /// What an exit loads (SDM 28.5): this program's own state.
    fn write_host_state(&self) {
        use x86_64::registers::{
            control::{Cr0, Cr3, Cr4},
            model_specific::Efer,
        };
        let segments = segments::current();
        let (data, code) = (u64::from(segments.data.0), u64::from(segments.code.0));
        for (field, value) in [
            (fields::HOST_ES_SELECTOR, data),
            (fields::HOST_CS_SELECTOR, code),
            (fields::HOST_SS_SELECTOR, data),
            (fields::HOST_DS_SELECTOR, data),
            (fields::HOST_FS_SELECTOR, 0),
            (fields::HOST_GS_SELECTOR, 0),
            (fields::HOST_TR_SELECTOR, u64::from(segments.task.0)),
            (fields::HOST_PAT, RESET_PAT),
            (fields::HOST_EFER, Efer::read_raw()),
            (fields::HOST_SYSENTER_CS, 0),
            (fields::HOST_CR0, Cr0::read_raw()),
            (fields::HOST_CR3, Cr3::read_raw().0.start_address().as_u64()),
            (fields::HOST_CR4, Cr4::read_raw()),
            (fields::HOST_FS_BASE, 0),
            (fields::HOST_GS_BASE, 0),
            (fields::HOST_TR_BASE, segments.task_base),
            (fields::HOST_GDTR_BASE, segments.gdt_base),
            (fields::HOST_IDTR_BASE, x86_64::instructions::tables::sidt().base.as_u64()),
            (fields::HOST_SYSENTER_ESP, 0),
            (fields::HOST_SYSENTER_EIP, 0),
            (fields::HOST_RIP, exit_address()),
        ] {
            self.vmcs.write(field, value);
        }
    }

    /// Sets the guest state to the start of a guest that was loaded by `plan`: 64-bit mode, paging on, interrupts off.
    /// The TSC starts at `tsc`.
    pub fn start(&mut self, plan: &linux::Plan<'_>, tsc: u64) {
        let cr0 = 0x8001_0031; // PG, WP, NE, ET, PE
        let cr4 = 1 << 5 | 1 << 9 | 1 << 10; // PAE, OSFXSR, OSXMMEXCPT
        self.clear_guest_state(SegmentRights { code: 0xa09b, data: 0xc093, limit: 0xffff_ffff });
        self.vmcs.write(Segment::Cs.selector(), 0x10);
        for segment in [Segment::Ds, Segment::Es, Segment::Ss, Segment::Fs, Segment::Gs] {
            self.vmcs.write(segment.selector(), 0x18);
        }
        self.registers.general[register::RSI] = plan.zero_page;
        for (field, value) in [
            (fields::GUEST_CR0, cr0),
            (fields::CR0_SHADOW, cr0),
            (fields::GUEST_CR3, plan.page_table),
            (fields::GUEST_CR4, cr4 | CR4_VMXE),
            (fields::CR4_SHADOW, cr4),
            (fields::GUEST_EFER, msr::efer::LME | msr::efer::LMA),
            (fields::GUEST_GDTR_BASE, plan.gdt),
            (fields::GUEST_GDTR_LIMIT, u64::from(linux::GDT_LIMIT)),
            (fields::GUEST_RSP, plan.stack),
            (fields::GUEST_RIP, plan.entry),
            (fields::ENTRY_CONTROLS, self.vmcs.read(fields::ENTRY_CONTROLS) | u64::from(entry::GUEST_64)),
        ] {
            self.vmcs.write(field, value);
        }
        self.set_tsc(tsc);
    }

    /// Sets the guest state to real mode with flat segments (an unrestricted guest, SDM 26.6.1) at `rip`, interrupts on; for the
    /// hypervisor's own guests of a few bytes. `halted` makes the CPU itself wait, as after HLT.
    pub fn start_real_mode(&mut self, rip: u64, halted: bool) {
        self.clear_guest_state(SegmentRights { code: 0x9b, data: 0x93, limit: 0xffff });
        self.vmcs.write(fields::GUEST_RIP, rip);
        self.vmcs.write(fields::GUEST_RFLAGS, 2 | INTERRUPT_FLAG);
        self.vmcs.write(fields::GUEST_ACTIVITY, u64::from(halted));
    }

    /// Real mode's control registers, flat segments, everything else as after a reset.
    fn clear_guest_state(&mut self, segments: SegmentRights) {
        self.registers = Registers::default();
        self.context = Context::new();
        self.event = None;
        self.halted = false;
        self.tsc_adjust = 0;
        for segment in Segment::ALL {
            let (limit, rights) = match segment {
                Segment::Cs => (segments.limit, segments.code),
                Segment::Ldtr => (0, 0x1_0000),
                Segment::Tr => (0xffff, 0x8b),
                _ => (segments.limit, segments.data),
            };
            self.vmcs.write(segment.selector(), 0);
            self.vmcs.write(segment.base(), 0);
            self.vmcs.write(segment.limit(), limit);
            self.vmcs.write(segment.rights(), rights);
        }
        for (field, value) in [
            (fields::GUEST_CR0, 0x10 | CR0_NE),
            (fields::CR0_SHADOW, 0x10),
            (fields::GUEST_CR3, 0),
            (fields::GUEST_CR4, CR4_VMXE),
            (fields::CR4_SHADOW, 0),
            (fields::GUEST_EFER, 0),
            (fields::GUEST_PAT, RESET_PAT),
            (fields::GUEST_DEBUGCTL, 0),
            (fields::GUEST_DR7, 0x400),
            (fields::GUEST_GDTR_BASE, 0),
            (fields::GUEST_GDTR_LIMIT, 0),
            (fields::GUEST_IDTR_BASE, 0),
            // As a reset leaves it (SDM table 10-1): an empty one is the guest's own doing.
            (fields::GUEST_IDTR_LIMIT, 0xffff),
            (fields::GUEST_RSP, 0),
            (fields::GUEST_RIP, 0),
            (fields::GUEST_RFLAGS, 2),
            (fields::GUEST_INTERRUPTIBILITY, 0),
            (fields::GUEST_ACTIVITY, 0),
            (fields::GUEST_PENDING_DEBUG, 0),
            (fields::GUEST_SYSENTER_CS, 0),
            (fields::GUEST_SYSENTER_ESP, 0),
            (fields::GUEST_SYSENTER_EIP, 0),
            (fields::ENTRY_CONTROLS, self.vmcs.read(fields::ENTRY_CONTROLS) & !u64::from(entry::GUEST_64)),
        ] {
            self.vmcs.write(field, value);
        }
    }

    /// The guest's TSC now.
    pub fn tsc(&self) -> u64 {
        clock::now().wrapping_add(self.tsc_offset)
    }

    /// Makes the guest's TSC read `value` now (SDM 26.3: the offset is added to each read).
    pub fn set_tsc(&mut self, value: u64) {
        self.tsc_offset = value.wrapping_sub(clock::now());
        self.vmcs.write(fields::TSC_OFFSET, self.tsc_offset);
    }

    /// WRMSR of IA32_TIME_STAMP_COUNTER: IA32_TSC_ADJUST changes by as much.
    pub fn write_tsc(&mut self, value: u64) {
        self.tsc_adjust = self.tsc_adjust.wrapping_add(value.wrapping_sub(self.tsc()));
        self.set_tsc(value);
    }

    /// WRMSR of IA32_TSC_ADJUST: the TSC changes by as much.
    pub fn write_tsc_adjust(&mut self, value: u64) {
        self.set_tsc(self.tsc().wrapping_add(value.wrapping_sub(self.tsc_adjust)));
        self.tsc_adjust = value;
    }

    /// What is added to the host's TSC to give the guest's.
    pub fn tsc_offset(&self) -> u64 {
        self.tsc_offset
    }

    /// Puts the guest's share of the CPU's registers in place; once, before it runs after another guest.
    pub fn load_context(&self) {
        self.context.load();
    }

    /// Takes it out again.
    pub fn save_context(&mut self) {
        self.context.save();
    }

    /// Whether an interrupt may be delivered at the next entry.
    pub fn can_take_interrupt(&self) -> bool {
        self.event.is_none()
            && self.vmcs.read(fields::GUEST_RFLAGS) & INTERRUPT_FLAG != 0
            && self.vmcs.read(fields::GUEST_INTERRUPTIBILITY) & BLOCKING == 0
    }

    /// Asks for an exit as soon as the guest can take an interrupt, or no longer.
    pub fn want_interrupt_window(&mut self, wanted: bool) {
        self.set_primary(primary::INTERRUPT_WINDOW, wanted);
    }

    /// Makes CR3 loads exit, or no longer.
    pub fn watch_cr3(&mut self, wanted: bool) {
        self.set_primary(primary::CR3_LOAD, wanted);
    }

    /// Whether CR3 holds a PCID (CR4.PCIDE).
    pub fn has_pcid(&self) -> bool {
        self.vmcs.read(fields::GUEST_CR4) & CR4_PCIDE != 0
    }

    /// How many values of CR3 may be loaded without an exit while loads are watched.
    pub fn cr3_targets(&self) -> usize {
        operation::capabilities().cr3_targets
    }

    /// Names these values; as many of the first ones as the CPU takes. It compares all that is written, bit 63 too
    /// (SDM 26.1.3).
    pub fn set_cr3_targets(&mut self, values: &[u64]) {
        let mut count = 0;
        for (field, value) in fields::CR3_TARGETS.iter().zip(values).take(self.cr3_targets()) {
            self.vmcs.write(*field, *value);
            count += 1;
        }
        self.vmcs.write(fields::CR3_TARGET_COUNT, count);
    }

    fn set_primary(&mut self, bit: u32, wanted: bool) {
        let value = if wanted { self.primary | bit } else { self.primary & !bit };
        if value != self.primary {
            self.primary = value;
            self.vmcs.write(fields::PRIMARY_CONTROLS, u64::from(value));
        }
    }

    /// Runs the guest until something happens, at the latest at `deadline` (TSC ticks of the host).
    ///
    /// # Errors
    /// When the CPU refuses the entry: the VM-instruction error's number.
    pub fn run(&mut self, deadline: u64) -> Result<Reason, u64> {
        if let Some(event) = self.event.take() {
            self.vmcs.write(fields::ENTRY_INTERRUPTION_INFO, u64::from(event.info));
            self.vmcs.write(fields::ENTRY_EXCEPTION_ERROR, u64::from(event.error));
            self.vmcs.write(fields::ENTRY_INSTRUCTION_LENGTH, u64::from(event.length));
        }
        let entered = clock::now();
        let timer = timer::value_until(entered, deadline, self.timer_shift);
        self.vmcs.write(fields::PREEMPTION_TIMER, u64::from(timer));
        run(&mut self.vmcs, &mut self.registers)?;
        self.inside = self.inside.wrapping_add(clock::now().wrapping_sub(entered));
        self.entries += 1;
        self.keep_interrupted_delivery();
        Ok(Reason::from_field(self.vmcs.read(fields::EXIT_REASON)))
    }

    /// TSC ticks that the guest had so far, where entering and leaving it takes `switch` of them each time.
    pub fn guest_ticks(&self, switch: u64) -> u64 {
        self.inside.saturating_sub(self.entries.saturating_mul(switch))
    }

    /// An exit in the middle of a delivery (an EPT violation on the guest's stack, say) leaves the event in the
    /// IDT-vectoring fields: the next entry delivers it again (SDM 28.2.4).
    fn keep_interrupted_delivery(&mut self) {
        let info = self.vmcs.read(fields::IDT_VECTORING_INFO) as u32;
        if info & Event::VALID == 0 {
            return;
        }
        let error = if info & Event::ERROR_CODE != 0 { self.vmcs.read(fields::IDT_VECTORING_ERROR) as u32 } else { 0 };
        let software = matches!(info >> 8 & 7, 4..=6);
        let length = if software { self.vmcs.read(fields::EXIT_INSTRUCTION_LENGTH) as u32 } else { 0 };
        // Bit 12 is undefined there and reserved here.
        self.event = Some(Event { info: info & !(1 << 12), error, length });
    }

    /// Steps over the instruction that exited.
    pub fn skip_instruction(&mut self) {
        let rip = self.vmcs.read(fields::GUEST_RIP).wrapping_add(self.vmcs.read(fields::EXIT_INSTRUCTION_LENGTH));
        let rip = if self.long_mode() { rip } else { rip & 0xffff_ffff };
        self.vmcs.write(fields::GUEST_RIP, rip);
        let interruptibility = self.vmcs.read(fields::GUEST_INTERRUPTIBILITY);
        if interruptibility & BLOCKING != 0 {
            self.vmcs.write(fields::GUEST_INTERRUPTIBILITY, interruptibility & !BLOCKING);
        }
    }

    /// Whether the code segment is 64-bit.
    pub fn long_mode(&self) -> bool {
        const LONG: u64 = 1 << 13;
        self.vmcs.read(Segment::Cs.rights()) & LONG != 0
    }

    /// A general register by its number; RSP is in the VMCS.
    pub fn general(&self, number: u8) -> u64 {
        match usize::from(number & 15) {
            register::RSP => self.vmcs.read(fields::GUEST_RSP),
            number => self.registers.general[number],
        }
    }

    /// Sets a general register by its number.
    pub fn set_general(&mut self, number: u8, value: u64) {
        match usize::from(number & 15) {
            register::RSP => self.vmcs.write(fields::GUEST_RSP, value),
            number => self.registers.general[number] = value,
        }
    }

    /// Calls `each` with every page that the CPU's log names, and empties it. Nothing where there is no log.
    pub fn take_modification_log(&mut self, mut each: impl FnMut(u64)) {
        let Some(log) = &self.modification_log else { return };
        let index = self.vmcs.read(fields::PML_INDEX) as u16;
        if index != EMPTY_INDEX {
            log.pages(index).for_each(&mut each);
            self.vmcs.write(fields::PML_INDEX, u64::from(EMPTY_INDEX));
        }
    }

    /// A guest-state field, for the exit handlers.
    pub fn read(&self, field: fields::Field) -> u64 {
        self.vmcs.read(field)
    }

    /// CR3.
    pub fn page_table_root(&self) -> u64 {
        self.vmcs.read(fields::GUEST_CR3)
    }

    /// The VPID.
    pub fn vpid(&self) -> u16 {
        self.vpid
    }

    /// MOV to CR0. False: #GP.
    pub fn write_cr0(&mut self, value: u64) -> bool {
        let current = self.vmcs.read(fields::GUEST_CR0);
        let (paging, protection) = (value >> 31 & 1, value & 1);
        let (not_write_through, cache_disable) = (value >> 29 & 1, value >> 30 & 1);
        // Only NE is watched, so only a change of NE exits. Paging cannot change in the same write: the long-mode state would
        // have to be switched here too, and no known guest does it.
        let invalid = value >> 32 != 0
            || paging > protection
            || not_write_through > cache_disable
            || (value ^ current) >> 31 & 1 != 0;
        if invalid {
            return false;
        }
        self.vmcs.write(fields::GUEST_CR0, value | CR0_NE);
        self.vmcs.write(fields::CR0_SHADOW, value);
        true
    }

    /// MOV to CR4. False: #GP, because the guest has not the feature behind a bit, or leaves PAE in long mode.
    pub fn write_cr4(&mut self, value: u64) -> bool {
        const PAE: u64 = 1 << 5;
        let long = self.vmcs.read(fields::GUEST_EFER) & msr::efer::LMA != 0;
        if value & !self.allowed_cr4 != 0 || (long && value & PAE == 0) {
            return false;
        }
        self.vmcs.write(fields::GUEST_CR4, value | CR4_VMXE);
        self.vmcs.write(fields::CR4_SHADOW, value);
        crate::vmx::invalidate::invvpid(self.vpid);
        true
    }

    /// MOV to CR3 while loads are watched: bit 63 asks to keep the translations of the PCID (SDM volume 3, 4.10.4.1).
    /// False: #GP.
    pub fn write_cr3(&mut self, value: u64) -> bool {
        const NO_FLUSH: u64 = 1 << 63;
        let pcid = self.has_pcid();
        let root = if pcid { value & !NO_FLUSH } else { value };
        if root >> 52 != 0 {
            return false;
        }
        self.vmcs.write(fields::GUEST_CR3, root);
        if !pcid || value & NO_FLUSH == 0 {
            crate::vmx::invalidate::invvpid(self.vpid);
        }
        true
    }

    /// WRMSR of EFER. False: #GP.
    pub fn write_efer(&mut self, value: u64) -> bool {
        let paging = self.vmcs.read(fields::GUEST_CR0) >> 31 & 1 != 0;
        match msr::efer_write(self.vmcs.read(fields::GUEST_EFER), value, paging) {
            Some(efer) => self.vmcs.write(fields::GUEST_EFER, efer),
            None => return false,
        }
        true
    }
}

/// The CPU's own CPUID.
pub fn host_cpuid(leaf: u32, subleaf: u32) -> cpuid::Leaf {
    let answer = __cpuid_count(leaf, subleaf);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}
