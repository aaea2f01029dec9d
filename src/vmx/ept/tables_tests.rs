use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};

const BASE: u64 = 0x10_0000;
const HOST: u64 = 1 << 40;
const REGION: u64 = ENTRIES as u64;

/// What a CPU has cached of a page: its translation, and what the entry said when it was walked.
#[derive(Clone, Copy)]
struct Cached {
    host: u64,
    writable: bool,
    dirty: bool,
}

/// The tables, and a CPU that walks them as the manual says and caches all that it is allowed to cache.
struct Machine {
    tables: Tables<Vec<u64>>,
    cached: HashMap<u64, Cached>,
    log: Vec<u64>,
    violations: usize,
    invalidations: usize,
}

impl Machine {
    fn new(pages: usize, tracker: Tracker) -> Self {
        let memory = vec![0; tables_for(pages).unwrap() * ENTRIES];
        let tables = Tables::new(memory, BASE, HOST, pages, tracker, true);
        Self { tables, cached: HashMap::new(), log: Vec::new(), violations: 0, invalidations: 0 }
    }

    fn entry(&mut self, table: u64, index: u64) -> &mut u64 {
        let at = (table - BASE) / 8 + index;
        &mut self.tables.memory[usize::try_from(at).unwrap()]
    }

    /// The guest writes to a page. False: it has none of the rights there.
    fn write(&mut self, gfn: u64) -> bool {
        if let Some(Cached { host, writable: true, dirty: true }) = self.cached.get(&gfn) {
            assert_eq!(*host, HOST + gfn * 4096, "a stale translation leads elsewhere");
            return true;
        }
        for _ in 0..2 {
            let Some(cached) = self.walk(gfn) else { return false };
            self.cached.insert(gfn, cached);
            if cached.writable {
                assert_eq!(cached.host, HOST + gfn * 4096);
                return true;
            }
            // An EPT violation drops what is cached of the page.
            self.violations += 1;
            self.cached.remove(&gfn);
            assert!(self.tables.written(gfn), "a violation that nothing explains");
        }
        panic!("page {gfn} stays read-only")
    }

    /// Walks for a write: what may be cached then.
    fn walk(&mut self, gfn: u64) -> Option<Cached> {
        let mut rights = RIGHTS;
        let (mut table, mut page_mask) = (BASE, 0);
        let mut at = (0, 0);
        for level in (0..4u32).rev() {
            at = (table, gfn >> (9 * level) & 511);
            let entry = *self.entry(at.0, at.1);
            rights &= entry;
            if entry & RIGHTS == 0 {
                return None;
            }
            assert!(entry & READ != 0, "write without read is a misconfiguration");
            table = entry & ADDRESS;
            if level == 1 && entry & LARGE != 0 {
                assert_eq!(table % REGION_SIZE, 0, "a large leaf that is not aligned is a misconfiguration");
                page_mask = REGION - 1;
                break;
            }
        }
        let writable = rights & WRITE != 0;
        let flags = self.tables.tracker != Tracker::WriteProtection;
        let leaf = self.entry(at.0, at.1);
        if writable && flags && *leaf & DIRTY == 0 {
            *leaf |= DIRTY;
            if self.tables.tracker == Tracker::PageModificationLog {
                self.log.push(gfn);
            }
        }
        Some(Cached { host: table + (gfn & page_mask) * 4096, writable, dirty: writable })
    }

    fn take_log(&mut self) {
        for gfn in self.log.drain(..) {
            self.tables.logged(gfn);
        }
    }

    fn invalidate_if(&mut self, stale: bool) {
        if stale {
            self.cached.clear();
            self.invalidations += 1;
        }
    }

    fn harvest(&mut self) -> (BTreeSet<u64>, Harvest) {
        self.take_log();
        let mut found = BTreeSet::new();
        let harvest = self.tables.harvest(|gfn| assert!(found.insert(gfn), "{gfn} is found twice"));
        assert_eq!(harvest.pages, found.len() as u64);
        self.invalidate_if(harvest.stale);
        (found, harvest)
    }

    fn split(&mut self) {
        self.take_log();
        let changed = self.tables.split();
        self.invalidate_if(changed);
    }

