//! A migration away from this host: connect while the sample runs, decide, stream.

use super::{pipe::Pipe, progress::Teller, vms::Leaving};
use crate::{
    host::{Guests, Terminal},
    machine::clock,
    monitor::{
        command::{Migrate, PathRequest, PolicyName},
        event::{Side, What},
        report::{DecisionReport, SampleReport},
    },
    observe::Observed,
};
use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
};
use core::time::Duration;
use migration::{Config, Offer, Path, Source, Status};
use qavns::{PathChoice, Ratio};

/// Within a round dirty flags are collected so seldom that it takes at most one in so many of the CPU's time. What the
/// collecting itself takes is about half of its price: the guest's next writes pay the rest.
const HARVEST_SHARE: u64 = 50;

/// Where it stands.
enum Stage {
    /// Ts is not over yet.
    Sampling,
    /// The engine works.
    Streaming(Box<Source>),
    /// Nothing more to do.
    Over,
}

/// One VM that leaves.
pub struct Outgoing {
    /// The VM.
    pub id: u32,
    /// Its name.
    pub name: String,
    request: Migrate,
    policy: PolicyName,
    jiffy: Duration,
    pipe: Pipe,
    stage: Stage,
    teller: Teller,
    /// The end, or a break after the hand-over, was told.
    told: bool,
}

impl Outgoing {
    /// Starts the sample; `pipe` may still be connecting.
    pub fn new(id: u32, request: Migrate, policy: PolicyName, jiffy: Duration, pipe: Pipe) -> Self {
        let teller = Teller::new(&request.vm, Side::Source);
        let (name, policy) = (request.vm.clone(), request.policy.unwrap_or(policy));
        Self { id, name, request, policy, jiffy, pipe, stage: Stage::Sampling, teller, told: false }
    }

    /// Whether pages are on their way.
    pub fn streaming(&self) -> bool {
        matches!(self.stage, Stage::Streaming(_))
    }

    /// Whether it has come to its end.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// The sample is over: decide, and begin to stream.
    pub fn sampled(&mut self, observed: &Observed, guests: &mut Guests, terminal: &mut Terminal) {
        let sample = SampleReport::new(&observed.sample, &observed.identifiers);
        terminal.tell(What::Sample { vm: self.name.clone(), sample });
        let rule = self.policy.rule(self.request.tp, self.request.td, self.pages_per_jiffy());
        let decision = rule.decide(&observed.sample);
        let (path, report) = match engine_path(self.request.path) {
            Some(path) => (path, DecisionReport::by_user(self.request.path, Some(&decision))),
            None => {
                let path = match decision.path {
                    PathChoice::PreCopy => Path::PreCopy,
                    PathChoice::PostCopy => Path::PostCopy,
                };
                (path, DecisionReport::by_policy(&decision))
            }
        };
        log::info!("{}: {}: {}, by {}", self.name, decision.condition.text(), path.name(), report.chosen_by);
        terminal.tell(What::Decision { vm: self.name.clone(), decision: report });
        let (page_count, harvest_time) =
            guests.peek(self.id).map_or((0, 0), |tenant| (tenant.vm.memory.pages() as u64, tenant.harvest_time()));
        let defaults = Config::default();
        let config = Config {
            downtime_limit: micros(self.request.downtime_limit),
            peek_interval: defaults.peek_interval.max(harvest_time.saturating_mul(HARVEST_SHARE)),
            ..defaults
        };
        let offer = Offer {
            name: self.name.clone(),
            session: clock::now(),
            page_count,
            tsc_khz: clock::hz() / 1000,
            path,
            verify: self.request.verify,
            acknowledge_every: config.push_window / 4,
        };
        match Source::new(config, offer, clock::micros()) {
            Ok(engine) => self.stage = Stage::Streaming(Box::new(engine)),
            Err(error) => {
                terminal.error(format!("{}: {error}", self.name), None);
                self.pipe.abort();
                self.stage = Stage::Over;
            }
        }
    }

    /// What the link carries, where a limit was given: the only measure of it before the first page.
    fn pages_per_jiffy(&self) -> Option<Ratio> {
        let bandwidth = self.request.bandwidth?.get();
        Ratio::new(bandwidth.saturating_mul(micros(self.jiffy)), 4096 * 1_000_000)
    }

