//! Keeps TCP's receive window from shrinking under data that is on its way.
//!
//! A scaled window is a multiple of 2^shift, so its right edge, rounded down, can move back a few bytes from one
//! acknowledgment to the next. RFC 7323, 2.4 has the receiver go on accepting what it once offered; smoltcp 0.14 cuts
//! such a segment off at the new edge, and each time the sender must find the loss, send again, and slow down. Offering
//! one unit less than smoltcp would, in every segment that leaves, keeps the peer behind every edge that it may compute.

use super::offload::ETHERNET_LENGTH;
use super::stack::Port;
use smoltcp::{
    phy::{Device, DeviceCapabilities, PacketMeta, TxToken},
    time::Instant,
    wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket},
};

/// A port whose outgoing segments offer one unit of window less.
pub(super) struct Reserved<P: Port> {
    pub(super) port: P,
    /// Whether checksums are there already when a frame leaves smoltcp.
    summed: bool,
}

impl<P: Port> Reserved<P> {
    pub(super) fn new(port: P) -> Self {
        let summed = port.capabilities().checksum.tcp.tx();
        Self { port, summed }
    }
}

impl<P: Port> Device for Reserved<P> {
    type RxToken<'a>
        = P::RxToken<'a>
    where
        P: 'a;
    type TxToken<'a>
        = Token<P::TxToken<'a>>
    where
        P: 'a;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let summed = self.summed;
        self.port.receive(now).map(|(frame, inner)| (frame, Token { inner, summed }))
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        let summed = self.summed;
        self.port.transmit(now).map(|inner| Token { inner, summed })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.port.capabilities()
    }
}

pub(super) struct Token<T> {
    inner: T,
    summed: bool,
}

impl<T: TxToken> TxToken for Token<T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        self.inner.consume(length, |frame| {
            let result = f(frame);
            reserve(frame, self.summed);
            result
        })
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.inner.set_meta(meta);
    }
}

/// Takes one unit off the window of a TCP segment. Not of one with SYN: its window is not scaled.
fn reserve(frame: &mut [u8], summed: bool) -> Option<()> {
    let ethernet = EthernetFrame::new_checked(&*frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    if ip.next_header() != IpProtocol::Tcp {
        return None;
    }
    let start = ETHERNET_LENGTH + usize::from(ip.header_len());
    let mut tcp = TcpPacket::new_checked(frame.get_mut(start..)?).ok()?;
    if tcp.syn() {
        return None;
    }
    tcp.set_window_len(tcp.window_len().checked_sub(1)?);
    if summed {
        // RFC 1624: the complement of the sum goes up by what a word of the data goes down by, end-around.
        let (sum, carry) = tcp.checksum().overflowing_add(1);
        tcp.set_checksum(sum + u16::from(carry));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::reserve;
    use smoltcp::wire::{Ipv4Address, TcpPacket};

    /// An acknowledgment from 10.0.0.1 to 10.0.0.2, with its checksum.
    fn segment(window: u16, flags: u8) -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[12] = 8;
        frame[14..34].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame[46] = 5 << 4;
        frame[47] = flags;
        let mut tcp = TcpPacket::new_unchecked(&mut frame[34..]);
        tcp.set_window_len(window);
        let (from, to) = (Ipv4Address::new(10, 0, 0, 1), Ipv4Address::new(10, 0, 0, 2));
        tcp.fill_checksum(&from.into(), &to.into());
        frame
    }

    #[test]
    fn the_window_is_one_unit_less_and_the_checksum_fits() {
        for window in 1..=u16::MAX {
            let mut frame = segment(window, 0x10);
            reserve(&mut frame, true);
            let tcp = TcpPacket::new_unchecked(&frame[34..]);
            assert_eq!(tcp.window_len(), window - 1);
            let (from, to) = (Ipv4Address::new(10, 0, 0, 1), Ipv4Address::new(10, 0, 0, 2));
            assert!(tcp.verify_checksum(&from.into(), &to.into()), "window {window}");
        }
    }

    #[test]
    fn a_closed_window_and_an_unscaled_one_stay() {
        for (window, flags) in [(0, 0x10), (1000, 0x02), (1000, 0x12)] {
            let mut frame = segment(window, flags);
            reserve(&mut frame, true);
            assert_eq!(frame, segment(window, flags));
        }
    }
}
