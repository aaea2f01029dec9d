//! GDT and TSS: flat segments, and a stack of its own for faults that may come with a broken one.

use spin::Once;
use x86_64::{
    VirtAddr,
    instructions::{
        segmentation::{CS, DS, ES, SS, Segment},
        tables::load_tss,
    },
    structures::{
        gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector},
        tss::TaskStateSegment,
    },
};

/// The interrupt stack table's entry for double faults, page faults and NMIs.
pub const FAULT_STACK: u16 = 0;

/// The segments that VM exits load (SDM 27.5.2).
#[derive(Clone, Copy, Debug)]
pub struct Segments {
    /// Code.
    pub code: SegmentSelector,
    /// Data and stack.
    pub data: SegmentSelector,
    /// Task.
    pub task: SegmentSelector,
    /// Address of the TSS.
    pub task_base: u64,
    /// Address of the GDT.
    pub gdt_base: u64,
}

static TSS: Once<TaskStateSegment> = Once::new();
static GDT: Once<(GlobalDescriptorTable, [SegmentSelector; 3])> = Once::new();
static SEGMENTS: Once<Segments> = Once::new();

/// Loads the tables on this CPU.
pub fn init(fault_stack_top: u64) {
    let tss = TSS.call_once(|| {
        let mut tss = TaskStateSegment::new();
        tss.interrupt_stack_table[usize::from(FAULT_STACK)] = VirtAddr::new_truncate(fault_stack_top);
        tss
    });
    let (gdt, [code, data, task]) = GDT.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let task = gdt.append(Descriptor::tss_segment(tss));
        (gdt, [code, data, task])
    });
    gdt.load();
    // SAFETY: the selectors are of the table just loaded, which lives for ever.
    unsafe {
        CS::set_reg(*code);
        DS::set_reg(*data);
        ES::set_reg(*data);
        SS::set_reg(*data);
        load_tss(*task);
    }
    let gdt_base = x86_64::instructions::tables::sgdt().base.as_u64();
    SEGMENTS.call_once(|| Segments {
        code: *code,
        data: *data,
        task: *task,
        task_base: core::ptr::from_ref(tss) as u64,
        gdt_base,
    });
}

/// The segments of this CPU.
///
/// # Panics
/// Before [`init`].
pub fn current() -> Segments {
    *SEGMENTS.get().expect("machine::segments::init ran first")
}
