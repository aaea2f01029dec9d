//! Pages that go as less than whole: whatever the guest writes, whenever they are sent, they arrive as they were.

use migration::encoding::{delta, lz4};
use migration::wire::{Body, Decoder, Item, PAGE_RECORD};
use migration::{
    Bitmap, Config, Destination, DestinationVm, Encodings, MIN_ROOM, Offer, PAGE_SIZE, Page, Path, Report, Source,
    SourceVm, Status, ZERO_PAGE,
};
use proptest::prelude::*;
use std::cell::Cell;
use std::ops::Range;

const PAGES: u64 = 12;

/// Memory, dirty flags, pages that have not come or are not needed, and a clock that each look moves on.
struct Host {
    pages: Vec<Page>,
    dirty: Bitmap,
    missing: Bitmap,
    free: Bitmap,
    /// What a device writes when its state is saved.
    saving: Option<(u64, Page)>,
    clock: Cell<u64>,
    nanos_a_look: u64,
    running: bool,
}

impl Host {
    fn new(pages: Vec<Page>) -> Self {
        let none = Bitmap::new(pages.len() as u64);
        Self {
            pages,
            dirty: none.clone(),
            missing: none.clone(),
            free: none,
            saving: None,
            clock: Cell::new(0),
            nanos_a_look: 0,
            running: false,
        }
    }
}

impl SourceVm for Host {
    fn page_count(&self) -> u64 {
        self.pages.len() as u64
    }
    fn page(&self, gfn: u64) -> &Page {
        &self.pages[gfn as usize]
    }
    fn track(&mut self, _: bool) {
        self.dirty.clear_all();
    }
    fn harvest(&mut self, dirty: &mut Bitmap) {
        dirty.or(&self.dirty);
        self.dirty.clear_all();
    }
    fn free_pages(&mut self, into: &mut Bitmap) {
        into.or(&self.free);
    }
    fn nanos(&self) -> u64 {
        self.clock.set(self.clock.get() + self.nanos_a_look);
        self.clock.get()
    }
    fn pause(&mut self) {
        self.running = false;
    }
    fn resume(&mut self) {
        self.running = true;
    }
    fn save_state(&mut self) -> Result<Vec<u8>, String> {
        if let Some((gfn, page)) = self.saving {
            self.pages[gfn as usize] = page;
            self.dirty.set(gfn);
        }
        Ok(vec![1; 8])
    }
}

impl DestinationVm for Host {
    fn prepare(&mut self, offer: &Offer) -> Result<(), String> {
        *self = Self::new(vec![ZERO_PAGE; offer.page_count as usize]);
        Ok(())
    }
    fn received(&self, gfn: u64) -> &Page {
        assert!(!self.running, "what the guest may have written is no base");
        &self.pages[gfn as usize]
    }
    fn write_page(&mut self, gfn: u64, page: &Page) {
        self.pages[gfn as usize] = *page;
        self.missing.clear(gfn);
    }
    fn write_zeroes(&mut self, gfns: Range<u64>, _: bool) {
        gfns.for_each(|gfn| self.write_page(gfn, &ZERO_PAGE));
    }
    fn load_state(&mut self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn set_missing(&mut self, missing: &Bitmap) {
        self.missing = missing.clone();
    }
    fn all_present(&mut self) {}
    fn run(&mut self) {
        self.running = true;
    }
}

/// One migration, moved on by hand.
struct Rig {
    source: Source,
    destination: Destination,
    from: Host,
    to: Host,
    now: u64,
    /// How long each call's bytes take.
    step: u64,
    /// Whether bytes wait for the link.
    full: bool,
    tape: Vec<u8>,
}

fn offer(path: Path, pages: u64) -> Offer {
    Offer {
        name: "guest".into(),
        session: 1,
        page_count: pages,
        tsc_khz: 1,
        path,
        verify: true,
        // After each page, so that the bandwidth is known from the start.
        acknowledge_every: 1,
    }
}

/// Five rounds, and a bandwidth that is measured with each acknowledgement.
fn config(encodings: Encodings) -> Config {
    Config {
        encodings,
        measure_interval: 1,
        downtime_limit: 0,
        stalled_rounds: 0,
        round_limit: 5,
        hybrid_rounds: 3,
        ..Config::default()
    }
}

impl Rig {
    fn new(path: Path, config: Config, pages: Vec<Page>) -> Self {
        let offer = offer(path, pages.len() as u64);
        let mut from = Host::new(pages);
        from.running = true;
        Self {
            source: Source::new(config, offer, 0).unwrap(),
            destination: Destination::new(0),
            from,
            to: Host::new(Vec::new()),
            now: 0,
            step: 1000,
            full: true,
            tape: Vec::new(),
        }
    }

