//! A recording, counted again: the same identifier field by field, and what a rule says of every window.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use qavns::{Reading, Version};

use super::options::{Rule, RuleOptions};
use super::recording::{self, Ending, Entry, Recording};
use super::step::{Fields, Progress};
use super::window::Window;

/// What a replay found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Steps whose identifier came out as it was recorded.
    pub same: u64,
    /// Beginnings: entries to which no step leads. A recording has one, and one more for each thing that was missed.
    pub beginnings: u64,
    /// The first step that came out otherwise.
    pub different: Option<Difference>,
    /// Steps that end with a harvest.
    pub harvests: u64,
    /// Those of them whose pages are known.
    pub with_pages: u64,
}

/// A field that came out otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The entry's number, from 0.
    pub entry: usize,
    /// The field.
    pub field: &'static str,
    /// As recorded.
    pub recorded: u64,
    /// As counted.
    pub counted: u64,
}

/// Counts a recording again. `each` is given every entry with the reading that was counted.
pub fn count(recording: &Recording, mut each: impl FnMut(&Entry, Reading)) -> Replayed {
    let mut found = Replayed::default();
    let mut version = Version::new();
    for (number, entry) in recording.entries.iter().enumerate() {
        match &entry.progress {
            Progress::Begin => {
                version = Version::resume(Reading { identifier: entry.identifier.into(), totals: entry.totals });
                found.beginnings += 1;
            }
            Progress::Step(step) => {
                step.apply(&mut version);
                found.harvests += u64::from(!step.restart);
                found.with_pages += u64::from(!step.restart && step.dirty.is_some());
                match difference(number, entry.identifier, version.reading().identifier.into()) {
                    None => found.same += 1,
                    Some(difference) => {
                        found.different.get_or_insert(difference);
                    }
                }
            }
        }
        each(entry, version.reading());
    }
    found
}

fn difference(entry: usize, recorded: Fields, counted: Fields) -> Option<Difference> {
    let fields = [
        ("JS", recorded.js, counted.js),
        ("OSIN", recorded.osin, counted.osin),
        ("PCN", recorded.pcn, counted.pcn),
        ("DPCN", recorded.dpcn, counted.dpcn),
    ];
    let differing = fields.into_iter().find(|(_, recorded, counted)| recorded != counted);
    differing.map(|(field, recorded, counted)| Difference { entry, field, recorded, counted })
}

/// Replays a file, and prints what it finds. An error if the recording is damaged or an identifier came out otherwise.
pub fn replay(file: &Path, options: &RuleOptions, out: &mut impl Write) -> Result<Replayed> {
    let recording = recording::read(file)?;
    let header = &recording.header;
    let rule = Rule::recorded(&header.rule)?.with(options)?;
    writeln!(out, "{}: {}, {} MiB", file.display(), header.title.escape_debug(), header.memory >> 20)?;
    let (jiffy, harvest_period) = (Duration::from_micros(header.jiffy), Duration::from_micros(header.harvest_period));
    writeln!(out, "a jiffy is {jiffy:?}, a harvest comes every {harvest_period:?}; {rule}")?;
    let decider = rule.decider();
    let mut window = Window::new(rule.ts, jiffy, harvest_period);
    let mut text = String::new();
    let found = count(&recording, |entry, reading| {
        window.push(&entry.progress, reading);
        text += &line(entry, reading, &window, &*decider);
    });
    out.write_all(text.as_bytes())?;
    conclude(&recording, &found, out)?;
    Ok(found)
}

/// An entry as a line: when, the identifier, and what the rule says of the window that ends here.
fn line(entry: &Entry, reading: Reading, window: &Window, decider: &dyn qavns::Policy) -> String {
    let mut line = format!("{:10.3} s  {}", entry.at as f64 / 1e6, reading.identifier);
    match (&entry.progress, window.decision(decider)) {
        (Progress::Begin, _) => line += "  begins here",
        (Progress::Step(step), _) if step.restart => line += "  the OS restarts",
        (Progress::Step(_), None) => {}
        (Progress::Step(_), Some(decision)) => {
            line += &format!("  {} -> {}", decision.condition, decision.path);
            if let Some(margin) = decision.margin {
                line += &format!(" ({margin})");
            }
        }
    }
    line + "\n"
}

