//! Each path, over links and under guests of many kinds.

mod common;

use common::{PATHS, Program, World, encoded, encoded_paths, encodings, offer};
use migration::wire::{Body, Decoder, Item, Message};
use migration::{Config, Link, Path, Source, Status};

fn calm() -> Program {
    Program { seed: 1, range: 40, clears: 50 }
}

fn world(path: Path, pages: u64, program: Program, link: Link) -> World {
    // Demand alone for shorter than a user would want it, so that time passes fast.
    let config = Config { demand_period: Some(20_000), ..Config::default() };
    World::new(offer(path, pages), config, program, link)
}

#[test]
fn every_path_moves_a_guest_that_works_on() {
    for (path, encodings) in encoded_paths() {
        for (bandwidth, latency) in [(0, 0), (10_000_000, 500), (100_000_000, 20), (2_000_000, 5_000)] {
            let mut world = world(path, 300, calm(), Link::new(bandwidth, latency));
            let config = Config { demand_period: Some(20_000), ..Config::default() };
            let (offer, config) = encoded(encodings, offer(path, 300), config);
            world.source = Source::new(config, offer, 0).unwrap();
            world.pass(1000);
            world.finish();
            world.pass(5000);
            world.assert_moved();
            assert!(world.destination_vm.step > world.source_vm.step, "{path:?}: the guest works on");
            let pages = world.source.report(world.now).pages;
            assert!(encodings.zero || pages.normal == pages.sent(), "{path:?}: {pages:?}");
        }
    }
}

#[test]
fn a_page_that_a_device_writes_while_it_is_saved_goes_too() {
    // The guest itself leaves that page alone, so that nothing else brings it over again.
    let program = Program { seed: 1, range: 2, clears: 0 };
    for path in PATHS {
        let mut world = world(path, 64, program.clone(), Link::new(50_000_000, 50));
        world.source_vm.saving_writes = Some(3);
        world.finish();
        assert_eq!(world.source.status(), Status::Completed);
        world.destination_vm.assert_like_its_twin(Some((3, world.source_vm.step)));
    }
}

#[test]
fn stop_and_copy_sends_each_page_once_and_zeroes_as_runs() {
    let mut world =
        world(Path::StopAndCopy, 1000, Program { seed: 3, range: 10, clears: 0 }, Link::new(50_000_000, 50));
    for page in &mut world.source_vm.memory[100..900] {
        page.fill(0);
    }
    world.guest_stops_at = Some(0);
    world.finish();
    let report = world.source.report(world.now);
    assert_eq!((report.pages.normal, report.pages.duplicate), (100, 900));
    // 100 pages, 101 runs of zeroes, 8 bytes a hash, the state, and less than a hundredth of headers.
    assert!(report.bytes < 100 * 4104 + 101 * 8 + 8000 + 40_008 + 4000, "{} bytes", report.bytes);
    assert_eq!(world.destination_vm.memory, world.source_vm.memory);
    assert!(report.downtime.unwrap() <= report.total_time);
}

#[test]
fn post_copy_too_sends_zeroes_as_runs_wherever_the_guest_touches_them() {
    let mut world = world(Path::PostCopy, 1000, Program { seed: 3, range: 1000, clears: 0 }, Link::new(20_000_000, 50));
    for page in &mut world.source_vm.memory[100..900] {
        page.fill(0);
    }
    world.guest_stops_at = Some(0);
    world.tape = Some(Vec::new());
    while !world.destination.is_committed() {
        world.tick();
    }
    for gfn in [500, 200, 777] {
        world.destination.fault(gfn, world.now);
        world.tick();
    }
    world.finish();
    let (tape, mut decoder, mut runs) = (world.tape.take().unwrap(), Decoder::default(), 0);
    let mut rest = &tape[..];
    while let Some(item) = decoder.next(&mut rest).unwrap() {
        runs += u32::from(matches!(item, Item::Page(record) if matches!(record.body, Body::Zero { .. })));
    }
    // 100 single ones between pages in use, and 800 in runs of what one call looks at, give or take a few.
    assert!(runs < 100 + 40, "{runs} runs");
    assert_eq!(world.destination_vm.memory, world.source_vm.memory);
}

