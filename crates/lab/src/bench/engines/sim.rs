//! Two hosts, a link and a guest, in which time is a number: the very engines of `crates/migration` run between them.

use std::ops::Range;

use migration::wire::{HEADER, PAGE_RECORD};
use migration::{
    Bitmap, Config, Destination, DestinationVm, End, Fault, Link, MIN_ROOM, Micros, Offer, Page, Path, Report, Source,
    SourceVm, Status, ZERO_PAGE, is_zero,
};

/// What the guest does next.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// How long it works before that.
    pub after: Micros,
    /// The page that it then touches.
    pub gfn: u64,
    /// And modifies.
    pub write: bool,
}

/// A guest's accesses in order.
pub type Program = Box<dyn Iterator<Item = Access>>;

/// The link and the engines' settings.
pub struct Setting {
    pub path: Path,
    pub config: Config,
    /// Bytes a second, and one way.
    pub bandwidth: u64,
    pub latency: Micros,
    /// How often everybody looks.
    pub tick: Micros,
}

/// A VM's memory at one host.
pub struct Memory {
    pub pages: Vec<Page>,
    dirty: Bitmap,
    missing: Option<Bitmap>,
    running: bool,
}

impl Memory {
    pub fn new(pages: Vec<Page>) -> Self {
        Self { dirty: Bitmap::new(pages.len() as u64), pages, missing: None, running: true }
    }

    pub fn vacant() -> Self {
        Self { running: false, ..Self::new(Vec::new()) }
    }

    fn has(&self, gfn: u64) -> bool {
        self.missing.as_ref().is_none_or(|missing| !missing.test(gfn))
    }

    fn page_mut(&mut self, gfn: u64) -> &mut Page {
        &mut self.pages[index(gfn)]
    }

    /// The guest changes one word of a page.
    fn modify(&mut self, gfn: u64) {
        let word: &mut [u8; 8] = self.page_mut(gfn).first_chunk_mut().expect("a page has a first word");
        *word = u64::from_le_bytes(*word).wrapping_add(1).to_le_bytes();
        self.dirty.set(gfn);
    }
}

fn index(gfn: u64) -> usize {
    usize::try_from(gfn).expect("a simulated memory is small")
}

impl SourceVm for Memory {
    fn page_count(&self) -> u64 {
        self.pages.len() as u64
    }

    fn page(&self, gfn: u64) -> &Page {
        &self.pages[index(gfn)]
    }

    fn track(&mut self, _: bool) {
        self.dirty.clear_all();
    }

    fn harvest(&mut self, dirty: &mut Bitmap) {
        dirty.or(&self.dirty);
        self.dirty.clear_all();
    }

    fn pause(&mut self) {
        self.running = false;
    }

    fn resume(&mut self) {
        self.running = true;
    }

    fn save_state(&mut self) -> Result<Vec<u8>, String> {
        Ok(vec![1; 16 * 1024])
    }
}

impl DestinationVm for Memory {
    fn prepare(&mut self, offer: &Offer) -> Result<(), String> {
        *self = Self { running: false, ..Self::new(vec![ZERO_PAGE; index(offer.page_count)]) };
        Ok(())
    }

    fn received(&self, gfn: u64) -> &Page {
        &self.pages[index(gfn)]
    }

    fn write_page(&mut self, gfn: u64, page: &Page) {
        *self.page_mut(gfn) = *page;
        self.missing.as_mut().map(|missing| missing.clear(gfn));
    }

    fn write_zeroes(&mut self, gfns: Range<u64>, untouched: bool) {
        if let Some(missing) = &mut self.missing {
            missing.fill(gfns.start, gfns.end - gfns.start, false);
        }
        if !untouched {
            gfns.for_each(|gfn| *self.page_mut(gfn) = ZERO_PAGE);
        }
    }

