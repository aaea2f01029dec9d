//! The figures of paths that run the guest before its pages are there: what goes over, what the guest asks for, and how
//! long it waits.

use migration::{Config, Destination, Encodings, End, Link, LinkMeasure, Micros, Path, Probe, Report};

use super::sim::{Access, Memory, Outcome, Program, Setting, floor, memory, migrate, random};
use super::{BANDWIDTH, LATENCY, Table};

/// Pages of the guest, and of its working set.
const PAGES: u64 = 16 * 1024;
const WORKING_SET: u64 = 4096;
/// Where that begins.
const START: u64 = 6000;
/// Bytes that a probe sends at a time.
const ROOM: usize = 64 * 1024;
/// How often everybody looks, in us: what it adds to a latency is little.
const TICK: usize = 2;

/// What a guest that has worked for a while has: its working set, and else five pages of eight in clusters.
fn is_used(gfn: u64) -> bool {
    (START..START + WORKING_SET).contains(&gfn) || gfn % 64 < 40
}

fn moved(path: Path, demand_period: Option<Micros>, program: Program) -> Option<Outcome> {
    let config = Config { encodings: Encodings::plain(), demand_period, link: probed(), ..Config::default() };
    let setting = Setting { path, config, bandwidth: BANDWIDTH, latency: LATENCY, tick: TICK as Micros };
    migrate(&setting, memory(PAGES, is_used), program)
}

/// Reads the working set once, page after page.
fn reader(after: Micros) -> Program {
    Box::new((START..START + WORKING_SET).map(move |gfn| Access { after, gfn, write: false }))
}

/// Writes pages of the working set without order, for longer than the push takes.
fn wanderer(after: Micros) -> Program {
    let mut state = 7;
    let step = move || Access { after, gfn: START + random(&mut state) % WORKING_SET, write: true };
    Box::new(std::iter::repeat_with(step).take(20_000))
}

/// Adds the rows.
pub fn rows(table: &mut Table) {
    bytes(table);
    requests(table);
    latency(table);
}

fn bytes(table: &mut Table) {
    let least = floor(&memory(PAGES, is_used));
    let report = moved(Path::PostCopy, None, reader(50)).map(|moved| moved.source);
    let bytes = report.as_ref().map(|report| report.bytes);
    table.ratio("post-copy: bytes of the stream / floor", bytes, Some(least), "1");
    table.add("post-copy: pages that came twice", report.map(|report| report.pages.twice as f64), "0");
}

/// Reading is as fast as the link, three times slower, and as fast as can be.
fn requests(table: &mut Table) {
    let share = |report: Option<Report>| report.map(|report| report.postcopy_requests as f64 / WORKING_SET as f64);
    for (speed, after) in [("a page a us", 1), ("a page in 33 us, as the link", 33), ("a page in 100 us", 100)] {
        for path in [Path::PostCopy, Path::Demand] {
            let report = moved(path, Some(10_000_000), reader(after)).map(|moved| moved.source);
            let aim = if path == Path::PostCopy { "at most 0.21" } else { "" };
            table.add(&format!("{}: requests / working set, {speed}", path.name()), share(report), aim);
        }
    }
}

/// While everything is pushed the guest writes here and there.
fn latency(table: &mut Table) {
    let trip = probed().map(|link| link.round_trip);
    let report = moved(Path::PostCopy, None, wanderer(20)).map(|moved| moved.destination);
    let latency = report.and_then(|report| report.fault_latency);
    let hint = trip.map(|trip| format!("at most 2; an empty request takes {trip} us")).unwrap_or_default();
    for (name, of) in [("p50", latency.map(|latency| latency.p50)), ("p99", latency.map(|latency| latency.p99))] {
        table.ratio(&format!("post-copy: fault latency {name} / empty request"), of, trip, &hint);
    }
}

/// As the image measures it before it migrates, over the same link.
fn probed() -> Option<LinkMeasure> {
    let vm = Memory::new(memory(1, |_| true));
    let mut place = Memory::vacant();
    let mut link = Link::new(BANDWIDTH, LATENCY);
    let (mut probe, mut destination) = (Probe::new(100_000, u64::MAX), Destination::new(0));
    for now in (0..1_000_000).step_by(TICK) {
        while let bytes = link.arrived(End::B, now)
            && !bytes.is_empty()
        {
            let count = bytes.len();
            destination.receive(bytes, now, &mut place).ok()?;
            link.consume(End::B, count);
        }
        while let bytes = link.arrived(End::A, now)
            && !bytes.is_empty()
        {
            let count = bytes.len();
            probe.receive(bytes, now).ok()?;
            link.consume(End::A, count);
        }
        if let Some(found) = probe.found() {
            return Some(found);
        }
        let mut out = Vec::new();
        while link.room(End::A) > out.len() + ROOM && out.len() < ROOM {
            let before = out.len();
            probe.transmit(now, &vm, &mut out);
            if out.len() == before {
                break;
            }
        }
        link.send(End::A, now, &out);
        out.clear();
        destination.transmit(link.room(End::B), &mut out);
        link.send(End::B, now, &out);
    }
    None
}