    /// One call's bytes go there, and the answer comes back.
    fn step(&mut self, room: usize) {
        let mut bytes = Vec::new();
        self.source.transmit(self.now, &mut self.from, room, &mut bytes).unwrap();
        if self.full {
            self.source.channel_full();
        }
        self.tape.extend(&bytes);
        self.now += self.step;
        self.destination.receive(&bytes, self.now, &mut self.to).unwrap();
        bytes.clear();
        self.destination.transmit(usize::MAX, &mut bytes);
        self.source.receive(&bytes, self.now, &mut self.from).unwrap();
    }

    /// Until so many pages have gone. Returns the latest, and how it went.
    fn until_sent(&mut self, count: usize) -> (u64, &'static str) {
        for _ in 0..1000 {
            let records = self.records();
            if records.len() >= count {
                assert_eq!(records.len(), count);
                return (records[count - 1].0, records[count - 1].1);
            }
            self.step(MIN_ROOM);
        }
        panic!("no page goes: {:?}", self.source.status());
    }

    /// The guest writes a page.
    fn put(&mut self, gfn: u64, page: Page) {
        assert!(self.from.running);
        self.from.pages[gfn as usize] = page;
        self.from.dirty.set(gfn);
    }

    fn is_over(&self) -> bool {
        self.source.status().is_final() && self.destination.status().is_final()
    }

    fn finish(&mut self) -> Report {
        for _ in 0..100_000 {
            if self.is_over() {
                break;
            }
            self.step(2 * MIN_ROOM);
        }
        assert_eq!((self.source.status(), self.destination.status()), (Status::Completed, Status::Completed));
        let (source, destination) = (self.source.report(self.now), self.destination.report(self.now).unwrap());
        assert_eq!(source.verify.map(|verdict| verdict.pages_different), Some(0));
        assert_eq!(source.bytes_saved, destination.bytes_saved);
        assert_eq!(source.pages.sent(), destination.pages.sent());
        source
    }

