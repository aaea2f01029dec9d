//! Streams that no honest peer would send: each gives one error, and never a panic or memory without bound.

mod common;

use common::{PATHS, Program, SimVm, World, config, offer};
use migration::wire::{self, Decoder, Item, MAX_STATE, MAX_WHOLE, Message, Numbering};
use migration::{Config, Destination, Error, Link, MIN_ROOM, Path, Source, Status};
use proptest::prelude::*;

const PAGES: u64 = 16;

fn program() -> Program {
    Program { seed: 3, range: PAGES, clears: 0 }
}

/// What a whole migration sends to the destination.
fn stream(path: Path) -> Vec<u8> {
    let mut world = World::new(offer(path, PAGES), config(), program(), Link::new(0, 0));
    world.tape = Some(Vec::new());
    world.pace = 0;
    world.finish();
    world.tape.unwrap()
}

/// With the numbers that an honest peer gives its messages.
fn numbered(bytes: &[u8], numbering: &mut Numbering) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let end = bytes.len();
    numbering.stamp(&mut bytes, 0, end);
    bytes
}

/// Feeds a destination in the given pieces, and touches a page in between as a guest does.
fn feed(bytes: &[u8], pieces: &[usize]) -> (Destination, SimVm, Result<(), Error>) {
    let bytes = &numbered(bytes, &mut Numbering::default())[..];
    let mut vm = SimVm::blank(program());
    let mut destination = Destination::new(0);
    let (mut rest, mut out, mut result) = (bytes, Vec::new(), Ok(()));
    let mut sizes = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
    while !rest.is_empty() && result.is_ok() {
        let (now, later) = rest.split_at(sizes.next().unwrap().clamp(1, rest.len()));
        result = destination.receive(now, 1, &mut vm);
        destination.fault(5, 1);
        destination.fault(u64::MAX, 1);
        destination.transmit(usize::MAX, &mut out);
        rest = later;
    }
    (destination, vm, result)
}

fn message(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::write(&mut bytes, message);
    bytes
}

#[test]
fn a_peer_of_another_version_is_told_so() {
    let mut bytes = message(&Message::Hello(offer(Path::PreCopy, PAGES)));
    bytes[16] = 77;
    let (mut destination, _, result) = feed(&bytes, &[]);
    assert_eq!(result, Err(Error::Version { theirs: 77, ours: wire::VERSION }));
    assert_eq!(destination.status(), Status::Failed);

    // What the destination says to it reaches the user of the source.
    let mut destination_says = Vec::new();
    destination = Destination::new(0);
    let _ = destination.receive(&bytes, 0, &mut SimVm::blank(program()));
    destination.transmit(usize::MAX, &mut destination_says);
    let mut source = Source::new(Config::default(), offer(Path::PreCopy, PAGES), 0).unwrap();
    let mut vm = SimVm::new(PAGES, program());
    source.transmit(0, &mut vm, MIN_ROOM, &mut Vec::new()).unwrap();
    let error = source.receive(&destination_says, 0, &mut vm).unwrap_err();
    assert!(error.to_string().contains("speaks version 77"), "{error}");
    assert!(vm.running);
}

#[test]
fn what_is_no_migration_is_refused_at_its_first_bytes() {
    let (_, _, result) = feed(b"GET / HTTP/1.1\r\n\r\n", &[]);
    assert!(result.is_err());
    let mut bytes = message(&Message::Hello(offer(Path::PreCopy, PAGES)));
    bytes[8] ^= 1;
    assert_eq!(feed(&bytes, &[]).2, Err(Error::NotAMigration));
}

#[test]
fn claims_of_great_length_are_refused_before_anything_is_kept() {
    for kind in [1u8, 6, 8] {
        let header = [kind, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f];
        let mut input = &header[..];
        assert_eq!(Decoder::default().next(&mut input), Err(Error::TooLong { kind, length: 0x7fff_ffff }));
    }
    let mut bytes = message(&Message::Hello(offer(Path::PostCopy, PAGES)));
    let total = MAX_STATE as u32 + 1;
    bytes.extend(message(&Message::State { total, offset: 0, bytes: &[1; 8] }));
    assert_eq!(feed(&bytes, &[]).2, Err(Error::BadState));
}