fn conclude(recording: &Recording, found: &Replayed, out: &mut impl Write) -> Result<()> {
    let Replayed { same, beginnings, harvests, with_pages, .. } = found;
    writeln!(out, "{same} identifiers were counted again and are the same, field by field; {beginnings} begin anew")?;
    writeln!(out, "{with_pages} of {harvests} harvests have their pages")?;
    match &recording.ending {
        Ending::Whole => {}
        Ending::Cut { left: 0 } => writeln!(out, "note: the recording was not ended; it may lack its last entries")?,
        Ending::Cut { left } => {
            writeln!(out, "note: the recording is cut: {left} bytes of an entry that is not whole were left out")?;
        }
        Ending::Damaged { .. } => {}
    }
    if let Some(Difference { entry, field, recorded, counted }) = &found.different {
        anyhow::bail!("entry {entry}: {field} was recorded as {recorded} and counted as {counted}");
    }
    if let Ending::Damaged { at, why } = &recording.ending {
        anyhow::bail!("the recording is damaged at byte {at}: {why}; what stands before it was replayed");
    }
    ensure!(*beginnings > 0, "the recording is empty");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::recording::{Header, Writer, parse};
    use crate::watch::step::{Step, Tracker};

    /// A second of harvests of nine pages, then a restart, then a burst of pages.
    fn recorded() -> Vec<u8> {
        let mut bytes = Vec::new();
        let rule = Rule::default().values();
        let header = Header { title: "test".into(), memory: 1 << 20, jiffy: 4000, harvest_period: 100_000, rule };
        let mut writer = Writer::new(&mut bytes, header).unwrap();
        let (mut version, mut tracker, mut at) = (Version::new(), Tracker::default(), 0);
        let mut add = |version: &Version, restart, at| {
            let progress = tracker.see(at, version.reading(), restart, None);
            writer.entry(&progress, at, version.reading()).unwrap();
        };
        add(&version, false, at);
        for pages in [9; 10].into_iter().chain([0]).chain([9000; 7]) {
            let step = Step { jiffies: 25, pages, restart: pages == 0, ..Step::default() };
            step.apply(&mut version);
            at += 100_000;
            add(&version, step.restart, at);
        }
        writer.end().unwrap();
        bytes
    }

    fn replayed(name: &str, bytes: &[u8], options: &RuleOptions) -> (Result<Replayed>, String) {
        let file = std::env::temp_dir().join(format!("qavisor-replay-{name}-{}", std::process::id()));
        std::fs::write(&file, bytes).unwrap();
        let mut out = Vec::new();
        let found = replay(&file, options, &mut out);
        std::fs::remove_file(&file).unwrap();
        (found, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_recording_replays_to_the_same_identifiers_and_names_each_condition() {
        let (found, text) = replayed("same", &recorded(), &RuleOptions::default());
        let found = found.unwrap();
        assert_eq!((found.same, found.beginnings, found.different), (18, 1, None));
        assert_eq!((found.harvests, found.with_pages), (17, 0));
        let with = |words: &str| text.lines().filter(|line| line.contains(words)).count();
        // From the fifth harvest on. A window begins and ends with a harvest: none ends at the restart, and none begins there.
        assert_eq!((with("  calm -> pre-copy"), with("the OS restarts")), (6, 1));
        assert_eq!((with("unstable operating system"), with("unruly processes")), (5, 2), "{text}");
    }

    #[test]
    fn another_rule_decides_otherwise_on_the_same_recording() {
        let options = RuleOptions { td: Some("10".into()), ..RuleOptions::default() };
        let (_, text) = replayed("rule", &recorded(), &options);
        assert!(!text.contains("calm") && text.contains("Td 10"), "{text}");
    }

    #[test]
    fn a_cut_recording_replays_with_a_note_and_a_damaged_one_is_an_error() {
        let bytes = recorded();
        let (found, text) = replayed("cut", &bytes[..bytes.len() - 9], &RuleOptions::default());
        assert!(found.is_ok() && text.contains("note: the recording is cut"), "{text}");
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 2] ^= 1;
        let (found, text) = replayed("damaged", &damaged, &RuleOptions::default());
        assert!(found.unwrap_err().to_string().contains("damaged at byte"));
        assert!(text.contains("calm"), "{text}");
    }

    #[test]
    fn an_identifier_that_was_not_counted_so_is_found() {
        let mut recording = parse(&recorded()).unwrap();
        recording.entries[3].identifier.dpcn += 1;
        let found = count(&recording, |_, _| ());
        let difference = found.different.unwrap();
        assert_eq!((difference.entry, difference.field), (3, "DPCN"));
        assert_eq!((difference.recorded, difference.counted), (28, 27));
    }
}
