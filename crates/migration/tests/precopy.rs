//! When the rounds of a pre-copy end, how fast they go, and what they leave for last.

mod common;

use common::{Program, World, encoded, encodings, offer};
use migration::{Config, Encodings, End, Link, Micros, Path, RateLimit, Source};

fn world(config: Config, pages: u64, program: Program, bandwidth: u64) -> World {
    World::new(offer(Path::PreCopy, pages), config, program, Link::new(bandwidth, 200))
}

#[test]
fn a_guest_that_is_slowed_when_asked_for_converges_and_is_fast_again() {
    let unruly = || Program { seed: 7, range: 1500, clears: 0 };
    let limit = 20_000;
    // Encoded, the pages would converge without it.
    let encodings = Encodings::plain();
    let config =
        Config { downtime_limit: limit, round_limit: 60, converge_period: 200_000, encodings, ..Config::default() };
    let mut plain = world(config.clone(), 2000, unruly(), 20_000_000);
    let mut slowed = world(Config { auto_converge: true, ..config }, 2000, unruly(), 20_000_000);
    for world in [&mut plain, &mut slowed] {
        world.pace = 10;
        world.finish();
        world.assert_moved();
    }
    let (plain, report) = (plain.source.report(plain.now), slowed.source.report(slowed.now));
    assert!(plain.expected_downtime.unwrap() > limit, "{plain:?}");
    assert!(report.expected_downtime.unwrap() <= limit, "{report:?}");
    assert_eq!(plain.cpu_throttle_percentage, None);
    let steps = &slowed.source_vm.throttled;
    let highest = report.cpu_throttle_percentage.unwrap();
    let mut expected: Vec<u8> = (20..=highest).step_by(10).collect();
    expected.push(0);
    assert_eq!(steps, &expected, "20, then 10 more a step, and free at the end");
}

#[test]
fn a_guest_that_is_slowed_goes_at_its_full_speed_when_the_attempt_fails() {
    for cancel in [true, false] {
        let config = Config { downtime_limit: 0, auto_converge: true, converge_period: 1000, ..Config::default() };
        let mut world = world(config, 500, Program { seed: 7, range: 400, clears: 0 }, 5_000_000);
        while world.source_vm.speed_percent() == 100 {
            world.tick();
        }
        if cancel {
            world.source.cancel(world.now, &mut world.source_vm).unwrap();
        } else {
            world.lose_link();
        }
        assert_eq!(world.source_vm.speed_percent(), 100);
        world.assert_stayed();
    }
}

#[test]
fn slowing_ends_at_99_percent_and_then_no_progress_ends_the_rounds() {
    let config = Config {
        downtime_limit: 0,
        round_limit: u32::MAX,
        auto_converge: true,
        converge_period: 1000,
        peek_interval: 2000,
        ..Config::default()
    };
    let mut world = world(config, 200, Program { seed: 7, range: 150, clears: 0 }, 2_000_000);
    world.pace = 5_000;
    world.finish();
    world.assert_moved();
    assert_eq!(world.source_vm.throttled, [20, 30, 40, 50, 60, 70, 80, 90, 99, 0]);
}

#[test]
fn a_guest_that_dirties_less_than_goes_is_not_slowed_for_its_pages_going_as_little() {
    let config = Config {
        auto_converge: true,
        peek_interval: 1000,
        converge_period: 2000,
        round_limit: 4,
        downtime_limit: 0,
        ..Config::default()
    };
    let (offer, config) = encoded(Encodings::default(), offer(Path::PreCopy, 8000), config);
    let program = Program { seed: 7, range: 8000, clears: 0 };
    let mut world = World::new(offer, config, program, Link::with_capacity(2_000_000, 200, 20_000));
    for (page, value) in world.source_vm.memory.iter_mut().zip((1..=250).cycle()) {
        page.fill(value);
    }
    // Until the first pages have shown how they go.
    world.pace = 0;
    world.pass(20_000);
    world.pace = 15;
    world.finish();
    let report = world.source.report(world.now);
    assert!(report.bytes * 10 < report.bytes_saved && report.rounds.len() == 4, "{report:?}");
    assert_eq!(world.source_vm.throttled, []);
}

#[test]
fn the_writable_working_set_is_left_for_last() {
    // Ten pages that are always written, and rounds too short for a look at the dirty flags.
    let config = Config { downtime_limit: 0, peek_interval: Micros::MAX, ..Config::default() };
    let mut world = world(config, 300, Program { seed: 5, range: 10, clears: 0 }, 20_000_000);
    world.finish();
    world.assert_moved();
    let report = world.source.report(world.now);
    // When three rounds have shown them, only they are left.
    let pages: Vec<u64> = report.rounds.iter().map(|round| round.pages).collect();
    assert_eq!(pages, [300, 10, 10]);
    assert!(report.pages.skipped >= 10, "{report:?}");
}

#[test]
fn what_cools_down_leaves_the_working_set_again() {
    // The guest walks on: what was hot is not, and none of it is forgotten.
    for (encodings, pace) in encodings().into_iter().zip([3, 3, 100]) {
        let config = Config { downtime_limit: 0, stalled_rounds: 0, round_limit: 12, encodings, ..Config::default() };
        let mut world = world(config, 400, Program { seed: Program::IN_ORDER, range: 390, clears: 7 }, 10_000_000);
        world.pace = pace;
        world.finish();
        world.assert_moved();
        assert_eq!(world.source.report(world.now).rounds.len(), 12);
    }
}

