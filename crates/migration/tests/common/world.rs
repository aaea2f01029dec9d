//! Two hosts and a link between them.

use super::mishap::{Passed, Tap};
use super::vm::{Program, SimVm};
use migration::{Config, Destination, End, Error, Fault, Link, MIN_ROOM, Micros, Offer, Source, Status};

/// Where the link is cut: after so many bytes of one direction have arrived.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    ToDestination(u64),
    ToSource(u64),
}

pub struct World {
    pub now: Micros,
    pub tick: Micros,
    /// Steps that the guest does in a millisecond.
    pub pace: u64,
    pub link: Link,
    /// The source's, and of those that try again.
    pub config: Config,
    pub source: Source,
    pub source_vm: SimVm,
    pub destination: Destination,
    pub destination_vm: SimVm,
    pub cut: Option<Cut>,
    /// Bytes that arrived: at the destination, at the source.
    pub arrived: (u64, u64),
    /// What arrived at the destination, kept if wanted.
    pub tape: Option<Vec<u8>>,
    pub source_result: Result<(), Error>,
    pub destination_result: Result<(), Error>,
    out: Vec<u8>,
    steps_due: u64,
    /// Ticks in which nobody ran the guest, or it waited.
    pub silence: Micros,
    pub longest_silence: Micros,
    /// The guest rests after so many steps.
    pub guest_stops_at: Option<u64>,
    /// The byte of the stream to the destination that is altered on its way.
    pub flip: Option<u64>,
    /// Messages go through these, if there: to the destination, to the source.
    pub taps: Option<(Tap, Tap)>,
    /// The most bytes that the source may send in a tick, of which [`MIN_ROOM`] let it send one page a message.
    pub allowance: usize,
    /// What it sent in the last one.
    pub sent: usize,
    /// When bytes last arrived anywhere.
    pub last_arrival: Micros,
    /// A broken source: it takes the guest back when the link breaks, whatever it has sent.
    pub resumes_what_it_gave_away: bool,
    /// The first time that a rule was broken.
    pub violation: Option<String>,
}

/// A host that needs a while to make room.
fn place_for(program: Program) -> SimVm {
    let mut place = SimVm::blank(program);
    place.pieces = 3;
    place
}

impl World {
    pub fn new(offer: Offer, config: Config, program: Program, link: Link) -> Self {
        let source_vm = SimVm::new(offer.page_count, program.clone());
        Self {
            now: 0,
            tick: 20,
            pace: 1000,
            link,
            source: Source::new(config.clone(), offer, 0).unwrap(),
            config,
            source_vm,
            destination: Destination::new(0),
            destination_vm: place_for(program),
            cut: None,
            arrived: (0, 0),
            tape: None,
            source_result: Ok(()),
            destination_result: Ok(()),
            out: Vec::new(),
            steps_due: 0,
            silence: 0,
            longest_silence: 0,
            guest_stops_at: None,
            flip: None,
            taps: None,
            allowance: usize::MAX,
            sent: 0,
            last_arrival: 0,
            resumes_what_it_gave_away: false,
            violation: None,
        }
    }

    /// Lets a tick pass: guest, then the engines.
    pub fn tick(&mut self) {
        self.now += self.tick;
        self.run_guest();
        self.deliver_to_destination();
        self.deliver_to_source();
        self.transmit();
        self.cut_if_due();
        self.judge_the_moment();
    }

    fn judge_the_moment(&mut self) {
        let what = if self.source_vm.running && self.destination_vm.running {
            "the guest runs on both sides"
        } else if self.source_vm.running && self.source.is_handed_over() {
            "the source runs what it gave away"
        } else {
            return;
        };
        self.violation.get_or_insert_with(|| format!("at {} us {what}", self.now));
    }

    fn run_guest(&mut self) {
        self.steps_due += self.pace * self.tick;
        let at_source = self.source_vm.running;
        let speed = if at_source { self.source_vm.speed_percent() } else { 100 };
        let steps = self.steps_due * speed / 100_000;
        self.steps_due -= steps * 100_000 / speed;
        let vm = if at_source { &mut self.source_vm } else { &mut self.destination_vm };
        if self.guest_stops_at.is_some_and(|stop| vm.step >= stop) {
            return;
        }
        let before = vm.step;
        if vm.running
            && let Some(gfn) = vm.go(steps)
        {
            assert!(!at_source);
            assert_eq!(self.destination.fault(gfn, self.now), Fault::Requested);
        }
        self.silence = if vm.step > before || steps == 0 { 0 } else { self.silence + self.tick };
        self.longest_silence = self.longest_silence.max(self.silence);
    }