#[test]
fn pre_copy_keeps_the_downtime_below_the_limit_where_the_guest_lets_it() {
    let mut world = world(Path::PreCopy, 4000, Program { seed: 5, range: 20, clears: 0 }, Link::new(10_000_000, 200));
    world.source =
        Source::new(Config { downtime_limit: 50_000, ..Config::default() }, offer(Path::PreCopy, 4000), 0).unwrap();
    world.finish();
    world.assert_moved();
    let report = world.source.report(world.now);
    let (downtime, expected) = (report.downtime.unwrap(), report.expected_downtime.unwrap());
    assert!(expected <= 50_000 && downtime <= 70_000, "expected {expected} us, was {downtime} us");
    assert!(report.rounds.len() >= 2 || report.rounds[0].dirtied <= 20);
    assert!(world.longest_silence <= 75_000, "{}", world.longest_silence);
}

#[test]
fn pre_copy_of_an_unruly_guest_ends_because_it_does_not_get_on() {
    let mut world = world(Path::PreCopy, 2000, Program { seed: 7, range: 1500, clears: 0 }, Link::new(5_000_000, 200));
    world.source =
        Source::new(Config { downtime_limit: 1_000, ..Config::default() }, offer(Path::PreCopy, 2000), 0).unwrap();
    world.pace = 20_000;
    world.finish();
    world.assert_moved();
    let report = world.source.report(world.now);
    assert!((report.rounds.len() as u32) < Config::default().round_limit, "{:?}", report.rounds);
    assert!(report.pages.skipped > 0);
}

#[test]
fn pre_copy_stops_at_the_round_limit() {
    let mut world = world(Path::PreCopy, 400, Program { seed: 7, range: 300, clears: 0 }, Link::new(5_000_000, 200));
    let config = Config { downtime_limit: 0, stalled_rounds: 0, round_limit: 4, ..Config::default() };
    world.source = Source::new(config, offer(Path::PreCopy, 400), 0).unwrap();
    world.finish();
    world.assert_moved();
    assert_eq!(world.source.report(world.now).rounds.len(), 4);
}

#[test]
fn post_copy_runs_the_guest_before_its_pages_are_there_and_sends_each_once() {
    let mut world =
        world(Path::PostCopy, 3000, Program { seed: 9, range: 2000, clears: 9 }, Link::new(10_000_000, 200));
    world.finish();
    world.assert_moved();
    let report = world.source.report(world.now);
    assert_eq!(report.pages.sent(), 3000);
    assert!(report.downtime.unwrap() < 10_000, "{report:?}");
    assert!(report.postcopy_requests > 0);
    let latency = report.fault_latency.unwrap();
    assert_eq!(Some(latency), world.destination.report(world.now).unwrap().fault_latency);
    // Behind the window and an acknowledgement: 64 KiB at 10 MB/s are 6.6 ms.
    assert!(latency.max < 12_000, "{latency:?}");
}

#[test]
fn demand_sends_only_what_is_touched_until_its_period_is_over_and_then_the_rest() {
    let program = Program { seed: 9, range: 100, clears: 0 };
    let mut world = world(Path::Demand, 1000, program.clone(), Link::new(10_000_000, 200));
    let with = |demand_period| Config { demand_period, ..Config::default() };
    world.source = Source::new(with(Some(400_000)), offer(Path::Demand, 1000), 0).unwrap();
    world.pass(390_000);
    assert_eq!((world.source.status(), world.destination.status()), (Status::PostcopyActive, Status::PostcopyActive));
    let report = world.source.report(world.now);
    assert_eq!((report.postcopy_requests, report.demand_fetched), (100, Some(100)));
    assert_eq!(report.pages.sent(), 100);
    let due = world.source.next_deadline().unwrap();
    assert!(due > world.now && due < 410_000, "{due}");
    world.finish();
    world.assert_moved();
    let report = world.source.report(world.now);
    assert_eq!((report.demand_fetched, report.pages.sent()), (Some(100), 1000));

    let mut world = self::world(Path::Demand, 1000, program, Link::new(10_000_000, 200));
    world.source = Source::new(with(None), offer(Path::Demand, 1000), 0).unwrap();
    world.pass(1_000_000);
    assert_eq!((world.source.status(), world.source.pages_left()), (Status::PostcopyActive, 900));
    assert_eq!(world.source.next_deadline(), None);
}

#[test]
fn prepaging_is_ahead_of_a_guest_that_walks_through_its_memory() {
    let walk = |path| {
        let program = Program { seed: Program::IN_ORDER, range: 2000, clears: 0 };
        let mut world = world(path, 2000, program, Link::new(10_000_000, 200));
        let config = Config { demand_period: None, ..Config::default() };
        world.source = Source::new(config, offer(path, 2000), 0).unwrap();
        // Half of what the link carries: a guest that is faster than its pages waits for each of them.
        world.pace = 1;
        world.source_vm.step = 1500;
        while world.destination_vm.step < 1800 {
            world.tick();
        }
        (world.destination.report(world.now).unwrap().postcopy_requests, 1800 - world.source_vm.step)
    };
    let ((demand, touched), (prepaging, _)) = (walk(Path::Demand), walk(Path::PostCopy));
    assert_eq!(demand, touched);
    assert!(prepaging * 100 <= 21 * touched, "{prepaging} requests for {touched} pages");
}

