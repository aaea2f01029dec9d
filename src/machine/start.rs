//! From `boot/entry.s` to a machine that the rest can stand on.

use super::{boot, clock, frames, interrupts, log, paging, power, segments, serial};
use crate::machine::boot::BootInfo;
use alloc::vec::Vec;
use core::panic::PanicInfo;

// The stack and the early tables are set up there, with the loader's pointer in the second argument.
core::arch::global_asm!(include_str!("../../boot/entry.s"), options(att_syntax));

pvh::xen_elfnote_phys32_entry!(pvh_entry);

unsafe extern "C" {
    fn pvh_entry() -> !;
    static image_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static image_end: u8;
    static boot_stack_guard: u8;
    static fault_stack_guard: u8;
    static fault_stack_top: u8;
}

macro_rules! address {
    ($symbol:ident) => {
        &raw const $symbol as u64
    };
}

#[unsafe(no_mangle)]
extern "C" fn rust_entry(protocol: u32, info: u32) -> ! {
    serial::init();
    clock::init();
    log::init(::log::LevelFilter::Info);
    // SAFETY: boot/entry.s passes on what the loader left, and has mapped the first 4 GiB.
    let result = unsafe { boot::read(protocol, info) }.and_then(|boot| {
        prepare(&boot)?;
        Ok(boot)
    });
    match result {
        Ok(boot) => crate::host::run(boot),
        Err(message) => fail(message),
    }
}

/// Logs one line and powers off with an error status.
pub fn fail(message: impl core::fmt::Display) -> ! {
    ::log::error!("{message}");
    power::off(power::Ending::Failed)
}

fn prepare(boot: &BootInfo) -> Result<(), &'static str> {
    let image = address!(image_start)..address!(image_end);
    let mut reserved = Vec::from([image]);
    reserved.extend(boot.module.clone());
    frames::init(&boot.ram, &reserved);
    segments::init(address!(fault_stack_top));
    let layout = paging::ImageLayout {
        text: address!(image_start)..address!(text_end),
        constants: address!(text_end)..address!(rodata_end),
        data: address!(rodata_end)..address!(image_end),
        guards: [address!(boot_stack_guard), address!(fault_stack_guard)],
    };
    paging::init(&layout, boot.ram_end().max(1 << 20))?;
    paging::map_mmio(0xfee0_0000, super::PAGE_SIZE)?;
    interrupts::init();
    Ok(())
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    fail(info)
}
