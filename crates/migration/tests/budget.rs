//! Several guests leave over one budget.

mod common;

use common::{Program, World, config, offer};
use migration::{Budget, Link, MIN_ROOM, Path, Status};
use proptest::prelude::*;

const RATE: u64 = 10_000_000;
const BURST: u64 = 200_000;

/// Lets streams send what they want and may: `wants[i]` bytes each time.
fn run(budget: &mut Budget, ids: &[migration::StreamId], wants: &[usize], times: u64) -> Vec<u64> {
    let mut sent = vec![0; ids.len()];
    for now in (0..times).map(|step| step * 100) {
        for ((id, want), sent) in ids.iter().zip(wants).zip(&mut sent) {
            let bytes = budget.room(*id, now).min(*want);
            budget.spend(*id, bytes);
            *sent += bytes as u64;
        }
    }
    sent
}

#[test]
fn streams_that_want_all_get_alike_whoever_asks_first() {
    let mut budget = Budget::new(RATE, BURST, 0);
    let ids = [0, 1, 2].map(|_| budget.join(0));
    let sent = run(&mut budget, &ids, &[usize::MAX; 3], 10_000);
    for sent in sent {
        assert!(sent.abs_diff(RATE / 3) <= BURST, "{sent}");
    }
}

#[test]
fn one_that_has_little_to_send_leaves_its_share_to_the_others() {
    let mut budget = Budget::new(RATE, BURST, 0);
    let ids = [0, 1, 2].map(|_| budget.join(0));
    // A tenth of the rate, nothing, and as much as there is.
    let sent = run(&mut budget, &ids, &[100, 0, usize::MAX], 10_000);
    assert_eq!((sent[0].div_ceil(100), sent[1]), (9_999, 0));
    assert!((sent[0] + sent[2]).abs_diff(RATE) <= BURST, "{sent:?}");
}

#[test]
fn one_that_has_left_leaves_all_to_the_others() {
    let mut budget = Budget::new(RATE, BURST, 0);
    let ids = [0, 1].map(|_| budget.join(0));
    budget.leave(ids[0], 0);
    let sent = run(&mut budget, &ids, &[usize::MAX; 2], 10_000);
    assert_eq!((sent[0], budget.when(ids[0])), (0, None));
    assert!(sent[1].abs_diff(RATE) <= BURST, "{sent:?}");
}

/// Three guests that leave at once, each in a world of its own, ticked in turn.
fn leave_together(mut fails: impl FnMut(&mut World)) -> ([World; 3], Budget) {
    let paths = [Path::PreCopy, Path::PostCopy, Path::StopAndCopy];
    let mut worlds = paths.map(|path| {
        let mut world =
            World::new(offer(path, 300), config(), Program { seed: 4, range: 200, clears: 9 }, Link::new(0, 50));
        world.tick = 50;
        world.pace = 2;
        world
    });
    let mut budget = Budget::new(RATE, BURST, 0);
    let ids = [0, 1, 2].map(|_| budget.join(0));
    for _ in 0..1_000_000 {
        for (world, id) in worlds.iter_mut().zip(ids) {
            if world.is_over() {
                budget.leave(id, world.now);
                continue;
            }
            world.allowance = budget.room(id, world.now + world.tick);
            world.tick();
            budget.spend(id, world.sent);
        }
        fails(&mut worlds[1]);
        if worlds.iter().all(World::is_over) {
            return (worlds, budget);
        }
    }
    panic!("they never end");
}

#[test]
fn guests_that_leave_together_stay_within_the_budget() {
    let (worlds, budget) = leave_together(|_| ());
    let mut bytes = 0;
    for world in &worlds {
        world.assert_moved();
        bytes += world.source.report(world.now).bytes;
    }
    let end = worlds.iter().map(|world| world.now).max().unwrap();
    assert!(bytes <= RATE * end / 1_000_000 + budget.burst().max(BURST), "{bytes} bytes in {end} us");
}

#[test]
fn one_that_fails_leaves_the_others_alone() {
    for (fails_at, then) in [(Status::Device, Status::Failed), (Status::PostcopyActive, Status::PostcopyPaused)] {
        let (worlds, _) = leave_together(|world| {
            if world.source.status() == fails_at && world.link.is_open() {
                world.lose_link();
            }
        });
        let [first, failed, last] = &worlds;
        first.assert_moved();
        last.assert_moved();
        assert_eq!(failed.source.status(), then);
    }
}

proptest! {
    #[test]
    fn over_no_time_more_goes_than_the_rate_and_one_burst(
        rate in 1u64..100_000_000,
        burst in 0u64..1_000_000,
        steps in prop::collection::vec((0u64..20_000, 0u8..12, 0usize..50_000), 1..200),
    ) {
        let mut budget = Budget::new(rate, burst, 0);
        let mut ids = Vec::new();
        let (mut now, mut most) = (0, 0);
        // What had gone before each moment.
        let (mut gone, mut total) = (vec![(0u64, 0u64)], 0u64);
        for (wait, what, bytes) in steps {
            now += wait;
            match what {
                0 => ids.push(budget.join(now)),
                1 if !ids.is_empty() => budget.leave(ids.remove(bytes % ids.len()), now),
                _ if !ids.is_empty() => {
                    let id = ids[bytes % ids.len()];
                    gone.push((now, total));
                    let bytes = budget.room(id, now).min(bytes);
                    budget.spend(id, bytes);
                    total += bytes as u64;
                }
                _ => {}
            }
            most = most.max(budget.burst());
            for (since, before) in &gone {
                let allowed = u128::from(now - since) * u128::from(rate) + u128::from(most) * 1_000_000;
                prop_assert!(u128::from(total - before) * 1_000_000 <= allowed);
            }
        }
    }

    #[test]
    fn a_stream_may_send_a_page_when_it_was_told(
        rate in 1_000u64..100_000_000,
        streams in 1usize..6,
        spent in prop::collection::vec(0usize..10_000, 6),
        at in 0u64..1_000_000,
    ) {
        let mut budget = Budget::new(rate, 0, 0);
        let ids: Vec<_> = (0..streams).map(|_| budget.join(0)).collect();
        for (id, bytes) in ids.iter().zip(spent) {
            let bytes = budget.room(*id, at).min(bytes);
            budget.spend(*id, bytes);
        }
        let id = ids[0];
        let when = budget.when(id).unwrap();
        prop_assert!(budget.room(id, when) >= MIN_ROOM);
    }
}
