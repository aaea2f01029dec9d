//! JS beside the clock that stamps the events. Both are the emulated CPU's own count of time: nothing here is about wall time.

use anyhow::{Context, Result, ensure};
use lab::env::Environment::Bochs;
use libtest_mimic::Trial;

use crate::support::machine::{Event, Machine};
use crate::support::trial;

/// A jiffy in ms.
const JIFFY: f64 = 4.0;

/// What a guest is like, its options, and for how many seconds JS is watched.
const GUESTS: [(&str, &str, f64); 5] = [
    ("halted", "mode=hlt verify=1", 180.0),
    ("busy", "mode=spin", 20.0),
    ("writing", "mode=write rate=100", 20.0),
    // In a sample each load of CR3 is an exit.
    ("exit_heavy", "mode=flip rate=2000 roots=64 verify=1", 20.0),
    // It prints more than the monitor's port takes, and loses it; the host does not wait for the port.
    ("printing_without_end", "mode=spin verify=1", 20.0),
];

/// The tests.
pub fn trials() -> Vec<Trial> {
    let guest = |(name, words, seconds)| {
        let title = format!("js_is_never_off_by_more_than_a_jiffy_in_a_guest_that_is_{name}");
        trial(title, move || watch(name, words, seconds))
    };
    GUESTS.map(guest).into()
}

fn watch(name: &str, words: &str, seconds: f64) -> Result<()> {
    let mut machine = Machine::with_tiny(Bochs, &format!("time-{name}"), words)?;
    if name == "exit_heavy" {
        machine.command("migrate vm=tiny to=memory path=stop-and-copy ts=600s")?;
        machine.until("start of the sample", |event| event.is("identifier") && event.json["births"] != 0)?;
    }
    let (start, first) = reading(&mut machine)?;
    let (mut at, mut seen) = (start, 0);
    let (mut least, mut most) = (0.0_f64, 0.0_f64);
    while at < start + seconds * 1000.0 {
        let js;
        let before = at;
        (at, js) = reading(&mut machine)?;
        // One is told each second of the emulated machine: a host that stood still would leave one out.
        ensure!(at - before < 1500.0, "no identifier between {before} ms and {at} ms");
        let off = (at - start) - (js - first) * JIFFY;
        (least, most) = (least.min(off), most.max(off));
        seen += 1;
        ensure!(most - least < JIFFY, "JS {js} at {at} ms is off by {off} ms from JS {first} at {start} ms");
    }
    println!("  {seen} identifiers over {:.0} ms: off by {least:.3} to {most:.3} ms", at - start);
    Ok(())
}

/// The time of the next identifier in ms, and its JS.
fn reading(machine: &mut Machine) -> Result<(f64, f64)> {
    let event: Event = machine.until("identifier", |event| event.is("identifier"))?;
    let js = event.text("id").split('.').next().and_then(|field| field.parse().ok());
    let at = event.json["at"].as_f64().context("an event has a time")?;
    Ok((at, js.with_context(|| format!("no identifier: {}", event.json))?))
}