#[test]
fn hybrid_asks_for_less_than_post_copy() {
    let requests = |path| {
        let mut world = world(path, 3000, Program { seed: 9, range: 3000, clears: 0 }, Link::new(10_000_000, 200));
        world.pace = 1;
        world.finish();
        world.assert_moved();
        world.source.report(world.now).postcopy_requests
    };
    assert!(requests(Path::Hybrid) < requests(Path::PostCopy));
}

#[test]
fn hybrid_pushes_so_many_rounds_and_then_announces_what_has_changed() {
    // A guest whose pages go as less is faster, so that as much is left.
    for (hybrid_rounds, (encodings, pace)) in
        [1, 3].into_iter().flat_map(|rounds| encodings().into_iter().zip([1, 1, 30]).map(move |with| (rounds, with)))
    {
        let mut world =
            world(Path::Hybrid, 1000, Program { seed: 9, range: 600, clears: 0 }, Link::new(10_000_000, 200));
        let config = Config { hybrid_rounds, downtime_limit: 0, peek_interval: 5000, encodings, ..Config::default() };
        world.source = Source::new(config, offer(Path::Hybrid, 1000), 0).unwrap();
        world.pace = pace;
        world.tape = Some(Vec::new());
        world.finish();
        world.assert_moved();
        assert_eq!(world.source.report(world.now).rounds.len() as u32, hybrid_rounds);
        let (tape, mut decoder) = (world.tape.take().unwrap(), Decoder::default());
        let (mut rest, mut stale, mut after) = (&tape[..], Vec::new(), Vec::new());
        while let Some(item) = decoder.next(&mut rest).unwrap() {
            match item {
                Item::Message(Message::Stale(chunk)) => {
                    for (index, word) in chunk.words.iter().enumerate() {
                        let first = (chunk.first + index as u64) * 64;
                        stale.extend((0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| first + bit));
                    }
                }
                Item::Page(record) if !stale.is_empty() => after.push(record.gfn),
                _ => {}
            }
        }
        after.sort_unstable();
        assert!(stale.len() > 10);
        assert_eq!(after, stale, "what has changed goes once, when the guest runs there, and nothing else does");
    }
}

#[test]
fn the_state_of_every_side_can_be_told_at_any_time() {
    for path in PATHS {
        let mut world = world(path, 200, calm(), Link::new(5_000_000, 300));
        let mut seen = Vec::new();
        while !world.is_over() {
            world.tick();
            let status = (world.source.status(), world.destination.status());
            if seen.last() != Some(&status) {
                seen.push(status);
            }
            let left = world.source.pages_left();
            assert!(left <= 200 && world.source.report(world.now).total_time <= world.now);
        }
        assert_eq!(seen.first(), Some(&(Status::Setup, Status::Setup)));
        assert!(seen.contains(&(Status::Device, Status::Device)), "{seen:?}");
        assert_eq!(seen.last(), Some(&(Status::Completed, Status::Completed)));
    }
}

#[test]
fn a_report_has_the_words_of_the_contract_and_its_times_in_milliseconds() {
    let mut world = world(Path::PreCopy, 64, calm(), Link::new(20_000_000, 100));
    world.finish();
    let report = world.source.report(world.now);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["path"], "pre-copy");
    assert_eq!(json["status"], "completed");
    assert_eq!(json["total-time"].as_f64(), Some(report.total_time as f64 / 1000.0));
    assert_eq!(json["downtime"].as_f64(), Some(report.downtime.unwrap() as f64 / 1000.0));
    for key in [
        "setup-time",
        "expected-downtime",
        "dirty-sync-count",
        "postcopy-requests",
        "bytes",
        "bytes-saved",
        "throughput",
    ] {
        assert!(json[key].is_number(), "{key}");
    }
    for key in ["pages", "bytes", "time", "dirtied"] {
        assert!(json["rounds"][0][key].is_number(), "{key}");
    }
    for key in ["normal", "duplicate", "same", "delta", "compressed", "skipped", "twice"] {
        assert!(json["pages"][key].is_number(), "{key}");
    }
    assert!(json.get("fault-latency").is_none() && json.get("verify").is_none());
}