    fn join(&mut self) {
        self.take_log();
        let changed = self.tables.join();
        self.invalidate_if(changed);
    }

    fn regions(&self) -> u64 {
        self.tables.pages.div_ceil(ENTRIES) as u64
    }
}

fn trackers() -> impl Strategy<Value = Tracker> {
    proptest::sample::select(Tracker::ALL.to_vec())
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64),
    Harvest(u8),
    Split,
    Join,
    Revoke(u64),
    Grant(u64),
}

const PAGES: u64 = 4 * REGION + 100;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Writes that come near each other and far from each other.
    let page = prop_oneof![0..PAGES, 0..40u64, (0..5u64).prop_map(|region| region * REGION)];
    let step = prop_oneof![
        12 => page.clone().prop_map(Step::Write),
        3 => (1..2 * PATIENCE).prop_map(Step::Harvest),
        1 => Just(Step::Split),
        1 => Just(Step::Join),
        1 => page.clone().prop_map(Step::Revoke),
        2 => page.prop_map(Step::Grant),
    ];
    proptest::collection::vec(step, 1..150)
}

proptest! {
    /// Whatever the order of writes, harvests, splits and joins: under tables a harvest finds exactly the pages written, under
    /// large leaves exactly their regions; and what was written under large leaves shows as whole regions once they are split.
    #[test]
    fn a_harvest_finds_what_was_written_and_nothing_else(tracker in trackers(), steps in steps()) {
        let mut machine = Machine::new(PAGES as usize, tracker);
        let (mut written, mut missing) = (BTreeSet::new(), BTreeSet::new());
        let whole = |gfn: u64| gfn / REGION < PAGES / REGION;
        for step in steps {
            match step {
                Step::Write(gfn) => {
                    prop_assert_eq!(machine.write(gfn), !missing.contains(&gfn));
                    if !missing.contains(&gfn) {
                        written.insert(gfn);
                        prop_assert!(machine.tables.is_dirty(gfn));
                    }
                }
                Step::Harvest(times) => {
                    for _ in 0..times {
                        let (found, harvest) = machine.harvest();
                        let by_region = |gfn: &u64| machine.tables.large && whole(*gfn);
                        let regions: BTreeSet<u64> = written.iter().filter(|gfn| by_region(gfn)).map(|gfn| gfn / REGION).collect();
                        written.retain(|gfn| !by_region(gfn));
                        prop_assert_eq!(&found, &written);
                        prop_assert_eq!(harvest.regions, regions.len() as u64);
                        written.clear();
                    }
                }
                Step::Split => {
                    if machine.tables.large {
                        let regions: BTreeSet<u64> = written.iter().filter(|gfn| whole(**gfn)).map(|gfn| gfn / REGION).collect();
                        written.extend(regions.iter().flat_map(|region| region * REGION..(region + 1) * REGION));
                    }
                    machine.split();
                }
                Step::Join => machine.join(),
                Step::Revoke(gfn) => {
                    // Harvested and split first, as before a post-copy.
                    machine.harvest();
                    written.clear();
                    machine.split();
                    let mut pages = Bitmap::new(PAGES);
                    pages.set(gfn);
                    let changed = machine.tables.revoke(&pages);
                    machine.invalidate_if(changed);
                    missing.insert(gfn);
                }
                Step::Grant(gfn) => {
                    machine.tables.grant(gfn);
                    missing.remove(&gfn);
                }
            }
            prop_assert!(!machine.tables.large || missing.is_empty());
        }
    }

    /// The tables come back as they were, but for flags that moved up.
    #[test]
    fn splitting_what_was_joined_changes_nothing(
        tracker in trackers(),
        pages in 1..PAGES,
        writes in proptest::collection::vec(0..PAGES, 0..50),
    ) {
        let mut machine = Machine::new(pages as usize, tracker);
        machine.split();
        for gfn in &writes {
            if *gfn < pages { machine.write(*gfn); }
        }
        machine.harvest();
        let fine = machine.tables.memory.clone();
        machine.join();
        let large = machine.tables.memory.clone();
        machine.split();
        prop_assert_eq!(&machine.tables.memory, &fine);
        machine.join();
        prop_assert_eq!(&machine.tables.memory, &large);
        prop_assert_eq!(large == fine, pages < REGION, "a whole region has a large leaf");
    }

    /// What a harvest looks at depends on the regions written lately, not on the size of the guest.
    #[test]
    fn a_harvest_looks_at_what_was_touched(
        tracker in trackers(),
        writes in proptest::collection::btree_set(0u64..16_384, 0..200),
    ) {
        let mut machine = Machine::new(16_384, tracker);
        machine.split();
        for gfn in &writes { machine.write(*gfn); }
        let touched = writes.iter().map(|gfn| gfn / REGION).collect::<BTreeSet<_>>().len() as u64;
        let (_, harvest) = machine.harvest();
        let each = if tracker == Tracker::PageModificationLog { REGION / 64 } else { REGION };
        prop_assert_eq!(harvest.looked_at, touched * each);
        for _ in 0..PATIENCE { machine.harvest(); }
        let (_, idle) = machine.harvest();
        prop_assert_eq!(idle, Harvest::default(), "nothing to look at, nothing to invalidate");
    }
}

