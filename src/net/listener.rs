//! Taking connections in, one at a time a port.
//!
//! While a connection is open, a second socket with hardly any buffer stands at the door: it lets nobody in, but who
//! knocked is in the log. (smoltcp alone would refuse without a word.)

use super::{
    connection::{ConnectError, ConnectionId, ConnectionState},
    stack::{Port, Stack},
};
use smoltcp::{
    iface::SocketHandle,
    socket::tcp::{Socket, State},
};

/// What a socket needs that never gets to carry a byte.
const DOORKEEPER_BUFFER: usize = 64;

pub(super) struct Listener {
    port: u16,
    handle: SocketHandle,
    /// The connection that keeps others out; the socket is a doorkeeper then.
    serving: Option<ConnectionId>,
}

impl Listener {
    pub(super) fn new(port: u16, handle: SocketHandle) -> Self {
        Self { port, handle, serving: None }
    }
}

impl<P: Port> Stack<P> {
    /// To be called once a poll, so that a reset from the last time has had its chance to go out.
    pub(super) fn settle_listeners(&mut self) {
        for index in 0..self.listeners.len() {
            let Some(&Listener { port, handle, serving }) = self.listeners.get(index) else {
                continue;
            };
            let next = match serving {
                None => self.wait_for_peer(port, handle),
                Some(id) => self.keep_door(port, handle, id),
            };
            // Without memory for the next socket the listener stays as it is, and tries again at the next poll.
            if let (Ok(Some(next)), Some(listener)) = (next, self.listeners.get_mut(index)) {
                *listener = next;
            }
        }
    }

    /// A connection that has come to stand goes to whoever accepts it; a doorkeeper takes the port.
    fn wait_for_peer(&mut self, port: u16, handle: SocketHandle) -> Result<Option<Listener>, ConnectError> {
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        match socket.state() {
            State::Established | State::CloseWait => {
                let doorkeeper = self.listening_socket(port, DOORKEEPER_BUFFER)?;
                let doorkeeper = self.sockets.add(doorkeeper);
                let id = self.register(handle, ConnectionState::Open);
                self.accepted.push_back((port, id));
                Ok(Some(Listener { port, handle: doorkeeper, serving: Some(id) }))
            }
            State::Closed => {
                // A peer that went away in the middle of the handshake.
                let _ = socket.listen(port);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn keep_door(
        &mut self,
        port: u16,
        handle: SocketHandle,
        serving: ConnectionId,
    ) -> Result<Option<Listener>, ConnectError> {
        let busy = matches!(
            self.state(serving),
            ConnectionState::Connecting | ConnectionState::Open | ConnectionState::PeerClosed
        );
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        match socket.state() {
            State::Listen if !busy => {
                let next = self.listening_socket(port, self.settings.buffer)?;
                self.sockets.remove(handle);
                Ok(Some(Listener::new(port, self.sockets.add(next))))
            }
            State::Listen => Ok(None),
            State::Closed => {
                let _ = socket.listen(port);
                Ok(None)
            }
            _ => {
                if let Some(peer) = socket.remote_endpoint() {
                    log::warn!("port {port}: refused {peer}, a connection is open already");
                }
                socket.abort();
                Ok(None)
            }
        }
    }
}
