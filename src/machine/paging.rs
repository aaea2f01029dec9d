//! The hypervisor's own page tables: physical memory identity-mapped, the image's text, constants and
//! data with their own rights, the pages below the stacks not mapped at all.

use super::{PAGE_SIZE, frames};
use core::ops::Range;
use spin::Mutex;
use x86_64::{
    PhysAddr, VirtAddr,
    registers::control::{Cr3, Cr3Flags},
    structures::paging::{
        FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags as Flags, PhysFrame, Size2MiB,
        Size4KiB, Translate,
    },
};

const LARGE: u64 = 2 << 20;

struct TableFrames;

// SAFETY: `frames::allocate` hands out frames that nobody else has.
unsafe impl FrameAllocator<Size4KiB> for TableFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        Some(PhysFrame::containing_address(PhysAddr::new(frames::allocate(1)?)))
    }
}

static TABLES: Mutex<Option<OffsetPageTable<'static>>> = Mutex::new(None);

/// The image's parts, as the linker script lays them out.
#[derive(Debug, Clone)]
pub struct ImageLayout {
    /// Executable, read-only.
    pub text: Range<u64>,
    /// Read-only.
    pub constants: Range<u64>,
    /// Writable.
    pub data: Range<u64>,
    /// Pages that stay unmapped, so that a stack that overflows faults.
    pub guards: [u64; 2],
}

/// Builds the tables for RAM up to `ram_end` and switches to them.
///
/// # Errors
/// When memory for the tables runs out.
pub fn init(image: &ImageLayout, ram_end: u64) -> Result<(), &'static str> {
    let root = frames::allocate(1).ok_or("no memory for page tables")?;
    // SAFETY: a fresh zeroed frame, identity-mapped; only this module refers to it.
    let root_table = unsafe { &mut *(root as *mut PageTable) };
    // SAFETY: all of physical memory that the tables lie in is mapped at offset 0, before and after the switch.
    let mut tables = unsafe { OffsetPageTable::new(root_table, VirtAddr::zero()) };

    let image_large = image.text.start / LARGE * LARGE..image.data.end.next_multiple_of(LARGE);
    let writable = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE;
    let mut at = 0;
    while at < ram_end.next_multiple_of(LARGE) {
        if !image_large.contains(&at) {
            map_large(&mut tables, at, writable)?;
        }
        at += LARGE;
    }
    for page in image_large.step_by(PAGE_SIZE) {
        let flags = if image.guards.contains(&page) {
            continue;
        } else if image.text.contains(&page) {
            Flags::PRESENT
        } else if image.constants.contains(&page) {
            Flags::PRESENT | Flags::NO_EXECUTE
        } else {
            writable
        };
        map_small(&mut tables, page, flags)?;
    }

    let frame = PhysFrame::containing_address(PhysAddr::new(root));
    // SAFETY: the new tables map everything that is in use (image, stacks, RAM) where it is now.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
    *TABLES.lock() = Some(tables);
    Ok(())
}

fn map_large(tables: &mut OffsetPageTable<'_>, at: u64, flags: Flags) -> Result<(), &'static str> {
    let page = Page::<Size2MiB>::containing_address(VirtAddr::new_truncate(at));
    let frame = PhysFrame::containing_address(PhysAddr::new_truncate(at));
    // SAFETY: identity mapping of a page that is not mapped yet.
    unsafe { tables.map_to(page, frame, flags, &mut TableFrames) }
        .map_err(|_| "cannot map memory: out of memory for page tables")?
        .ignore();
    Ok(())
}

fn map_small(tables: &mut OffsetPageTable<'_>, at: u64, flags: Flags) -> Result<(), &'static str> {
    let page = Page::<Size4KiB>::containing_address(VirtAddr::new_truncate(at));
    let frame = PhysFrame::containing_address(PhysAddr::new_truncate(at));
    // SAFETY: identity mapping of a page that is not mapped yet.
    unsafe { tables.map_to(page, frame, flags, &mut TableFrames) }
        .map_err(|_| "cannot map memory: out of memory for page tables")?
        .flush();
    Ok(())
}

/// Maps device registers, uncached, where they physically are. What is mapped already stays as it is.
///
/// # Errors
/// When memory for the tables runs out.
pub fn map_mmio(address: u64, length: usize) -> Result<(), &'static str> {
    let mut tables = TABLES.lock();
    let tables = tables.as_mut().ok_or("paging is not set up yet")?;
    let page = PAGE_SIZE as u64;
    let flags = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE | Flags::NO_CACHE | Flags::WRITE_THROUGH;
    let end = address.saturating_add(length as u64).next_multiple_of(page);
    for at in (address / page * page..end).step_by(PAGE_SIZE) {
        if tables.translate_addr(VirtAddr::new_truncate(at)).is_none() {
            map_small(tables, at, flags)?;
        }
    }
    Ok(())
}