#[test]
fn rounds_end_when_so_many_bytes_were_sent() {
    let most = 3_000_000;
    let config = Config { downtime_limit: 0, stalled_rounds: 0, byte_limit: Some(most), ..Config::default() };
    let mut world = world(config, 400, Program { seed: 7, range: 300, clears: 0 }, 10_000_000);
    world.finish();
    world.assert_moved();
    let bytes: Vec<u64> = world.source.report(world.now).rounds.iter().map(|round| round.bytes).collect();
    let (last, before) = bytes.split_last().unwrap();
    let before: u64 = before.iter().sum();
    assert!(before < most && before + last >= most, "{bytes:?}");
}

#[test]
fn rounds_begin_at_a_low_rate_and_follow_the_dirty_rate() {
    for (encodings, pace) in encodings().into_iter().zip([1, 1, 3]) {
        let rate_limit = RateLimit { start: 2_000_000, increment: 1_000_000, most: 50_000_000 };
        let config = Config { downtime_limit: 1000, rate_limit: Some(rate_limit), ..Config::default() };
        let encoded_pages = encodings.lz4;
        let (offer, config) = encoded(encodings, offer(Path::PreCopy, 600), config);
        let mut world =
            World::new(offer, config, Program { seed: 5, range: 580, clears: 0 }, Link::new(100_000_000, 200));
        world.pace = pace;
        world.finish();
        world.assert_moved();
        let report = world.source.report(world.now);
        assert_eq!(report.bytes_saved > 0, encoded_pages);
        let rounds = report.rounds;
        assert!(rounds.len() > 2, "{rounds:?}");
        let mut rate = rate_limit.start;
        for round in &rounds {
            // A bucket is never empty for long, and never holds more than a twentieth of a second's worth, or two pages'.
            let (bytes, time) = (u128::from(round.bytes), u128::from(round.time));
            let burst = u128::from(rate / 20).max(2 * 4112);
            assert!(bytes * 1_000_000 <= u128::from(rate) * time + burst * 1_000_000, "{round:?} at {rate}");
            if round.pages > 50 {
                assert!(bytes * 1_100_000 >= u128::from(rate) * time, "{round:?} at {rate}");
            }
            rate = round.dirtied * 4096 * 1_000_000 / round.time + rate_limit.increment;
        }
    }
}

#[test]
fn a_guest_that_needs_a_higher_rate_than_is_allowed_ends_the_rounds() {
    let rate_limit = RateLimit { start: 5_000_000, increment: 100_000, most: 10_000_000 };
    let config = Config { downtime_limit: 0, stalled_rounds: 0, rate_limit: Some(rate_limit), ..Config::default() };
    let mut world = world(config, 600, Program { seed: 5, range: 600, clears: 0 }, 100_000_000);
    world.pace = 30;
    world.finish();
    world.assert_moved();
    assert!(world.source.report(world.now).rounds.len() < 3);
}

#[test]
fn a_source_that_is_held_to_a_rate_tells_when_it_goes_on() {
    let rate_limit = RateLimit { start: 1_000_000, increment: 0, most: 2_000_000 };
    let config = Config { downtime_limit: 0, rate_limit: Some(rate_limit), ..Config::default() };
    let mut world = world(config.clone(), 600, Program { seed: 5, range: 10, clears: 0 }, 0);
    world.source = Source::new(config, offer(Path::PreCopy, 600), 0).unwrap();
    while world.source.round() == 0 {
        world.tick();
        let mut out = Vec::new();
        if world.source.next_deadline().is_some_and(|at| at > world.now) {
            let sent = world.source.transmit(world.now, &mut world.source_vm, usize::MAX, &mut out).unwrap();
            assert_eq!(sent, 0, "before the time that it told");
        }
    }
    assert!(world.link.room(End::A) > 0);
}

#[test]
fn nothing_left_ends_the_rounds_before_the_link_is_known() {
    let silent = Program { seed: Program::IN_ORDER, range: 1, clears: 0 };
    let config = Config { auto_converge: true, ..Config::default() };
    let mut world = World::new(offer(Path::PreCopy, 20), config, silent, Link::new(0, 50_000));
    world.pace = 0;
    world.finish();
    world.assert_moved();
    let rounds = world.source.report(world.now).rounds;
    assert!(rounds.len() <= 2, "{rounds:?}");
}

#[test]
fn the_predicted_downtime_counts_pages_as_they_went_of_late() {
    let limit = 60_000;
    let config = Config { peek_interval: 5000, downtime_limit: limit, ..Config::default() };
    let (offer, config) = encoded(Encodings::default(), offer(Path::PreCopy, 4000), config);
    let program = Program { seed: 7, range: 1000, clears: 0 };
    let mut world = World::new(offer, config, program, Link::with_capacity(2_000_000, 200, 20_000));
    // Every page is one value over and over: LZ4 leaves some 30 bytes of it.
    for (page, value) in world.source_vm.memory.iter_mut().zip((1..=250).cycle()) {
        page.fill(value);
    }
    // Until the first pages have shown how they go.
    world.pace = 0;
    world.pass(20_000);
    world.pace = 10;
    world.finish();
    let report = world.source.report(world.now);
    assert_eq!(report.verify.unwrap().pages_different, 0);
    let left = report.rounds.last().unwrap().dirtied;
    assert!(left * 4096 * 1_000_000 / 2_000_000 > 2 * limit, "the rest would fit whole, too: {report:?}");
    assert!(report.expected_downtime.unwrap() <= limit, "{report:?}");
    assert!(report.downtime.unwrap() <= 2 * limit, "{report:?}");
}
