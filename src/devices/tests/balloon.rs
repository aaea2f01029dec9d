//! What Linux 6.1 does to the balloon (virtio_pci_legacy.c, virtio_balloon.c, page_reporting.c), and what guests do that mean
//! harm.

use super::super::virtqueue::{GuestRam, SIZE, Unreachable};
use super::super::{BALLOON_IRQ, Served};
use super::*;
use proptest::prelude::*;
use std::cell::Cell;

const PORTS: u16 = 0xC000;
const PAGE: u64 = 4096;
const RAM_PAGES: u64 = 64;
/// Where the rings are: three pages each are more than one takes.
const RINGS: [u32; 5] = [8, 11, 14, 17, 20];
const AVAILABLE: u64 = 16 * SIZE as u64;
const USED: u64 = PAGE;
const INFLATE: u16 = 0;
const REPORTS: u16 = 2;
const NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;

/// Guest memory of which pages may be missing. It counts accesses.
struct Ram {
    bytes: Vec<u8>,
    missing: Option<u64>,
    accesses: Cell<usize>,
}

impl Ram {
    fn new() -> Self {
        Self { bytes: alloc::vec![0; (RAM_PAGES * PAGE) as usize], missing: None, accesses: Cell::new(0) }
    }

    fn range(&self, gpa: u64, length: usize) -> Result<core::ops::Range<usize>, Unreachable> {
        self.accesses.set(self.accesses.get() + 1);
        let end = gpa.checked_add(length as u64).filter(|end| *end <= RAM_PAGES * PAGE).ok_or(Unreachable::Outside)?;
        match self.missing.filter(|gfn| (gpa / PAGE..=(end - 1) / PAGE).contains(gfn)) {
            Some(gfn) => Err(Unreachable::Missing(gfn)),
            None => Ok(gpa as usize..end as usize),
        }
    }

    fn word(&self, gpa: u64) -> u16 {
        let mut bytes = [0; 2];
        self.read(gpa, &mut bytes).unwrap();
        u16::from_le_bytes(bytes)
    }
}

impl GuestRam for Ram {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), Unreachable> {
        into.copy_from_slice(&self.bytes[self.range(gpa, into.len())?]);
        Ok(())
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), Unreachable> {
        let range = self.range(gpa, bytes.len())?;
        self.bytes[range].copy_from_slice(bytes);
        Ok(())
    }
}

/// A guest with a driver of the balloon.
struct Driver {
    guest: Guest,
    ram: Ram,
}

impl Driver {
    /// The driver as its probe leaves it.
    fn new() -> Self {
        let mut driver = Self { guest: Guest::new(), ram: Ram::new() };
        driver.guest.init_pics(1 << 2 | 1 << BALLOON_IRQ);
        for status in [0, 1, 3] {
            driver.out(18, Width::Byte, status);
        }
        assert!(driver.serve().forget, "a reset device knows of nothing");
        assert_eq!(driver.input(0, Width::Dword), 1 << 5);
        driver.out(4, Width::Dword, 1 << 5);
        for (index, page) in (0..).zip(RINGS) {
            driver.out(14, Width::Word, index);
            assert_eq!((driver.input(12, Width::Word), driver.input(8, Width::Dword)), (SIZE.into(), 0));
            driver.out(8, Width::Dword, page);
            assert_eq!(driver.input(8, Width::Dword), page);
        }
        driver.out(14, Width::Word, 5);
        assert_eq!(driver.input(12, Width::Word), 0, "there are five queues");
        driver.out(18, Width::Byte, 7);
        assert_eq!(driver.input(18, Width::Byte), 7);
        driver
    }

    fn out(&mut self, register: u16, width: Width, value: u32) {
        self.guest.chipset.write_port(PORTS + register, width, value, self.guest.now);
    }

    fn input(&mut self, register: u16, width: Width) -> u32 {
        self.guest.chipset.read_port(PORTS + register, width, self.guest.now)
    }

    fn serve(&mut self) -> Served {
        self.guest.chipset.serve_balloon(&mut self.ram)
    }

    fn ring(queue: u16) -> u64 {
        u64::from(RINGS[usize::from(queue)]) * PAGE
    }

