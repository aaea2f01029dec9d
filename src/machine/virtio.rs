//! The virtio network card as the machine gives it: two rings of buffers in memory that the device reads and writes,
//! two doorbells, and the registers to set it up (virtio 1.2, 4.1 and 5.1).
//!
//! The rings are `virtio-drivers`' `VirtQueue`s. What this module adds is that a buffer is either the driver's or the
//! device's, never both: [`Ring`] owns the buffers and hands out slices of those only that the device does not have.

use super::{PAGE_SIZE, frames, paging, pci};
use alloc::{boxed::Box, vec::Vec};
use core::{
    marker::PhantomData,
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
};
use virtio_drivers::{
    BufferDirection, Hal, PhysAddr,
    queue::VirtQueue,
    transport::{
        DeviceStatus, DeviceType, Transport,
        pci::{
            PciTransport, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_NOTIFY_CFG,
            bus::{DeviceFunction, PCI_CAP_ID_VNDR},
            virtio_device_type,
        },
    },
};

/// Descriptors of a ring: what QEMU and vhost offer unless told otherwise.
pub const RING_SIZE: usize = 256;
const RECEIVE_QUEUE: u16 = 0;
const TRANSMIT_QUEUE: u16 = 1;
/// VIRTIO_F_VERSION_1: not the legacy interface.
const VERSION_1: u64 = 1 << 32;

/// DMA memory from the frame allocator; physical memory is identity-mapped and no IOMMU is in use, so a pointer is
/// the address that the device wants.
#[derive(Debug)]
pub struct IdentityHal;

// SAFETY: frames::allocate gives zeroed, page-aligned frames that nobody else has, mapped where they physically are;
// map_mmio maps device registers the same way.
unsafe impl Hal for IdentityHal {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let address = frames::allocate(pages).unwrap_or(0);
        // Address 0 tells virtio-drivers that there was no memory.
        (address, NonNull::new(address as *mut u8).unwrap_or(NonNull::dangling()))
    }

    unsafe fn dma_dealloc(address: PhysAddr, _: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: virtio-drivers gives back what dma_alloc gave, after the device was reset (see `VirtioNet`).
        unsafe { frames::free(address, pages) };
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, size: usize) -> NonNull<u8> {
        if let Err(error) = paging::map_mmio(address, size) {
            panic!("cannot map a device's registers: {error}");
        }
        NonNull::new(address as *mut u8).expect("virtio-drivers checks that the BAR is allocated")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// Which way the bytes of a ring go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device fills buffers.
    Receive,
    /// The device empties buffers.
    Transmit,
}

/// The device broke the rules of the ring; nothing that it says can be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// A virtqueue and the buffers that go round in it, one descriptor each.
pub struct Ring<H: Hal = IdentityHal> {
    queue: Box<VirtQueue<H, RING_SIZE>>,
    direction: Direction,
    memory: NonNull<u8>,
    buffer_length: usize,
    /// By buffer: whether the driver may touch it.
    ours: Vec<bool>,
    /// By the queue's token: the buffer that the device has, and how much of it was lent.
    lent: [Option<(u16, u32)>; RING_SIZE],
    hal: PhantomData<H>,
}

// SAFETY: the buffers are reached through this value alone.
unsafe impl<H: Hal> Send for Ring<H> {}

impl<H: Hal> Ring<H> {
    /// Sets up queue `index` of a device, with `count` buffers of `buffer_length` bytes.
    ///
    /// # Safety
    /// The device must have been reset before the ring is dropped.
    unsafe fn new(
        transport: &mut impl Transport,
        index: u16,
        direction: Direction,
        count: usize,
        buffer_length: usize,
    ) -> Result<Self, virtio_drivers::Error> {
        let count = count.min(RING_SIZE);
        let queue = VirtQueue::new(transport, index, false, false)?;
        let pages = (count * buffer_length).div_ceil(PAGE_SIZE);
        let (address, memory) = H::dma_alloc(pages, BufferDirection::Both);
        if address == 0 {
            return Err(virtio_drivers::Error::DmaError);
        }
        Ok(Self {
            queue: Box::new(queue),
            direction,
            memory,
            buffer_length,
            ours: alloc::vec![true; count],
            lent: [None; RING_SIZE],
            hal: PhantomData,
        })
    }

    /// The number of buffers.
    pub fn count(&self) -> u16 {
        self.ours.len() as u16
    }

