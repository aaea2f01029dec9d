//! A migration to this host.

use super::{memory::MemoryChannel, pipe::Pipe, progress::Teller, vms::Arriving};
use crate::{
    host::{Guests, Terminal},
    machine::clock,
    monitor::event::Side,
};
use alloc::string::ToString;
use migration::{Destination, Fault, Status};

/// One VM that arrives, or a connection from which one may come.
pub struct Incoming {
    /// The VM, once there is one.
    pub id: Option<u32>,
    engine: Destination,
    pipe: Pipe,
    teller: Option<Teller>,
    local: bool,
    over: bool,
    /// Nothing more comes, unless the source connects again.
    paused: bool,
}

impl Incoming {
    /// Over a new connection; `local` if its other end is on this host.
    pub fn new(pipe: Pipe, local: bool) -> Self {
        Self {
            id: None,
            engine: Destination::new(clock::micros()),
            pipe,
            teller: None,
            local,
            over: false,
            paused: false,
        }
    }

    /// Over one end of a link in memory.
    pub fn local(channel: MemoryChannel) -> Self {
        Self::new(Pipe::new(alloc::boxed::Box::new(channel), None), true)
    }

    /// Whether its source is this host.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// Whether it has come to its end.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether it does nothing until the source connects again, if it does.
    pub fn is_idle(&self) -> bool {
        self.paused
    }

    /// Whether its VM is all here.
    pub fn is_complete(&self) -> bool {
        self.engine.status() == Status::Completed
    }

    /// Whether it is the one that a source with this session resumes.
    pub fn has_session(&self, session: u64) -> bool {
        self.engine.is_committed() && self.engine.offer().is_some_and(|offer| offer.session == session)
    }

    /// Goes on over a new connection: the old one is broken, whether that was seen here yet or not.
    pub fn reconnect(&mut self, pipe: Pipe) {
        self.engine.link_lost(clock::micros());
        self.pipe.abort();
        if let Err(error) = self.engine.reconnected() {
            log::warn!("cannot resume: {error}");
            return;
        }
        self.pipe = pipe;
        self.paused = false;
    }

    /// The guest touched a page that has not come.
    pub fn page_missing(&mut self, gfn: u64, guests: &mut Guests) {
        if self.engine.fault(gfn, clock::micros()) == Fault::Present
            && let Some(tenant) = self.id.and_then(|id| guests.get(id))
        {
            // It came between the exit and now.
            tenant.vm.stop_waiting();
        }
    }

    /// Moves it on. True if anything happened.
    pub fn step(&mut self, guests: &mut Guests, terminal: &mut Terminal) -> bool {
        if self.over || self.paused {
            return false;
        }
        let mut vm = Arriving { guests, id: &mut self.id, local: self.local };
        let engine = &mut self.engine;
        let received = self.pipe.receive(|bytes| engine.receive(bytes, clock::micros(), &mut vm));
        let goes_on = engine.go_on(clock::micros(), &mut vm);
        let sent = self.pipe.send(|room, out| {
            engine.transmit(room, out);
            Ok::<(), migration::Error>(())
        });
        let failed = match received.as_ref().err().or(sent.as_ref().err()) {
            Some(error) => {
                log::warn!("incoming migration: {error}");
                true
            }
            None => false,
        };
        self.tell(guests, terminal);
        let broken = self.pipe.broken();
        if let Some(reason) = broken.filter(|_| !self.engine.status().is_final()) {
            if self.engine.offer().is_some() {
                log::warn!("incoming migration: the link broke: {reason}");
            }
            self.engine.link_lost(clock::micros());
        }
        self.settle(broken.is_some() || failed, guests, terminal);
        goes_on || matches!((received, sent), (Ok(true), _) | (_, Ok(true)))
    }

    fn tell(&mut self, guests: &Guests, terminal: &mut Terminal) {
        let Some(tenant) = self.id.and_then(|id| guests.peek(id)) else { return };
        let teller = self.teller.get_or_insert_with(|| Teller::new(&tenant.vm.name, Side::Destination));
        teller.destination(&self.engine, terminal);
    }

    /// Ends it, or notes that it is paused, once the engine says so.
    fn settle(&mut self, broken: bool, guests: &mut Guests, terminal: &mut Terminal) {
        let status = self.engine.status();
        if status == Status::PostcopyPaused {
            self.paused = true;
            self.pipe.abort();
            self.tell_end(terminal);
        } else if status.is_final() && (broken || self.pipe.is_drained()) {
            self.pipe.close();
            // A source that has not heard that all is here will ask.
            self.paused = status == Status::Completed && self.engine.error().is_some();
            self.over = !self.paused;
            if !self.engine.is_committed()
                && let Some(id) = self.id.take()
            {
                guests.remove(id);
            }
            self.tell_end(terminal);
        }
    }

    fn tell_end(&self, terminal: &mut Terminal) {
        if let (Some(report), Some(teller)) = (self.engine.report(clock::micros()), &self.teller) {
            teller.ended(report, self.engine.error().map(ToString::to_string), terminal);
        }
    }
}