    fn describe(&mut self, queue: u16, index: u16, (gpa, length): (u64, u32), flags: u16, next: u16) {
        let mut descriptor = Vec::from(gpa.to_le_bytes());
        descriptor.extend(length.to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend(next.to_le_bytes());
        self.ram.write(Self::ring(queue) + 16 * u64::from(index), &descriptor).unwrap();
    }

    /// Makes a chain available that begins at a descriptor.
    fn offer(&mut self, queue: u16, head: u16) {
        let available = Self::ring(queue) + AVAILABLE;
        let index = self.ram.word(available + 2);
        self.ram.write(available + 4 + 2 * u64::from(index % SIZE), &head.to_le_bytes()).unwrap();
        self.ram.write(available + 2, &index.wrapping_add(1).to_le_bytes()).unwrap();
    }

    /// Makes one chain of ranges available, as `virtqueue_add_inbuf` does.
    fn post(&mut self, queue: u16, ranges: &[(u64, u32)], flags: u16) {
        for (index, range) in (0..).zip(ranges) {
            let more = if usize::from(index) + 1 < ranges.len() { NEXT } else { 0 };
            self.describe(queue, index, *range, flags | more, index + 1);
        }
        self.offer(queue, 0);
    }

    fn kick(&mut self, queue: u16) -> Served {
        self.out(16, Width::Word, queue.into());
        self.serve()
    }

    fn used(&self, queue: u16) -> u16 {
        self.ram.word(Self::ring(queue) + USED + 2)
    }

    /// The interrupt that waits for the guest's CPU; the handler reads the cause and ends it.
    fn interrupt(&mut self) -> Option<u32> {
        let vector = self.guest.chipset.acknowledge_interrupt()?;
        assert_eq!(vector, 0x30 + BALLOON_IRQ);
        let cause = self.input(19, Width::Byte);
        self.guest.end_of_interrupt(vector);
        Some(cause)
    }
}

fn ranges(count: u64) -> Vec<(u64, u32)> {
    (0..count).map(|index| (index << 21, 2 << 20)).collect()
}

#[test]
fn a_report_of_32_runs_is_taken_and_answered_with_one_interrupt() {
    let mut driver = Driver::new();
    for turn in 1..100 {
        driver.post(REPORTS, &ranges(32), DEVICE_WRITES);
        let served = driver.kick(REPORTS);
        assert!(!served.forget && served.missing.is_none());
        assert_eq!(
            served.reported,
            ranges(32).into_iter().map(|(gpa, length)| (gpa, length.into())).collect::<Vec<_>>()
        );
        assert_eq!(driver.used(REPORTS), turn);
        assert_eq!((driver.interrupt(), driver.interrupt()), (Some(1), None));
        assert!(!driver.guest.chipset.balloon_has_work());
    }
}

#[test]
fn reports_come_by_whichever_of_the_later_queues_the_driver_counts_to() {
    let mut driver = Driver::new();
    for queue in [2, 3, 4] {
        driver.post(queue, &[(0x1000, 0x1000)], DEVICE_WRITES);
        assert_eq!(driver.kick(queue).reported, [(0x1000, 0x1000)]);
    }
}

#[test]
fn nothing_is_reported_by_a_driver_that_has_not_taken_the_feature_nor_by_what_it_wants_read() {
    let mut driver = Driver::new();
    driver.post(REPORTS, &[(0x1000, 0x1000)], 0);
    assert_eq!(driver.kick(REPORTS).reported, []);
    driver.out(4, Width::Dword, 0);
    driver.post(REPORTS, &[(0x1000, 0x1000)], DEVICE_WRITES);
    assert_eq!(driver.kick(REPORTS).reported, []);
    assert_eq!(driver.used(REPORTS), 2, "it has them back");
}

#[test]
fn pages_that_nobody_asked_for_are_given_back_and_the_count_is_kept() {
    let mut driver = Driver::new();
    assert_eq!(driver.input(20, Width::Dword), 0, "none is asked for");
    driver.post(INFLATE, &[(0x3000, 1024)], 0);
    assert_eq!(driver.kick(INFLATE), Served::default());
    assert_eq!(driver.used(INFLATE), 1);
    assert_eq!(driver.interrupt(), Some(1));
    for (byte, value) in (24..).zip([0x78, 0x56, 0x34, 0x12]) {
        driver.out(byte, Width::Byte, value);
    }
    assert_eq!(driver.input(24, Width::Dword), 0x1234_5678);
}

#[test]
fn a_driver_that_polls_gets_no_interrupt_and_a_masked_one_waits() {
    let mut driver = Driver::new();
    driver.ram.write(Driver::ring(REPORTS) + AVAILABLE, &1u16.to_le_bytes()).unwrap();
    driver.post(REPORTS, &ranges(1), DEVICE_WRITES);
    driver.kick(REPORTS);
    assert_eq!(driver.interrupt(), None);
    driver.ram.write(Driver::ring(REPORTS) + AVAILABLE, &0u16.to_le_bytes()).unwrap();
    let select = |driver: &mut Driver, value: u32| {
        driver.guest.chipset.write_port(0xCF8, Width::Dword, 0x8000_0804, 0);
        driver.guest.chipset.write_port(0xCFC, Width::Word, value, 0);
    };
    select(&mut driver, 0x0405);
    driver.post(REPORTS, &ranges(1), DEVICE_WRITES);
    driver.kick(REPORTS);
    assert_eq!(driver.interrupt(), None);
    assert_eq!(driver.guest.chipset.read_port(0xCFE, Width::Word, 0), 1 << 3, "it shows in the status");
    select(&mut driver, 0x0005);
    assert_eq!(driver.interrupt(), Some(1));
}

#[test]
fn a_page_that_has_not_come_is_waited_for_and_nothing_is_done_twice() {
    let ring = u64::from(RINGS[2]);
    for missing in [ring, ring + 1] {
        let mut driver = Driver::new();
        driver.post(REPORTS, &[(0x1000, 0x1000)], DEVICE_WRITES);
        driver.ram.missing = Some(missing);
        let served = driver.kick(REPORTS);
        assert_eq!(served, Served { missing: Some(missing), ..Served::default() });
        // It moves on meanwhile, and still owes the guest its answer.
        let record = driver.guest.chipset.save();
        driver.guest.chipset = Chipset::new(0, 0);
        driver.guest.chipset.restore(&record).unwrap();
        assert!(driver.guest.chipset.balloon_has_work());
        driver.ram.missing = None;
        assert_eq!(driver.serve().reported, [(0x1000, 0x1000)]);
        assert_eq!((driver.used(REPORTS), driver.interrupt()), (1, Some(1)));
        assert_eq!(driver.serve(), Served::default());
    }
}

#[test]
fn a_ring_that_breaks_the_rules_is_left_alone_until_it_is_set_up_anew() {
    let breaks: [&dyn Fn(&mut Driver); 6] = [
        // More is available than there can be.
        &|driver| driver.ram.write(Driver::ring(REPORTS) + AVAILABLE + 2, &100u16.to_le_bytes()).unwrap(),
        // A head, and a next one, that are none.
        &|driver| driver.offer(REPORTS, SIZE),
        &|driver| {
            driver.describe(REPORTS, 0, (0, 4096), NEXT, u16::MAX);
            driver.offer(REPORTS, 0);
        },
        // A loop.
        &|driver| {
            driver.describe(REPORTS, 0, (0, 4096), NEXT | DEVICE_WRITES, 1);
            driver.describe(REPORTS, 1, (0, 4096), NEXT | DEVICE_WRITES, 0);
            driver.offer(REPORTS, 0);
        },
        // A table of descriptors.
        &|driver| {
            driver.describe(REPORTS, 0, (0x1000, 4096), 4, 0);
            driver.offer(REPORTS, 0);
        },
        // No memory.
        &|driver| {
            driver.out(14, Width::Word, REPORTS.into());
            driver.out(8, Width::Dword, u32::MAX);
        },
    ];
    for (number, disturb) in breaks.iter().enumerate() {
        let mut driver = Driver::new();
        disturb(&mut driver);
        assert_eq!(driver.kick(REPORTS), Served::default(), "{number}");
        assert_eq!((driver.used(REPORTS), driver.interrupt()), (0, None), "{number}");
        driver.ram.bytes.fill(0);
        driver.post(REPORTS, &ranges(1), DEVICE_WRITES);
        assert_eq!(driver.kick(REPORTS), Served::default(), "{number}");
        driver.out(14, Width::Word, REPORTS.into());
        driver.out(8, Width::Dword, RINGS[2]);
        assert_eq!(driver.kick(REPORTS).reported.len(), 1, "{number}");
    }
}

#[test]
fn a_restart_and_a_reset_of_the_device_forget_its_queues() {
    let mut driver = Driver::new();
    driver.post(REPORTS, &ranges(1), DEVICE_WRITES);
    driver.out(16, Width::Word, REPORTS.into());
    driver.out(18, Width::Byte, 0);
    assert_eq!(driver.serve(), Served { forget: true, ..Served::default() });
    driver.out(14, Width::Word, REPORTS.into());
    assert_eq!(driver.input(8, Width::Dword), 0);
    let mut driver = Driver::new();
    driver.guest.chipset.reset();
    assert_eq!((driver.input(18, Width::Byte), driver.input(4, Width::Dword)), (0, 0));
}

/// What a guest does to the device, or to the memory that the device reads.
#[derive(Clone, Debug)]
enum Act {
    Out(u16, Width, u32),
    In(u16, Width),
    Write(u64, u16),
    Miss(Option<u64>),
    Serve,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let widths = || prop::sample::select(&[Width::Byte, Width::Word, Width::Dword][..]);
    let ports = || prop_oneof![8 => 0xC000u16..0xC040, 1 => 0xCF8u16..0xD00];
    let values = || prop_oneof![4 => 0u32..24, 2 => any::<u32>(), 1 => Just(0x8000_0804), 1 => Just(0x8000_0810)];
    let notify = (0u32..6).prop_map(|queue| Act::Out(0xC010, Width::Word, queue));
    let select = (0u32..6).prop_map(|queue| Act::Out(0xC00E, Width::Word, queue));
    let place = (0u32..RAM_PAGES as u32 + 2).prop_map(|page| Act::Out(0xC008, Width::Dword, page));
    // Words of rings: flags, indices, and anything.
    let words = prop_oneof![4 => 0u16..SIZE + 2, 1 => any::<u16>()];
    let near_rings = (0u64..6 * PAGE / 2).prop_map(|word| 8 * PAGE + 2 * word);
    let ring_starts = (8u64..20, 0u64..40).prop_map(|(page, word)| page * PAGE + AVAILABLE + 2 * word);
    prop::collection::vec(
        prop_oneof![
            3 => (ports(), widths(), values()).prop_map(|(port, width, value)| Act::Out(port, width, value)),
            2 => (ports(), widths()).prop_map(|(port, width)| Act::In(port, width)),
            4 => notify, 1 => select, 1 => place,
            8 => (prop_oneof![near_rings, ring_starts], words).prop_map(|(gpa, word)| Act::Write(gpa, word)),
            1 => prop::option::of(0..RAM_PAGES).prop_map(Act::Miss),
            4 => Just(Act::Serve),
        ],
        0..200,
    )
}

proptest! {
    #[test]
    fn wild_rings_never_panic_and_cost_a_bounded_number_of_accesses(acts in acts(), memory in any::<[u8; 32]>()) {
        let mut driver = Driver::new();
        for (place, byte) in driver.ram.bytes.iter_mut().zip(memory.iter().cycle()).skip(40 * 4096) {
            *place = *byte;
        }
        for act in acts {
            match act {
                Act::Out(port, width, value) => { driver.guest.chipset.write_port(port, width, value, 0); }
                Act::In(port, width) => { driver.guest.chipset.read_port(port, width, 0); }
                Act::Write(gpa, word) => { let _ = driver.ram.write(gpa, &word.to_le_bytes()); }
                Act::Miss(gfn) => driver.ram.missing = gfn,
                Act::Serve => {
                    driver.ram.accesses.set(0);
                    let served = driver.serve();
                    // A queue: the indices, and a descriptor, a head and two answers for each descriptor.
                    prop_assert!(driver.ram.accesses.get() <= 5 * (1 + 4 * usize::from(SIZE)));
                    prop_assert!(served.reported.len() <= 3 * usize::from(SIZE));
                }
            }
            let record = driver.guest.chipset.save();
            let mut other = Chipset::new(0, 0);
            prop_assert_eq!(other.restore(&record), Ok(()));
            prop_assert_eq!(other.save(), record);
        }
    }
}
