//! What guests write while they are moved: four made up, three recorded.

use migration::Micros;

use super::precopy::Trace;
use super::sim::{Access, Program, random};
use crate::watch::recording::{self, Recording};
use crate::watch::step::{Progress, Step};

/// Pages of the guests that are made up.
const PAGES: u64 = 16 * 1024;
/// Their link, and that of the recorded ones: about what the machine that they were recorded on carries.
const FAST: u64 = super::BANDWIDTH;
const SLOW: u64 = 12_000_000;

/// All traces.
pub fn all() -> Vec<Trace> {
    let made_up: [(_, fn() -> Program); 4] =
        [("calm", calm), ("unruly", unruly), ("storm", storm), ("settling", settling)];
    let made_up = made_up.map(|(name, writes)| Trace {
        name: format!("{name}, made up"),
        pages: PAGES,
        bandwidth: FAST,
        writes: Box::new(writes),
    });
    made_up.into_iter().chain(recorded()).collect()
}

fn writes(after: Micros, gfns: impl Iterator<Item = u64> + 'static) -> Program {
    Box::new(gfns.map(move |gfn| Access { after, gfn, write: true }))
}

/// 2000 writes a second: half to 16 pages that are always in use, half to a range of 4 MiB.
fn calm() -> Program {
    let mut state = 1;
    writes(500, (0..).map(move |step| if step % 2 == 0 { step / 2 % 16 } else { 16 + random(&mut state) % 1024 }))
}

/// 50,000 pages a second in turn over 32 MiB: more than the link carries.
fn unruly() -> Program {
    writes(20, (0..).map(|step| step % 8192))
}

/// 200 processes a second, each with 24 pages out of a pool of 8 MiB, and kernel pages that they all write.
fn storm() -> Program {
    let mut state = 2;
    let page = move |step: u64| {
        let (process, write) = (step / 50, step % 50);
        if write < 24 { 64 + process * 24 % 2048 + write } else { random(&mut state) % 64 }
    };
    writes(100, (0..).map(page))
}

/// Unruly for 0.6 s, and then calm: whoever gives up early misses it.
fn settling() -> Program {
    Box::new(unruly().take(30_000).chain(calm()))
}

/// Linux guests in `bochs`, of whose harvests `cargo lab watch --record` kept the pages.
fn recorded() -> Vec<Trace> {
    let files: [(&str, &[u8]); 3] = [
        ("calm", include_bytes!("traces/calm.rec")),
        ("unruly", include_bytes!("traces/unruly.rec")),
        ("storm", include_bytes!("traces/storm.rec")),
    ];
    let read = |(name, bytes): (&str, &[u8])| recording::parse(bytes).ok().map(|recording| trace(name, &recording));
    files.into_iter().filter_map(read).collect()
}

fn trace(name: &str, recording: &Recording) -> Trace {
    let steps: Vec<Step> = recording.entries.iter().filter_map(|entry| step(&entry.progress)).collect();
    Trace {
        name: format!("{name}, recorded"),
        pages: recording.header.memory / 4096,
        bandwidth: SLOW,
        writes: Box::new(move || replay(steps.clone())),
    }
}

fn step(progress: &Progress) -> Option<Step> {
    match progress {
        Progress::Step(step) if step.dirty.is_some() => Some(step.clone()),
        _ => None,
    }
}

/// The pages of each harvest one after another over its period: when in it each was written is not known. After the
/// last one it begins anew.
fn replay(steps: Vec<Step>) -> Program {
    let one = |step: Step| {
        let gfns: Vec<u64> = step.dirty.iter().flat_map(|runs| runs.pages()).collect();
        let after = step.after / (gfns.len() as u64).max(1);
        gfns.into_iter().map(move |gfn| Access { after, gfn, write: true })
    };
    Box::new(steps.into_iter().cycle().flat_map(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recording_can_be_read_and_is_of_pages() {
        let traces = recorded();
        assert_eq!(traces.len(), 3);
        for trace in traces {
            let writes: Vec<Access> = (trace.writes)().take(10_000).collect();
            assert!(writes.len() == 10_000 && writes.iter().all(|write| write.gfn < trace.pages), "{}", trace.name);
        }
    }
}
