//! The channel that a migration runs through, whatever carries it: bytes in order, or the end of it.

use super::{
    connection::{ConnectionId, ConnectionState},
    limiter::Limiter,
    stack::{Port, Stack},
};
use alloc::sync::Arc;
use spin::Mutex;

/// Bytes both ways, in order, without waiting. Times are microseconds.
pub trait Channel {
    /// Accepts as many of `bytes` as bandwidth and room allow now.
    fn send(&mut self, now: u64, bytes: &[u8]) -> usize;

    /// Shows `take` what has come, in order; it says how much of each piece it took, and is not asked again once it
    /// leaves some. The sum is given back.
    fn receive(&mut self, now: u64, take: &mut dyn FnMut(&[u8]) -> usize) -> usize;

    /// Bytes accepted for sending that the other side is not known to have.
    fn queued(&self) -> usize;

    /// Where the connection stands.
    fn state(&self) -> ConnectionState;

    /// Whether bytes can still be sent.
    fn is_open(&self) -> bool {
        matches!(self.state(), ConnectionState::Open | ConnectionState::PeerClosed)
    }

    /// Sends what was accepted, then ends it.
    fn close(&mut self);

    /// Ends it at once.
    fn abort(&mut self);
}

/// A TCP connection, with a limit on what we send. The stack is polled by the host's loop, not here.
pub struct TcpChannel<P: Port> {
    stack: Arc<Mutex<Stack<P>>>,
    id: ConnectionId,
    limiter: Limiter,
}

impl<P: Port> TcpChannel<P> {
    /// A channel over connection `id`; `bandwidth` in bytes a second, 0 for no limit.
    pub fn new(stack: Arc<Mutex<Stack<P>>>, id: ConnectionId, bandwidth: u64, now: u64) -> Self {
        Self { stack, id, limiter: Limiter::new(bandwidth, now) }
    }
}

impl<P: Port> Channel for TcpChannel<P> {
    fn send(&mut self, now: u64, bytes: &[u8]) -> usize {
        let most = self.limiter.allowance(now).min(bytes.len());
        let sent = self.stack.lock().send(self.id, bytes.get(..most).unwrap_or_default());
        self.limiter.take(sent);
        sent
    }

    fn receive(&mut self, _: u64, take: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        self.stack.lock().receive(self.id, take)
    }

    fn queued(&self) -> usize {
        self.stack.lock().send_queue(self.id)
    }

    fn state(&self) -> ConnectionState {
        self.stack.lock().state(self.id)
    }

    fn close(&mut self) {
        self.stack.lock().close(self.id);
    }

    fn abort(&mut self) {
        self.stack.lock().abort(self.id);
    }
}
