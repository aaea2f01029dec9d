//! From the lines of a host to what they say about the VM that is watched.

use std::time::Duration;

use qavns::{Identifier, Reading, Totals};
use serde_json::Value;

use super::runs::Runs;
use crate::agent::wire::{Host, Kind, Line, Party};

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// The host is up.
    Ready,
    /// The VM is watched from now on, or no longer.
    Watching {
        /// Whether it is.
        on: bool,
        /// Its memory in bytes.
        memory: u64,
        /// Period of the tick.
        jiffy: Duration,
        /// Period of the harvests.
        harvest_period: Duration,
    },
    /// A reading of its version; where all are known, with the pages modified since the reading before.
    Version {
        /// The reading.
        reading: Reading,
        /// The cause, if the guest's OS restarted.
        restart: Option<String>,
        /// The pages.
        dirty: Option<Runs>,
    },
    /// The guest printed a line.
    Console(String),
    /// Exits by reason since the VM is there.
    Exits(Vec<(String, u64)>),
    /// The VM cannot go on.
    Stopped(String),
    /// The host could not do what it was told.
    Refused(String),
    /// The host has ended.
    Ended(String),
}

/// Reads the lines of the source.
pub struct Feed {
    vm: String,
    /// The pages of the harvest of which the `identifier` event has not come; nothing once one line was not readable.
    dirty: Option<Runs>,
}

impl Feed {
    /// A feed about the VM of this name.
    pub fn new(vm: &str) -> Self {
        Feed { vm: vm.to_owned(), dirty: Some(Runs::default()) }
    }

    /// Takes a line. What it says, and when, in microseconds of the image's clock.
    pub fn take(&mut self, line: &Line) -> Option<(u64, Seen)> {
        if line.from != Party::Host(Host::Source) {
            return None;
        }
        if line.kind == Kind::Exit {
            return Some((0, Seen::Ended(line.text.clone())));
        }
        if line.kind != Kind::Monitor {
            return None;
        }
        let event: Value = serde_json::from_str(&line.text).ok()?;
        let at = micros(&event["at"])?;
        self.event(&event).map(|seen| (at, seen))
    }

    fn event(&mut self, event: &Value) -> Option<Seen> {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let kind = event["event"].as_str()?;
        match kind {
            "ready" => return Some(Seen::Ready),
            "bye" => return Some(Seen::Ended("bye".to_owned())),
            "error" => return Some(Seen::Refused(text("message"))),
            _ if event["vm"].as_str() != Some(&self.vm) => return None,
            _ => {}
        }
        match kind {
            "watching" => Some(Seen::Watching {
                on: event["on"].as_bool()?,
                memory: event["memory"].as_u64()?,
                jiffy: Duration::from_micros(micros(&event["jiffy"])?),
                harvest_period: Duration::from_micros(micros(&event["harvest-period"])?),
            }),
            "pages" => {
                self.more_pages(event["runs"].as_str()?);
                None
            }
            "identifier" => {
                let dirty = self.dirty.replace(Runs::default());
                let told = event["dirty"].as_u64();
                let dirty = dirty.filter(|dirty| Some(dirty.count()) == told);
                Some(Seen::Version { reading: reading(event)?, restart: None, dirty })
            }
            "restart" => Some(Seen::Version { reading: reading(event)?, restart: Some(text("cause")), dirty: None }),
            "console" => Some(Seen::Console(text("text"))),
            "stopped" => Some(Seen::Stopped(text("reason"))),
            "overhead" => {
                let exits = event["exits"].as_object()?.iter();
                Some(Seen::Exits(exits.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?))).collect()))
            }
            _ => None,
        }
    }

    fn more_pages(&mut self, text: &str) {
        self.dirty = self.dirty.take().and_then(|mut dirty| {
            let line = Runs::from_text(text).ok()?;
            dirty.append(&line).ok()?;
            Some(dirty)
        });
    }
}

