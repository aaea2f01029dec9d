//! TCP over IPv4 with one fixed address: what a migration's two hosts need of each other.
//!
//! Everything is moved on by [`Stack::poll`]; no call waits. A connection is named by an id that is never used twice,
//! so an id of a connection that is gone is harmless.

use super::{
    connection::{CloseReason, ConnectError, ConnectionId, ConnectionState, Settings},
    listener::Listener,
    window::Reserved,
};
use alloc::{collections::VecDeque, vec::Vec};
use smoltcp::{
    iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet},
    phy::Device,
    socket::tcp::{self, CongestionControl, Socket, SocketBuffer},
    time::{Duration, Instant},
    wire::{EthernetAddress, IpCidr, IpEndpoint, Ipv4Address, Ipv4Cidr},
};

/// Frames taken in, and packets sent, in one poll at most, so that one call is bounded.
const BURST: usize = 128;
/// Ended connections whose reason is still told.
const REMEMBERED: usize = 16;
const FIRST_EPHEMERAL: u16 = 49_152;

/// What a [`Stack`] needs of a network card, beside frames in and out.
pub trait Port: Device {
    /// The card's address.
    fn mac(&self) -> [u8; 6];
    /// Tells the card of the frames and buffers given to it since the last time.
    fn flush(&mut self);
    /// Asks for an interrupt when a frame comes. False if one is there already: poll again instead of waiting.
    fn arm(&mut self) -> bool;
    /// Asks for no interrupts.
    fn disarm(&mut self);
    /// Whether the card failed for good.
    fn is_broken(&self) -> bool;
}

struct Connection {
    id: ConnectionId,
    /// None once it is over and read to the end.
    handle: Option<SocketHandle>,
    /// As it was at the last look.
    state: ConnectionState,
}

/// What moved a connection to its end, so that the reason can be told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A segment of the peer.
    Ingress,
    /// One of our timers.
    Egress,
}

/// TCP/IP over a port.
pub struct Stack<P: Port> {
    port: Reserved<P>,
    interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    pub(super) settings: Settings,
    connections: Vec<Connection>,
    pub(super) listeners: Vec<Listener>,
    pub(super) accepted: VecDeque<(u16, ConnectionId)>,
    next_id: u64,
    next_port: u16,
}

impl<P: Port> Stack<P> {
    /// A stack with no connection.
    pub fn new(port: P, settings: Settings) -> Self {
        let mut port = Reserved::new(port);
        let mut config = Config::new(EthernetAddress(port.port.mac()).into());
        config.random_seed = settings.seed;
        let mut interface = Interface::new(config, &mut port, Instant::ZERO);
        let one_host = !(settings.address.is_multicast() || settings.address.is_broadcast());
        interface.update_ip_addrs(|addresses| {
            let address = IpCidr::Ipv4(Ipv4Cidr::new(settings.address, settings.prefix.min(32)));
            // smoltcp panics at an address that is not one host's; without any, nothing is ever sent. The list has
            // room for two.
            let _ = if one_host { addresses.push(address) } else { Err(address) };
        });
        port.port.disarm();
        Self {
            port,
            interface,
            sockets: SocketSet::new(Vec::new()),
            settings,
            connections: Vec::new(),
            listeners: Vec::new(),
            accepted: VecDeque::new(),
            next_id: 1,
            next_port: FIRST_EPHEMERAL + (settings.seed % 16_384) as u16,
        }
    }

    /// The card.
    pub fn port(&self) -> &P {
        &self.port.port
    }

    /// Moves everything on to `now` (microseconds): takes in frames, sends what can be sent, runs the timers. True if
    /// anything happened.
    pub fn poll(&mut self, now: u64) -> bool {
        let now = instant(now);
        let mut happened = false;
        for _ in 0..BURST {
            let result = self.interface.poll_ingress_single(now, &mut self.port, &mut self.sockets);
            if result == PollIngressSingleResult::None {
                break;
            }
            happened = true;
        }
        self.settle_listeners();
        self.settle(Stage::Ingress);
        for _ in 0..BURST {
            let result = self.interface.poll_egress(now, &mut self.port, &mut self.sockets);
            if result == PollResult::None {
                break;
            }
            happened = true;
        }
        self.settle(Stage::Egress);
        self.port.port.flush();
        happened
    }

    /// Microseconds from `now` after which [`Stack::poll`] has something to do even if no frame comes.
    pub fn poll_delay(&mut self, now: u64) -> Option<u64> {
        let delay = self.interface.poll_delay(instant(now), &self.sockets)?;
        Some(delay.total_micros())
    }

    /// Before the CPU rests: asks for an interrupt at the next frame. False if there is one already.
    pub fn arm(&mut self) -> bool {
        self.port.port.arm()
    }