    /// Bytes of a buffer.
    pub fn buffer_length(&self) -> usize {
        self.buffer_length
    }

    /// A buffer's bytes; none while the device has it.
    pub fn bytes(&mut self, buffer: u16) -> &mut [u8] {
        if self.ours.get(usize::from(buffer)) == Some(&true) {
            // SAFETY: in range and ours; the signature ties the slice to the borrow of the ring.
            unsafe { self.raw(buffer, self.buffer_length) }
        } else {
            &mut []
        }
    }

    /// # Safety
    /// `buffer` is one of ours, `length` at most a buffer's, and the slice is not used after the ring is, nor while
    /// the device has the buffer.
    unsafe fn raw<'a>(&self, buffer: u16, length: usize) -> &'a mut [u8] {
        // SAFETY: the allocation holds `count` buffers of `buffer_length` bytes, initialised by zeroing, and lives as
        // long as the ring; the rest is the caller's promise.
        unsafe {
            let start = self.memory.add(usize::from(buffer) * self.buffer_length);
            core::slice::from_raw_parts_mut(start.as_ptr(), length)
        }
    }

    /// Gives the first `length` bytes of a buffer to the device. Refused if the device has it already.
    pub fn lend(&mut self, buffer: u16, length: usize) -> bool {
        let slot = usize::from(buffer);
        if self.ours.get(slot) != Some(&true) || length == 0 || length > self.buffer_length {
            return false;
        }
        // SAFETY: in range, ours, and short enough (checked above); the slice ends with this call.
        let bytes = unsafe { self.raw(buffer, length) };
        // SAFETY: until the device gives the token back, `ours` is false and no slice of this buffer is made.
        let token = unsafe {
            match self.direction {
                Direction::Receive => self.queue.add(&[], &mut [bytes]),
                Direction::Transmit => self.queue.add(&[bytes], &mut []),
            }
        };
        let Ok(token) = token else { return false };
        let Some(lent) = self.lent.get_mut(usize::from(token)) else {
            return false;
        };
        *lent = Some((buffer, length as u32));
        if let Some(ours) = self.ours.get_mut(slot) {
            *ours = false;
        }
        true
    }

    /// Takes back the next buffer that the device is done with, and how many bytes it wrote (claimed by the device,
    /// but at most what it was lent).
    ///
    /// # Errors
    /// When the device names a buffer that it does not have.
    pub fn reclaim(&mut self) -> Result<Option<(u16, usize)>, Broken> {
        let Some(token) = self.queue.peek_used() else {
            return Ok(None);
        };
        // The token is the device's claim: only one that is lent may go to pop_used, which trusts it.
        let lent = self.lent.get_mut(usize::from(token)).ok_or(Broken)?;
        let (buffer, length) = lent.take().ok_or(Broken)?;
        // SAFETY: `lend` checked both; the device has put the buffer into its used ring, so it is done with it.
        let bytes = unsafe { self.raw(buffer, length as usize) };
        // SAFETY: the same buffer that `lend` added under this token; the slice is not used afterwards.
        let used = unsafe {
            match self.direction {
                Direction::Receive => self.queue.pop_used(token, &[], &mut [bytes]),
                Direction::Transmit => self.queue.pop_used(token, &[bytes], &mut []),
            }
        };
        let written = used.map_err(|_| Broken)?.min(length);
        *self.ours.get_mut(usize::from(buffer)).ok_or(Broken)? = true;
        Ok(Some((buffer, written as usize)))
    }

    /// Whether the device has given a buffer back.
    pub fn has_used(&self) -> bool {
        self.queue.can_pop()
    }

    /// Asks the device to interrupt when it is done with a buffer, or not to. True if it was done with one already:
    /// no interrupt comes for that.
    pub fn interrupts(&mut self, wanted: bool) -> bool {
        self.queue.set_dev_notify(wanted);
        // The flag must be visible before the ring is looked at, or a buffer that comes between is seen by nobody
        // (virtio 1.2, 2.7.7.1).
        fence(Ordering::SeqCst);
        self.queue.can_pop()
    }

    /// Whether the device wants to be told of what was lent.
    fn wants_doorbell(&self) -> bool {
        // The index must be visible before the flag is read (virtio 1.2, 2.7.13.4.1): x86 lets the load overtake the
        // store, and virtio-drivers has no fence between them.
        fence(Ordering::SeqCst);
        self.queue.should_notify()
    }
}

