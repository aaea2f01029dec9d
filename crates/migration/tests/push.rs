//! What a guest asks for while its pages are pushed, and how long it waits for them.

mod common;

use common::{Program, SimVm, World, offer};
use migration::wire::{self, Decoder, Item, Message, Numbering};
use migration::{Config, Destination, Encodings, Fault, Link, LinkMeasure, Path};

const GIGABIT: u64 = 125_000_000;
const LATENCY: u64 = 100;

/// A guest that only just runs at the source, so that it has all its work before it at the destination.
fn moved(path: Path, program: Program, pace: u64) -> World {
    let link = Some(LinkMeasure { bandwidth: GIGABIT, round_trip: 2 * LATENCY });
    let config = Config { encodings: Encodings::plain(), demand_period: None, link, ..Config::default() };
    let pages = program.range;
    let mut world = World::new(offer(path, pages), config, program, Link::new(GIGABIT, LATENCY));
    world.pace = 0;
    while !world.source.is_handed_over() {
        world.tick();
    }
    (world.tick, world.pace) = (2, pace);
    world.finish();
    world.assert_moved();
    world
}

#[test]
fn a_guest_that_reads_on_asks_for_few_of_the_pages_that_it_waits_for() {
    let pages = 3000;
    let reader = || Program { seed: Program::IN_ORDER, range: pages, clears: 0 };
    let world = moved(Path::PostCopy, reader(), 1000);
    let report = world.destination.report(world.now).unwrap();
    assert!(report.postcopy_requests * 100 <= pages * 21, "{report:?}");
    assert_eq!(world.source.report(world.now).postcopy_requests, report.postcopy_requests);
    let world = moved(Path::Demand, reader(), 1000);
    assert_eq!(world.destination.report(world.now).unwrap().postcopy_requests, pages);
}

#[test]
fn a_page_that_the_guest_waits_for_comes_within_two_round_trips_however_much_is_pushed() {
    for (seed, pace) in [(7, 20), (8, 5), (9, 100)] {
        let world = moved(Path::PostCopy, Program { seed, range: 8000, clears: 0 }, pace);
        let report = world.destination.report(world.now).unwrap();
        assert!(report.postcopy_requests > 50, "{report:?}");
        assert!(report.fault_latency.unwrap().p99 <= 2 * 2 * LATENCY, "{report:?}");
    }
}

#[test]
fn a_link_that_holds_much_is_filled_soon() {
    // A long one: 1.25 MB are on it at full speed.
    let link = Some(LinkMeasure { bandwidth: GIGABIT, round_trip: 10_000 });
    let config = Config { encodings: Encodings::plain(), link, ..Config::default() };
    let program = Program { seed: 7, range: 8000, clears: 0 };
    let mut world = World::new(offer(Path::PostCopy, 8000), config, program, Link::new(GIGABIT, 5000));
    while !world.source.is_handed_over() {
        world.tick();
    }
    let start = world.now;
    while world.source.pages_left() > 0 {
        world.tick();
    }
    let time = world.now - start;
    world.finish();
    world.assert_moved();
    let least = world.source.report(world.now).bytes * 1_000_000 / GIGABIT;
    assert!(time < least + 5 * 10_000, "{time} us in place of {least}");
}

/// A destination where the guest runs with 16 pages missing.
struct Running {
    destination: Destination,
    vm: SimVm,
    numbering: Numbering,
    decoder: Decoder,
}

impl Running {
    fn by(path: Path) -> Self {
        let vm = SimVm::blank(Program { seed: 1, range: 16, clears: 0 });
        let (numbering, decoder) = (Numbering::default(), Decoder::default());
        let mut running = Self { destination: Destination::new(0), vm, numbering, decoder };
        let mut bytes = Vec::new();
        wire::write(&mut bytes, &Message::Hello(offer(path, 16)));
        wire::write(&mut bytes, &Message::Paused);
        wire::write(&mut bytes, &Message::State { total: 8, offset: 0, bytes: &[0; 8] });
        wire::write(&mut bytes, &Message::Commit);
        running.receive(bytes);
        running.asked();
        running
    }

    fn receive(&mut self, mut bytes: Vec<u8>) {
        let end = bytes.len();
        self.numbering.stamp(&mut bytes, 0, end);
        self.destination.receive(&bytes, 1, &mut self.vm).unwrap();
    }

    fn page_comes(&mut self, gfn: u64) {
        let mut bytes = Vec::new();
        let mut batch = wire::Batch::open(&mut bytes);
        batch.data(&mut bytes, gfn, &[7; 4096]);
        batch.close(&mut bytes);
        self.receive(bytes);
    }

    fn touches(&mut self, gfn: u64) {
        assert_eq!(self.destination.fault(gfn, 2), Fault::Requested);
    }

    /// What was asked for since the last look.
    fn asked(&mut self) -> Vec<u64> {
        let mut out = Vec::new();
        self.destination.transmit(usize::MAX, &mut out);
        let (mut rest, mut asked) = (&out[..], Vec::new());
        while let Some(item) = self.decoder.next(&mut rest).unwrap() {
            if let Item::Message(Message::Request(gfns)) = item {
                asked.extend(gfns.iter());
            }
        }
        asked
    }
}

#[test]
fn a_page_that_follows_the_latest_is_asked_for_only_when_another_comes_first() {
    let mut running = Running::by(Path::PostCopy);
    running.page_comes(3);
    running.touches(4);
    assert_eq!(running.asked(), []);
    running.page_comes(4);
    running.touches(5);
    // One at a time: whoever waits besides is not held up.
    running.touches(9);
    assert_eq!(running.asked(), [9]);
    running.page_comes(9);
    assert_eq!(running.asked(), [5]);
    running.page_comes(5);
    running.touches(2);
    assert_eq!(running.asked(), [2]);
    assert_eq!(running.destination.report(3).unwrap().postcopy_requests, 3);
}

#[test]
fn on_demand_alone_nothing_is_expected_unasked() {
    let mut running = Running::by(Path::Demand);
    running.page_comes(3);
    running.touches(4);
    assert_eq!(running.asked(), [4]);
}
