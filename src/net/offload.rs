//! The header that goes before each frame of a virtio network card, and the work that it lets us leave to the other
//! side: checksums over whole segments, and the cutting of large segments (virtio 1.2, 5.1.6).

use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket};

/// Bytes of the header (`struct virtio_net_hdr` with `num_buffers`, as always with VIRTIO_F_VERSION_1).
pub const HEADER_LENGTH: usize = 12;
/// Ethernet header, without VLAN tag.
pub const ETHERNET_LENGTH: usize = 14;

const NEEDS_CHECKSUM: u8 = 1;
const CHECKSUM_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: u16 = 16;

/// The header for a frame that is to go out as it is.
pub const PLAIN: [u8; HEADER_LENGTH] = [0; HEADER_LENGTH];

/// Prepares a frame whose TCP checksum the device is to complete: puts the pseudo-header's sum into the checksum field,
/// as virtio wants it, and gives the header. With `segment_size`, the device may also cut the frame into segments with
/// that much payload. A frame that is not TCP over IPv4 goes out as it is.
pub fn leave_checksum(frame: &mut [u8], segment_size: Option<u16>) -> [u8; HEADER_LENGTH] {
    prepare(frame, segment_size).unwrap_or(PLAIN)
}

fn prepare(frame: &mut [u8], segment_size: Option<u16>) -> Option<[u8; HEADER_LENGTH]> {
    let (ip_length, sum) = {
        let ip = tcp_over_ipv4(frame)?;
        let tcp_length = u16::try_from(ip.payload().len()).ok()?;
        (u16::from(ip.header_len()), pseudo_header_sum(&ip, tcp_length))
    };
    let tcp_start = usize::from(ip_length) + ETHERNET_LENGTH;
    let mut tcp = TcpPacket::new_checked(frame.get_mut(tcp_start..)?).ok()?;
    tcp.set_checksum(sum);
    let headers = u16::try_from(tcp_start).ok()? + u16::from(tcp.header_len());

    let (kind, segment_size) = match segment_size {
        Some(size) => (GSO_TCPV4, size),
        None => (GSO_NONE, 0),
    };
    let mut header = PLAIN;
    let words = [headers, segment_size, tcp_start as u16, TCP_CHECKSUM];
    for (place, byte) in header.iter_mut().skip(2).zip(words.iter().flat_map(|word| word.to_le_bytes())) {
        *place = byte;
    }
    let [flags, gso, ..] = &mut header;
    (*flags, *gso) = (NEEDS_CHECKSUM, kind);
    Some(header)
}

/// Whether a received frame's TCP checksum is right, or is known to be by the header: the device checked it, or the
/// frame never left this machine and has no checksum yet. A frame that is not TCP over IPv4 passes.
pub fn checksum_holds(header: &[u8], frame: &[u8]) -> bool {
    let flags = header.first().copied().unwrap_or(0);
    if flags & (NEEDS_CHECKSUM | CHECKSUM_VALID) != 0 {
        return true;
    }
    let Some(ip) = tcp_over_ipv4(frame) else {
        return true;
    };
    match TcpPacket::new_checked(ip.payload()) {
        Ok(tcp) => tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()),
        Err(_) => false,
    }
}

fn tcp_over_ipv4(frame: &[u8]) -> Option<Ipv4Packet<&[u8]>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(frame.get(ETHERNET_LENGTH..)?).ok()?;
    (ip.next_header() == IpProtocol::Tcp).then_some(ip)
}