impl<H: Hal> Drop for Ring<H> {
    fn drop(&mut self) {
        let pages = (self.ours.len() * self.buffer_length).div_ceil(PAGE_SIZE);
        // SAFETY: what `new` allocated; the device was reset (the contract of `new`), so it has no buffer any more.
        unsafe { H::dma_dealloc(self.memory.as_ptr() as PhysAddr, self.memory, pages) };
    }
}

/// The network card.
// The transport is the first field: dropping it resets the device, before the rings' memory goes.
pub struct VirtioNet {
    transport: PciTransport,
    /// Frames that come in.
    pub receive: Ring,
    /// Frames that go out.
    pub transmit: Ring,
    doorbells: [Doorbell; 2],
}

/// A card that was found and reset, before features are agreed on.
pub struct Found {
    pci: pci::Pci,
    function: DeviceFunction,
    transport: PciTransport,
    /// VIRTIO_NET_F_* and VIRTIO_F_* bits that the device offers.
    pub offered: u64,
}

/// The first virtio device of a type.
pub fn find_type(pci: &pci::Pci, wanted: DeviceType) -> Option<DeviceFunction> {
    let mut functions = pci::functions(pci).into_iter();
    functions.find(|(_, info)| virtio_device_type(info) == Some(wanted)).map(|(function, _)| function)
}

/// Finds the first virtio network card with the modern interface, and resets it.
///
/// # Errors
/// When there is none, or it cannot be used.
pub fn find() -> Result<Found, &'static str> {
    let mut pci = pci::root();
    let function = find_type(&pci, DeviceType::Network).ok_or("no virtio network card")?;
    pci::enable(&mut pci, function);
    let mut transport = PciTransport::new::<IdentityHal, _>(&mut pci, function).map_err(|error| {
        log::warn!("virtio-net at {function}: {error}");
        "the virtio network card has no usable modern interface"
    })?;
    transport.set_status(DeviceStatus::empty());
    transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
    let offered = transport.read_device_features();
    if offered & VERSION_1 == 0 {
        return Err("the virtio network card is of the legacy kind only");
    }
    Ok(Found { pci, function, transport, offered })
}

impl Found {
    /// The card's MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.transport.read_config_space(0).unwrap_or_default()
    }

    /// The largest IP packet that the device carries; to be used only if it offers VIRTIO_NET_F_MTU.
    pub fn mtu(&self) -> Option<u16> {
        self.transport.read_config_space(10).ok()
    }

    /// Agrees on `features` and brings the card up, with `count` buffers of `buffer_length` bytes each way. With
    /// `interrupt`, the receive queue interrupts at that vector of that local APIC.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn start(
        mut self,
        features: u64,
        count: usize,
        buffer_length: usize,
        interrupt: Option<(u8, u8)>,
    ) -> Result<VirtioNet, &'static str> {
        let agreed = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK;
        self.transport.write_driver_features(self.offered & features | VERSION_1);
        self.transport.set_status(agreed);
        if !self.transport.get_status().contains(DeviceStatus::FEATURES_OK) {
            return Err("the virtio network card refuses our choice of features");
        }
        let registers = Registers::map(&mut self.pci, self.function)?;
        if let Some((vector, apic_id)) = interrupt {
            pci::route_msix(&mut self.pci, self.function, vector, apic_id)?;
            registers.interrupt_by_entry_0(RECEIVE_QUEUE)?;
        }
        let mut ring = |queue, direction| {
            // SAFETY: the ring goes into a `VirtioNet`, which resets the device first when it is dropped. Where an
            // error ends this function before that, DRIVER_OK was never set, and the device uses no ring yet.
            unsafe { Ring::new(&mut self.transport, queue, direction, count, buffer_length) }
                .map_err(|_| "the virtio network card's rings cannot be set up (each must hold 256)")
        };
        let receive = ring(RECEIVE_QUEUE, Direction::Receive)?;
        let transmit = ring(TRANSMIT_QUEUE, Direction::Transmit)?;
        let doorbells = [registers.doorbell(RECEIVE_QUEUE)?, registers.doorbell(TRANSMIT_QUEUE)?];
        self.transport.set_status(agreed | DeviceStatus::DRIVER_OK);
        Ok(VirtioNet { transport: self.transport, receive, transmit, doorbells })
    }
}

impl VirtioNet {
    /// Tells the device of received-frame buffers that were lent, if it wants to know.
    pub fn announce_receive(&mut self) {
        if self.receive.wants_doorbell() {
            self.doorbells[0].ring();
        }
    }