    fn deliver_to_destination(&mut self) {
        loop {
            let mut bytes = self.link.arrived(End::B, self.now);
            if let Some(Cut::ToDestination(limit)) = self.cut {
                bytes = &bytes[..bytes.len().min((limit - self.arrived.0) as usize)];
            }
            let count = bytes.len();
            let mut passed = Passed { bytes: bytes.to_vec(), ..Passed::default() };
            if let Some((there, _)) = &mut self.taps {
                passed = there.pass(bytes, self.now);
            }
            if count == 0 && passed.bytes.is_empty() {
                self.meddle(&passed);
                return;
            }
            if let Some(tape) = &mut self.tape {
                tape.extend_from_slice(&passed.bytes);
            }
            if let Some(at) = self.flip.and_then(|at| at.checked_sub(self.arrived.0))
                && let Some(byte) = passed.bytes.get_mut(at as usize)
            {
                *byte ^= 1;
            }
            let result = self.destination.receive(&passed.bytes, self.now, &mut self.destination_vm);
            self.destination_result = self.destination_result.clone().and(result);
            self.link.consume(End::B, count);
            self.arrived.0 += count as u64;
            self.last_arrival = self.now;
            self.meddle(&passed);
        }
    }

    fn deliver_to_source(&mut self) {
        loop {
            let mut bytes = self.link.arrived(End::A, self.now);
            if let Some(Cut::ToSource(limit)) = self.cut {
                bytes = &bytes[..bytes.len().min((limit - self.arrived.1) as usize)];
            }
            let count = bytes.len();
            let mut passed = Passed { bytes: bytes.to_vec(), ..Passed::default() };
            if let Some((_, back)) = &mut self.taps {
                passed = back.pass(bytes, self.now);
            }
            if count == 0 && passed.bytes.is_empty() {
                self.meddle(&passed);
                return;
            }
            let result = self.source.receive(&passed.bytes, self.now, &mut self.source_vm);
            self.source_result = self.source_result.clone().and(result);
            self.link.consume(End::A, count);
            self.arrived.1 += count as u64;
            self.last_arrival = self.now;
            self.meddle(&passed);
        }
    }

    /// What a tap does beside delivering.
    fn meddle(&mut self, passed: &Passed) {
        if passed.cut && self.link.is_open() {
            self.lose_link();
        }
        if passed.cancel {
            let late = self.source.is_handed_over() || self.source.status().is_final();
            let expected = if late { Err(Error::HandedOver) } else { Ok(()) };
            assert_eq!(self.source.cancel(self.now, &mut self.source_vm), expected);
        }
    }

    fn transmit(&mut self) {
        self.sent = 0;
        if !self.link.is_open() {
            return;
        }
        self.out.clear();
        loop {
            let room = self.link.room(End::A).min(self.allowance).saturating_sub(self.out.len());
            match self.source.transmit(self.now, &mut self.source_vm, room, &mut self.out) {
                Ok(0) => break,
                Ok(count) => assert!(count <= room.max(MIN_ROOM)),
                Err(error) => {
                    self.source_result = self.source_result.clone().and(Err(error));
                    break;
                }
            }
            // The guest gets its turn.
            if self.source_vm.running {
                break;
            }
        }
        if self.link.room(End::A).min(self.allowance) < self.out.len() + MIN_ROOM {
            self.source.channel_full();
        }
        assert_eq!(self.link.send(End::A, self.now, &self.out), self.out.len());
        self.sent = self.out.len();
        self.out.clear();
        self.destination.go_on(self.now, &mut self.destination_vm);
        self.destination.transmit(self.link.room(End::B), &mut self.out);
        assert_eq!(self.link.send(End::B, self.now, &self.out), self.out.len());
    }

    fn cut_if_due(&mut self) {
        let due = match self.cut {
            Some(Cut::ToDestination(limit)) => self.arrived.0 >= limit,
            Some(Cut::ToSource(limit)) => self.arrived.1 >= limit,
            None => false,
        };
        if due && self.link.is_open() {
            self.lose_link();
        }
    }

