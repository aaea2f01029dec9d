//! Links that break at every place, peers that refuse, devices that fail: the guest runs on exactly one side, with the
//! memory of a twin that never migrated.

mod common;

use common::{Cut, PATHS, Program, World, config, offer};
use migration::wire::{Decoder, Item, Message, PAGE_RECORD};
use migration::{Config, Destination, Error, Link, Offer, Path, Source, Status};
use proptest::prelude::*;

const PAGES: u64 = 24;

fn link() -> Link {
    Link::new(20_000_000, 30)
}

fn world(path: Path) -> World {
    let mut world = World::new(offer(path, PAGES), config(), Program { seed: 11, range: PAGES, clears: 20 }, link());
    world.tick = 50;
    world.pace = 20;
    world
}

/// After the link broke: whichever side the guest is on, nothing is lost, and it gets to the other side in the end.
#[track_caller]
fn assert_survives(mut world: World, what: &str) {
    world.link = link();
    world.link.cut();
    world.pass(500);
    let running = u32::from(world.source_vm.running) + u32::from(world.destination_vm.running);
    if !world.source.is_handed_over() {
        assert_eq!(running, 1, "{what}");
        world.assert_stayed();
        assert_eq!(world.source.status(), Status::Failed, "{what}");
        retry(&mut world);
        world.finish();
        world.assert_moved();
        return;
    }
    assert!(!world.source_vm.running, "{what}");
    if world.source.status() == Status::PostcopyPaused {
        world.relink(link());
        world.source.recover().unwrap();
        world.destination.reconnected().unwrap();
        world.finish();
    }
    assert_eq!((world.source.status(), world.destination.status()), (Status::Completed, Status::Completed), "{what}");
    assert!(world.destination_vm.running && world.destination_vm.runs == 1, "{what}");
    world.destination_vm.assert_like_its_twin(None);
    assert_eq!(world.destination.report(world.now).unwrap().pages.twice, 0, "{what}");
}

/// A second attempt with the same VM, to the same place.
fn retry(world: &mut World) {
    let path = world.source.offer().path;
    world.relink(link());
    world.source = Source::new(config(), Offer { session: 43, ..offer(path, PAGES) }, world.now).unwrap();
    if world.destination.reconnected().is_err() {
        world.destination = Destination::new(world.now);
    }
}

/// Where, in the stream to the destination, a message or a page record ends.
fn boundaries(tape: &[u8]) -> Vec<u64> {
    let (mut decoder, mut rest, mut ends) = (Decoder::default(), tape, Vec::new());
    while decoder.next(&mut rest).unwrap().is_some() {
        ends.push(decoder.handled());
    }
    ends
}

#[test]
fn a_link_cut_at_any_message_or_inside_it_loses_nothing() {
    for path in PATHS {
        let mut whole = world(path);
        whole.tape = Some(Vec::new());
        whole.finish();
        whole.assert_moved();
        let (there, back) = whole.arrived;
        let mut cuts: Vec<u64> = (1..there).step_by(1499).collect();
        for end in boundaries(whole.tape.as_deref().unwrap()) {
            cuts.extend([end - 1, end, end + 1].iter().filter(|at| (1..=there).contains(*at)));
        }
        let cuts = cuts.into_iter().map(Cut::ToDestination).chain((1..=back).map(Cut::ToSource));
        for cut in cuts {
            let mut world = world(path);
            world.cut = Some(cut);
            for _ in 0..1_000_000 {
                if !world.link.is_open() || world.is_over() {
                    break;
                }
                world.tick();
            }
            if world.link.is_open() {
                world.lose_link();
            }
            assert_survives(world, &format!("{path:?}, {cut:?}"));
        }
    }
}

#[test]
fn a_post_copy_survives_links_that_break_again_and_again() {
    let mut world = world(Path::PostCopy);
    world.pace = 200;
    let mut cuts = 0;
    for limit in (2_000..).step_by(700) {
        world.cut = Some(Cut::ToDestination(limit));
        while world.link.is_open() && !world.is_over() {
            world.tick();
        }
        if world.source.status().is_final() && world.source.is_handed_over() {
            break;
        }
        cuts += 1;
        if world.source.status() == Status::PostcopyPaused {
            world.relink(link());
            world.source.recover().unwrap();
            world.destination.reconnected().unwrap();
        } else {
            retry(&mut world);
        }
    }
    assert!(cuts > 5, "{cuts}");
    assert!(world.destination_vm.running);
    world.destination_vm.assert_like_its_twin(None);
}