    /// Tells the device of frames to send, if it wants to know.
    pub fn announce_transmit(&mut self) {
        if self.transmit.wants_doorbell() {
            self.doorbells[1].ring();
        }
    }

    /// Whether the device says that it needs a reset.
    pub fn needs_reset(&self) -> bool {
        self.transport.get_status().contains(DeviceStatus::DEVICE_NEEDS_RESET)
    }
}

/// One queue's notification register. virtio-drivers' own `notify` selects the queue and reads its offset each time:
/// three register accesses, and three VM exits where we run nested.
struct Doorbell {
    address: u64,
    queue: u16,
}

impl Doorbell {
    fn ring(&self) {
        // SAFETY: `Registers::doorbell` checked that the register lies in the device's notification structure, which
        // is mapped uncached; a write there makes the device look at its queue.
        unsafe { (self.address as *mut u16).write_volatile(self.queue) };
    }
}

/// The parts of the card's registers that virtio-drivers does not offer (virtio 1.2, 4.1.4.3 and 4.1.4.4).
struct Registers {
    common: u64,
    notify: u64,
    notify_length: u64,
    notify_multiplier: u64,
}

impl Registers {
    const QUEUE_SELECT: u64 = 22;
    const QUEUE_MSIX_VECTOR: u64 = 26;
    const QUEUE_NOTIFY_OFF: u64 = 30;
    const COMMON_LENGTH: u32 = 56;

    fn map(pci: &mut pci::Pci, function: DeviceFunction) -> Result<Self, &'static str> {
        const NONE: &str = "the virtio network card lacks a register structure";
        let (common, _, _) = structure(pci, function, VIRTIO_PCI_CAP_COMMON_CFG, Self::COMMON_LENGTH).ok_or(NONE)?;
        let (notify, length, capability) = structure(pci, function, VIRTIO_PCI_CAP_NOTIFY_CFG, 2).ok_or(NONE)?;
        Ok(Self {
            common,
            notify,
            notify_length: u64::from(length),
            notify_multiplier: u64::from(pci::read(function, capability.saturating_add(16))),
        })
    }

    fn read(&self, offset: u64) -> u16 {
        // SAFETY: the common configuration is at least COMMON_LENGTH long (checked in `map`) and mapped uncached.
        unsafe { ((self.common + offset) as *const u16).read_volatile() }
    }

    fn write(&self, offset: u64, value: u16) {
        // SAFETY: as in `read`; the registers written are the queue selector and a queue's MSI-X entry.
        unsafe { ((self.common + offset) as *mut u16).write_volatile(value) };
    }

    fn interrupt_by_entry_0(&self, queue: u16) -> Result<(), &'static str> {
        self.write(Self::QUEUE_SELECT, queue);
        self.write(Self::QUEUE_MSIX_VECTOR, 0);
        // The device answers 0xffff when it cannot (virtio 1.2, 4.1.5.1.3).
        match self.read(Self::QUEUE_MSIX_VECTOR) {
            0 => Ok(()),
            _ => Err("the virtio network card cannot interrupt by MSI-X"),
        }
    }

    fn doorbell(&self, queue: u16) -> Result<Doorbell, &'static str> {
        self.write(Self::QUEUE_SELECT, queue);
        let offset = u64::from(self.read(Self::QUEUE_NOTIFY_OFF)) * self.notify_multiplier;
        if !offset.is_multiple_of(2) || offset + 2 > self.notify_length {
            return Err("the virtio network card's notification register lies nowhere");
        }
        Ok(Doorbell { address: self.notify + offset, queue })
    }
}

/// Address and length of one of the card's register structures, and the offset of the capability that names it
/// (virtio 1.2, 4.1.4). Mapped.
fn structure(pci: &mut pci::Pci, function: DeviceFunction, kind: u8, at_least: u32) -> Option<(u64, u32, u8)> {
    let capability = pci::capabilities(pci, function)
        .find(|capability| capability.id == PCI_CAP_ID_VNDR && (capability.private_header >> 8) as u8 == kind)?
        .offset;
    let word = |index: u8| pci::read(function, capability.saturating_add(4 * index));
    let (bar, offset, length) = (word(1) as u8, word(2), word(3));
    if length < at_least {
        return None;
    }
    let address = pci::bar_address(pci, function, bar, offset, length)?;
    paging::map_mmio(address, length as usize).ok()?;
    Some((address, length, capability))
}

#[cfg(test)]
mod tests;
