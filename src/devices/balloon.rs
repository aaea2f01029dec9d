//! A legacy virtio balloon (virtio 1.2, 4.1.4.8 and 5.5) by which the guest tells which of its pages are free (free page
//! reporting, 5.5.6.7). It never asks for pages: its target is 0.
//!
//! The device knows ranges and no memory. Its owner lets it serve what the guest has notified, right after the access that
//! did so, and takes note of what was reported: the guest, whose one CPU has stopped there, goes on only after that.

use super::Width;
use super::record::Device;
use super::virtqueue::{self, Buffer, GuestRam, Virtqueue};
use alloc::vec::Vec;
use core::mem;
use serde::{Deserialize, Serialize};

/// The device hears of free pages. Poisoned pages are not offered: a guest that checks what its free pages hold then reports
/// none (Linux: `virtballoon_validate`).
const REPORTING: u32 = 1 << 5;

/// Inflate, deflate, and three of which the guest uses one for its reports: a driver counts the queues for statistics and
/// for hints, whose features are not offered, or it does not (Linux up to now does not, the standard does).
const QUEUES: usize = 5;
const FIRST_REPORTS: usize = 2;

/// An interrupt for a queue waits.
const QUEUE_INTERRUPT: u8 = 1;

/// Where the registers are.
const FEATURES: u16 = 4;
const QUEUE_PAGE: u16 = 8;
const SELECT: u16 = 14;
const NOTIFY: u16 = 16;
const STATUS: u16 = 18;
const INTERRUPTS: u16 = 19;
/// The device's own: the target, and what the guest says that it has given.
const ACTUAL: u16 = 24;
const END: u16 = 28;

/// What the guest's notifications led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// What was reported before is no longer so.
    pub forget: bool,
    /// Free memory: guest-physical addresses and lengths, claims.
    pub reported: Vec<(u64, u64)>,
    /// The page that has to come before the rest can be served.
    pub missing: Option<u64>,
}

/// The registers and the queues.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Balloon {
    /// Of the features on offer, what the guest took.
    features: u32,
    status: u8,
    interrupts: u8,
    select: u16,
    actual: u32,
    queues: [Virtqueue; QUEUES],
    /// Queues that wait to be served, as bits.
    notified: u8,
    /// The guest reset the device, and nobody has taken note yet.
    forget: bool,
}

impl Balloon {
    pub(super) fn new() -> Self {
        Self {
            features: 0,
            status: 0,
            interrupts: 0,
            select: 0,
            actual: 0,
            queues: Default::default(),
            notified: 0,
            forget: false,
        }
    }

    /// Reads what the registers hold there. A read of the interrupts takes them.
    pub(super) fn read(&mut self, register: u16, width: Width) -> u32 {
        let image = self.image();
        let read = register..register.saturating_add(width.bytes());
        if read.contains(&INTERRUPTS) {
            self.interrupts = 0;
        }
        let bytes = read.rev().map(|at| image.get(usize::from(at)).copied().unwrap_or(0));
        bytes.fold(0, |value, byte| value << 8 | u32::from(byte))
    }

    /// Writes a register; what is none in this width is ignored.
    pub(super) fn write(&mut self, register: u16, width: Width, value: u32) {
        let [low, second, ..] = value.to_le_bytes();
        let word = u16::from_le_bytes([low, second]);
        match (register, width) {
            (FEATURES, Width::Dword) => self.features = value & REPORTING,
            (QUEUE_PAGE, Width::Dword) => {
                if let Some(queue) = self.queues.get_mut(usize::from(self.select)) {
                    queue.set_page(value);
                }
            }
            (SELECT, Width::Word) => self.select = word,
            (NOTIFY, Width::Word) if usize::from(word) < QUEUES => self.notified |= 1 << word,
            (STATUS, Width::Byte) if low == 0 => *self = Self { forget: true, ..Self::new() },
            (STATUS, Width::Byte) => self.status = low,
            (ACTUAL..END, _) => self.write_actual(register - ACTUAL, width, value),
            _ => {}
        }
    }

    fn write_actual(&mut self, offset: u16, width: Width, value: u32) {
        let mut actual = self.actual.to_le_bytes();
        let written = value.to_le_bytes().into_iter().take(width.bytes().into());
        for (place, byte) in actual.iter_mut().skip(offset.into()).zip(written) {
            *place = byte;
        }
        self.actual = u32::from_le_bytes(actual);
    }

    fn image(&self) -> [u8; END as usize] {
        const TARGET: u32 = 0;
        let queue = self.queues.get(usize::from(self.select));
        let words = [
            REPORTING,
            self.features,
            queue.map_or(0, Virtqueue::page),
            u32::from(self.select) << 16 | queue.map_or(0, |_| virtqueue::SIZE.into()),
            u32::from(self.interrupts) << 24 | u32::from(self.status) << 16,
            TARGET,
            self.actual,
        ];
        let mut image = [0; END as usize];
        for (place, byte) in image.iter_mut().zip(words.into_iter().flat_map(u32::to_le_bytes)) {
            *place = byte;
        }
        image
    }

    /// The level of the interrupt.
    pub(super) fn interrupt(&self) -> bool {
        self.interrupts != 0
    }

    /// Something is to be served.
    pub(super) fn has_work(&self) -> bool {
        self.notified != 0 || self.forget
    }

    /// Serves what the guest has notified.
    pub(super) fn serve(&mut self, ram: &mut impl GuestRam) -> Served {
        let mut served = Served { forget: mem::take(&mut self.forget), ..Served::default() };
        for (index, queue) in self.queues.iter_mut().enumerate() {
            let bit = 1 << index;
            if self.notified & bit == 0 {
                continue;
            }
            let mut buffers = Vec::new();
            match queue.serve(ram, &mut buffers) {
                Ok(interrupt) => {
                    self.notified &= !bit;
                    self.interrupts |= if interrupt { QUEUE_INTERRUPT } else { 0 };
                }
                Err(gfn) => served.missing = Some(gfn),
            }
            // Of pages by inflation nothing is made: nobody has asked for them.
            if index >= FIRST_REPORTS && self.features & REPORTING != 0 {
                let free = buffers.iter().filter(|buffer| buffer.device_writes);
                served.reported.extend(free.map(|Buffer { gpa, length, .. }| (*gpa, u64::from(*length))));
            }
        }
        served
    }
}

impl Device for Balloon {
    const NAME: &'static str = "balloon";
    const VERSION: u16 = 1;

    fn accept(&mut self) -> Result<(), &'static str> {
        if self.features & !REPORTING != 0 {
            return Err("features");
        }
        if self.interrupts & !QUEUE_INTERRUPT != 0 {
            return Err("interrupts");
        }
        if u32::from(self.notified) >> QUEUES != 0 {
            return Err("notified");
        }
        Ok(())
    }
}
