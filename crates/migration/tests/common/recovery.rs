//! What the owners of the engines do after a fault, and what must be true then.

use super::{Mishap, PATHS, Tap, World};
use migration::{Config, Destination, Encodings, Link, Micros, Offer, Path, Source, Status};

/// Owners take a link that carries nothing for so long for broken.
pub const PATIENCE: Micros = 30_000;

/// Settings for small guests that are soon over.
pub fn config() -> Config {
    Config {
        downtime_limit: 300,
        peek_interval: 1000,
        measure_interval: 1000,
        demand_period: Some(5000),
        ..Config::default()
    }
}

/// No page goes as less than whole; pages of zeroes alone do; each as it saves most.
pub fn encodings() -> [Encodings; 3] {
    [Encodings { zero: false, ..Encodings::plain() }, Encodings::plain(), Encodings::default()]
}

/// Each path with each of them.
pub fn encoded_paths() -> impl Iterator<Item = (Path, Encodings)> {
    PATHS.into_iter().flat_map(|path| encodings().map(|encodings| (path, encodings)))
}

/// The same with these encodings. Where they build on the bandwidth, it is known from the first page on.
pub fn encoded(encodings: Encodings, offer: Offer, config: Config) -> (Offer, Config) {
    let plain = Config { encodings, ..config };
    if plain.encodings.lz4 {
        (Offer { acknowledge_every: 1, ..offer }, Config { measure_interval: 1, ..plain })
    } else {
        (offer, plain)
    }
}

/// A mishap in one direction: of the messages to the destination, or of those to the source.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub there: bool,
    pub message: u64,
    pub mishap: Mishap,
}

impl At {
    pub fn tap(self, world: &mut World) {
        let this = Some((self.message, self.mishap));
        let (there, back) = if self.there { (this, None) } else { (None, this) };
        world.taps = Some((Tap::with(there), Tap::with(back)));
    }
}

/// Lets the migration meet one mishap a link, and after the last one none. Whatever happened, the guest is on one side,
/// with the memory of a twin that never migrated, or waits to be resumed; and it gets to the other side in the end.
pub fn survives(world: &mut World, link: &dyn Fn() -> Link, mishaps: &[At]) -> Result<(), String> {
    let mut mishaps = mishaps.iter();
    let mut more = |world: &mut World| match mishaps.next() {
        Some(at) => at.tap(world),
        None => world.taps = Some((Tap::default(), Tap::default())),
    };
    more(world);
    for attempt in 0..20 {
        world.run_until_the_link_is_given_up(PATIENCE)?;
        let whole = world.link.is_open() && world.source.status() == Status::Completed;
        if whole && world.destination.status() == Status::Completed {
            return world.moved();
        }
        if world.link.is_open() {
            world.lose_link();
        }
        world.pass(500);
        if !world.source.is_handed_over() {
            world.stayed()?;
            world.relink(link());
            let next = Offer { session: 100 + attempt, ..world.source.offer().clone() };
            world.source = Source::new(world.config.clone(), next, world.now).map_err(|error| error.to_string())?;
            if world.destination.reconnected().is_err() {
                world.destination = Destination::new(world.now);
            }
        } else if world.source.status() == Status::PostcopyPaused {
            if world.source_vm.running {
                return Err(world.violation.clone().unwrap_or("the source runs what it gave away".into()));
            }
            world.relink(link());
            world.source.recover().map_err(|error| format!("the source: {error}"))?;
            world.destination.reconnected().map_err(|error| format!("the destination: {error}"))?;
        } else {
            // The comparison alone was lost.
            return world.runs_at_the_destination();
        }
        more(world);
    }
    Err("it is never over".into())
}