    fn load_state(&mut self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn set_missing(&mut self, missing: &Bitmap) {
        self.missing = Some(missing.clone());
    }

    fn all_present(&mut self) {
        self.missing = None;
    }

    fn run(&mut self) {
        self.running = true;
    }
}

/// What came of a migration.
pub struct Outcome {
    pub source: Report,
    pub destination: Report,
    /// The guest's memory at the end.
    pub memory: Vec<Page>,
    /// What it had done by then.
    #[cfg(test)]
    pub accesses: usize,
}

struct World {
    now: Micros,
    link: Link,
    source: Source,
    from: Memory,
    destination: Destination,
    to: Memory,
    program: Program,
    /// What the guest does next, and since when it works towards that.
    next: Option<Access>,
    due: Micros,
    /// For a page, which it touches again when that is here.
    waits: bool,
    accesses: usize,
    out: Vec<u8>,
}

/// Lets a guest with this memory work and moves it. When its program ends it rests. `None` if the migration does not end
/// well within an hour of its time.
pub fn migrate(setting: &Setting, pages: Vec<Page>, program: Program) -> Option<Outcome> {
    const HOUR: Micros = 3_600_000_000;
    let mut world = World::new(setting, pages, program);
    while world.now < HOUR {
        let happened = world.run_guest() | world.receive()? | world.transmit()?;
        if world.source.status().is_final() && world.destination.status().is_final() {
            return world.end();
        }
        let next = if happened { None } else { world.next_event(setting) };
        world.now = next.unwrap_or(world.now).max(world.now + setting.tick);
    }
    None
}

impl World {
    fn new(setting: &Setting, pages: Vec<Page>, mut program: Program) -> Self {
        let config = setting.config.clone();
        let offer = Offer {
            name: "guest".into(),
            session: 1,
            page_count: pages.len() as u64,
            tsc_khz: 1_000_000,
            path: setting.path,
            verify: false,
            acknowledge_every: config.acknowledge_every(),
        };
        Self {
            now: 0,
            link: Link::new(setting.bandwidth, setting.latency),
            source: Source::new(config, offer, 0).expect("an offer that can be read"),
            from: Memory::new(pages),
            destination: Destination::new(0),
            to: Memory::vacant(),
            next: program.next(),
            program,
            due: 0,
            waits: false,
            accesses: 0,
            out: Vec::new(),
        }
    }

    /// When something can happen next, if nothing did now.
    fn next_event(&self, setting: &Setting) -> Option<Micros> {
        // A link tells when so many bytes of a run are there, and some of them may be what the guest waits for.
        const STEP: u64 = 8 * 1024;
        let step = STEP * 1_000_000 / setting.bandwidth;
        let arrivals = [End::A, End::B].into_iter().filter_map(|end| self.link.next_arrival(end));
        let arrivals = arrivals.map(|at| at.saturating_sub(step));
        arrivals.chain(self.guest_due()).chain(self.source.next_deadline()).min()
    }

    /// When the guest touches its next page, if it can.
    fn guest_due(&self) -> Option<Micros> {
        let goes_on = (self.from.running || self.to.running) && !self.waits;
        self.next.filter(|_| goes_on).map(|access| self.due + access.after)
    }

    /// The guest goes on until it has done all that is due, or waits. Time in which it does not run is not its own.
    fn run_guest(&mut self) -> bool {
        let here = if self.from.running { &mut self.from } else { &mut self.to };
        let before = self.accesses;
        while let Some(access) = self.next {
            if !here.running {
                self.due = self.now.max(self.due);
                break;
            }
            if !self.waits && self.due + access.after > self.now {
                break;
            }
            self.due = if self.waits { self.now } else { self.due + access.after };
            self.waits = !here.has(access.gfn) && self.destination.fault(access.gfn, self.now) == Fault::Requested;
            if self.waits {
                break;
            }
            self.next = self.program.next();
            self.accesses += 1;
            if access.write {
                here.modify(access.gfn);
            }
        }
        self.accesses > before
    }