    /// The records of the stream so far, by how each page went, and the bytes that they save.
    fn records(&self) -> Vec<(u64, &'static str, usize)> {
        let (mut decoder, mut rest, mut records) = (Decoder::default(), &self.tape[..], Vec::new());
        let mut handled = 0;
        loop {
            let item = decoder.next(&mut rest).unwrap();
            let record = match item {
                None => return records,
                Some(Item::Page(record)) => Some((record.gfn, kind(&record.body))),
                Some(Item::Message(_) | Item::Batch) => None,
            };
            let length = (decoder.handled() - handled) as usize;
            handled = decoder.handled();
            records.extend(record.map(|(gfn, kind)| (gfn, kind, length)));
        }
    }
}

fn kind(body: &Body<'_>) -> &'static str {
    match body {
        Body::Zero { .. } => "zero",
        Body::Data(_) => "whole",
        Body::Same { .. } => "same",
        Body::Delta(_) => "delta",
        Body::Lz4(_) => "lz4",
    }
}

fn filled(value: u8) -> Page {
    [value; PAGE_SIZE]
}

/// A page that does not shrink, and no other is like it.
fn noise(seed: u64) -> Page {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    core::array::from_fn(|_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    })
}

fn only(set: impl FnOnce(&mut Encodings)) -> Encodings {
    let mut encodings = Encodings { zero: false, ..Encodings::plain() };
    set(&mut encodings);
    encodings
}

/// What a guest does to a page.
#[derive(Clone, Copy, Debug)]
enum Write {
    Poke(usize, u8),
    Fill(u8),
    Noise(u64),
    Copy(u64),
    Free,
}

fn write(pages: &mut [Page], gfn: u64, write: Write) {
    let page = match write {
        Write::Poke(at, value) => {
            pages[gfn as usize][at] = value;
            return;
        }
        Write::Fill(value) => filled(value),
        Write::Noise(seed) => noise(seed),
        Write::Copy(from) => pages[from as usize],
        // What it holds, no one asks.
        Write::Free => return,
    };
    pages[gfn as usize] = page;
}

fn any_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        2 => (0..PAGE_SIZE, any::<u8>()).prop_map(|(at, value)| Write::Poke(at, value)),
        3 => (0u8..3).prop_map(Write::Fill),
        2 => (0u64..3).prop_map(Write::Noise),
        2 => (0..PAGES).prop_map(Write::Copy),
        1 => Just(Write::Free),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_is_written_and_whenever_it_is_sent_it_arrives(
        path in prop::sample::select(&[Path::StopAndCopy, Path::Demand, Path::PreCopy, Path::PostCopy, Path::Hybrid][..]),
        on in any::<[bool; 4]>(),
        (index_pages, kept_pages) in (0usize..20, 0usize..16),
        peek_interval in 1000u64..30_000,
        before in prop::collection::vec((0..PAGES, any_write()), 0..20),
        steps in prop::collection::vec((prop::collection::vec((0..PAGES, any_write()), 0..4), 1usize..3), 0..80),
    ) {
        let [zero, same, delta, lz4] = on;
        let encodings = Encodings { zero, same, delta, lz4, index_pages, kept_pages };
        let mut memory = vec![ZERO_PAGE; PAGES as usize];
        before.iter().for_each(|(gfn, what)| write(&mut memory, *gfn, *what));
        let config = Config { peek_interval, demand_period: Some(20_000), ..config(encodings) };
        let mut rig = Rig::new(path, config, memory.clone());
        for (writes, room) in steps {
            for (gfn, what) in writes {
                let host = if rig.to.running { &mut rig.to } else { &mut rig.from };
                let is_lacking = |gfn| host.missing.test(gfn) || host.free.test(gfn);
                if !host.running || host.missing.test(gfn) || matches!(what, Write::Copy(from) if is_lacking(from)) {
                    continue;
                }
                if matches!(what, Write::Free) {
                    host.free.set(gfn);
                    continue;
                }
                if host.free.clear(gfn) {
                    // As a kernel that gives a page to a new owner.
                    host.pages[gfn as usize] = ZERO_PAGE;
                    memory[gfn as usize] = ZERO_PAGE;
                }
                write(&mut host.pages, gfn, what);
                host.dirty.set(gfn);
                write(&mut memory, gfn, what);
            }
            let was_there = rig.to.running;
            rig.step(room * MIN_ROOM);
            if !was_there && rig.to.running { rig.to.free = rig.from.free.clone(); }
        }
        let was_there = rig.to.running;
        rig.finish();
        if !was_there { rig.to.free = rig.from.free.clone(); }
        let different = (0..PAGES).filter(|gfn| rig.to.pages[*gfn as usize] != memory[*gfn as usize]);
        prop_assert_eq!(different.filter(|gfn| !rig.to.free.test(*gfn)).collect::<Vec<_>>(), []);
    }
}

#[test]
fn each_encoding_is_used_where_it_fits_and_counted_on_both_sides() {
    let mut memory: Vec<Page> = (0..40).map(noise).collect();
    memory[20..30].copy_from_slice(&[noise(19); 10]);
    memory[30..36].copy_from_slice(&core::array::from_fn::<_, 6, _>(|i| filled(i as u8 + 1)));
    memory[36..40].fill(ZERO_PAGE);
    let mut rig = Rig::new(Path::PreCopy, config(Encodings { kept_pages: 64, ..Encodings::default() }), memory);
    while !rig.is_over() {
        rig.step(4 * MIN_ROOM);
        if rig.from.running {
            rig.from.pages[2][7] ^= 0xff;
            rig.from.dirty.set(2);
        }
    }
    let report = rig.finish();
    assert!(rig.to.pages == rig.from.pages);
    let pages = report.pages;
    assert_eq!((pages.duplicate, pages.same, pages.compressed), (4, 10, 6), "{pages:?}");
    assert!(pages.delta > 0, "{pages:?}");
    assert_eq!(rig.destination.report(rig.now).unwrap().pages, pages);
    let saved: usize = rig.records().iter().filter(|record| record.1 != "zero").map(|(.., n)| PAGE_RECORD - n).sum();
    assert_eq!(report.bytes_saved, saved as u64);
}

