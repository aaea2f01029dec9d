//! JS beside the clock that stamps the events. Both are the emulated CPU's own count of time: nothing here is about wall time.

use anyhow::{Context, Result, ensure};
use lab::env::Environment::Bochs;
use libtest_mimic::Trial;

use crate::support::machine::{Event, Machine};
use crate::support::trial;

/// A jiffy in ms.
const JIFFY: f64 = 4.0;

/// A guest, what it is like, and for how many seconds JS is watched.
const GUESTS: [(&str, &str, f64); 4] = [
    ("halted", "mode=hlt verify=1", 180.0),
    ("busy", "mode=spin", 30.0),
    ("writing", "mode=write rate=100", 30.0),
    // Every byte that it prints is an exit or two, and it does little else.
    ("exit_heavy", "mode=spin verify=1", 15.0),
];

/// The tests.
pub fn trials() -> Vec<Trial> {
    let guest = |(name, words, seconds)| {
        trial(format!("js_is_never_off_by_more_than_a_jiffy_in_a_guest_that_is_{name}"), move || {
            watch(name, words, seconds)
        })
    };
    GUESTS.map(guest).into()
}

fn watch(name: &str, words: &str, seconds: f64) -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, &format!("time-{name}"), words)?;
    let (start, first) = reading(&mut machine)?;
    let (mut at, mut seen) = (start, 0);
    let (mut least, mut most) = (0.0_f64, 0.0_f64);
    while at < start + seconds * 1000.0 {
        let js;
        (at, js) = reading(&mut machine)?;
        let off = (at - start) - (js - first) * JIFFY;
        (least, most) = (least.min(off), most.max(off));
        seen += 1;
        ensure!(most - least < JIFFY, "JS {js} at {at} ms is off by {off} ms from JS {first} at {start} ms");
    }
    println!("  {seen} identifiers over {} ms: off by {least} to {most} ms", at - start);
    ensure!(seen > 10, "{seen} identifiers in {seconds} s");
    Ok(())
}

/// The time of the next identifier in ms, and its JS.
fn reading(machine: &mut Machine) -> Result<(f64, f64)> {
    let event: Event = machine.until("identifier", |event| event.is("identifier"))?;
    let js = event.text("id").split('.').next().and_then(|field| field.parse().ok());
    let at = event.json["at"].as_f64().context("an event has a time")?;
    Ok((at, js.with_context(|| format!("no identifier: {}", event.json))?))
}
