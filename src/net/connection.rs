//! What a user of the stack says and hears: settings, the names of connections, how they stand and why they end.

use smoltcp::wire::Ipv4Address;

/// How a stack is set up.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Our address.
    pub address: Ipv4Address,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// Something that differs from start to start: initial sequence numbers and local ports come from it.
    pub seed: u64,
    /// Microseconds of silence after which a peer counts as dead.
    pub peer_timeout: u64,
    /// Bytes of the buffer of a connection, one each way. It bounds the window, hence what is in flight.
    pub buffer: usize,
}

impl Settings {
    /// 10 s until a silent peer is dead, 512 KiB buffers.
    pub fn new(address: Ipv4Address, prefix: u8, seed: u64) -> Self {
        Self { address, prefix: prefix.min(32), seed, peer_timeout: 10_000_000, buffer: 512 << 10 }
    }
}

/// Names a connection; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub(super) u64);

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// The peer has not answered yet.
    Connecting,
    /// Both ways are open.
    Open,
    /// The peer sends nothing more (what it sent may still be there to receive); we may.
    PeerClosed,
    /// We closed; what was accepted for sending is still on its way.
    Closing,
    /// Over.
    Closed(CloseReason),
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Both sides closed it in good order.
    Finished,
    /// We gave it up.
    Aborted,
    /// The peer has nothing that listens there, or does not want us.
    Refused,
    /// The peer gave it up.
    Reset,
    /// The peer was silent for too long.
    TimedOut,
    /// No such connection, or one that ended long ago.
    Unknown,
}

impl core::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Finished => "closed by both sides",
            Self::Aborted => "given up",
            Self::Refused => "refused by the peer",
            Self::Reset => "reset by the peer",
            Self::TimedOut => "the peer does not answer",
            Self::Unknown => "no such connection",
        })
    }
}

/// Why there is no new connection or listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The heap cannot hold its buffers.
    OutOfMemory,
    /// Port 0, or an address that cannot be a peer's.
    BadAddress,
}

impl core::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::OutOfMemory => "no memory for the connection's buffers",
            Self::BadAddress => "not an address that one can connect to",
        })
    }
}
