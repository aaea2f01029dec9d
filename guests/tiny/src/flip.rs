//! Loads of CR3 as fast as they go: many roots of page tables, each of which looks like another process each time.
#![allow(unsafe_code)]

use crate::memory::MAPPED;
use core::arch::asm;

const PAGE: u64 = 4096;
/// The address bits of CR3.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Present, and for user mode.
const USER: u64 = 1 | 1 << 2;
/// The entry of a root that is changed at each load; nothing lies at the addresses that it maps.
const CHANGED: usize = 255;

/// The roots.
pub struct Roots {
    start: u64,
    count: u64,
    next: u64,
    loads: u64,
}

impl Roots {
    /// Makes `count` roots from `start` on that map what the current one does. `None` if there is no RAM for them.
    pub fn new(start: u64, count: u64, is_ram: impl Fn(u64, u64) -> bool) -> Option<Self> {
        let end = count.checked_mul(PAGE).and_then(|size| start.checked_add(size))?;
        if end > MAPPED || !is_ram(start, end) {
            return None;
        }
        let current: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mov {}, cr3", out(reg) current, options(nomem, nostack, preserves_flags)) };
        // SAFETY: the loader's root lies in memory that it maps, and nothing but the CPU writes it.
        let mut root = unsafe { *((current & ADDRESS) as *const [u64; 512]) };
        root[0] |= USER;
        let mut roots = Self { start, count, next: 0, loads: 0 };
        for number in 0..count {
            *roots.root(number) = root;
        }
        Some(roots)
    }

    /// Changes the next root, and loads it.
    pub fn flip(&mut self) {
        let number = self.next;
        self.next = if number + 1 < self.count { number + 1 } else { 0 };
        self.loads += 1;
        let entry = ((self.loads * PAGE) & ADDRESS) | USER;
        self.root(number)[CHANGED] = entry;
        let cr3 = self.start + number * PAGE;
        // SAFETY: every root maps the first 4 GiB as the loader did, where all of this program is.
        unsafe { asm!("mov cr3, {}", in(reg) cr3, options(nostack, preserves_flags)) }
    }

    fn root(&mut self, number: u64) -> &mut [u64; 512] {
        let number = number.min(self.count - 1);
        // SAFETY: `new` has proven the pages to be mapped RAM after the range that is checked, and so beyond this
        // program; no other reference lives longer than the borrow.
        unsafe { &mut *((self.start + number * PAGE) as *mut [u64; 512]) }
    }
}
