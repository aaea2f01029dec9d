//! Loading a bzImage by Linux's 64-bit boot protocol (Documentation/arch/x86/boot.rst and zero-page.rst).
//!
//! [`plan`] turns the files into pieces of guest memory and a start state; it touches nothing.

use super::acpi;
use alloc::{format, string::String, vec, vec::Vec};

/// Where the loader puts its own tables, all below 640 KiB but ACPI's.
const GDT: u64 = 0x500;
const ZERO_PAGE: u64 = 0x7000;
const PML4: u64 = 0x9000;
const PDPT: u64 = 0xa000;
const DIRECTORIES: u64 = 0xb000;
const COMMAND_LINE: u64 = 0x2_0000;
const STACK: u64 = 0x8ff0;
/// Where a PC's BIOS has its tables; the E820 table names no RAM there.
const ACPI_TABLES: u64 = 0xe_0000;

/// The end of low RAM as PCs have it, and the start of high RAM.
const LOW_END: u64 = 0x9_fc00;
const HIGH_START: u64 = 0x10_0000;

/// A piece of guest memory.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Bytes made here.
    Made(u64, Vec<u8>),
    /// Bytes of a file.
    File(u64, &'a [u8]),
}

impl Piece<'_> {
    /// Guest-physical address and bytes.
    pub fn parts(&self) -> (u64, &[u8]) {
        match self {
            Self::Made(gpa, bytes) => (*gpa, bytes),
            Self::File(gpa, bytes) => (*gpa, bytes),
        }
    }
}

/// What to write, and how the vCPU starts.
#[derive(Debug)]
pub struct Plan<'a> {
    /// In this order.
    pub pieces: Vec<Piece<'a>>,
    /// RIP.
    pub entry: u64,
    /// RSI: the zero page.
    pub zero_page: u64,
    /// RSP. The protocol asks for none; a guest that pushes before it sets its own must hit RAM.
    pub stack: u64,
    /// CR3: an identity map of the first 4 GiB.
    pub page_table: u64,
    /// GDTR base; code is selector 0x10, data 0x18.
    pub gdt: u64,
}

/// GDT limit.
pub const GDT_LIMIT: u16 = 4 * 8 - 1;

/// Lays a kernel, an initrd (may be empty) and a command line out in `memory` bytes of RAM.
///
/// # Errors
/// One sentence that names what is wrong.
pub fn plan<'a>(kernel: &'a [u8], initrd: &'a [u8], command_line: &str, memory: u64) -> Result<Plan<'a>, String> {
    let header = Header::read(kernel)?;
    let load = if header.relocatable { header.preferred.max(HIGH_START) } else { HIGH_START };
    let code = kernel
        .get(header.code_offset..)
        .filter(|code| !code.is_empty())
        .ok_or("kernel: truncated: no code after the setup sectors")?;
    let needed = u64::from(header.init_size).max(code.len() as u64);
    let kernel_end = load.saturating_add(needed);
    if kernel_end > memory {
        return Err(format!(
            "too little memory: the kernel needs {} MiB (it is loaded at {} MiB and takes {} MiB), the VM has {} MiB",
            kernel_end.div_ceil(1 << 20),
            load >> 20,
            needed.div_ceil(1 << 20),
            memory >> 20
        ));
    }
    let initrd_top = memory.min(header.initrd_max.saturating_add(1)) & !0xfff;
    let initrd_at = initrd_top.checked_sub((initrd.len() as u64).next_multiple_of(4096)).filter(|at| *at >= kernel_end);
    let initrd_at = initrd_at.ok_or_else(|| {
        format!(
            "too little memory: an initrd of {} KiB does not fit between the kernel's end at {} MiB and {} MiB",
            initrd.len() >> 10,
            kernel_end.div_ceil(1 << 20),
            initrd_top >> 20
        )
    })?;
    if command_line.len() as u64 > u64::from(header.command_line_size) {
        return Err(format!(
            "the command line has {} bytes, the kernel takes {}",
            command_line.len(),
            header.command_line_size
        ));
    }
    let mut text = Vec::from(command_line.as_bytes());
    text.push(0);
    Ok(Plan {
        pieces: vec![
            Piece::Made(GDT, gdt()),
            Piece::Made(ZERO_PAGE, zero_page(&header, initrd_at, initrd.len(), memory)),
            Piece::Made(PML4, page_tables()),
            Piece::Made(COMMAND_LINE, text),
            Piece::Made(ACPI_TABLES, acpi::tables(ACPI_TABLES)),
            Piece::File(load, code),
            Piece::File(initrd_at, initrd),
        ],
        entry: load + 0x200,
        zero_page: ZERO_PAGE,
        stack: STACK,
        page_table: PML4,
        gdt: GDT,
    })
}

struct Header<'a> {
    setup: &'a [u8],
    code_offset: usize,
    relocatable: bool,
    preferred: u64,
    init_size: u32,
    initrd_max: u64,
    command_line_size: u32,
}