    /// After the rest: no interrupts while we look anyway.
    pub fn disarm(&mut self) {
        self.port.port.disarm();
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When there is no memory for it, or the address is none.
    pub fn connect(&mut self, address: Ipv4Address, port: u16) -> Result<ConnectionId, ConnectError> {
        let mut socket = self.new_socket(self.settings.buffer)?;
        let local = self.next_port;
        self.next_port = local.checked_add(1).unwrap_or(FIRST_EPHEMERAL);
        socket
            .connect(self.interface.context(), IpEndpoint::new(address.into(), port), local)
            .map_err(|_| ConnectError::BadAddress)?;
        let handle = self.sockets.add(socket);
        Ok(self.register(handle, ConnectionState::Connecting))
    }

    /// Takes in connections on a port, one at a time: while one is open, others are refused.
    ///
    /// # Errors
    /// When there is no memory for it, or the port is 0.
    pub fn listen(&mut self, port: u16) -> Result<(), ConnectError> {
        let socket = self.listening_socket(port, self.settings.buffer)?;
        let handle = self.sockets.add(socket);
        self.listeners.push(Listener::new(port, handle));
        Ok(())
    }

    /// The next connection that came in on `port`.
    pub fn accept(&mut self, port: u16) -> Option<ConnectionId> {
        let at = self.accepted.iter().position(|(listening, _)| *listening == port)?;
        self.accepted.remove(at).map(|(_, id)| id)
    }

    /// Where a connection stands.
    pub fn state(&self, id: ConnectionId) -> ConnectionState {
        match self.connections.iter().find(|connection| connection.id == id) {
            None => ConnectionState::Closed(CloseReason::Unknown),
            Some(Connection { state: over @ ConnectionState::Closed(_), .. }) => *over,
            Some(Connection { handle: Some(handle), state, .. }) => current_state(self.sockets.get(*handle), *state),
            Some(connection) => connection.state,
        }
    }

    /// The peer's address.
    pub fn peer(&self, id: ConnectionId) -> Option<IpEndpoint> {
        self.socket(id)?.remote_endpoint()
    }

    /// Accepts as many of `bytes` for sending as there is room for.
    pub fn send(&mut self, id: ConnectionId, bytes: &[u8]) -> usize {
        self.socket_mut(id).and_then(|socket| socket.send_slice(bytes).ok()).unwrap_or(0)
    }

    /// Lets `fill` write into the free part of the send buffer (up to where it wraps); it says how much it wrote.
    pub fn send_with(&mut self, id: ConnectionId, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let Some(socket) = self.socket_mut(id) else {
            return 0;
        };
        socket
            .send(|room| {
                let written = fill(room).min(room.len());
                (written, written)
            })
            .unwrap_or(0)
    }

    /// Bytes that [`Stack::send`] would accept now.
    pub fn send_room(&self, id: ConnectionId) -> usize {
        self.socket(id)
            .filter(|socket| socket.may_send())
            .map_or(0, |socket| socket.send_capacity().saturating_sub(socket.send_queue()))
    }

    /// Bytes accepted for sending that the peer has not acknowledged.
    pub fn send_queue(&self, id: ConnectionId) -> usize {
        self.socket(id).map_or(0, Socket::send_queue)
    }

    /// Shows `take` what has come, in order, until it takes less than it is shown or nothing is left. `take` says how
    /// much it took; the sum is given back.
    pub fn receive(&mut self, id: ConnectionId, mut take: impl FnMut(&[u8]) -> usize) -> usize {
        let Some(socket) = self.socket_mut(id) else {
            return 0;
        };
        let mut total = 0;
        // The buffer is a ring: two pieces at most.
        for _ in 0..2 {
            if !socket.can_recv() {
                break;
            }
            let all = socket.recv(|bytes| {
                let taken = take(bytes).min(bytes.len());
                (taken, (taken, taken == bytes.len()))
            });
            let Ok((taken, all)) = all else { break };
            total += taken;
            if !all {
                break;
            }
        }
        total
    }

    /// Sends what was accepted, then tells the peer that nothing more comes.
    pub fn close(&mut self, id: ConnectionId) {
        if let Some(socket) = self.socket_mut(id) {
            socket.close();
        }
        self.note(id, ConnectionState::Closing);
    }

    /// Gives a connection up; what was not acknowledged is lost.
    pub fn abort(&mut self, id: ConnectionId) {
        if let Some(socket) = self.socket_mut(id) {
            socket.abort();
        }
        self.note(id, ConnectionState::Closed(CloseReason::Aborted));
    }

    fn note(&mut self, id: ConnectionId, state: ConnectionState) {
        let connection = self.connections.iter_mut().find(|connection| connection.id == id);
        if let Some(connection) = connection
            && !matches!(connection.state, ConnectionState::Closed(_))
        {
            connection.state = state;
        }
    }

    fn handle(&self, id: ConnectionId) -> Option<SocketHandle> {
        self.connections.iter().find(|connection| connection.id == id)?.handle
    }

    fn socket(&self, id: ConnectionId) -> Option<&Socket<'static>> {
        Some(self.sockets.get(self.handle(id)?))
    }

