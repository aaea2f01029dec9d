//! Ties the engines of `crates/migration` to the VMs of this host and to their channels.

mod incoming;
mod measure;
mod memory;
mod network;
mod outgoing;
mod pipe;
mod progress;
mod share;
mod vms;

use crate::{
    host::{Guests, Terminal},
    machine::clock,
    monitor::{
        command::{Migrate, PolicyName, Target},
        options::Options,
    },
    net::Channel,
    observe::Observed,
};
use alloc::{boxed::Box, format, string::String, vec::Vec};
use core::{net::SocketAddrV4, time::Duration};
use incoming::Incoming;
use memory::MemoryChannel;
use migration::Opening;
use network::Network;
use outgoing::Outgoing;
use pipe::Pipe;
use share::Bandwidth;

/// How long the host rests at most while a stream waits for the other side, in microseconds. Frames end the rest, but
/// nothing does when bytes come over a link in memory.
const STREAM_REST: u64 = 20_000;
const MEMORY_REST: u64 = 200;

/// All migrations of this host.
pub struct Migrations {
    network: Option<Network>,
    bandwidth: Option<Bandwidth>,
    outgoing: Vec<Outgoing>,
    incoming: Vec<Incoming>,
    /// Sources that have connected and not said what they want.
    callers: Vec<Pipe>,
    jiffy: Duration,
    /// Something happened in the last step, so more may follow at once.
    busy: bool,
}

impl Migrations {
    /// Opens the network if the options ask for it.
    ///
    /// # Errors
    /// One sentence: what is wrong with the network.
    pub fn new(options: &Options) -> Result<Self, String> {
        let network = Network::open(options)?;
        let bandwidth = options.bandwidth.map(Bandwidth::new);
        Ok(Self {
            network,
            bandwidth,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            callers: Vec::new(),
            jiffy: options.jiffy,
            busy: false,
        })
    }

    /// Begins a migration with its sample.
    ///
    /// # Errors
    /// One sentence: no such VM, one that is leaving already, no network.
    pub fn start(&mut self, request: Migrate, policy: PolicyName, guests: &mut Guests) -> Result<(), String> {
        let id = guests.find(&request.vm).ok_or_else(|| format!("no VM `{}` runs here", request.vm))?;
        if self.outgoing.iter().any(|outgoing| outgoing.id == id) {
            return Err(format!("`{}` is leaving already", request.vm));
        }
        if self.incoming.iter().any(|incoming| incoming.id == Some(id) && !incoming.is_complete()) {
            return Err(format!("`{}` is still arriving", request.vm));
        }
        // Who gives Td needs no measure.
        let pipe = if request.td.is_none() { Some(self.pipe(&request)?) } else { None };
        if let Some(tenant) = guests.get(id) {
            tenant.sample_asked(request.ts);
        }
        self.outgoing.push(Outgoing::new(request, id, policy, self.jiffy, pipe));
        Ok(())
    }

    /// A new connection for a migration.
    fn pipe(&mut self, request: &Migrate) -> Result<Pipe, String> {
        let bandwidth = request.bandwidth.map_or(0, core::num::NonZeroU64::get);
        match request.to {
            Target::Memory => {
                let latency = u64::try_from(request.latency.as_micros()).unwrap_or(u64::MAX);
                let (here, there) = MemoryChannel::pair(bandwidth, latency);
                self.incoming.push(Incoming::local(there));
                Ok(self.leaving(Box::new(here)))
            }
            Target::Host(to) => self.connect(to, bandwidth),
        }
    }

    /// Connects for the streams of those whose link is measured, and begins their samples.
    fn start_samples(&mut self, guests: &mut Guests, terminal: &mut Terminal) {
        for index in 0..self.outgoing.len() {
            let request = self.outgoing.get(index).and_then(Outgoing::wants_connection).cloned();
            let Some(pipe) = request.map(|request| self.pipe(&request)) else { continue };
            if let Some(outgoing) = self.outgoing.get_mut(index) {
                match pipe {
                    Ok(pipe) => outgoing.start_sample(pipe, guests),
                    Err(why) => outgoing.give_up(&why, terminal),
                }
            }
        }
    }

    fn connect(&mut self, to: SocketAddrV4, bandwidth: u64) -> Result<Pipe, String> {
        let network = self.network.as_mut().ok_or("no network: start the image with `ip=A.B.C.D/N`")?;
        let channel = network.connect(to, bandwidth)?;
        Ok(self.leaving(Box::new(channel)))
    }

    /// For a stream that leaves this host.
    fn leaving(&self, channel: Box<dyn Channel>) -> Pipe {
        Pipe::new(channel, self.bandwidth.as_ref().map(Bandwidth::share))
    }

    /// A VM's sample is over.
    pub fn sampled(&mut self, id: u32, observed: &Observed, guests: &mut Guests, terminal: &mut Terminal) {
        if let Some(outgoing) = self.outgoing.iter_mut().find(|outgoing| outgoing.id == id) {
            outgoing.sampled(observed, guests, terminal);
        }
    }

