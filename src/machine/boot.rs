//! What the boot loader says: memory map, command line, the guests' archive. PVH and multiboot2 both
//! end in one [`BootInfo`].

use alloc::{string::String, vec::Vec};
use core::ops::Range;

/// The protocol by which the image was started; boot/entry.s passes its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Xen's x86/HVM direct boot ABI (`qemu -kernel`).
    Pvh,
    /// Multiboot2 (GRUB).
    Multiboot2,
}

/// The boot loader's claims, copied out of its structures.
#[derive(Debug)]
pub struct BootInfo {
    /// How we were started.
    pub protocol: Protocol,
    /// Usable RAM, in bytes of physical address, in the loader's order.
    pub ram: Vec<Range<u64>>,
    /// The options.
    pub command_line: String,
    /// The first boot module: the guests' archive. Stays where the loader put it.
    pub module: Option<Range<u64>>,
}

impl BootInfo {
    /// The end of the highest RAM range.
    pub fn ram_end(&self) -> u64 {
        self.ram.iter().map(|range| range.end).max().unwrap_or(0)
    }
}

/// Reads the loader's structures.
///
/// # Errors
/// A sentence that names what the loader did not give.
///
/// # Safety
/// `info` must be the pointer that the loader left in ebx under `protocol`, and the first 4 GiB must
/// be identity-mapped.
pub unsafe fn read(protocol: u32, info: u32) -> Result<BootInfo, &'static str> {
    match protocol {
        // SAFETY: passed on from the caller.
        0 => unsafe { read_pvh(info) },
        // SAFETY: passed on from the caller.
        _ => unsafe { read_multiboot2(info) },
    }
}

/// # Safety
/// As [`read`].
unsafe fn read_pvh(info: u32) -> Result<BootInfo, &'static str> {
    use pvh::start_info::{MemmapType, reader::StartInfoReader};
    // SAFETY: the PVH ABI leaves the structure's address in ebx; the reader checks its magic.
    let reader = unsafe { StartInfoReader::from_paddr_identity(info) }.ok_or("PVH: the start info has no magic")?;
    let ram = reader
        .memmap()
        .iter()
        .filter(|entry| entry.ty() == MemmapType::Ram)
        .map(|entry| entry.addr..entry.addr.saturating_add(entry.size))
        .collect();
    let command_line = match reader.cmdline() {
        None => String::new(),
        Some(text) => String::from(text.to_str().map_err(|_| "PVH: the command line is not UTF-8")?),
    };
    let module = reader.modlist().next().map(|module| {
        let raw = module.raw();
        raw.paddr..raw.paddr.saturating_add(raw.size)
    });
    Ok(BootInfo { protocol: Protocol::Pvh, ram, command_line, module })
}

/// # Safety
/// As [`read`].
unsafe fn read_multiboot2(info: u32) -> Result<BootInfo, &'static str> {
    use multiboot2::{BootInformation, BootInformationHeader, MemoryAreaType};
    let pointer = info as usize as *const BootInformationHeader;
    // SAFETY: multiboot2 leaves the structure's address in ebx; `load` checks its end tag.
    let tags = unsafe { BootInformation::load(pointer) }.map_err(|_| "multiboot2: the boot information is damaged")?;
    let map = tags.memory_map_tag().ok_or("multiboot2: no memory map")?;
    let ram = map
        .memory_areas()
        .iter()
        .filter(|area| area.typ() == MemoryAreaType::Available)
        .map(|area| area.start_address()..area.end_address())
        .collect();
    let command_line = match tags.command_line_tag() {
        None => String::new(),
        Some(tag) => String::from(tag.cmdline().map_err(|_| "multiboot2: the command line is not UTF-8")?),
    };
    let module =
        tags.module_tags().next().map(|module| u64::from(module.start_address())..u64::from(module.end_address()));
    Ok(BootInfo { protocol: Protocol::Multiboot2, ram, command_line, module })
}

/// The bytes of a boot module.
///
/// Sound because the loader put the module in RAM, which is identity-mapped, and `machine::start` took it out of the
/// frame allocator's hands: nothing writes there for the life of the image.
#[cfg(target_os = "none")]
pub fn module_bytes(module: &Range<u64>) -> &'static [u8] {
    let length = module.end.saturating_sub(module.start) as usize;
    // SAFETY: see above.
    unsafe { core::slice::from_raw_parts(module.start as *const u8, length) }
}
