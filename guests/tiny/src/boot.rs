//! From the loader's hand-over to `run`: what the zero page says is read once and checked here.
#![allow(unsafe_code)]

use crate::options::{Clock, Mode, Options};
use crate::{cpu, flip, interval, line, memory, timer, trap, uart, wild};
use core::arch::global_asm;

global_asm!(include_str!("boot.s"), main = sym main, trap = sym trap::trap);

const COMMAND_LINE_POINTER: usize = 0x228;
const E820_COUNT: usize = 0x1e8;
const E820_TABLE: usize = 0x2d0;
const E820_ENTRIES: usize = 128;
const E820_SIZE: usize = 20;
const RAM: u32 = 1;
const LONGEST_LINE: usize = 2047;

/// Called by `entry64` in boot.s.
extern "C" fn main(zero_page: *const u8) -> ! {
    uart::init();
    trap::init();
    // SAFETY: the boot protocol gives a zero page of 4 KiB that nothing else writes; so does our 16-bit entry.
    let zero_page = unsafe { &*zero_page.cast::<[u8; 4096]>() };
    let options = match Options::parse(command_line(zero_page)) {
        Ok(options) => options,
        Err(word) => fail(format_args!("cannot read the option `{word}`")),
    };
    let Some(range) = memory::Range::new(&options, |start, end| is_ram(zero_page, start, end)) else {
        fail(format_args!("no RAM for {} pages at {:#x}", options.pages, options.start))
    };
    line!("start tiny pages={} at={:#x}", options.pages, options.start);
    if options.mode == Mode::Wild {
        wild::run(&options);
        uart::init();
        line!("wild done");
    }
    let roots = (options.mode == Mode::Flip).then(|| {
        let roots = flip::Roots::new(range.end(), options.roots, |start, end| is_ram(zero_page, start, end));
        roots.unwrap_or_else(|| fail(format_args!("no RAM for {} roots at {:#x}", options.roots, range.end())))
    });
    timer::init(options.clock == Clock::Pit);
    interval::run(&options, range, roots)
}

fn fail(reason: core::fmt::Arguments<'_>) -> ! {
    line!("error: {reason}");
    cpu::stop()
}

fn word(zero_page: &[u8; 4096], at: usize) -> Option<u32> {
    zero_page.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn command_line(zero_page: &[u8; 4096]) -> &'static str {
    let address = word(zero_page, COMMAND_LINE_POINTER).unwrap_or(0);
    if address == 0 {
        return "";
    }
    // SAFETY: the boot protocol puts a text of at most cmdline_size bytes and its NUL there, in memory that stays as it
    // is; the first 4 GiB are mapped, so that a loader that breaks this gets a strange text, not a fault.
    let bytes = unsafe { core::slice::from_raw_parts(address as usize as *const u8, LONGEST_LINE) };
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(LONGEST_LINE);
    bytes.get(..end).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or("?")
}

/// Whether one entry of the E820 table says that all of it is RAM. A loader without a table is trusted.
fn is_ram(zero_page: &[u8; 4096], start: u64, end: u64) -> bool {
    let count = usize::from(zero_page[E820_COUNT]).min(E820_ENTRIES);
    let entry = |index: usize| {
        let entry = zero_page.get(E820_TABLE + index * E820_SIZE..)?;
        let base = u64::from_le_bytes(entry.get(..8)?.try_into().ok()?);
        let length = u64::from_le_bytes(entry.get(8..16)?.try_into().ok()?);
        let kind = u32::from_le_bytes(entry.get(16..20)?.try_into().ok()?);
        Some((base, length, kind))
    };
    count == 0
        || (0..count)
            .filter_map(entry)
            .any(|(base, length, kind)| kind == RAM && base <= start && end <= base.saturating_add(length))
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    line!("error: {}", info.message());
    cpu::stop()
}