#[test]
fn an_encoding_that_is_off_is_in_no_record() {
    let memory = || -> Vec<Page> {
        let mut memory: Vec<Page> = (0..12).map(|gfn| filled(gfn % 3)).collect();
        memory.extend((0..4).map(noise));
        memory
    };
    let kinds = |encodings| {
        let mut rig = Rig::new(Path::PreCopy, config(encodings), memory());
        while !rig.is_over() {
            rig.step(4 * MIN_ROOM);
            if rig.from.running {
                rig.from.pages[14][7] ^= 1;
                rig.from.dirty.set(14);
            }
        }
        rig.finish();
        let mut kinds: Vec<&str> = rig.records().iter().map(|record| record.1).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    };
    assert_eq!(kinds(only(|_| ())), ["whole"]);
    assert_eq!(kinds(only(|on| on.zero = true)), ["whole", "zero"]);
    assert_eq!(kinds(only(|on| on.same = true)), ["same", "whole"]);
    assert_eq!(kinds(only(|on| on.delta = true)), ["delta", "whole"]);
    assert_eq!(kinds(only(|on| on.lz4 = true)), ["lz4", "whole"]);
    assert_eq!(kinds(Encodings::default()), ["delta", "lz4", "same", "whole", "zero"]);
}

#[test]
fn with_all_off_a_batch_is_a_row_of_whole_pages_and_runs_of_zeroes() {
    let mut memory: Vec<Page> = (0..6).map(|_| filled(7)).collect();
    memory[2..4].fill(ZERO_PAGE);
    let mut rig = Rig::new(Path::StopAndCopy, config(Encodings::plain()), memory);
    // Up to the hello's answer, then all pages in one call.
    rig.step(MIN_ROOM);
    let start = rig.tape.len();
    rig.step(100 * MIN_ROOM);
    let mut batch = Vec::new();
    for gfn in [0u8, 1, 2, 4, 5] {
        let zero = gfn == 2;
        batch.extend([gfn, 0, 0, 0, 0, u8::from(!zero), if zero { 2 } else { 0 }, 0]);
        batch.extend_from_slice(if zero { &[] } else { &[7; PAGE_SIZE] });
    }
    // The news of the pause, then the batch: kind, three bytes that are not of interest here, length.
    let (paused, rest) = rig.tape[start..].split_at(8);
    let (header, rest) = rest.split_at(8);
    assert_eq!((paused[0], &paused[4..], header[0]), (4, &[0; 4][..], 2));
    assert_eq!(header[4..], (batch.len() as u32).to_le_bytes());
    assert!(rest.starts_with(&batch));
}

#[test]
fn pages_go_whole_while_the_bandwidth_is_not_known() {
    let config = Config { measure_interval: u64::MAX, ..config(Encodings::default()) };
    let report = Rig::new(Path::StopAndCopy, config, vec![filled(7); 300]).finish();
    assert_eq!((report.pages.normal, report.bytes_saved), (300, 0));
}

#[test]
fn pages_go_whole_while_no_byte_waits_for_the_link() {
    let mut rig = Rig::new(Path::StopAndCopy, config(Encodings::default()), vec![filled(7); 300]);
    rig.full = false;
    let report = rig.finish();
    assert_eq!((report.pages.normal, report.bytes_saved), (300, 0));
}

#[test]
fn pages_go_whole_over_a_link_that_is_faster_than_their_encoding() {
    let report = |nanos_a_look, step| {
        let mut rig = Rig::new(Path::StopAndCopy, config(Encodings::default()), vec![filled(7); 1000]);
        (rig.from.nanos_a_look, rig.step) = (nanos_a_look, step);
        rig.finish()
    };
    // A page takes 1 ms; to find that it is like another one takes 100 us, and 10 ms.
    assert!(report(100_000, 1000).pages.same > 900);
    let slow = report(10_000_000, 1000);
    assert_eq!((slow.pages.normal, slow.bytes_saved), (1000, 0));
}