    fn receive(&mut self) -> Option<bool> {
        let mut came = false;
        while let bytes = self.link.arrived(End::B, self.now)
            && !bytes.is_empty()
        {
            let count = bytes.len();
            self.destination.receive(bytes, self.now, &mut self.to).ok()?;
            self.link.consume(End::B, count);
            came = true;
        }
        while let bytes = self.link.arrived(End::A, self.now)
            && !bytes.is_empty()
        {
            let count = bytes.len();
            self.source.receive(bytes, self.now, &mut self.from).ok()?;
            self.link.consume(End::A, count);
            came = true;
        }
        Some(came)
    }

    fn transmit(&mut self) -> Option<bool> {
        self.out.clear();
        while let room = self.link.room(End::A).saturating_sub(self.out.len())
            && self.source.transmit(self.now, &mut self.from, room, &mut self.out).ok()? > 0
            // A guest that runs here has its turn.
            && !self.from.running
        {}
        if self.link.room(End::A) < self.out.len() + MIN_ROOM {
            self.source.channel_full();
        }
        let mut went = self.link.send(End::A, self.now, &self.out);
        self.out.clear();
        self.destination.transmit(self.link.room(End::B), &mut self.out);
        went += self.link.send(End::B, self.now, &self.out);
        Some(went > 0)
    }

    fn end(self) -> Option<Outcome> {
        let (source, destination) = (self.source.report(self.now), self.destination.report(self.now)?);
        let completed = [&source, &destination].iter().all(|report| report.status == Status::Completed);
        completed.then_some(Outcome {
            source,
            destination,
            memory: self.to.pages,
            #[cfg(test)]
            accesses: self.accesses,
        })
    }
}

/// A memory of so many pages: those that are used have contents that no encoding makes smaller, the others are zero.
pub fn memory(pages: u64, is_used: impl Fn(u64) -> bool) -> Vec<Page> {
    let mut noise = 0x9e37_79b9_7f4a_7c15;
    let mut page = |gfn| {
        let mut page = ZERO_PAGE;
        if is_used(gfn) {
            for word in page.as_chunks_mut::<8>().0 {
                *word = random(&mut noise).to_le_bytes();
            }
        }
        page
    };
    (0..pages).map(&mut page).collect()
}

/// The next number of a series (Marsaglia, Xorshift RNGs, 2003).
pub fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The least bytes of a stream in which every page goes once and none with contents is encoded: these with their headers,
/// and a header for each run of pages of zeroes.
pub fn floor(pages: &[Page]) -> u64 {
    let runs = pages.chunk_by(|one, next| is_zero(one) == is_zero(next));
    runs.map(|run| if run.first().is_some_and(is_zero) { HEADER } else { run.len() * PAGE_RECORD } as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_works_all_the_while_ends_with_the_memory_of_one_that_stayed() {
        let accesses = |count| (0..count).map(|step| Access { after: 7, gfn: step * step % 61, write: step % 3 == 0 });
        for path in [Path::StopAndCopy, Path::Demand, Path::PreCopy, Path::PostCopy, Path::Hybrid] {
            let config = Config { demand_period: Some(1000), downtime_limit: 1000, ..Config::default() };
            let setting = Setting { path, config, bandwidth: 10_000_000, latency: 50, tick: 5 };
            let moved = migrate(&setting, memory(64, |gfn| gfn % 3 > 0), Box::new(accesses(2000))).unwrap();
            let mut stayed = Memory::new(memory(64, |gfn| gfn % 3 > 0));
            for access in accesses(2000).take(moved.accesses).filter(|access| access.write) {
                stayed.modify(access.gfn);
            }
            assert!(moved.memory == stayed.pages, "{path:?}");
            assert!(moved.accesses > 0, "{path:?}");
            assert_eq!(moved.destination.pages.twice, 0, "{path:?}");
        }
    }

    #[test]
    fn the_floor_has_a_header_for_each_run_of_zeroes_and_each_page_with_contents() {
        assert_eq!(floor(&memory(10, |gfn| gfn == 3 || gfn == 4)), 2 * (4096 + 8) + 2 * 8);
        assert_eq!(floor(&memory(5, |_| false)), 8);
    }
}
