//! A migration away from this host: measure the link, sample, decide, stream.

use super::{
    measure::{Measure, Outcome},
    pipe::Pipe,
    progress::Teller,
    vms::Leaving,
};
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
use migration::{Config, LinkMeasure, Offer, Path, RateLimit, Report, Source, Status};
use qavns::{PathChoice, Ratio};

/// Within a round dirty flags are collected so seldom that it takes at most one in so many of the CPU's time. What the
/// collecting itself takes is about half of its price: the guest's next writes pay the rest.
const HARVEST_SHARE: u64 = 50;

/// Where it stands.
enum Stage {
    /// The link is measured.
    Measuring(Box<Measure>),
    /// The link is known as far as it can be: the sample is to begin, over a new connection.
    Measured,
    /// Ts is not over yet; the connection may still be in the making.
    Sampling(Pipe),
    /// The engine works.
    Streaming(Box<Source>, Pipe),
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
    /// What the link does, if that was measured.
    link: Option<LinkMeasure>,
    stage: Stage,
    teller: Teller,
    /// The end, or a break after the hand-over, was told.
    told: bool,
}

impl Outgoing {
    /// Begins with the measurement of the link over `pipe`, which may still be connecting; without one, with the sample.
    pub fn new(request: Migrate, id: u32, policy: PolicyName, jiffy: Duration, pipe: Option<Pipe>) -> Self {
        let teller = Teller::new(&request.vm, Side::Source);
        let (name, policy) = (request.vm.clone(), request.policy.unwrap_or(policy));
        let stage = pipe.map_or(Stage::Measured, |pipe| Stage::Measuring(Box::new(Measure::new(pipe))));
        Self { id, name, request, policy, jiffy, link: None, stage, teller, told: false }
    }

    /// What is asked for, when it is time to connect for the stream and to [`Outgoing::start_sample`].
    pub fn wants_connection(&self) -> Option<&Migrate> {
        matches!(self.stage, Stage::Measured).then_some(&self.request)
    }

    /// The migration starts (MST): the sample begins. `pipe` may still be connecting.
    pub fn start_sample(&mut self, pipe: Pipe, guests: &mut Guests) {
        if let Some(tenant) = guests.get(self.id) {
            tenant.start_sample(self.request.ts);
        }
        self.stage = Stage::Sampling(pipe);
    }

    /// It cannot go on: says so, and leaves the VM as it was.
    pub fn give_up(&mut self, why: &str, terminal: &mut Terminal) {
        terminal.error(format!("{}: {why}", self.name), None);
        self.stage = Stage::Over;
    }

    /// Whether bytes are on their way.
    pub fn streaming(&self) -> bool {
        matches!(self.stage, Stage::Streaming(..) | Stage::Measuring(_))
    }