#[test]
fn cancel_before_the_hand_over_leaves_the_guest_where_it_is_and_after_it_is_refused() {
    for path in PATHS {
        for ticks in 0..600 {
            let mut world = world(path);
            for _ in 0..ticks {
                world.tick();
            }
            let handed_over = world.source.is_handed_over();
            let ended = world.source.status().is_final();
            let result = world.source.cancel(world.now, &mut world.source_vm);
            if handed_over || ended {
                assert_eq!(result, Err(Error::HandedOver));
                world.finish();
                world.assert_moved();
                break;
            }
            result.unwrap();
            world.pass(20_000);
            assert_eq!(world.source.status(), Status::Cancelled);
            world.assert_stayed();
            assert!(matches!(world.destination.status(), Status::Failed), "{:?}", world.destination.status());
            world.destination = Destination::new(world.now);
            retry(&mut world);
            world.finish();
            world.assert_moved();
        }
    }
}

#[test]
fn a_destination_that_refuses_says_why() {
    let mut world = world(Path::PreCopy);
    world.destination_vm.refuses_to_prepare = Some("96 KiB wanted, 12 KiB free".into());
    world.finish();
    let reason = "96 KiB wanted, 12 KiB free".to_string();
    assert_eq!(world.source.error(), Some(&Error::Refused(format!("the destination refused: {reason}"))));
    world.assert_stayed();
}

#[test]
fn a_device_that_refuses_to_be_saved_or_loaded_ends_the_attempt_and_a_second_one_succeeds() {
    for path in PATHS {
        for at_source in [true, false] {
            let mut world = world(path);
            world.source_vm.refuses_to_save = at_source;
            world.destination_vm.refuses_to_load = !at_source;
            world.finish();
            world.pass(1000);
            match world.source.error() {
                Some(Error::StateNotSaved(_)) if at_source => {}
                Some(Error::Aborted(why)) if !at_source => {
                    assert!(why.contains("the timer is of another kind"))
                }
                other => panic!("{other:?}"),
            }
            world.assert_stayed();
            assert_eq!(world.destination.status(), Status::Failed);
            world.source_vm.refuses_to_save = false;
            world.destination_vm.refuses_to_load = false;
            retry(&mut world);
            world.finish();
            world.assert_moved();
        }
    }
}

#[test]
fn a_page_that_was_altered_on_its_way_is_found() {
    for path in PATHS {
        let mut whole = world(path);
        whole.guest_stops_at = Some(0);
        whole.tape = Some(Vec::new());
        whole.finish();
        let mut ends = boundaries(whole.tape.as_deref().unwrap()).into_iter();
        let mut before = 0;
        let page_end = ends.find(|end| *end - std::mem::replace(&mut before, *end) == PAGE_RECORD as u64).unwrap();
        let mut world = world(path);
        world.guest_stops_at = Some(0);
        world.flip = Some(page_end - 1);
        world.finish();
        for report in [world.source.report(world.now), world.destination.report(world.now).unwrap()] {
            assert_eq!(report.verify.unwrap().pages_different, 1, "{path:?}");
        }
    }
}

/// Where, in the stream to the destination, COMMIT begins.
fn commit_at(tape: &[u8]) -> u64 {
    let (mut decoder, mut rest) = (Decoder::default(), tape);
    loop {
        let start = decoder.handled();
        if let Item::Message(Message::Commit) = decoder.next(&mut rest).unwrap().unwrap() {
            return start;
        }
    }
}

#[test]
fn a_commit_that_was_garbled_on_its_way_is_not_the_end_of_the_guest() {
    for path in PATHS {
        let mut whole = world(path);
        whole.guest_stops_at = Some(0);
        whole.tape = Some(Vec::new());
        whole.finish();
        let mut world = world(path);
        world.guest_stops_at = Some(0);
        world.flip = Some(commit_at(whole.tape.as_deref().unwrap()));
        world.finish();
        let paused = (Status::PostcopyPaused, Status::PostcopyPaused);
        assert_eq!((world.source.status(), world.destination.status()), paused, "{path:?}");
        assert!(!world.source_vm.running && !world.destination_vm.running);
        world.guest_stops_at = None;
        world.relink(link());
        world.source.recover().unwrap();
        world.destination.reconnected().unwrap();
        world.finish();
        world.assert_moved();
    }
}

