//! The judge is judged: engines that are broken on purpose must not pass.

mod common;

use common::{At, Mishap, PATHS, Program, Tap, World, config, offer, survives};
use migration::wire::Kind;
use migration::{Config, Link, MIN_ROOM, Offer, Path, Source, Status};
use std::cell::Cell;
use std::rc::Rc;

const PAGES: u64 = 12;

fn link() -> Link {
    Link::new(20_000_000, 30)
}

fn world(path: Path) -> World {
    let mut world = World::new(offer(path, PAGES), config(), Program { seed: 11, range: PAGES, clears: 0 }, link());
    world.tick = 50;
    world.pace = 20;
    world.allowance = MIN_ROOM;
    world
}

#[test]
fn dirty_pages_that_were_collected_and_lost_are_noticed() {
    for path in [Path::PreCopy, Path::Hybrid] {
        let mut noticed = 0;
        for harvest in 0..10 {
            let mut world = world(path);
            world.source_vm.loses_harvest = Some(harvest);
            world.finish();
            let twin = world.runs_at_the_destination();
            let compared = world.source.report(world.now).verify.unwrap().pages_different;
            // Both judges see it: the twin, and the engines' own comparison.
            assert_eq!(twin.is_err(), compared > 0, "{path:?}, {harvest}: {twin:?}, {compared} pages differ");
            if let Err(what) = twin {
                assert!(what.contains("differ from the twin's"), "{what}");
                noticed += 1;
            }
        }
        assert!(noticed > 0, "{path:?}");
    }
}

#[test]
fn a_page_that_is_served_twice_is_noticed() {
    for path in [Path::Demand, Path::PostCopy, Path::Hybrid] {
        let mut noticed = 0;
        for target in 0..PAGES {
            let mut world = world(path);
            // Fewer acknowledgements, which count bytes that this source does not know of.
            let seldom = Offer { acknowledge_every: 1 << 18, ..offer(path, PAGES) };
            world.source = Source::new(Config { push_window: 1 << 21, ..config() }, seldom, 0).unwrap();
            let served_again = Rc::new(Cell::new(false));
            let (again, mut committed, mut served) = (served_again.clone(), false, 0);
            let there = Tap::rewriting(move |kind, message| {
                committed |= kind == Kind::Commit as u8;
                served += u64::from(committed && kind == Kind::Pages as u8);
                if served == target + 1 && !again.replace(true) { message.repeat(2) } else { message }
            });
            world.taps = Some((there, Tap::default()));
            world.finish();
            let result = world.moved();
            assert_eq!(result.is_err(), served_again.get(), "{path:?}, page {target}: {result:?}");
            noticed += u32::from(result.is_err_and(|what| what.contains("a page came twice")));
        }
        assert!(noticed > 1, "{path:?}");
    }
}

#[test]
fn a_source_that_resumes_after_commit_is_noticed() {
    for path in PATHS {
        let mut whole = world(path);
        whole.taps = Some((Tap::default(), Tap::default()));
        whole.finish();
        let mut noticed = 0;
        for message in 0..whole.taps.unwrap().0.count {
            let mut world = world(path);
            world.resumes_what_it_gave_away = true;
            let cut = At { there: true, message, mishap: Mishap::CutBefore };
            match survives(&mut world, &link, &[cut]) {
                Ok(()) => assert!(!world.source_vm.running),
                Err(what) => {
                    assert!(what.contains("runs what it gave away") || what.contains("on both sides"), "{what}");
                    noticed += 1;
                }
            }
        }
        assert!(noticed > 0, "{path:?}");
    }
}

#[test]
fn changed_pages_that_are_not_announced_are_noticed() {
    let mut world = world(Path::Hybrid);
    let there = Tap::rewriting(|kind, message| if kind == Kind::Stale as u8 { Vec::new() } else { message });
    world.taps = Some((there, Tap::default()));
    world.finish();
    // The source finds that more is there than it has sent. That is mended, the pages are not.
    assert_eq!(world.source.status(), Status::PostcopyPaused);
    world.relink(link());
    world.source.recover().unwrap();
    world.destination.reconnected().unwrap();
    world.finish();
    assert!(world.source.report(world.now).verify.unwrap().pages_different > 0);
    let what = world.moved().unwrap_err();
    assert!(what.contains("differ from the twin's"), "{what}");
}