    /// Whether it has come to its end.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// The sample is over: decide, and begin to stream.
    pub fn sampled(&mut self, observed: &Observed, guests: &mut Guests, terminal: &mut Terminal) {
        let mut pipe = match core::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Sampling(pipe) => pipe,
            other => {
                self.stage = other;
                return;
            }
        };
        let sample = SampleReport::new(observed);
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
        let config = Config { link: self.known_link(), ..config(&self.request, harvest_time) };
        let offer = Offer {
            name: self.name.clone(),
            session: clock::now(),
            page_count,
            tsc_khz: clock::hz() / 1000,
            path,
            verify: self.request.verify,
            acknowledge_every: config.acknowledge_every(),
        };
        match Source::new(config, offer, clock::micros()) {
            Ok(engine) => self.stage = Stage::Streaming(Box::new(engine), pipe),
            Err(error) => {
                pipe.abort();
                self.give_up(&error.to_string(), terminal);
            }
        }
    }

    /// What the link does: as measured, but within the limit that was given.
    fn known_link(&self) -> Option<LinkMeasure> {
        let most = self.request.bandwidth.map_or(u64::MAX, core::num::NonZeroU64::get);
        self.link.map(|link| LinkMeasure { bandwidth: link.bandwidth.min(most), ..link })
    }

    /// What the link carries: as measured, or the limit that was given.
    fn pages_per_jiffy(&self) -> Option<Ratio> {
        let limit = self.request.bandwidth.map(core::num::NonZeroU64::get);
        let bandwidth = self.known_link().map(|link| link.bandwidth).or(limit)?;
        Ratio::new(bandwidth.saturating_mul(micros(self.jiffy)), 4096 * 1_000_000)
    }

    /// Moves it on. True if anything happened.
    pub fn step(&mut self, guests: &mut Guests, terminal: &mut Terminal) -> bool {
        match &mut self.stage {
            Stage::Measuring(_) => self.measure(guests, terminal),
            Stage::Streaming(..) => self.stream(guests, terminal),
            Stage::Measured | Stage::Sampling(_) | Stage::Over => false,
        }
    }

    fn measure(&mut self, guests: &mut Guests, terminal: &mut Terminal) -> bool {
        let Stage::Measuring(measure) = &mut self.stage else { return false };
        match measure.step(&Leaving { guests, id: self.id }) {
            Outcome::Busy(happened) => return happened,
            Outcome::Found(link) => {
                measure.end();
                match link {
                    Some(LinkMeasure { bandwidth, round_trip }) => {
                        log::info!(
                            "{}: the link carries {} KB/s, {round_trip} us to and fro",
                            self.name,
                            bandwidth / 1000
                        );
                    }
                    None => log::warn!("{}: the link could not be measured", self.name),
                }
                self.link = link;
                self.stage = Stage::Measured;
            }
            Outcome::Failed(why) => {
                measure.end();
                self.give_up(&why, terminal);
            }
        }
        true
    }

    fn stream(&mut self, guests: &mut Guests, terminal: &mut Terminal) -> bool {
        let Stage::Streaming(engine, pipe) = &mut self.stage else { return false };
        if pipe.is_connecting() || (self.told && engine.status() == Status::PostcopyPaused) {
            return false;
        }
        let mut vm = Leaving { guests, id: self.id };
        let outcome = exchange(engine, pipe, &mut vm);
        if let Err(error) = &outcome {
            log::warn!("{}: {error}", self.name);
        }
        let broken = pipe.broken();
        if let Some(reason) = broken.filter(|_| !engine.status().is_final()) {
            log::warn!("{}: the link to the destination broke: {reason}", self.name);
            engine.link_lost(clock::micros(), &mut vm);
        }
        self.teller.source(engine, terminal);
        let status = engine.status();
        if status == Status::PostcopyPaused {
            pipe.abort();
            self.tell_end(guests, terminal);
        } else if status.is_final() && (pipe.is_drained() || broken.is_some()) {
            pipe.close();
            self.finish(status, guests, terminal);
        }
        outcome.unwrap_or(true)
    }

    fn tell_end(&mut self, guests: &mut Guests, terminal: &mut Terminal) {
        let Stage::Streaming(engine, _) = &self.stage else { return };
        self.told = true;
        if let Some(tenant) = guests.get(self.id) {
            terminal.tell(What::Overhead { vm: self.name.clone(), overhead: tenant.overhead() });
        }
        let report = Report {
            link_throughput: self.link.map(|link| link.bandwidth),
            link_round_trip: self.link.map(|link| link.round_trip),
            ..engine.report(clock::micros())
        };
        self.teller.ended(report, engine.error().map(ToString::to_string), terminal);
    }

    fn finish(&mut self, status: Status, guests: &mut Guests, terminal: &mut Terminal) {
        self.tell_end(guests, terminal);
        self.stage = Stage::Over;
        if status == Status::Completed {
            guests.remove(self.id);
        }
    }

    /// Whether it waits to be resumed.
    pub fn is_paused(&self) -> bool {
        matches!(&self.stage, Stage::Streaming(engine, _) if engine.status() == Status::PostcopyPaused)
    }

    /// Breaks the link. Before the hand-over there is [`Outgoing::cancel`].
    ///
    /// # Errors
    /// Before the hand-over, or when it is broken.
    pub fn pause(&mut self) -> Result<(), String> {
        match &mut self.stage {
            Stage::Streaming(engine, pipe) if engine.is_handed_over() && engine.status() != Status::PostcopyPaused => {
                pipe.abort();
                Ok(())
            }
            _ => Err(format!("`{}` is not handed over, or paused already", self.name)),
        }
    }

    /// Goes on over a new connection.
    ///
    /// # Errors
    /// When nothing is broken.
    pub fn recover(&mut self, pipe: Pipe) -> Result<(), String> {
        let Stage::Streaming(engine, old) = &mut self.stage else { return Err("nothing to resume".into()) };
        engine.recover().map_err(|error| format!("{}: {error}", self.name))?;
        *old = pipe;
        self.told = false;
        Ok(())
    }

    /// Gives it up on request.
    ///
    /// # Errors
    /// After the hand-over.
    pub fn cancel(&mut self, guests: &mut Guests, terminal: &mut Terminal) -> Result<(), String> {
        match &mut self.stage {
            Stage::Streaming(engine, _) => {
                let mut vm = Leaving { guests, id: self.id };
                return engine.cancel(clock::micros(), &mut vm).map_err(|error| format!("{}: {error}", self.name));
            }
            Stage::Measuring(measure) => measure.end(),
            Stage::Sampling(pipe) => {
                pipe.abort();
                if let Some(tenant) = guests.get(self.id) {
                    tenant.cancel_sample();
                }
            }
            Stage::Measured => {}
            Stage::Over => return Ok(()),
        }
        self.give_up("cancelled before its path was chosen", terminal);
        Ok(())
    }
}

/// What the engine is to do: as asked for, and by its own defaults.
fn config(request: &Migrate, harvest_time: u64) -> Config {
    let (defaults, tuning) = (Config::default(), request.tuning);
    Config {
        downtime_limit: micros(request.downtime_limit),
        auto_converge: tuning.auto_converge,
        rate_limit: tuning.rate_limit.map(rate_limit),
        round_limit: tuning.max_rounds.unwrap_or(defaults.round_limit),
        byte_limit: tuning.max_bytes,
        hybrid_rounds: tuning.hybrid_rounds.unwrap_or(defaults.hybrid_rounds),
        demand_period: tuning.demand_period.map_or(defaults.demand_period, |period| Some(micros(period))),
        encodings: tuning.encodings.unwrap_or(defaults.encodings),
        peek_interval: defaults.peek_interval.max(harvest_time.saturating_mul(HARVEST_SHARE)),
        ..defaults
    }
}

/// In the proportions of Clark et al. (NSDI 2005, section 3.3), who went from 100 to at most 500 Mbit/s, and 50 beyond the
/// dirty rate.
fn rate_limit(most: u64) -> RateLimit {
    RateLimit { start: most.div_ceil(5), increment: most.div_ceil(10), most }
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
