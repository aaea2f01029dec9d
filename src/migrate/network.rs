//! The host's network: the card and TCP/IP over it, if the options name an address.

use crate::{
    machine::{clock, interrupts},
    monitor::options::Options,
    net::{Card, ConnectionId, Due, Settings, Stack, TcpChannel, card::Wishes},
};
use alloc::{format, string::String, sync::Arc};
use core::net::SocketAddrV4;
use spin::Mutex;

/// The stack, shared with the channels over it.
pub struct Network {
    stack: Arc<Mutex<Stack<Card>>>,
    listening: Option<u16>,
    due: Due,
}

impl Network {
    /// Opens the card. `None` without an address.
    ///
    /// # Errors
    /// One sentence: there is no card, or it cannot listen.
    pub fn open(options: &Options) -> Result<Option<Self>, String> {
        let Some(ip) = options.ip else {
            return match options.listen {
                Some(_) => Err("`listen` needs an address: give `ip=A.B.C.D/N` too".into()),
                None => Ok(None),
            };
        };
        let interrupt = Some((interrupts::NETWORK_VECTOR, interrupts::local_apic::id()));
        let card = Card::open(Wishes { mtu: options.mtu, interrupt }).map_err(|why| format!("network: {why}"))?;
        log::info!("network: {}, {}/{}", card.describe(), ip.address, ip.length);
        log::warn!(
            "network: migrations are neither authenticated nor encrypted: use a link that only the hosts can reach"
        );
        let mut stack = Stack::new(card, Settings::new(ip.address, ip.length, clock::now()));
        if let Some(port) = options.listen {
            stack.listen(port).map_err(|why| format!("network: cannot listen on port {port}: {why}"))?;
        }
        Ok(Some(Self { stack: Arc::new(Mutex::new(stack)), listening: options.listen, due: Due::default() }))
    }

    /// Moves the stack on. True if anything happened.
    pub fn poll(&mut self, force: bool) -> bool {
        let now = clock::micros();
        let interrupts = interrupts::count(interrupts::NETWORK_VECTOR);
        if !force && !self.due.is_due(interrupts, now) {
            return false;
        }
        let mut stack = self.stack.lock();
        if self.due.begin(interrupts) {
            stack.disarm();
        }
        let happened = stack.poll(now);
        self.due.end(stack.poll_delay(now).map_or(u64::MAX, |delay| now.saturating_add(delay)));
        happened
    }

    /// Before a guest runs or the host rests: from now on a frame ends that. False if one is there already.
    pub fn arm(&mut self) -> bool {
        if !self.due.is_armed() {
            self.due.arm(self.stack.lock().arm());
        }
        self.due.is_armed()
    }

    /// When the stack's timers need a poll, in TSC ticks.
    pub fn deadline(&self) -> Option<u64> {
        let left = self.due.timer()?.saturating_sub(clock::micros());
        Some(clock::now() + clock::from_micros(left))
    }

    /// Connects.
    ///
    /// # Errors
    /// One sentence.
    pub fn connect(&mut self, to: SocketAddrV4, bandwidth: u64) -> Result<TcpChannel<Card>, String> {
        let id = self.stack.lock().connect(*to.ip(), to.port());
        let id = id.map_err(|why| format!("cannot connect to {to}: {why}"))?;
        Ok(self.channel(id, bandwidth))
    }

    /// A connection that a source opened to us.
    pub fn accept(&mut self) -> Option<TcpChannel<Card>> {
        let port = self.listening?;
        let id = self.stack.lock().accept(port)?;
        Some(self.channel(id, 0))
    }

    fn channel(&self, id: ConnectionId, bandwidth: u64) -> TcpChannel<Card> {
        TcpChannel::new(self.stack.clone(), id, bandwidth, clock::micros())
    }
}
