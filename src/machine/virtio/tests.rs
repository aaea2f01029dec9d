//! Rings against a device made of plain memory, which keeps the rules or breaks them.

use super::{Broken, Direction, RING_SIZE, Ring};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use virtio_drivers::{
    BufferDirection, Hal, PhysAddr,
    transport::{DeviceStatus, DeviceType, InterruptStatus, Transport},
};

struct HostMemory;

fn layout(pages: usize) -> Layout {
    Layout::from_size_align(pages * 4096, 4096).unwrap()
}

// SAFETY: zeroed, page-aligned memory of the host's allocator; an address is a pointer.
unsafe impl Hal for HostMemory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: the size is not zero.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout(pages)) }).unwrap();
        (memory.as_ptr() as PhysAddr, memory)
    }

    unsafe fn dma_dealloc(_: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: what dma_alloc gave.
        unsafe { dealloc(memory.as_ptr(), layout(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        unreachable!("no registers here")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// The device's side of a split virtqueue (virtio 1.2, 2.7).
#[derive(Default)]
struct FakeDevice {
    descriptors: u64,
    available: u64,
    used: u64,
    taken: u16,
    given: u16,
}

impl FakeDevice {
    /// The next buffer that the driver lent: token, address, length.
    fn take(&mut self) -> Option<(u16, u64, u32)> {
        // SAFETY: the addresses of queue_set, whose memory lives as long as the ring of the test.
        unsafe {
            if *((self.available + 2) as *const u16) == self.taken {
                return None;
            }
            let slot = u64::from(self.taken) % RING_SIZE as u64;
            let token = *((self.available + 4 + 2 * slot) as *const u16);
            let descriptor = self.descriptors + 16 * u64::from(token);
            self.taken = self.taken.wrapping_add(1);
            Some((token, *(descriptor as *const u64), *((descriptor + 8) as *const u32)))
        }
    }

    /// Says that it is done with a buffer, truly or not.
    fn give(&mut self, token: u32, length: u32) {
        let slot = u64::from(self.given) % RING_SIZE as u64;
        self.given = self.given.wrapping_add(1);
        // SAFETY: as in `take`.
        unsafe {
            *((self.used + 4 + 8 * slot) as *mut u32) = token;
            *((self.used + 8 + 8 * slot) as *mut u32) = length;
            *((self.used + 2) as *mut u16) = self.given;
        }
    }

    /// Fills the next buffer with a byte.
    fn fill(&mut self, value: u8, length: u32) {
        let (token, address, room) = self.take().unwrap();
        assert!(length <= room);
        // SAFETY: a buffer that the driver lent.
        unsafe { std::ptr::write_bytes(address as *mut u8, value, length as usize) };
        self.give(u32::from(token), length);
    }
}

impl Transport for FakeDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Network
    }
    fn read_device_features(&mut self) -> u64 {
        0
    }
    fn write_driver_features(&mut self, _: u64) {}
    fn max_queue_size(&mut self, _: u16) -> u32 {
        RING_SIZE as u32
    }
    fn notify(&mut self, _: u16) {}
    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::empty()
    }
    fn set_status(&mut self, _: DeviceStatus) {}
    fn set_guest_page_size(&mut self, _: u32) {}
    fn requires_legacy_layout(&self) -> bool {
        false
    }
    fn queue_set(&mut self, _: u16, _: u32, descriptors: PhysAddr, available: PhysAddr, used: PhysAddr) {
        (self.descriptors, self.available, self.used) = (descriptors, available, used);
    }
    fn queue_unset(&mut self, _: u16) {}
    fn queue_used(&mut self, _: u16) -> bool {
        false
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }
    fn read_config_generation(&self) -> u32 {
        0
    }
    fn read_config_space<T: zerocopy::FromBytes + zerocopy::IntoBytes>(&self, _: usize) -> virtio_drivers::Result<T> {
        Err(virtio_drivers::Error::Unsupported)
    }
    fn write_config_space<T: zerocopy::IntoBytes + zerocopy::Immutable>(
        &mut self,
        _: usize,
        _: T,
    ) -> virtio_drivers::Result<()> {
        Err(virtio_drivers::Error::Unsupported)
    }
}

fn ring(direction: Direction, count: usize) -> (FakeDevice, Ring<HostMemory>) {
    let mut device = FakeDevice::default();
    // SAFETY: the device does nothing of itself.
    let ring = unsafe { Ring::new(&mut device, 0, direction, count, 2048) }.unwrap();
    (device, ring)
}

#[test]
fn what_the_device_writes_is_read_and_a_lent_buffer_is_out_of_reach() {
    let (mut device, mut ring) = ring(Direction::Receive, 4);
    assert!(ring.lend(2, 2048));
    assert!(ring.bytes(2).is_empty());
    assert!(!ring.lend(2, 2048), "lent twice");
    device.fill(0xab, 100);
    assert_eq!(ring.reclaim(), Ok(Some((2, 100))));
    assert_eq!(ring.bytes(2)[..101], [&[0xab; 100][..], &[0]].concat());
    assert_eq!(ring.reclaim(), Ok(None));
}

#[test]
fn the_ring_goes_round_beyond_its_index() {
    let (mut device, mut ring) = ring(Direction::Transmit, RING_SIZE);
    for buffer in 0..RING_SIZE as u16 {
        assert!(ring.lend(buffer, 60));
    }
    assert!(!ring.lend(0, 60));
    // More than 2^16 buffers: indices wrap.
    for _ in 0..70_000 {
        let (token, ..) = device.take().unwrap();
        device.give(u32::from(token), 0);
        let (buffer, _) = ring.reclaim().unwrap().unwrap();
        assert!(ring.lend(buffer, 60));
    }
}

#[test]
fn a_buffer_is_found_again_whatever_the_order_in_which_it_comes_back() {
    let (mut device, mut ring) = ring(Direction::Transmit, 8);
    for buffer in 0..8 {
        ring.bytes(buffer).fill(buffer as u8);
        assert!(ring.lend(buffer, 10 + usize::from(buffer)));
    }
    let mut lent: Vec<_> = std::iter::from_fn(|| device.take()).collect();
    lent.reverse();
    for (token, address, length) in lent {
        // SAFETY: a buffer that the driver lent.
        let first = unsafe { *(address as *const u8) };
        assert_eq!(length, 10 + u32::from(first));
        device.give(u32::from(token), 0);
        assert_eq!(ring.reclaim(), Ok(Some((u16::from(first), 0))));
    }
}

#[test]
fn a_device_that_claims_what_it_does_not_have_is_broken_and_nothing_panics() {
    for token in [0u32, 3, 255, 256, 65_535, u32::MAX] {
        let (mut device, mut ring) = ring(Direction::Receive, 2);
        assert!(ring.lend(0, 2048));
        let (own, ..) = device.take().unwrap();
        device.give(u32::from(own), 1);
        assert_eq!(ring.reclaim(), Ok(Some((0, 1))));
        device.give(token, 1);
        assert_eq!(ring.reclaim(), Err(Broken), "token {token}");
    }
}

#[test]
fn a_length_beyond_the_buffer_counts_as_the_buffer() {
    let (mut device, mut ring) = ring(Direction::Receive, 1);
    assert!(ring.lend(0, 2048));
    let (token, ..) = device.take().unwrap();
    device.give(u32::from(token), u32::MAX);
    assert_eq!(ring.reclaim(), Ok(Some((0, 2048))));
}

#[test]
fn buffers_that_do_not_exist_are_neither_lent_nor_shown() {
    let (_, mut ring) = ring(Direction::Transmit, 2);
    assert!(ring.bytes(2).is_empty() && ring.bytes(u16::MAX).is_empty());
    assert!(!ring.lend(2, 1) && !ring.lend(u16::MAX, 1));
    assert!(!ring.lend(0, 0) && !ring.lend(0, 2049));
}

#[test]
fn asking_for_interrupts_tells_of_a_buffer_that_is_back_already() {
    let (mut device, mut ring) = ring(Direction::Receive, 1);
    assert!(ring.lend(0, 2048));
    assert!(!ring.interrupts(true));
    device.fill(1, 1);
    assert!(ring.interrupts(true));
}
