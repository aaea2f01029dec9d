use proptest::prelude::*;
use qavns::Version;

use super::super::runs::Runs;
use super::super::step::Tracker;
use super::*;

fn header() -> Header {
    Header {
        title: "bochs, linux, calm".to_owned(),
        memory: 1000 * PAGE,
        jiffy: 4000,
        harvest_period: 100_000,
        rule: RuleValues { policy: "paper".to_owned(), ts: 500_000, tp: (4, 1), td: (1, 20) },
    }
}

/// What happens in a step: jiffies, births, deaths, pages, and whether it is a restart, or a thing that no step explains.
type Happening = (u64, u64, u64, Vec<u64>, u8);

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let pages = proptest::collection::btree_set(0u64..1000, 0..40).prop_map(|pages| pages.into_iter().collect());
    proptest::collection::vec((0u64..50, 0u64..4, 0u64..4, pages, 0u8..20), 0..30)
}

/// The bytes of a recording of this, the place where each block ends, and its entries.
fn recorded(happenings: &[Happening]) -> (Vec<u8>, Vec<usize>, Vec<Entry>) {
    let (mut bytes, mut ends, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    let mut writer = Writer::new(&mut bytes, header()).unwrap();
    let (mut version, mut tracker, mut at) = (Version::new(), Tracker::default(), 0);
    ends.push(writer.bytes);
    for (jiffies, births, deaths, pages, kind) in happenings {
        let mut dirty = Some(pages.iter().copied().collect::<Runs>());
        let restart = *kind == 1;
        at += 4000 * jiffies;
        version.tick(*jiffies);
        version.processes(*births, *deaths);
        match kind {
            0 => version.migration_start(),
            1 => version.restart(),
            2 => dirty = None,
            _ => version.modified(pages.len() as u64),
        }
        let dirty = dirty.filter(|_| *kind > 2);
        let reading = version.reading();
        let progress = tracker.see(at, reading, restart, dirty);
        writer.entry(&progress, at, reading).unwrap();
        ends.push(writer.bytes);
        entries.push(Entry { progress, at, identifier: reading.identifier.into(), totals: reading.totals });
    }
    writer.end().unwrap();
    let ends = ends.into_iter().map(|end| usize::try_from(end).unwrap()).collect();
    (bytes, ends, entries)
}

proptest! {
    #[test]
    fn a_recording_reads_back_entry_by_entry(happenings in happenings()) {
        let (bytes, _, entries) = recorded(&happenings);
        let read = parse(&bytes).unwrap();
        prop_assert_eq!(read.header, header());
        prop_assert_eq!(read.entries, entries);
        prop_assert_eq!(read.ending, Ending::Whole);
    }

    #[test]
    fn a_recording_that_was_cut_anywhere_reads_up_to_its_last_whole_entry(happenings in happenings(), cut in any::<prop::sample::Index>()) {
        let (bytes, ends, entries) = recorded(&happenings);
        let length = cut.index(bytes.len());
        let read = parse(&bytes[..length]);
        let whole = ends.iter().filter(|end| **end <= length).count();
        if whole == 0 {
            let message = read.unwrap_err().to_string();
            prop_assert!(message.contains("recording"), "{}", message);
        } else {
            let read = read.unwrap();
            prop_assert_eq!(&read.entries, &entries[..whole - 1]);
            prop_assert_eq!(read.ending, Ending::Cut { left: length - ends[whole - 1] });
        }
    }

    #[test]
    fn a_recording_with_a_changed_byte_reads_up_to_it_and_says_so(happenings in happenings(), place in any::<prop::sample::Index>(), flip in 1u8..) {
        let (mut bytes, ends, entries) = recorded(&happenings);
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        let whole = ends.iter().filter(|end| **end <= place).count();
        match parse(&bytes) {
            Err(_) => prop_assert_eq!(whole, 0),
            Ok(read) => {
                prop_assert!(whole > 0);
                prop_assert_eq!(&read.entries, &entries[..whole - 1]);
                prop_assert_ne!(read.ending, Ending::Whole);
            }
        }
    }

    #[test]
    fn no_bytes_panic(noise in proptest::collection::vec(any::<u8>(), 0..200), after_start in any::<bool>()) {
        let mut bytes = if after_start { recorded(&[]).0[..10].to_vec() } else { Vec::new() };
        bytes.extend(noise);
        let _ = parse(&bytes);
    }
}

/// The bytes of a recording of these blocks, whatever they say.
fn written(blocks: &[Block]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, header()).unwrap();
    blocks.iter().for_each(|block| writer.block(block).unwrap());
    bytes
}

fn begin() -> Block {
    Block::Begin { at: 0, identifier: qavns::Identifier::START.into(), restarts: 0, births: 0, deaths: 0, pages: 0 }
}

fn step(pages: u64, dirty: &[u64]) -> Block {
    let step = Step { pages, dirty: Some(dirty.iter().copied().collect()), ..Step::default() };
    Block::Step { step, identifier: qavns::Identifier::START.into() }
}

#[test]
fn blocks_that_contradict_each_other_are_refused() {
    let cases = [
        (vec![step(0, &[])], "a step follows nothing"),
        (vec![begin(), step(2, &[7])], "not those that it counts"),
        (vec![begin(), step(1, &[1000])], "not those that it counts"),
        (vec![begin(), Block::Header(header())], "in the wrong place"),
        (vec![begin(), Block::End { entries: 2 }], "entries are missing"),
        (vec![begin(), Block::End { entries: 1 }, begin()], "something follows the end"),
    ];
    for (blocks, wanted) in cases {
        match parse(&written(&blocks)).unwrap().ending {
            Ending::Damaged { why, at } => assert!(why.contains(wanted) && at > 10, "{why}"),
            ending => panic!("{wanted}: {ending:?}"),
        }
    }
}

#[test]
fn a_file_of_another_kind_is_named() {
    assert!(parse(b"").unwrap_err().to_string().contains("too short"));
    assert!(parse(b"something else").unwrap_err().to_string().contains("no recording"));
    assert!(parse(b"qavisrec\x02\x00").unwrap_err().to_string().contains("version 2"));
}

#[test]
fn a_harvest_of_a_calm_guest_takes_a_few_bytes() {
    let pages: Vec<u64> = (512..522).collect();
    let calm: Vec<Happening> = (0..100).map(|_| (25, 0, 0, pages.clone(), 9)).collect();
    let (bytes, _, _) = recorded(&calm);
    assert!(bytes.len() < 100 * 30, "{} bytes", bytes.len());
}