#[test]
fn pages_that_do_not_shrink_go_whole() {
    let report = Rig::new(Path::StopAndCopy, config(Encodings::default()), (0..300).map(noise).collect()).finish();
    assert_eq!((report.pages.normal, report.bytes_saved), (300, 0));
    let mut out = [0; lz4::ROOM];
    assert_eq!(lz4::encode(&noise(1), &mut out), None);
    assert_eq!(delta::encode(&noise(1), &noise(2), &mut out[..PAGE_SIZE - 1]), None);
}

/// Eight pages of noise, of which one is `page`, in a pre-copy that harvests between rounds alone.
fn pre_copy_with(gfn: u64, page: Page) -> Rig {
    let config = Config { peek_interval: u64::MAX, ..config(only(|on| on.same = true)) };
    let mut memory: Vec<Page> = (0..8).map(noise).collect();
    memory[gfn as usize] = page;
    let mut rig = Rig::new(Path::PreCopy, config, memory);
    rig.until_sent(8);
    rig
}

/// Page 3 goes as A, then as B; the guest writes A into it again, which nobody has seen when page 5, an A, is sent.
#[test]
fn a_page_that_was_modified_unseen_is_not_taken_for_what_was_sent_of_it() {
    let (a, b) = (noise(100), noise(200));
    let mut rig = pre_copy_with(3, a);
    rig.put(3, b);
    rig.put(5, a);
    assert_eq!(rig.until_sent(9), (3, "whole"));
    rig.put(3, a);
    assert_eq!(rig.until_sent(10), (5, "same"));
    assert!(rig.to.pages[5] == b, "page 3 is there as it was sent: this test shows nothing otherwise");
    rig.finish();
    assert!(rig.to.pages == rig.from.pages);
}

/// Page 5 goes as A, then as B; when it is to go as A again, page 3, an A too, goes before it.
#[test]
fn a_page_that_is_still_to_be_sent_is_not_taken_for_what_was_sent_of_it() {
    let (a, b) = (noise(100), noise(200));
    let mut rig = pre_copy_with(5, a);
    rig.put(5, b);
    assert_eq!(rig.until_sent(9), (5, "whole"));
    rig.put(3, a);
    rig.put(5, a);
    assert_eq!(rig.until_sent(10), (3, "whole"));
    assert_eq!(rig.until_sent(11), (5, "same"));
    rig.finish();
    assert!(rig.to.pages == rig.from.pages);
}

/// Page 3 goes as an A and becomes free; at the pause it goes as a mark, then page 5 as an A too.
#[test]
fn a_free_page_is_not_taken_for_what_was_sent_of_it() {
    let a = noise(100);
    let mut rig = pre_copy_with(3, a);
    rig.from.free.set(3);
    rig.from.saving = Some((5, a));
    rig.put(3, a);
    while !rig.is_over() {
        rig.step(2 * MIN_ROOM);
    }
    assert!(rig.to.pages[3] == ZERO_PAGE, "it went as a mark: this test shows nothing otherwise");
    assert!(rig.to.pages[5] == a);
}

#[test]
fn a_push_with_all_off_sends_pages_of_zeroes_whole_too() {
    for path in [Path::PostCopy, Path::Demand, Path::Hybrid] {
        let config = Config { demand_period: Some(0), ..config(only(|_| ())) };
        let report = Rig::new(path, config, vec![ZERO_PAGE; 100]).finish();
        assert_eq!((report.pages.normal, report.pages.sent()), (100, 100), "{path:?}");
    }
}

#[test]
fn nothing_builds_on_what_the_guest_may_have_written() {
    for path in [Path::PostCopy, Path::Hybrid] {
        let mut rig =
            Rig::new(path, config(Encodings { kept_pages: 400, ..Encodings::default() }), vec![filled(7); 400]);
        let mut seen = 0;
        while !rig.is_over() {
            if rig.from.running {
                for gfn in 0..200 {
                    rig.from.pages[gfn][9] ^= 1;
                    rig.from.dirty.set(gfn as u64);
                }
                seen = rig.records().len();
            }
            rig.step(4 * MIN_ROOM);
        }
        rig.finish();
        // `received` asserts the destination's part.
        let records = rig.records();
        let late = records.iter().filter(|record| record.1 == "lz4").count();
        assert!(late > 0 && records.len() > seen, "{path:?}");
        assert!(rig.to.pages == rig.from.pages);
    }
}
