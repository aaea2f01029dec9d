//! What the engines take of this machine's time for a page, beside a copy of the page.

use std::hint::black_box;
use std::time::{Duration, Instant};

use migration::{Config, Destination, Encodings, Offer, Page, Path, Source, Status, ZERO_PAGE};

use super::Table;
use super::sim::{Memory, memory};

/// Pages of the guest: more than caches hold.
const PAGES: u64 = 16 * 1024;
/// Bytes that one side hands over at a time.
const ROOM: usize = 64 * 1024;
/// The fastest of so many counts: the others were disturbed.
const TIMES: usize = 5;

/// Adds the rows.
pub fn rows(table: &mut Table) {
    let copy = fastest(|pages| Some(copied(pages)), true);
    let cost = |verify, used| fastest(|pages| moved(pages, verify), used);
    for (what, time) in [
        ("a page", cost(false, true)),
        ("a page that is compared afterwards", cost(true, true)),
        ("a page of zeroes", cost(false, false)),
    ] {
        let ratio = time.zip(copy).map(|(time, copy)| time.as_secs_f64() / copy.as_secs_f64());
        let copy = copy.map(|copy| format!("a copy takes {} ns", copy.as_nanos())).unwrap_or_default();
        table.add(&format!("engines, both sides: {what} / a copy of it"), ratio, &copy);
    }
}

/// A page's part of the time that a piece of work takes for all.
fn fastest(work: impl Fn(Vec<Page>) -> Option<Duration>, used: bool) -> Option<Duration> {
    let all = (0..TIMES).map(|_| work(memory(PAGES, |_| used)));
    let times: Option<Vec<Duration>> = all.collect();
    times?.into_iter().min().map(|time| time / u32::try_from(PAGES).unwrap_or(u32::MAX))
}

fn copied(pages: Vec<Page>) -> Duration {
    let mut to = vec![ZERO_PAGE; pages.len()];
    // The pages of both exist: what the first touch costs is nobody's.
    to.iter_mut().for_each(|page| page.fill(1));
    let start = Instant::now();
    for (to, from) in to.iter_mut().zip(&pages) {
        black_box(to).copy_from_slice(black_box(from));
    }
    start.elapsed()
}

/// From source to destination without a link between them.
fn moved(pages: Vec<Page>, verify: bool) -> Option<Duration> {
    let config = Config { encodings: Encodings::plain(), ..Config::default() };
    let offer = Offer {
        name: "guest".into(),
        session: 1,
        page_count: pages.len() as u64,
        tsc_khz: 1_000_000,
        path: Path::StopAndCopy,
        verify,
        acknowledge_every: config.acknowledge_every(),
    };
    let (mut from, mut to) = (Memory::new(pages), Memory::vacant());
    let mut source = Source::new(config, offer, 0).ok()?;
    let mut destination = Destination::new(0);
    let (mut out, mut start) = (Vec::with_capacity(2 * ROOM), None);
    while source.status() != Status::Completed {
        // Everything before the pages is the destination's memory.
        if source.status() == Status::Device {
            start.get_or_insert_with(Instant::now);
        }
        out.clear();
        source.transmit(1, &mut from, ROOM, &mut out).ok()?;
        destination.receive(&out, 1, &mut to).ok()?;
        out.clear();
        destination.transmit(ROOM, &mut out);
        source.receive(&out, 1, &mut from).ok()?;
    }
    start.map(|start: Instant| start.elapsed())
}