    fn socket_mut(&mut self, id: ConnectionId) -> Option<&mut Socket<'static>> {
        let handle = self.handle(id)?;
        Some(self.sockets.get_mut(handle))
    }

    pub(super) fn register(&mut self, handle: SocketHandle, state: ConnectionState) -> ConnectionId {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        self.connections.push(Connection { id, handle: Some(handle), state });
        id
    }

    fn new_socket(&self, buffer: usize) -> Result<Socket<'static>, ConnectError> {
        let bytes = |length| -> Result<SocketBuffer<'static>, ConnectError> {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(length).map_err(|_| ConnectError::OutOfMemory)?;
            bytes.resize(length, 0);
            Ok(SocketBuffer::new(bytes))
        };
        let mut socket = Socket::new(bytes(receive_buffer(buffer))?, bytes(buffer)?);
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        // Cubic computes in floating point, which this target does in software.
        socket.set_congestion_control(CongestionControl::Reno);
        socket.set_timeout(Some(Duration::from_micros(self.settings.peer_timeout)));
        socket.set_keep_alive(Some(Duration::from_micros(self.settings.peer_timeout / 4)));
        Ok(socket)
    }

    pub(super) fn listening_socket(&self, port: u16, buffer: usize) -> Result<Socket<'static>, ConnectError> {
        let mut socket = self.new_socket(buffer)?;
        socket.listen(port).map_err(|_| ConnectError::BadAddress)?;
        Ok(socket)
    }

    /// Looks at what became of every connection and listener.
    fn settle(&mut self, stage: Stage) {
        for connection in &mut self.connections {
            let Some(handle) = connection.handle else {
                continue;
            };
            let socket = self.sockets.get::<Socket<'_>>(handle);
            if socket.state() != tcp::State::Closed {
                connection.state = current_state(socket, connection.state);
                continue;
            }
            if !matches!(connection.state, ConnectionState::Closed(_)) {
                let lost = socket.send_queue() > 0;
                connection.state = ConnectionState::Closed(end_reason(connection.state, stage, lost));
            }
            // A reset that we owe the peer had its chance to go out (there may be nobody at that address); what came
            // before the end may still be read.
            let aborted = connection.state == ConnectionState::Closed(CloseReason::Aborted);
            if stage == Stage::Egress && (aborted || !socket.can_recv()) {
                self.sockets.remove(handle);
                connection.handle = None;
            }
        }
        let over = self.connections.iter().filter(|connection| connection.handle.is_none()).count();
        let mut surplus = over.saturating_sub(REMEMBERED);
        self.connections.retain(|connection| {
            let forget = connection.handle.is_none() && surplus > 0;
            surplus -= usize::from(forget);
            !forget
        });
    }
}

/// The length of a receive buffer, at most `wanted`, that smoltcp keeps within.
///
/// smoltcp 0.14 remembers the window of its SYN, which is never scaled, as if it were, and accepts segments up to that
/// edge. Where the window's scale makes that more than the buffer, a peer that is quick enough can write beyond it (an
/// assertion then fails in smoltcp). The largest scaled window is harmless if it is the buffer.
fn receive_buffer(wanted: usize) -> usize {
    let largest_unscaled = usize::from(u16::MAX);
    let mut length = largest_unscaled;
    while length <= wanted / 2 {
        length *= 2;
    }
    if length <= wanted { length } else { wanted }
}

fn instant(micros: u64) -> Instant {
    Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// The state of a connection whose socket is not closed; `before` is how it was.
fn current_state(socket: &Socket<'_>, before: ConnectionState) -> ConnectionState {
    match socket.state() {
        tcp::State::Listen | tcp::State::SynSent | tcp::State::SynReceived => ConnectionState::Connecting,
        tcp::State::Established => ConnectionState::Open,
        tcp::State::CloseWait => ConnectionState::PeerClosed,
        tcp::State::FinWait1
        | tcp::State::FinWait2
        | tcp::State::Closing
        | tcp::State::LastAck
        | tcp::State::TimeWait => ConnectionState::Closing,
        tcp::State::Closed => before,
    }
}

/// `lost`: something accepted for sending was never acknowledged.
fn end_reason(before: ConnectionState, stage: Stage, lost: bool) -> CloseReason {
    match (before, stage) {
        (ConnectionState::Closed(reason), _) => reason,
        (ConnectionState::Closing, _) if !lost => CloseReason::Finished,
        (_, Stage::Egress) => CloseReason::TimedOut,
        (ConnectionState::Connecting, Stage::Ingress) => CloseReason::Refused,
        (_, Stage::Ingress) => CloseReason::Reset,
    }
}

#[cfg(test)]
mod tests;