    /// Moves everything on a little.
    pub fn step(&mut self, guests: &mut Guests, terminal: &mut Terminal) {
        let active = !self.outgoing.is_empty() || !self.incoming.is_empty() || !self.callers.is_empty();
        let mut happened = self.network.as_mut().is_some_and(|network| network.poll(active));
        while let Some(channel) = self.network.as_mut().and_then(Network::accept) {
            self.callers.push(Pipe::new(Box::new(channel), None));
            happened = true;
        }
        self.answer_callers();
        self.start_samples(guests, terminal);
        for outgoing in &mut self.outgoing {
            happened |= outgoing.step(guests, terminal);
        }
        for incoming in &mut self.incoming {
            happened |= incoming.step(guests, terminal);
        }
        self.outgoing.retain(|outgoing| !outgoing.is_over());
        self.incoming.retain(|incoming| {
            let gone = incoming.is_complete() && incoming.id.is_none_or(|id| guests.peek(id).is_none());
            !incoming.is_over() && !gone
        });
        if happened && let Some(network) = &mut self.network {
            network.poll(true);
        }
        self.busy = happened;
    }

    /// Gives each caller that has said what it wants to the migration that it resumes, or makes it a new one.
    fn answer_callers(&mut self) {
        for mut pipe in core::mem::take(&mut self.callers) {
            let opening = pipe.opening();
            let resumed = match opening {
                Opening::Resumes(session) => self.incoming.iter_mut().find(|incoming| incoming.has_session(session)),
                Opening::Unknown | Opening::Begins => None,
            };
            match (resumed, opening) {
                (Some(incoming), _) => incoming.reconnect(pipe),
                (None, Opening::Unknown) if pipe.broken().is_none() => self.callers.push(pipe),
                (None, Opening::Unknown) => {}
                (None, _) => self.incoming.push(Incoming::new(pipe, false)),
            }
        }
    }

    /// A guest touched a page that has not come.
    pub fn page_missing(&mut self, id: u32, gfn: u64, guests: &mut Guests) {
        if let Some(incoming) = self.incoming.iter_mut().find(|incoming| incoming.id == Some(id)) {
            incoming.page_missing(gfn, guests);
            self.busy = true;
        }
    }

    /// Whether pages are on their way.
    pub fn streaming(&self) -> bool {
        self.outgoing.iter().any(Outgoing::streaming) || self.incoming.iter().any(|incoming| !incoming.is_idle())
    }

    /// Whether there is more to do at once.
    pub fn has_work(&self) -> bool {
        self.busy
    }

    /// Before a guest runs or the host rests: a frame from now on ends that. False if one is there already.
    pub fn arm(&mut self) -> bool {
        self.network.as_mut().is_none_or(Network::arm)
    }

    /// When to look again at the latest, in TSC ticks.
    pub fn deadline(&self) -> Option<u64> {
        let network = self.network.as_ref().and_then(Network::deadline);
        let rest = if self.incoming.iter().any(Incoming::is_local) { MEMORY_REST } else { STREAM_REST };
        let stream = self.streaming().then(|| clock::now() + clock::from_micros(rest));
        network.into_iter().chain(stream).min()
    }

    /// Gives a migration up.
    ///
    /// # Errors
    /// One sentence: there is none, or it is too late.
    pub fn cancel(&mut self, vm: &str, guests: &mut Guests, terminal: &mut Terminal) -> Result<(), String> {
        let outgoing = self.outgoing.iter_mut().find(|outgoing| outgoing.name == vm);
        outgoing.ok_or_else(|| format!("`{vm}` is not leaving"))?.cancel(guests, terminal)
    }

    /// Breaks the link of a migration after the hand-over, as QEMU's `migrate-pause` does.
    ///
    /// # Errors
    /// One sentence: there is none.
    pub fn pause(&mut self, vm: &str) -> Result<(), String> {
        let outgoing = self.outgoing.iter_mut().find(|outgoing| outgoing.name == vm);
        outgoing.ok_or_else(|| format!("`{vm}` is not leaving"))?.pause()
    }

    /// Resumes a post-copy whose link broke.
    ///
    /// # Errors
    /// One sentence: there is none.
    pub fn recover(&mut self, vm: &str, to: Target) -> Result<(), String> {
        let Some(at) = self.outgoing.iter().position(|outgoing| outgoing.name == vm && outgoing.is_paused()) else {
            return Err(format!("no broken post-copy of `{vm}` is here"));
        };
        let pipe = match to {
            Target::Host(to) => self.connect(to, 0)?,
            Target::Memory => {
                let (here, there) = MemoryChannel::pair(0, 0);
                self.callers.push(Pipe::new(Box::new(there), None));
                self.leaving(Box::new(here))
            }
        };
        match self.outgoing.get_mut(at) {
            Some(outgoing) => outgoing.recover(pipe),
            None => Ok(()),
        }
    }
}