fn reading(event: &Value) -> Option<Reading> {
    let identifier: Identifier = event["id"].as_str()?.parse().ok()?;
    let count = |key: &str| event[key].as_u64();
    Some(Reading {
        identifier,
        totals: Totals {
            restarts: count("restarts")?,
            births: count("births")?,
            deaths: count("deaths")?,
            pages_modified: count("pages-modified")?,
        },
    })
}

/// Milliseconds with a fraction, as whole microseconds.
fn micros(value: &Value) -> Option<u64> {
    let millis = value.as_f64().filter(|millis| (0.0..1e15).contains(millis))?;
    Some((millis * 1e3).round() as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn take(feed: &mut Feed, event: Value) -> Option<(u64, Seen)> {
        let text = event.to_string();
        feed.take(&Line { from: Party::Host(Host::Source), kind: Kind::Monitor, at: 0.0, text })
    }

    fn identifier(dirty: Option<u64>) -> Value {
        let mut event = json!({"event": "identifier", "at": 1500.25, "vm": "linux", "id": "000000000125.1.40.9",
            "restarts": 0, "births": 40, "deaths": 0, "pages-modified": 9});
        if let Some(dirty) = dirty {
            event["dirty"] = dirty.into();
        }
        event
    }

    fn dirty(runs: &str) -> Value {
        json!({"event": "pages", "at": 1500.0, "vm": "linux", "runs": runs})
    }

    fn pages_after(lines: &[&str], told: Option<u64>) -> Option<u64> {
        let mut feed = Feed::new("linux");
        for line in lines {
            assert_eq!(take(&mut feed, dirty(line)), None);
        }
        match take(&mut feed, identifier(told)) {
            Some((1_500_250, Seen::Version { reading, dirty, .. })) => {
                assert_eq!(reading.totals.births, 40);
                dirty.map(|dirty| dirty.count())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_pages_of_a_harvest_are_those_of_its_lines_if_all_came() {
        let second = "4QQB"; // Page 609.
        assert_eq!(pages_after(&["gAQDVQE", second], Some(5)), Some(5));
        assert_eq!(pages_after(&["gAQDVQE"], Some(5)), None);
        assert_eq!(pages_after(&[second, "gAQDVQE"], Some(5)), None);
        assert_eq!(pages_after(&["gAQDVQE", "???"], Some(4)), None);
        assert_eq!(pages_after(&[], Some(0)), Some(0));
        assert_eq!(pages_after(&[], None), None);
    }

    #[test]
    fn other_vms_other_hosts_and_what_is_no_event_say_nothing() {
        let mut feed = Feed::new("linux");
        let mut other = identifier(None);
        other["vm"] = "tiny".into();
        assert_eq!(take(&mut feed, other), None);
        assert_eq!(take(&mut feed, json!({"event": "identifier", "at": -1.0, "vm": "linux"})), None);
        let text = identifier(None).to_string();
        assert_eq!(feed.take(&Line { from: Party::Host(Host::Destination), kind: Kind::Monitor, at: 0.0, text }), None);
    }

    #[test]
    fn periods_and_exits_are_read() {
        let mut feed = Feed::new("linux");
        let event = json!({"event": "watching", "at": 1.0, "vm": "linux", "on": true, "memory": 4096, "jiffy": 1.5,
            "harvest-period": 100.0});
        let (jiffy, harvest_period) = (Duration::from_micros(1500), Duration::from_millis(100));
        assert_eq!(
            take(&mut feed, event),
            Some((1000, Seen::Watching { on: true, memory: 4096, jiffy, harvest_period }))
        );
        let event = json!({"event": "overhead", "at": 2.0, "vm": "linux", "exits": {"hlt": 3, "io": 4}});
        let exits = vec![("hlt".to_owned(), 3), ("io".to_owned(), 4)];
        assert_eq!(take(&mut feed, event), Some((2000, Seen::Exits(exits))));
    }
}
