//! The network: a virtio card, TCP/IP over it, and the channel that a migration runs through.
//!
//! Nothing here waits: everything is moved on by [`Stack::poll`], and the host's loop decides when to call it.

pub mod card;
pub mod channel;
pub mod limiter;
mod listener;
pub mod offload;
pub mod stack;
mod window;

pub use card::Card;
pub use channel::{Channel, TcpChannel};
pub use limiter::Limiter;
pub use stack::{CloseReason, ConnectError, ConnectionId, ConnectionState, Port, Settings, Stack};

#[cfg(test)]
mod wire_pair;