impl<'a> Header<'a> {
    fn read(kernel: &'a [u8]) -> Result<Self, String> {
        let field = |offset: usize, size: usize| -> Result<u64, String> {
            let bytes = kernel.get(offset..offset + size);
            let bytes = bytes.ok_or_else(|| format!("kernel: truncated at byte {}", kernel.len()))?;
            Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        };
        if field(0x1fe, 2)? != 0xaa55 || kernel.get(0x202..0x206) != Some(b"HdrS") {
            return Err("kernel: not a bzImage (no `HdrS` at 0x202)".into());
        }
        let version = field(0x206, 2)?;
        if version < 0x20c {
            return Err(format!(
                "kernel: boot protocol {}.{} is too old, 2.12 is needed",
                version >> 8,
                version & 0xff
            ));
        }
        if field(0x236, 2)? & 1 == 0 {
            return Err("kernel: no 64-bit entry (XLF_KERNEL_64 is not set)".into());
        }
        let setup_sectors = match field(0x1f1, 1)? {
            0 => 4,
            sectors => sectors,
        };
        let header_end = 0x202 + field(0x201, 1)? as usize;
        Ok(Self {
            setup: kernel.get(0x1f1..header_end.clamp(0x238, 0x290)).ok_or("kernel: truncated in the setup header")?,
            code_offset: (setup_sectors as usize + 1) * 512,
            relocatable: field(0x234, 1)? != 0,
            preferred: field(0x258, 8)?,
            init_size: field(0x260, 4)? as u32,
            initrd_max: field(0x22c, 4)?,
            command_line_size: field(0x238, 4)? as u32,
        })
    }
}

fn zero_page(header: &Header<'_>, initrd: u64, initrd_size: usize, memory: u64) -> Vec<u8> {
    let mut page = vec![0; 4096];
    let mut put = |offset: usize, bytes: &[u8]| {
        if let Some(place) = page.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0x1f1, header.setup);
    put(0x210, &[0xff]); // type_of_loader: none of the known ones
    put(0x228, &(COMMAND_LINE as u32).to_le_bytes());
    if initrd_size > 0 {
        put(0x218, &(initrd as u32).to_le_bytes());
        put(0x0c0, &((initrd >> 32) as u32).to_le_bytes());
        put(0x21c, &(initrd_size as u32).to_le_bytes());
    }
    put(0x070, &ACPI_TABLES.to_le_bytes());
    put(0x1e8, &[2]); // entries of the E820 table
    for (index, (start, end)) in [(0, LOW_END), (HIGH_START, memory)].into_iter().enumerate() {
        let at = 0x2d0 + 20 * index;
        put(at, &start.to_le_bytes());
        put(at + 8, &(end - start).to_le_bytes());
        put(at + 16, &1u32.to_le_bytes()); // RAM
    }
    page
}

/// Null, unused, 64-bit code at 0x10, data at 0x18.
fn gdt() -> Vec<u8> {
    [0u64, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff].iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// An identity map of 4 GiB in 2 MiB pages: PML4, PDPT and four directories, in this order.
fn page_tables() -> Vec<u8> {
    const TABLE: u64 = 0x3; // present, writable
    const LARGE: u64 = 0x83;
    let mut entries = vec![0u64; 6 * 512];
    let mut put = |at: usize, value: u64| {
        if let Some(entry) = entries.get_mut(at) {
            *entry = value;
        }
    };
    put(0, PDPT | TABLE);
    for directory in 0..4 {
        put(512 + directory, (DIRECTORIES + 4096 * directory as u64) | TABLE);
    }
    for page in 0..4 * 512 {
        put(1024 + page, ((page as u64) << 21) | LARGE);
    }
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kernel() -> Vec<u8> {
        let mut image = vec![0; 1024 + 8192];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x1f1, &[1]);
        put(0x1fe, &[0x55, 0xaa]);
        put(0x201, &[0x6a]);
        put(0x202, b"HdrS");
        put(0x206, &0x20fu16.to_le_bytes());
        put(0x22c, &0x7fff_ffffu32.to_le_bytes());
        put(0x234, &[1]);
        put(0x236, &1u16.to_le_bytes());
        put(0x238, &2047u32.to_le_bytes());
        put(0x258, &0x100_0000u64.to_le_bytes());
        put(0x260, &0x20_0000u32.to_le_bytes());
        image
    }

    #[test]
    fn the_kernel_goes_where_it_prefers_and_the_initrd_to_the_top() {
        let kernel = kernel();
        let plan = plan(&kernel, &[1; 5000], "quiet", 64 << 20).unwrap();
        assert_eq!(plan.entry, 0x100_0200);
        let places: Vec<_> = plan.pieces.iter().map(|piece| piece.parts().0).collect();
        assert!(places.contains(&((64 << 20) - 8192)));
    }

    #[test]
    fn wrong_kernels_are_refused_with_the_reason() {
        let check = |change: &dyn Fn(&mut Vec<u8>), memory: u64, word: &str| {
            let mut kernel = kernel();
            change(&mut kernel);
            let error = plan(&kernel, &[], "", memory).unwrap_err();
            assert!(error.contains(word), "{error}");
        };
        check(&|image| image[0x202] = b'X', 64 << 20, "not a bzImage");
        check(&|image| image[0x206] = 0x0b, 64 << 20, "2.11 is too old");
        check(&|image| image[0x236] = 0, 64 << 20, "no 64-bit entry");
        check(&|image| image.truncate(0x210), 64 << 20, "truncated");
        check(&|image| image.truncate(1024), 64 << 20, "truncated");
        check(&|_| (), 17 << 20, "too little memory");
    }

    proptest! {
        #[test]
        fn no_kernel_can_panic_it(at in 0x1f1usize..0x268, value in any::<[u8; 8]>(), memory in 0u64..1 << 40, cut in 0usize..9300) {
            let mut image = kernel();
            image[at..at + 8].copy_from_slice(&value);
            image.truncate(cut.max(1));
            let _ = plan(&image, &[0; 100], "x", memory & !0xfff);
        }
    }
}