#[test]
fn only_what_was_never_committed_can_be_abandoned() {
    let mut world = world(Path::PostCopy);
    while world.destination.status() != Status::Device || !world.source.is_handed_over() {
        world.tick();
    }
    world.lose_link();
    assert_eq!(world.destination.status(), Status::PostcopyPaused);
    world.relink(link());
    world.source.recover().unwrap();
    world.destination.reconnected().unwrap();
    while !world.destination.is_committed() {
        world.tick();
    }
    assert_eq!(world.destination.abandon(world.now), Err(Error::HandedOver));
    world.finish();
    world.assert_moved();

    let mut world = self::world(Path::PostCopy);
    while world.destination.status() != Status::Device {
        world.tick();
    }
    assert_eq!(world.destination.abandon(world.now), Ok(()));
    assert_eq!(world.destination.status(), Status::Cancelled);
}

#[test]
fn a_stranger_cannot_take_the_place_of_a_paused_post_copy() {
    let mut world = world(Path::PostCopy);
    while !world.destination.is_committed() {
        world.tick();
    }
    world.lose_link();
    world.relink(link());
    world.destination.reconnected().unwrap();
    let mut stranger = Source::new(Config::default(), offer(Path::StopAndCopy, PAGES), 0).unwrap();
    std::mem::swap(&mut world.source, &mut stranger);
    world.source_vm.running = true;
    world.destination_vm.running = false;
    let pace = std::mem::take(&mut world.pace);
    world.finish();
    world.pace = pace;
    assert!(matches!(world.source.error(), Some(Error::Aborted(why)) if why.contains("waits for its source")));
    assert_eq!(world.destination.status(), Status::PostcopyPaused);
    world.source_vm.running = false;
    world.destination_vm.running = true;
    std::mem::swap(&mut world.source, &mut stranger);
    world.relink(link());
    world.source.recover().unwrap();
    world.destination.reconnected().unwrap();
    world.finish();
    world.assert_moved();
}

proptest! {
    #[test]
    fn whatever_the_guest_the_link_and_the_cuts_nothing_is_lost(
        path in prop::sample::select(&PATHS[..]),
        pages in 1u64..200,
        seed in any::<u64>(),
        clears in 0u64..30,
        pace in 1u64..3000,
        bandwidth in prop_oneof![Just(0u64), 1_000_000u64..100_000_000],
        latency in 0u64..2000,
        cuts in prop::collection::vec((any::<bool>(), 1u64..600_000), 0..4),
    ) {
        let program = Program { seed, range: 1 + seed % pages, clears };
        let fresh = || Link::new(bandwidth, latency);
        let config = Config { downtime_limit: 2000, peek_interval: 3000, measure_interval: 2000, demand_period: Some(5000), ..Config::default() };
        let mut world = World::new(offer(path, pages), config.clone(), program, fresh());
        world.pace = pace;
        let mut session = 100;
        let cuts = cuts.into_iter().map(|(there, at)| {
            Some(if there { Cut::ToDestination(at) } else { Cut::ToSource(at / 1000 + 1) })
        });
        for cut in cuts.chain([None]) {
            world.cut = cut;
            world.finish();
            if world.source.status() == Status::Completed {
                break;
            }
            world.relink(fresh());
            if world.source.status() == Status::PostcopyPaused {
                world.source.recover().unwrap();
                world.destination.reconnected().unwrap();
            } else {
                world.assert_stayed();
                session += 1;
                world.source = Source::new(
                    config.clone(), Offer { session, ..offer(path, pages) }, world.now).unwrap();
                if world.destination.reconnected().is_err() {
                    world.destination = Destination::new(world.now);
                }
            }
        }
        prop_assert!(world.destination_vm.running && !world.source_vm.running);
        prop_assert_eq!(world.destination_vm.runs, 1);
        world.destination_vm.assert_like_its_twin(None);
        prop_assert_eq!(world.destination.report(world.now).unwrap().pages.twice, 0);
    }
}
