//! The virtio network card as smoltcp's device: frames are written straight into, and read straight from, the buffers
//! that the device has, many of them in flight each way, and the device is told once a burst.

use super::{
    offload::{self, ETHERNET_LENGTH, HEADER_LENGTH},
    stack::Port,
};
use crate::machine::virtio::{self, Broken, RING_SIZE, VirtioNet};
use alloc::vec::Vec;
use core::num::NonZeroUsize;
use smoltcp::{
    phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken},
    time::Instant,
    wire::EthernetAddress,
};

// Feature bits (virtio 1.2, 5.1.3).
const CHECKSUM: u64 = 1 << 0;
const GUEST_CHECKSUM: u64 = 1 << 1;
const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const GUEST_TSO4: u64 = 1 << 7;
const HOST_TSO4: u64 = 1 << 11;

/// Memory for the buffers of one direction, at most.
const BUFFER_MEMORY: usize = 1 << 20;
/// The largest frame that IPv4's length field allows.
const LARGEST_FRAME: usize = 65_535;
/// A receive buffer that must take large segments (virtio 1.2, 5.1.6.3.1).
const LARGE_BUFFER: usize = 65_562;
const DEFAULT_MTU: u16 = 1500;
/// The least that IPv4 asks of a link (RFC 791).
const LEAST_MTU: u16 = 68;

/// What the user asks of the card.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// Largest IP packet; `None` for what the card offers.
    pub mtu: Option<u16>,
    /// Interrupt at this vector of this local APIC when a frame comes.
    pub interrupt: Option<(u8, u8)>,
}

/// The card.
pub struct Card {
    net: VirtioNet,
    mac: [u8; 6],
    mtu: u16,
    features: u64,
    /// Transmit buffers that are ours to fill.
    idle: Vec<u16>,
    posted: bool,
    filled: bool,
    broken: bool,
}

impl Card {
    /// Finds the card and brings it up.
    ///
    /// # Errors
    /// One sentence.
    pub fn open(wishes: Wishes) -> Result<Self, &'static str> {
        let found = virtio::find()?;
        let features = choose(found.offered);
        if features & MAC == 0 {
            return Err("the virtio network card has no MAC address of its own");
        }
        let offered_mtu = if features & MTU != 0 { found.mtu() } else { None };
        let mtu = choose_mtu(wishes.mtu, offered_mtu);
        let (count, buffer_length) = buffers(features, mtu);
        let mac = found.mac();
        if !EthernetAddress(mac).is_unicast() {
            return Err("the virtio network card's MAC address is none of one card");
        }
        let net = found.start(features, count, buffer_length, wishes.interrupt)?;
        let mut card = Self { net, mac, mtu, features, idle: Vec::new(), posted: false, filled: false, broken: false };
        card.idle = (0..card.net.transmit.count()).collect();
        for buffer in 0..card.net.receive.count() {
            card.net.receive.lend(buffer, buffer_length);
        }
        card.net.transmit.interrupts(false);
        card.net.announce_receive();
        Ok(card)
    }

    /// Its MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The largest IP packet.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Words for the log: what was agreed on.
    pub fn describe(&self) -> alloc::string::String {
        let named = [
            (CHECKSUM | GUEST_CHECKSUM, "checksum offload"),
            (HOST_TSO4, "sends large segments"),
            (GUEST_TSO4, "receives large segments"),
        ];
        let [a, b, c, d, e, f] = self.mac;
        let mut text = alloc::format!(
            "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}, MTU {}, {} buffers of {} bytes each way",
            self.mtu,
            self.net.receive.count(),
            self.net.receive.buffer_length()
        );
        for (bits, name) in named {
            if self.features & bits == bits {
                text.push_str(", ");
                text.push_str(name);
            }
        }
        text
    }

    fn has(&self, features: u64) -> bool {
        self.features & features == features
    }

    fn check<T>(&mut self, result: Result<Option<T>, Broken>) -> Option<T> {
        result.unwrap_or_else(|Broken| {
            if !self.broken {
                log::error!("the virtio network card broke its ring; it is not used any more");
            }
            self.broken = true;
            None
        })
    }

    fn take_idle(&mut self) -> Option<u16> {
        while !self.broken {
            let done = self.net.transmit.reclaim();
            match self.check(done) {
                Some((buffer, _)) => self.idle.push(buffer),
                None => break,
            }
        }
        self.idle.pop()
    }
}