/// The same guest in memories of 64 MiB to 16 GiB: the same cost, but for one entry a region while nobody watches.
#[test]
fn the_cost_does_not_grow_with_the_guest() {
    for tracker in Tracker::ALL {
        let mut costs = BTreeMap::new();
        for mib in [64, 256, 1024, 4096, 16384] {
            let mut machine = Machine::new(mib * 256, tracker);
            let (_, unwatched) = machine.harvest();
            assert_eq!(unwatched, Harvest { looked_at: machine.regions(), ..Harvest::default() });
            machine.split();
            let (mut cost, mut written) = (Vec::new(), 0);
            for round in 0..20 {
                // 100 pages in 4 regions all the time, and 300 in 30 others in the first rounds.
                (0..100).for_each(|page| assert!(machine.write(page % 4 * REGION + page)));
                if round < 3 {
                    (0..300).for_each(|page| assert!(machine.write((page % 30 + 1) * REGION + page)));
                }
                let (_, harvest) = machine.harvest();
                cost.push((harvest.looked_at, harvest.pages));
                written += harvest.pages;
            }
            let violations = match tracker {
                Tracker::DirtyBits => 31, // one a region
                Tracker::PageModificationLog => 0,
                Tracker::WriteProtection => written, // and no other for the region
            };
            assert_eq!(machine.violations as u64, violations, "{tracker:?}");
            costs.insert(mib, cost);
        }
        let least = costs[&64].clone();
        assert!(least.last().unwrap().0 <= 4 * REGION, "{least:?}");
        assert!(costs.values().all(|cost| *cost == least), "{tracker:?}: {costs:?}");
    }
}

/// A region is closed only once, however long it stays idle, and opens at one violation.
#[test]
fn an_idle_region_costs_one_violation_when_it_wakes() {
    let mut machine = Machine::new(4 * ENTRIES, Tracker::DirtyBits);
    machine.split();
    for idle in [1, PATIENCE, 100] {
        (0..10).for_each(|page| assert!(machine.write(REGION + page)));
        machine.harvest();
        let (violations, invalidations) = (machine.violations, machine.invalidations);
        (0..idle).for_each(|_| assert!(machine.harvest().0.is_empty()));
        let closed = idle >= PATIENCE;
        assert_eq!(machine.invalidations - invalidations, usize::from(closed));
        (0..10).for_each(|page| assert!(machine.write(REGION + page)));
        assert_eq!(machine.violations - violations, usize::from(closed));
        assert_eq!(machine.harvest().0.len(), 10);
    }
}

#[test]
fn a_page_outside_the_guest_is_no_page() {
    for tracker in Tracker::ALL {
        let mut machine = Machine::new(100, tracker);
        for gfn in [100, 511, 512, u64::MAX] {
            assert!(!machine.tables.written(gfn) && !machine.tables.is_dirty(gfn));
            machine.tables.logged(gfn);
            machine.tables.grant(gfn);
            assert!(machine.harvest().0.is_empty(), "{gfn}");
        }
    }
    assert!(tables_for(512 * 512 * 512 + 1).is_err());
}