/// The one's complement sum of the pseudo-header (RFC 9293, 3.1), not inverted.
fn pseudo_header_sum(ip: &Ipv4Packet<&[u8]>, tcp_length: u16) -> u16 {
    let mut sum = u32::from(u8::from(IpProtocol::Tcp)) + u32::from(tcp_length);
    for address in [ip.src_addr(), ip.dst_addr()] {
        let bits = u32::from(address);
        sum += (bits >> 16) + (bits & 0xffff);
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::{
        phy::ChecksumCapabilities,
        wire::{EthernetAddress, EthernetRepr, IpAddress, Ipv4Address, Ipv4Repr, TcpControl, TcpRepr, TcpSeqNumber},
    };

    const FROM: Ipv4Address = Ipv4Address::new(10, 0, 0, 1);
    const TO: Ipv4Address = Ipv4Address::new(10, 0, 0, 2);

    fn frame(payload: &[u8], checksums: &ChecksumCapabilities) -> Vec<u8> {
        let tcp = TcpRepr {
            src_port: 1000,
            dst_port: 2000,
            control: TcpControl::Psh,
            seq_number: TcpSeqNumber(7),
            ack_number: Some(TcpSeqNumber(9)),
            window_len: 4096,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let ip = Ipv4Repr {
            src_addr: FROM,
            dst_addr: TO,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let ethernet = EthernetRepr {
            src_addr: EthernetAddress([2, 0, 0, 0, 0, 1]),
            dst_addr: EthernetAddress([2, 0, 0, 0, 0, 2]),
            ethertype: EthernetProtocol::Ipv4,
        };
        let mut bytes = vec![0; ETHERNET_LENGTH + ip.buffer_len() + tcp.buffer_len()];
        ethernet.emit(&mut EthernetFrame::new_unchecked(&mut bytes[..]));
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[ETHERNET_LENGTH..]), checksums);
        tcp.emit(
            &mut TcpPacket::new_unchecked(&mut bytes[ETHERNET_LENGTH + 20..]),
            &IpAddress::from(FROM),
            &IpAddress::from(TO),
            checksums,
        );
        bytes
    }

    /// What a device does with NEEDS_CSUM: the inverted sum of everything from csum_start on goes to csum_offset.
    fn complete(header: &[u8; HEADER_LENGTH], frame: &mut [u8]) {
        let start = usize::from(u16::from_le_bytes([header[6], header[7]]));
        let place = start + usize::from(u16::from_le_bytes([header[8], header[9]]));
        let mut sum: u32 = 0;
        for pair in frame[start..].chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        frame[place..place + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }

    #[test]
    fn a_device_that_completes_the_checksum_gets_what_software_would() {
        for length in [0usize, 1, 2, 999, 1460, 65_000] {
            let payload: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let expected = frame(&payload, &ChecksumCapabilities::default());
            let mut ours = frame(&payload, &{
                let mut none = ChecksumCapabilities::default();
                none.tcp = smoltcp::phy::Checksum::None;
                none
            });
            let header = leave_checksum(&mut ours, None);
            complete(&header, &mut ours);
            assert_eq!(ours, expected, "payload of {length}");
        }
    }

    #[test]
    fn a_large_segment_names_its_size_and_headers() {
        let mut bytes = frame(&[0; 5000], &ChecksumCapabilities::default());
        let header = leave_checksum(&mut bytes, Some(1460));
        assert_eq!(header, [NEEDS_CHECKSUM, GSO_TCPV4, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0]);
    }

    #[test]
    fn a_damaged_segment_is_seen_unless_the_device_vouches_for_it() {
        let mut bytes = frame(b"pages", &ChecksumCapabilities::default());
        assert!(checksum_holds(&PLAIN, &bytes));
        *bytes.last_mut().unwrap() ^= 1;
        assert!(!checksum_holds(&PLAIN, &bytes));
        let mut vouched = PLAIN;
        vouched[0] = CHECKSUM_VALID;
        assert!(checksum_holds(&vouched, &bytes));
    }

    #[test]
    fn what_is_not_tcp_goes_as_it_is() {
        for length in 0..80 {
            let mut noise = vec![0xff; length];
            assert_eq!(leave_checksum(&mut noise, None), PLAIN);
            assert!(checksum_holds(&PLAIN, &noise));
        }
    }
}