#[test]
fn a_page_outside_the_vm_is_an_error() {
    for (gfn, zero, wrong) in [(PAGES - 1, 1, false), (PAGES - 1, 2, true), (PAGES, 1, true), (0xff_ffff_ffff, 1, true)]
    {
        let mut bytes = message(&Message::Hello(offer(Path::PostCopy, PAGES)));
        let mut batch = wire::Batch::open(&mut bytes);
        for page in 0..zero {
            batch.zero(&mut bytes, gfn + page);
        }
        batch.close(&mut bytes);
        let expected = if wrong { Err(Error::PageOutside(gfn)) } else { Ok(()) };
        assert_eq!(feed(&bytes, &[]).2, expected);
    }
}

#[test]
fn a_record_that_is_longer_than_its_batch_is_an_error() {
    let mut bytes = message(&Message::Hello(offer(Path::PostCopy, PAGES)));
    let start = bytes.len();
    let mut batch = wire::Batch::open(&mut bytes);
    batch.data(&mut bytes, 0, &[1; 4096]);
    batch.close(&mut bytes);
    for length in [1u32, 8, 4103] {
        bytes[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
        assert_eq!(feed(&bytes, &[]).2, Err(Error::BadRecord), "{length}");
    }
}

#[test]
fn a_hand_over_without_all_pages_is_refused() {
    let whole = stream(Path::StopAndCopy);
    let (mut decoder, mut rest, mut kept) = (Decoder::default(), &whole[..], Vec::new());
    loop {
        let start = whole.len() - rest.len();
        match decoder.next(&mut rest).unwrap() {
            None => break,
            Some(Item::Message(_)) => kept.extend_from_slice(&whole[start..whole.len() - rest.len()]),
            Some(Item::Batch | Item::Page(_)) => {}
        }
    }
    let (destination, vm, result) = feed(&kept, &[]);
    assert_eq!(result, Err(Error::PagesMissing(PAGES)));
    assert!(!vm.running && !destination.is_committed());
}

#[test]
fn a_commit_that_was_not_asked_for_runs_nothing() {
    for prefix in [Vec::new(), message(&Message::Hello(offer(Path::PostCopy, PAGES)))] {
        let mut bytes = prefix;
        bytes.extend(message(&Message::Commit));
        let (_, vm, result) = feed(&bytes, &[]);
        assert!(matches!(result, Err(Error::Unexpected(_))));
        assert!(!vm.running);
    }
}

#[test]
fn a_page_that_comes_again_after_the_hand_over_does_not_undo_what_the_guest_wrote() {
    let mut bytes = message(&Message::Hello(offer(Path::PostCopy, PAGES)));
    bytes.extend(message(&Message::State { total: 8, offset: 0, bytes: &[0; 8] }));
    bytes.extend(message(&Message::Commit));
    let page = |bytes: &mut Vec<u8>| {
        let mut batch = wire::Batch::open(bytes);
        batch.data(bytes, 3, &[7; 4096]);
        batch.close(bytes);
    };
    page(&mut bytes);
    let (mut destination, mut vm, result) = feed(&bytes, &[]);
    assert_eq!((result, vm.running, vm.memory[3][0]), (Ok(()), true, 7));
    vm.memory[3][0] = 8;
    let before = bytes.len();
    page(&mut bytes);
    let again = &numbered(&bytes, &mut Numbering::default())[before..];
    destination.receive(again, 2, &mut vm).unwrap();
    assert_eq!(vm.memory[3][0], 8);
    assert_eq!(destination.report(2).unwrap().pages.twice, 1);
}

#[test]
fn a_message_that_was_lost_or_comes_twice_is_not_passed_over() {
    let messages = [
        message(&Message::Hello(offer(Path::PostCopy, PAGES))),
        message(&Message::Round { number: 1 }),
        message(&Message::Round { number: 2 }),
        message(&Message::Paused),
    ];
    let mut numbering = Numbering::default();
    let [hello, first, second, paused] = messages.map(|bytes| numbered(&bytes, &mut numbering));
    let receive = |stream: &[&Vec<u8>]| {
        let bytes: Vec<u8> = stream.iter().copied().flatten().copied().collect();
        Destination::new(0).receive(&bytes, 0, &mut SimVm::blank(program()))
    };
    assert_eq!(receive(&[&hello, &first, &second, &paused]), Ok(()));
    assert_eq!(receive(&[&hello, &second, &paused]), Err(Error::OutOfOrder(3)));
    assert_eq!(receive(&[&hello, &first, &first, &second]), Err(Error::OutOfOrder(3)));
    assert_eq!(receive(&[&hello, &second, &first]), Err(Error::OutOfOrder(3)));
}

#[test]
fn numbers_begin_anew_after_the_last() {
    let mut numbering = Numbering::default();
    for _ in 0..(1 << 24) - 1 {
        numbering.take();
    }
    assert_eq!((numbering.take(), numbering.take()), ([255, 255, 255], [0, 0, 0]));
}

/// More pages than a window holds.
const MANY: u64 = 200;

/// What a source makes of answers, after its hello; each comes when it has said all that it has to say.
fn answer(answers: &[Vec<u8>]) -> (Result<(), Error>, Source, SimVm) {
    let mut vm = SimVm::new(MANY, program());
    let mut source = Source::new(Config::default(), offer(Path::PostCopy, MANY), 0).unwrap();
    let mut out = Vec::new();
    let mut result = Ok(());
    let mut numbering = Numbering::default();
    for answer in answers {
        let answer = numbered(answer, &mut numbering);
        while result.is_ok() && source.transmit(0, &mut vm, 1 << 20, &mut out).unwrap() > 0 {}
        result = result.and_then(|()| source.receive(&answer, 1, &mut vm));
    }
    (result, source, vm)
}

fn request(gfn: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::write_words(&mut bytes, wire::Kind::Request, None, std::iter::once(gfn));
    bytes
}

#[test]
fn a_destination_cannot_acknowledge_what_was_not_sent() {
    let (result, source, vm) = answer(&[message(&Message::Accept), message(&Message::Acknowledge { bytes: 1 << 40 })]);
    assert_eq!(result, Err(Error::AcknowledgedTooMuch));
    assert!(vm.running && source.status() == Status::Failed);
}

#[test]
fn a_request_for_a_page_that_is_not_there_does_not_bring_the_guest_back() {
    let honest = [message(&Message::Accept), message(&Message::Ready), request(MANY - 1)];
    assert_eq!(answer(&honest).0, Ok(()));
    let (result, source, vm) = answer(&[&honest[..], &[request(MANY)]].concat());
    assert_eq!(result, Err(Error::PageOutside(MANY)));
    assert!(!vm.running && source.status() == Status::PostcopyPaused);
}

#[test]
fn nothing_is_complete_before_every_page_was_sent() {
    let complete = message(&Message::Complete { requests: 0, latency: None });
    let (result, source, _) = answer(&[message(&Message::Accept), message(&Message::Ready), complete.clone()]);
    assert!(matches!(result, Err(Error::Unexpected(_))));
    assert_eq!(source.status(), Status::PostcopyPaused);
    let (result, source, vm) = answer(&[message(&Message::Accept), complete]);
    assert!(matches!(result, Err(Error::Unexpected(_))));
    assert!(vm.running && source.status() == Status::Failed);
}

/// A batch of records that are spelled out: gfn, kind, argument, what follows.
fn batch(bytes: &mut Vec<u8>, records: &[(u8, u8, u16, &[u8])]) {
    let mut payload = Vec::new();
    for (gfn, kind, argument, follows) in records {
        payload.extend([*gfn, 0, 0, 0, 0, *kind]);
        payload.extend(argument.to_le_bytes());
        payload.extend_from_slice(follows);
    }
    bytes.extend([wire::Kind::Pages as u8, 0, 0, 0]);
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(payload);
}

/// What comes of records after a hello and a page 3 of sevens.
fn after_a_page(records: &[(u8, u8, u16, &[u8])]) -> (Destination, SimVm, Result<(), Error>) {
    let mut bytes = message(&Message::Hello(offer(Path::Hybrid, PAGES)));
    batch(&mut bytes, &[(3, 1, 0, &[7; 4096])]);
    batch(&mut bytes, records);
    feed(&bytes, &[])
}

/// An LZ4 block of so many equal bytes.
fn block(length: usize) -> Vec<u8> {
    let mut out = vec![0; lz4_flex::block::get_maximum_output_size(length)];
    let size = lz4_flex::block::compress_into(&vec![9; length], &mut out).unwrap();
    out.truncate(size);
    out
}

#[test]
fn encoded_records_are_taken_when_they_are_right() {
    let whole = block(4096);
    let (_, vm, result) = after_a_page(&[
        (4, 2, 0, &3u64.to_le_bytes()),
        (3, 3, 3, &[0, 1, 8]),
        (5, 4, whole.len() as u16, &whole),
        (6, 2, 0, &5u64.to_le_bytes()),
        (4, 3, 0, &[]),
    ]);
    assert_eq!(result, Ok(()));
    assert_eq!((vm.memory[3][..2].to_vec(), vm.memory[4][..2].to_vec()), (vec![8, 7], vec![7, 7]));
    assert!([5, 6].iter().all(|gfn| vm.memory[*gfn] == [9; 4096]));
}

#[test]
fn a_block_that_is_not_one_page_is_an_error_however_long_it_claims_to_be() {
    for length in [1, 4095, 4097, 1 << 19] {
        let bomb = block(length);
        assert_eq!(after_a_page(&[(5, 4, bomb.len() as u16, &bomb)]).2, Err(Error::BadRecord), "{length}");
    }
    assert_eq!(after_a_page(&[(5, 4, 0, &[])]).2, Err(Error::BadRecord));
}

#[test]
fn a_delta_that_does_not_fit_its_page_is_an_error() {
    for delta in [&[255, 0, 255, 0, 0, 0][..], &[0, 3, 9], &[0], &[0, 1, 9, 4]] {
        assert_eq!(after_a_page(&[(3, 3, delta.len() as u16, delta)]).2, Err(Error::BadRecord), "{delta:?}");
    }
}

#[test]
fn a_record_with_a_length_or_an_argument_that_cannot_be_is_an_error() {
    for (kind, argument) in [(2, 1), (3, 4096), (4, 4096), (3, u16::MAX), (4, u16::MAX), (5, 0), (255, 0)] {
        let follows = vec![0; if kind == 2 { 8 } else { argument.into() }];
        assert_eq!(after_a_page(&[(3, kind, argument, &follows)]).2, Err(Error::BadRecord), "{kind} {argument}");
    }
}

#[test]
fn a_record_that_builds_on_a_page_that_is_not_held_is_an_error() {
    for gfn in [4, PAGES, u64::MAX] {
        assert_eq!(after_a_page(&[(5, 2, 0, &gfn.to_le_bytes())]).2, Err(Error::NoBase(gfn)));
    }
    assert_eq!(after_a_page(&[(4, 3, 3, &[0, 1, 8])]).2, Err(Error::NoBase(4)));
    assert_eq!(after_a_page(&[(200, 2, 0, &3u64.to_le_bytes())]).2, Err(Error::PageOutside(200)));
}

#[test]
fn nothing_builds_on_a_page_that_is_announced_as_stale_or_that_the_guest_may_have_written() {
    let of_3 = 3u64.to_le_bytes();
    let builds: [(u8, u8, u16, &[u8]); 2] = [(5, 2, 0, &of_3), (3, 3, 3, &[0, 1, 8])];
    for record in builds {
        let mut bytes = message(&Message::Hello(offer(Path::Hybrid, PAGES)));
        batch(&mut bytes, &[(3, 1, 0, &[7; 4096])]);
        let mut stale = bytes.clone();
        wire::write_words(&mut stale, wire::Kind::Stale, Some(0), std::iter::once(1 << 3));
        batch(&mut stale, &[record]);
        assert_eq!(feed(&stale, &[]).2, Err(Error::NoBase(3)));

        bytes.extend(message(&Message::State { total: 8, offset: 0, bytes: &[0; 8] }));
        bytes.extend(message(&Message::Commit));
        batch(&mut bytes, &[record]);
        let (_, vm, result) = feed(&bytes, &[]);
        assert_eq!((result, vm.running), (Err(Error::NoBase(3)), true));
    }
}

/// A stop-and-copy with every kind of record.
fn encoded_stream() -> Vec<u8> {
    let mut bytes = message(&Message::Hello(offer(Path::StopAndCopy, PAGES)));
    let text: Vec<u8> = (0..4096usize).map(|at| b"the quick brown fox"[at % 19] ^ (at / 300) as u8).collect();
    let mut packed = vec![0; 8192];
    let size = lz4_flex::block::compress_into(&text, &mut packed).unwrap();
    let lz4 = &packed[..size];
    let of_3 = 3u64.to_le_bytes();
    batch(&mut bytes, &[(0, 0, 3, &[]), (3, 1, 0, &text), (4, 2, 0, &of_3), (5, 4, size as u16, lz4)]);
    let delta = [3, 0b1010, 1, 2, 255, 0, 200, 0xff, 1, 2, 3, 4, 5, 6, 7, 8];
    batch(&mut bytes, &[(4, 3, delta.len() as u16, &delta), (6, 0, 10, &[]), (5, 2, 0, &of_3), (3, 3, 0, &[])]);
    bytes.extend(message(&Message::State { total: 8, offset: 0, bytes: &[0; 8] }));
    bytes.extend(message(&Message::Commit));
    bytes
}

#[test]
fn the_stream_with_every_kind_of_record_is_right_before_it_is_altered() {
    let (destination, vm, result) = feed(&encoded_stream(), &[]);
    assert_eq!((result, vm.running, destination.status()), (Ok(()), true, Status::Verifying));
}

proptest! {

    #[test]
    fn an_altered_stream_of_encoded_pages_ends_in_an_error_or_is_taken(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        removed in prop::option::of((any::<prop::sample::Index>(), 1usize..40)),
        pieces in prop::collection::vec(1usize..3000, 0..10),
    ) {
        let mut bytes = encoded_stream();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some((at, count)) = removed {
            let at = at.index(bytes.len());
            bytes.drain(at..(at + count).min(bytes.len()));
        }
        let (destination, vm, result) = feed(&bytes, &pieces);
        prop_assert_eq!(vm.running, destination.is_committed());
        prop_assert!(result.is_ok() || destination.error().is_some());
    }

    #[test]
    fn no_page_records_can_panic_a_destination(
        records in prop::collection::vec((0u8..18, 0u8..6, prop::collection::vec(any::<u8>(), 0..60), 0u64..18), 0..12),
        pieces in prop::collection::vec(1usize..50, 0..20),
    ) {
        let mut bytes = message(&Message::Hello(offer(Path::Hybrid, PAGES)));
        for (gfn, kind, follows, of) in &records {
            let record: (u8, u8, u16, &[u8]) = match kind {
                0 => (*gfn, 0, follows.len() as u16, &[]),
                1 => (*gfn, 1, 0, &[6; 4096]),
                2 => (*gfn, 2, 0, &of.to_le_bytes()),
                _ => (*gfn, *kind, follows.len() as u16, follows),
            };
            batch(&mut bytes, &[record]);
        }
        let (destination, _, result) = feed(&bytes, &pieces);
        prop_assert!(result.is_ok() || destination.error().is_some());
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(path in prop::sample::select(&PATHS[..]), pieces in prop::collection::vec(1usize..9000, 0..60)) {
        let bytes = stream(path);
        let (destination, vm, result) = feed(&bytes, &pieces);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(destination.status(), Status::Completed);
        prop_assert_eq!(vm.memory, SimVm::new(PAGES, program()).memory);
    }

    #[test]
    fn no_bytes_can_panic_a_destination(bytes in prop::collection::vec(any::<u8>(), 0..400), hello in any::<bool>(), pieces in prop::collection::vec(1usize..50, 0..20)) {
        let mut all = if hello { message(&Message::Hello(offer(Path::Hybrid, PAGES))) } else { Vec::new() };
        all.extend(bytes);
        let (_, vm, _) = feed(&all, &pieces);
        prop_assert!(!vm.running);
    }

    #[test]
    fn a_mutated_stream_ends_in_an_error_or_is_taken(
        path in prop::sample::select(&PATHS[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        removed in prop::option::of((any::<prop::sample::Index>(), 1usize..40)),
        pieces in prop::collection::vec(1usize..9000, 0..10),
    ) {
        let mut bytes = stream(path);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some((at, count)) = removed {
            let at = at.index(bytes.len());
            bytes.drain(at..(at + count).min(bytes.len()));
        }
        let (destination, vm, result) = feed(&bytes, &pieces);
        // The guest runs exactly if the hand-over was made, and a failed stream has an error.
        prop_assert_eq!(vm.running, destination.is_committed());
        prop_assert!(result.is_ok() || destination.error().is_some());
    }

    #[test]
    fn no_bytes_can_panic_a_source(
        bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4),
        kind in any::<u8>(),
        accepted in 0usize..4,
    ) {
        let honest = [message(&Message::Accept), message(&Message::Ready), message(&Message::Running)];
        let mut answers = honest[..accepted].to_vec();
        for body in bytes {
            let mut answer = vec![kind, 0, 0, 0, body.len() as u8, 0, 0, 0];
            answer.extend(body);
            answers.push(answer);
        }
        let (result, source, vm) = answer(&answers);
        prop_assert!(!(vm.running && source.is_handed_over()));
        prop_assert!(result.is_ok() || vm.running != source.is_handed_over());
    }

    #[test]
    fn a_decoder_keeps_no_more_than_one_unit(
        kind in 1u8..12,
        length in 0u32..40_000,
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        let mut stream = vec![kind, 0, 0, 0];
        stream.extend(length.to_le_bytes());
        stream.extend(bytes);
        let (mut decoder, mut given) = (Decoder::default(), 0u64);
        for byte in stream {
            given += 1;
            let mut input = &[byte][..];
            if decoder.next(&mut input).is_err() { break; }
            prop_assert!(given - decoder.handled() <= (MAX_WHOLE + 8) as u64);
        }
    }
}
