//! The network: a virtio card, TCP/IP over it, and the channel that a migration runs through.
//!
//! Nothing here waits: everything is moved on by [`Stack::poll`], and the host's loop decides when to call it.

pub mod card;
pub mod channel;
pub mod connection;
mod due;
pub mod limiter;
mod listener;
pub mod offload;
pub mod stack;
mod window;

pub use card::Card;
pub use channel::{Channel, TcpChannel};
pub use connection::{CloseReason, ConnectError, ConnectionId, ConnectionState, Settings};
pub use due::Due;
pub use limiter::Limiter;
pub use stack::{Port, Stack};

#[cfg(test)]
mod wire_pair;
