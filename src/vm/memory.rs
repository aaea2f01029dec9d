//! A guest's RAM: one contiguous run of host memory, reached through checked guest-physical addresses.
//!
//! Whatever the hypervisor writes here is noted as modified: EPT dirty flags do not see it (SDM 29.3.5), and the
//! identifier and a migration must.
#![allow(unsafe_code)]

use crate::machine::{PAGE_SIZE, frames};
use core::ops::Range;
use migration::Bitmap;

/// One page.
pub type Page = [u8; PAGE_SIZE];

/// A guest-physical range that is not all RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Where the access began.
    pub gpa: u64,
    /// Bytes.
    pub length: usize,
}

impl core::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "guest-physical {:#x}, {} bytes, lies outside the guest's memory", self.gpa, self.length)
    }
}

/// The RAM of one guest, from guest-physical 0.
#[derive(Debug)]
pub struct GuestMemory {
    host: u64,
    pages: usize,
    /// Pages that are zeroed, or hold something of this guest: the first so many.
    zeroed: usize,
    written: Bitmap,
    written_count: u64,
}

/// 2 MiB in pages: guests' memory starts at such a boundary, so that large leaves stay possible.
const LARGE: usize = 512;

/// Pages that are zeroed between two looks at the clock.
const ZEROED_AT_ONCE: usize = 16;

impl GuestMemory {
    /// Memory of `pages` pages, which is whatever it was before until [`GuestMemory::zero_some`] has said that it is zeroed.
    ///
    /// # Errors
    /// One line, when the host has no contiguous room.
    pub fn new(pages: usize) -> Result<Self, &'static str> {
        let host = frames::reserve_aligned(pages, LARGE).ok_or("the host has too little memory for the guest")?;
        Ok(Self { host, pages, zeroed: 0, written: Bitmap::new(pages as u64), written_count: 0 })
    }

    /// Zeroes a few more pages. Returns whether all are zeroed: no guest runs, and nothing is loaded or received, before that.
    pub fn zero_some(&mut self) -> bool {
        let end = self.pages.min(self.zeroed + ZEROED_AT_ONCE);
        let (start, count) = (self.host + (self.zeroed * PAGE_SIZE) as u64, end - self.zeroed);
        // SAFETY: the frames are this value's alone, identity-mapped, `end` is inside, and `self` is borrowed mutably.
        unsafe { core::ptr::write_bytes(start as *mut u8, 0, count * PAGE_SIZE) };
        self.zeroed = end;
        self.is_zeroed()
    }

    /// Whether no page holds what another guest left there.
    pub fn is_zeroed(&self) -> bool {
        self.zeroed == self.pages
    }

    /// Pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        (self.pages * PAGE_SIZE) as u64
    }

    /// Where it lies in host-physical memory.
    pub fn host(&self) -> u64 {
        self.host
    }

    /// A page, if there is one.
    pub fn page(&self, gfn: u64) -> Option<&Page> {
        let gfn = usize::try_from(gfn).ok().filter(|gfn| *gfn < self.pages)?;
        // SAFETY: the frames are this value's alone, identity-mapped, and `gfn` is inside. The guest may write them, but
        // not while the host runs: there is one vCPU, and it runs on this CPU.
        Some(unsafe { &*((self.host + (gfn * PAGE_SIZE) as u64) as *const Page) })
    }

    /// A page to write; it counts as modified.
    pub fn page_mut(&mut self, gfn: u64) -> Option<&mut Page> {
        let index = usize::try_from(gfn).ok().filter(|index| *index < self.pages)?;
        self.note_written(gfn);
        // SAFETY: as in `page`, and `self` is borrowed mutably.
        Some(unsafe { &mut *((self.host + (index * PAGE_SIZE) as u64) as *mut Page) })
    }

    /// Counts a page as modified.
    pub fn note_written(&mut self, gfn: u64) {
        self.written_count += u64::from(self.written.set(gfn));
    }

    /// Counts a run of pages as modified.
    pub fn note_all_written(&mut self, gfns: Range<u64>) {
        self.written_count += self.written.fill(gfns.start, gfns.end.saturating_sub(gfns.start), true);
    }

    /// Whether the hypervisor wrote to the page since [`GuestMemory::take_written`].
    pub fn was_written(&self, gfn: u64) -> bool {
        self.written_count > 0 && self.written.test(gfn)
    }

    /// A byte, if there is one.
    pub fn byte(&self, gpa: u64) -> Option<u8> {
        self.page(gpa / PAGE_SIZE as u64)?.get((gpa % PAGE_SIZE as u64) as usize).copied()
    }

    /// Copies out of the guest. False when a byte of it lies outside.
    pub fn read(&self, gpa: u64, into: &mut [u8]) -> bool {
        let mut at = gpa;
        let mut rest = into;
        while !rest.is_empty() {
            let offset = (at % PAGE_SIZE as u64) as usize;
            let (now, later) = rest.split_at_mut(rest.len().min(PAGE_SIZE - offset));
            let page = self.page(at / PAGE_SIZE as u64);
            let Some(bytes) = page.and_then(|page| page.get(offset..offset + now.len())) else { return false };
            now.copy_from_slice(bytes);
            at = at.saturating_add(now.len() as u64);
            rest = later;
        }
        true
    }

    /// Copies into the guest.
    ///
    /// # Errors
    /// When a byte of it lies outside; nothing is written then.
    pub fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), OutOfMemory> {
        let error = OutOfMemory { gpa, length: bytes.len() };
        let end = gpa.checked_add(bytes.len() as u64).filter(|end| *end <= self.size()).ok_or(error)?;
        let (mut at, mut rest) = (gpa, bytes);
        while at < end {
            let offset = (at % PAGE_SIZE as u64) as usize;
            let (now, later) = rest.split_at(rest.len().min(PAGE_SIZE - offset));
            let page = self.page_mut(at / PAGE_SIZE as u64).ok_or(error)?;
            page.get_mut(offset..offset + now.len()).ok_or(error)?.copy_from_slice(now);
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// The pages that the hypervisor wrote since [`GuestMemory::take_written`]; none if there is no such page.
    pub fn written(&self) -> Option<&Bitmap> {
        (self.written_count > 0).then_some(&self.written)
    }

    /// Adds the pages that the hypervisor wrote since the last call to each log, and forgets them. Returns how many there were.
    pub fn take_written<'a>(&mut self, logs: impl Iterator<Item = &'a mut Bitmap>) -> u64 {
        let count = core::mem::take(&mut self.written_count);
        if count > 0 {
            logs.for_each(|log| log.or(&self.written));
            self.written.clear_all();
        }
        count
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        // SAFETY: the EPT and the vCPU that referred to it are dropped with the same VM.
        unsafe { frames::free(self.host, self.pages) };
    }
}