    /// Moves it on. True if anything happened.
    pub fn step(&mut self, guests: &mut Guests, terminal: &mut Terminal) -> bool {
        let Stage::Streaming(engine) = &mut self.stage else { return false };
        if self.pipe.is_connecting() || (self.told && engine.status() == Status::PostcopyPaused) {
            return false;
        }
        let mut vm = Leaving { guests, id: self.id };
        let outcome = exchange(engine, &mut self.pipe, &mut vm);
        if let Err(error) = &outcome {
            log::warn!("{}: {error}", self.name);
        }
        let broken = self.pipe.broken();
        if let Some(reason) = broken.filter(|_| !engine.status().is_final()) {
            log::warn!("{}: the link to the destination broke: {reason}", self.name);
            engine.link_lost(clock::micros(), &mut vm);
        }
        self.teller.source(engine, terminal);
        let status = engine.status();
        if status == Status::PostcopyPaused {
            self.pipe.abort();
            self.tell_end(guests, terminal);
        } else if status.is_final() && (self.pipe.is_drained() || broken.is_some()) {
            self.finish(status, guests, terminal);
        }
        outcome.unwrap_or(true)
    }

    fn tell_end(&mut self, guests: &mut Guests, terminal: &mut Terminal) {
        let Stage::Streaming(engine) = &self.stage else { return };
        self.told = true;
        if let Some(tenant) = guests.get(self.id) {
            terminal.tell(What::Overhead { vm: self.name.clone(), overhead: tenant.overhead() });
        }
        self.teller.ended(engine.report(clock::micros()), engine.error().map(ToString::to_string), terminal);
    }

    fn finish(&mut self, status: Status, guests: &mut Guests, terminal: &mut Terminal) {
        self.tell_end(guests, terminal);
        self.stage = Stage::Over;
        self.pipe.close();
        if status == Status::Completed {
            guests.remove(self.id);
        }
    }

    /// Whether it waits to be resumed.
    pub fn is_paused(&self) -> bool {
        matches!(&self.stage, Stage::Streaming(engine) if engine.status() == Status::PostcopyPaused)
    }

    /// Goes on over a new connection.
    ///
    /// # Errors
    /// When nothing is broken.
    pub fn recover(&mut self, pipe: Pipe) -> Result<(), String> {
        let Stage::Streaming(engine) = &mut self.stage else { return Err("nothing to resume".into()) };
        engine.recover().map_err(|error| format!("{}: {error}", self.name))?;
        self.pipe = pipe;
        self.told = false;
        Ok(())
    }

    /// Gives it up.
    ///
    /// # Errors
    /// After the hand-over.
    pub fn cancel(&mut self, guests: &mut Guests) -> Result<(), String> {
        match &mut self.stage {
            Stage::Sampling => {
                if let Some(tenant) = guests.get(self.id) {
                    tenant.cancel_sample();
                }
                self.pipe.abort();
                self.stage = Stage::Over;
                Ok(())
            }
            Stage::Streaming(engine) => {
                let mut vm = Leaving { guests, id: self.id };
                engine.cancel(clock::micros(), &mut vm).map_err(|error| format!("{}: {error}", self.name))
            }
            Stage::Over => Ok(()),
        }
    }
}

fn exchange(engine: &mut Source, pipe: &mut Pipe, vm: &mut Leaving<'_>) -> Result<bool, migration::Error> {
    let received = pipe.receive(|bytes| engine.receive(bytes, clock::micros(), vm));
    // Also after a failure: the engine may have its reason to give.
    let sent = pipe.send(|room, out| engine.transmit(clock::micros(), vm, room, out).map(|_| ()));
    if pipe.is_full() {
        engine.channel_full();
    }
    Ok(received? | sent?)
}

fn engine_path(request: PathRequest) -> Option<Path> {
    match request {
        PathRequest::Auto => None,
        PathRequest::StopAndCopy => Some(Path::StopAndCopy),
        PathRequest::Demand => Some(Path::Demand),
        PathRequest::PreCopy => Some(Path::PreCopy),
        PathRequest::PostCopy => Some(Path::PostCopy),
        PathRequest::Hybrid => Some(Path::Hybrid),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