    pub fn lose_link(&mut self) {
        self.link.cut();
        self.taps = None;
        self.source.link_lost(self.now, &mut self.source_vm);
        self.destination.link_lost(self.now);
        if self.resumes_what_it_gave_away && !self.source_vm.running {
            self.source_vm.running = true;
        }
    }

    /// A new link in place of the one that broke.
    pub fn relink(&mut self, link: Link) {
        self.link = link;
        self.cut = None;
        self.flip = None;
        self.taps = None;
        self.arrived = (0, 0);
        self.source_result = Ok(());
        self.destination_result = Ok(());
    }

    /// Until both sides have nothing more to do.
    #[track_caller]
    pub fn finish(&mut self) {
        self.run_to_the_end().unwrap();
    }

    pub fn run_to_the_end(&mut self) -> Result<(), String> {
        for _ in 0..2_000_000 {
            if self.is_over() {
                return Ok(());
            }
            self.tick();
        }
        Err(format!("it does not end: source {:?}, destination {:?}", self.source.status(), self.destination.status()))
    }

    /// Until both sides have nothing more to do, or nothing has come for so long that their owners give the link up.
    pub fn run_until_the_link_is_given_up(&mut self, patience: Micros) -> Result<(), String> {
        self.last_arrival = self.now;
        for _ in 0..2_000_000 {
            if self.is_over() || !self.link.is_open() {
                return Ok(());
            }
            if self.now - self.last_arrival > patience {
                self.lose_link();
                return Ok(());
            }
            self.tick();
        }
        Err("it neither ends nor falls silent".into())
    }

    pub fn is_over(&self) -> bool {
        let at_rest = |status: Status| status.is_final() || status == Status::PostcopyPaused;
        at_rest(self.source.status()) && (at_rest(self.destination.status()) || !self.link.is_open())
    }

    /// Lets so much time pass.
    pub fn pass(&mut self, time: Micros) {
        let until = self.now + time;
        while self.now < until {
            self.tick();
        }
    }

    /// The guest runs at the destination alone, with the memory of its twin, and both sides know that it is whole.
    #[track_caller]
    pub fn assert_moved(&self) {
        self.moved().unwrap();
    }

    pub fn moved(&self) -> Result<(), String> {
        self.runs_at_the_destination()?;
        require(self.source_result == Ok(()), || format!("the source: {:?}", self.source_result))?;
        require(self.destination_result == Ok(()), || format!("the destination: {:?}", self.destination_result))?;
        let pages = self.source_vm.memory.len() as u64;
        for report in [self.source.report(self.now), self.destination.report(self.now).unwrap()] {
            let verdict = report.verify.ok_or("not compared")?;
            let (compared, different) = (verdict.pages_compared, verdict.pages_different);
            require((compared, different) == (pages, 0), || format!("{different} of {compared} pages differ"))?;
        }
        Ok(())
    }

    /// The guest runs at the destination alone, with the memory of its twin; at most the comparison was lost.
    pub fn runs_at_the_destination(&self) -> Result<(), String> {
        self.violation.clone().map_or(Ok(()), Err)?;
        let states = (self.source.status(), self.destination.status());
        require(states == (Status::Completed, Status::Completed), || format!("{states:?}"))?;
        require(!self.source_vm.running && self.destination_vm.running, || "it does not run there alone".into())?;
        require(!self.source_vm.tracked, || "the source still tracks its pages".into())?;
        require(self.destination_vm.runs == 1, || format!("started {} times", self.destination_vm.runs))?;
        self.destination_vm.is_like_its_twin(None)?;
        let reports = [self.source.report(self.now), self.destination.report(self.now).unwrap()];
        require(reports.iter().all(|report| report.pages.twice == 0), || "a page came twice".into())
    }

    /// The guest runs at the source alone, with the memory of its twin.
    #[track_caller]
    pub fn assert_stayed(&self) {
        self.stayed().unwrap();
    }

    pub fn stayed(&self) -> Result<(), String> {
        self.violation.clone().map_or(Ok(()), Err)?;
        require(self.source_vm.running && !self.destination_vm.running, || "it does not run here alone".into())?;
        let ended = self.source.status().is_final();
        require(!self.source_vm.tracked || !ended, || "the source still tracks its pages".into())?;
        require(!self.source.is_handed_over() && !self.destination.is_committed(), || "it was handed over".into())?;
        self.source_vm.is_like_its_twin(None)
    }
}

fn require(holds: bool, else_what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(else_what()) }
}
