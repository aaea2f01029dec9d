//! Each message of each path meets each mishap: the guest runs on exactly one side, with the memory of a twin that never
//! migrated, or the migration waits to be resumed and then completes.

mod common;

use common::{At, Mishap, PATHS, Program, SimVm, Tap, World, config, encoded, encoded_paths, offer, survives};
use migration::{Config, Destination, Encodings, Link, MIN_ROOM, Path, RateLimit, Source};
use proptest::prelude::*;

const MISHAPS: [Mishap; 7] = [
    Mishap::Lost,
    Mishap::Twice,
    Mishap::Late(7000),
    Mishap::Silence,
    Mishap::CutBefore,
    Mishap::CutAfter,
    Mishap::Cancel,
];

fn link() -> Link {
    Link::new(20_000_000, 30)
}

/// A guest that writes all the time, and a source that sends one page a message.
fn world(path: Path, pages: u64, encodings: &Encodings) -> World {
    let program = Program { seed: 11, range: pages, clears: 9 };
    let (offer, config) = encoded(*encodings, offer(path, pages), config());
    let mut world = World::new(offer, config, program, link());
    world.tick = 50;
    world.pace = 20;
    world.allowance = MIN_ROOM;
    (world.source_vm.frees, world.destination_vm.frees) = (6, 6);
    world
}

/// How many messages go each way when all goes well.
fn messages(path: Path, pages: u64, encodings: &Encodings) -> (u64, u64) {
    let mut world = world(path, pages, encodings);
    world.taps = Some((Tap::default(), Tap::default()));
    world.finish();
    world.assert_moved();
    let saved = world.source.report(world.now).bytes_saved;
    assert_eq!(saved > 0, encodings.lz4, "{path:?}: the pages go as they may");
    let (there, back) = world.taps.unwrap();
    (there.count, back.count)
}

/// Each place in both directions.
fn places(path: Path, pages: u64, encodings: &Encodings) -> impl Iterator<Item = (bool, u64)> + use<> {
    let (there, back) = messages(path, pages, encodings);
    assert!(there > 15 && back > 4, "{path:?}: {there} messages there, {back} back");
    (0..there).map(|message| (true, message)).chain((0..back).map(|message| (false, message)))
}

#[test]
fn any_mishap_to_any_message_of_any_path_loses_nothing() {
    for (path, encodings) in encoded_paths() {
        for pages in [6, 12] {
            for (there, message) in places(path, pages, &encodings) {
                for mishap in MISHAPS {
                    let at = At { there, message, mishap };
                    let result = survives(&mut world(path, pages, &encodings), &link, &[at]);
                    assert_eq!(result, Ok(()), "{path:?}, {pages} pages, {at:?}, {encodings:?}");
                }
            }
        }
    }
}

#[test]
fn a_second_mishap_while_it_recovers_from_the_first_loses_nothing() {
    let pages = 6;
    for (path, encodings) in encoded_paths() {
        for (there, message) in places(path, pages, &encodings) {
            let first = At { there, message, mishap: Mishap::CutBefore };
            for second in (0..12).map(|message| (true, message)).chain((0..6).map(|message| (false, message))) {
                for mishap in [Mishap::Lost, Mishap::CutBefore] {
                    let second = At { there: second.0, message: second.1, mishap };
                    let result = survives(&mut world(path, pages, &encodings), &link, &[first, second]);
                    assert_eq!(result, Ok(()), "{path:?}, {first:?}, {second:?}, {encodings:?}");
                }
            }
        }
    }
}

#[test]
fn a_destination_that_dies_before_the_hand_over_takes_nothing_with_it() {
    let pages = 6;
    for (path, encodings) in encoded_paths() {
        let mut died = 0;
        for (there, message) in places(path, pages, &encodings) {
            let mut world = world(path, pages, &encodings);
            At { there, message, mishap: Mishap::CutBefore }.tap(&mut world);
            world.run_until_the_link_is_given_up(common::recovery::PATIENCE).unwrap();
            if world.source.is_handed_over() {
                continue;
            }
            died += 1;
            world.destination = Destination::new(world.now);
            world.destination_vm = SimVm::blank(world.source_vm.program.clone());
            world.destination_vm.frees = world.source_vm.frees;
            world.stayed().unwrap();
            world.relink(link());
            world.source = Source::new(world.config.clone(), world.source.offer().clone(), world.now).unwrap();
            world.finish();
            world.assert_moved();
        }
        assert!(died > 5, "{path:?}");
    }
}

fn any_mishap() -> impl Strategy<Value = At> {
    let mishap = prop_oneof![prop::sample::select(&MISHAPS[..]), (1u64..20_000).prop_map(Mishap::Late)];
    (any::<bool>(), 0u64..60, mishap).prop_map(|(there, message, mishap)| {
        // Fewer messages go back.
        At { there, message: if there { message } else { message / 6 }, mishap }
    })
}

proptest! {
    #[test]
    fn whatever_the_guest_writes_and_whatever_goes_wrong_nothing_is_lost(
        path in prop::sample::select(&PATHS[..]),
        pages in 1u64..80,
        seed in any::<u64>(),
        clears in 0u64..30,
        frees in prop_oneof![Just(0u64), 2u64..30],
        pace in 0u64..500,
        bandwidth in prop_oneof![Just(0u64), 1_000_000u64..100_000_000],
        latency in 0u64..2000,
        small_messages in any::<bool>(),
        hybrid_rounds in 0u32..5,
        auto_converge in any::<bool>(),
        rate_limit in prop::option::of((1_000_000u64..50_000_000, 0u64..10_000_000)),
        (zero, same, delta, lz4) in any::<(bool, bool, bool, bool)>(),
        (index_pages, kept_pages) in (0usize..100, 0usize..100),
        mishaps in prop::collection::vec(any_mishap(), 0..5),
    ) {
        let program = Program { seed, range: 1 + seed % pages, clears };
        let fresh = || Link::new(bandwidth, latency);
        let rate_limit = rate_limit.map(|(start, increment)| RateLimit { start, increment, most: 50_000_000 });
        let encodings = Encodings { zero, same, delta, lz4, index_pages, kept_pages };
        let config = Config { hybrid_rounds, auto_converge, converge_period: 2000, rate_limit, ..config() };
        let (offer, config) = encoded(encodings, offer(path, pages), config);
        let mut world = World::new(offer, config, program, fresh());
        (world.source_vm.frees, world.destination_vm.frees) = (frees, frees);
        world.pace = pace;
        world.allowance = if small_messages { MIN_ROOM } else { usize::MAX };
        prop_assert_eq!(survives(&mut world, &fresh, &mishaps), Ok(()));
    }
}