/// Checksums go together, both ways or none: smoltcp has one setting. Large segments need them.
fn choose(offered: u64) -> u64 {
    let checksums = CHECKSUM | GUEST_CHECKSUM;
    let mut wanted = MTU | MAC;
    if offered & checksums == checksums {
        wanted |= checksums | GUEST_TSO4 | HOST_TSO4;
    }
    offered & wanted
}

fn choose_mtu(wished: Option<u16>, offered: Option<u16>) -> u16 {
    let largest = (LARGEST_FRAME - ETHERNET_LENGTH) as u16;
    let most = offered.unwrap_or(largest).clamp(LEAST_MTU, largest);
    wished.or(offered).unwrap_or(DEFAULT_MTU).clamp(LEAST_MTU, most)
}

/// Number and length of the buffers of one direction.
fn buffers(features: u64, mtu: u16) -> (usize, usize) {
    let frame = HEADER_LENGTH + ETHERNET_LENGTH + usize::from(mtu);
    let large = features & (GUEST_TSO4 | HOST_TSO4) != 0;
    let length = if large { frame.max(LARGE_BUFFER) } else { frame }.next_multiple_of(64);
    ((BUFFER_MEMORY / length).clamp(2, RING_SIZE), length)
}

impl Port for Card {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn flush(&mut self) {
        if self.posted {
            self.posted = false;
            self.net.announce_receive();
        }
        if self.filled {
            self.filled = false;
            self.net.announce_transmit();
        }
    }

    fn arm(&mut self) -> bool {
        !self.net.receive.interrupts(true)
    }

    fn disarm(&mut self) {
        self.net.receive.interrupts(false);
    }

    fn is_broken(&self) -> bool {
        self.broken
    }
}

impl Device for Card {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Outgoing<'_>)> {
        if self.broken || !self.net.receive.has_used() {
            return None;
        }
        // smoltcp may answer a frame at once: without room for the answer the frame waits.
        let answer = self.take_idle()?;
        let used = self.net.receive.reclaim();
        let Some((buffer, length)) = self.check(used) else {
            self.idle.push(answer);
            return None;
        };
        let trust_device = self.has(GUEST_CHECKSUM);
        let Self { net: VirtioNet { receive, transmit, .. }, idle, posted, filled, features, .. } = self;
        Some((
            Received { ring: receive, posted, buffer, length, check: trust_device },
            Outgoing::new(transmit, idle, filled, *features, answer),
        ))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        if self.broken {
            return None;
        }
        let buffer = self.take_idle()?;
        let Self { net: VirtioNet { transmit, .. }, idle, filled, features, .. } = self;
        Some(Outgoing::new(transmit, idle, filled, *features, buffer))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = usize::from(self.mtu) + ETHERNET_LENGTH;
        capabilities.max_burst_size = Some(usize::from(self.net.transmit.count()));
        if self.has(CHECKSUM | GUEST_CHECKSUM) {
            capabilities.checksum.tcp = Checksum::None;
        }
        if self.has(CHECKSUM | HOST_TSO4) {
            capabilities.segmentation.tcpv4 = NonZeroUsize::new(LARGEST_FRAME);
        }
        capabilities
    }
}

