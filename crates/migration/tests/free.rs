//! Pages whose content the guest does not need are not sent.

mod common;

use common::{Program, World, config, encoded, encoded_paths, offer};
use migration::wire::{Body, Decoder, Item, Message};
use migration::{Encodings, Link, Path};
use std::collections::BTreeSet;

const PAGES: u64 = 400;

fn world(path: Path, encodings: Encodings) -> World {
    let program = Program { seed: 21, range: PAGES, clears: 0 };
    let (offer, config) = encoded(encodings, offer(path, PAGES), config());
    let mut world = World::new(offer, config, program, Link::new(20_000_000, 100));
    for vm in [&mut world.source_vm, &mut world.destination_vm] {
        vm.frees = 3;
    }
    world.pace = 20;
    world.tape = Some(Vec::new());
    world.pass(20);
    world.source_vm.go(2000);
    world
}

/// Pages that came with contents while the guest was paused or after the hand-over.
fn data_after_the_pause(tape: &[u8]) -> BTreeSet<u64> {
    let (mut decoder, mut rest, mut paused, mut pages) = (Decoder::default(), tape, false, BTreeSet::new());
    while let Some(item) = decoder.next(&mut rest).unwrap() {
        match item {
            Item::Message(Message::Paused) => paused = true,
            Item::Page(record) if paused && !matches!(record.body, Body::Zero { .. }) => drop(pages.insert(record.gfn)),
            _ => {}
        }
    }
    pages
}

#[test]
fn a_page_that_is_free_at_the_hand_over_goes_as_a_mark_on_every_path() {
    for (path, encodings) in encoded_paths() {
        let mut world = world(path, encodings);
        world.finish();
        world.assert_moved();
        let report = world.source.report(world.now);
        assert!(report.pages.free > 0, "{path:?}");
        let free = world.source_vm.free();
        let sent = data_after_the_pause(world.tape.as_deref().unwrap());
        assert!(sent.is_disjoint(free), "{path:?}: {:?}", sent.intersection(free).collect::<Vec<_>>());
        // Before, on the paths with rounds, what was in use then.
        let paused_from_the_start = matches!(path, Path::StopAndCopy | Path::Demand | Path::PostCopy);
        assert!(!paused_from_the_start || report.pages.free == free.len() as u64, "{path:?}");
    }
}

#[test]
fn a_guest_on_demand_never_fetches_what_it_freed() {
    let mut world = world(Path::Demand, Encodings::default());
    while !world.destination.is_committed() {
        world.tick();
    }
    let free = world.source_vm.free().len() as u64;
    assert!(free > 10);
    assert!(world.source.pages_left() <= PAGES - free);
}

#[test]
fn a_page_that_was_free_once_but_is_not_at_the_hand_over_must_be_sent_and_the_judges_see_it() {
    let mut noticed = 0;
    for path in [Path::PreCopy, Path::Hybrid] {
        let mut world = world(path, Encodings::default());
        world.source_vm.tells_old_free_pages = true;
        world.finish();
        noticed += u32::from(world.runs_at_the_destination().is_err_and(|what| what.contains("differ")));
    }
    assert_eq!(noticed, 2);
}