/// A frame that came in.
pub struct Received<'a> {
    ring: &'a mut virtio::Ring,
    posted: &'a mut bool,
    buffer: u16,
    length: usize,
    /// Whether to check what the header does not vouch for: with checksum offload smoltcp checks nothing.
    check: bool,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let bytes = self.ring.bytes(self.buffer);
        let bytes = bytes.get(..self.length).unwrap_or_default();
        let (header, frame) = bytes.split_at_checked(HEADER_LENGTH).unwrap_or_default();
        let good = !self.check || offload::checksum_holds(header, frame);
        // smoltcp takes no notice of an empty frame.
        f(if good { frame } else { &[] })
    }
}

impl Drop for Received<'_> {
    fn drop(&mut self) {
        let length = self.ring.buffer_length();
        *self.posted |= self.ring.lend(self.buffer, length);
    }
}

/// A buffer for a frame to send.
pub struct Outgoing<'a> {
    ring: &'a mut virtio::Ring,
    idle: &'a mut Vec<u16>,
    filled: &'a mut bool,
    features: u64,
    segment_size: Option<u16>,
    buffer: Option<u16>,
}

impl<'a> Outgoing<'a> {
    fn new(
        ring: &'a mut virtio::Ring,
        idle: &'a mut Vec<u16>,
        filled: &'a mut bool,
        features: u64,
        buffer: u16,
    ) -> Self {
        Self { ring, idle, filled, features, segment_size: None, buffer: Some(buffer) }
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, length: usize, f: F) -> R {
        let buffer = self.buffer.unwrap_or(u16::MAX);
        let bytes = self.ring.bytes(buffer);
        let whole = HEADER_LENGTH + length;
        let Some((header, frame)) = bytes.get_mut(..whole).and_then(|b| b.split_at_mut_checked(HEADER_LENGTH)) else {
            // More than the card's capabilities allow: smoltcp fills it and it goes nowhere.
            return f(&mut alloc::vec![0; length]);
        };
        let result = f(frame);
        header.copy_from_slice(&if self.features & CHECKSUM != 0 {
            offload::leave_checksum(frame, self.segment_size)
        } else {
            offload::PLAIN
        });
        if self.ring.lend(buffer, whole) {
            self.buffer = None;
            *self.filled = true;
        }
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment_size = meta.segmentation_offload_size.map(Into::into);
    }
}

impl Drop for Outgoing<'_> {
    fn drop(&mut self) {
        self.idle.extend(self.buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_segments_are_taken_only_with_checksums() {
        assert_eq!(choose(MAC | HOST_TSO4 | GUEST_TSO4 | CHECKSUM), MAC);
        assert_eq!(choose(MAC | HOST_TSO4 | CHECKSUM | GUEST_CHECKSUM), MAC | HOST_TSO4 | CHECKSUM | GUEST_CHECKSUM);
        assert_eq!(choose(u64::MAX), MTU | MAC | CHECKSUM | GUEST_CHECKSUM | GUEST_TSO4 | HOST_TSO4);
    }

    #[test]
    fn the_mtu_is_what_is_wished_and_never_more_than_offered() {
        assert_eq!(choose_mtu(None, None), 1500);
        assert_eq!(choose_mtu(None, Some(9000)), 9000);
        assert_eq!(choose_mtu(Some(1500), Some(9000)), 1500);
        assert_eq!(choose_mtu(Some(9000), Some(1500)), 1500);
        assert_eq!(choose_mtu(Some(9000), None), 9000);
        assert_eq!(choose_mtu(Some(u16::MAX), None), 65_521);
        assert_eq!(choose_mtu(Some(0), Some(0)), 68);
    }

    #[test]
    fn a_buffer_holds_a_frame_and_all_of_them_keep_to_the_memory() {
        for mtu in [68, 1500, 9000, 65_521] {
            for features in [0, GUEST_TSO4] {
                let (count, length) = buffers(features, mtu);
                assert!(length >= usize::from(mtu) + 26);
                assert!(count * length <= BUFFER_MEMORY && count >= 15);
            }
        }
        assert_eq!(buffers(0, 1500).0, RING_SIZE);
        assert!(buffers(GUEST_TSO4, 1500).1 >= LARGE_BUFFER);
    }
}
