//! What a harvest takes as the guest grows: the hypervisor's own code over real tables, on this machine.
//!
//! `cargo run --release --example harvest`. Between two harvests a guest writes some pages of some regions of 2 MiB; one in
//! every region makes the harvest look at every leaf. Times are the least of many, without INVEPT and without the exit of the
//! first write to a region that fell idle.
#![allow(missing_docs)]

use qavisor::vmx::{
    ept::tables::{Harvest, Tables, tables_for},
    tracker::Tracker,
};
use std::time::{Duration, Instant};

const ROUNDS: usize = 30;

fn main() {
    println!("{:>9}  {:<16}  {:<26} {:>12} {:>10}", "guest", "tracker", "written", "looked at", "harvest");
    for mib in [64, 256, 1024, 4096, 16384] {
        for tracker in Tracker::ALL {
            let mut guest = Guest::new(mib * 256, tracker);
            guest.row("nothing, unwatched", 0, 0);
            let start = Instant::now();
            let _ = guest.tables.split();
            let split = start.elapsed();
            guest.row("nothing", 0, 0);
            guest.row("400 in each of 10 regions", 400, 10);
            guest.row("4 in each of 1000 regions", 4, 1000);
            guest.row("1 in every region", 1, u64::MAX);
            let start = Instant::now();
            let _ = guest.tables.join();
            println!("{:>35}  split {split:?}, joined again {:?}", "", start.elapsed());
        }
    }
}

struct Guest {
    tables: Tables<Vec<u64>>,
    pages: u64,
    tracker: Tracker,
}

impl Guest {
    fn new(pages: usize, tracker: Tracker) -> Self {
        let memory = vec![0; tables_for(pages).unwrap_or_default() * 512];
        Self { tables: Tables::new(memory, 0, 0, pages, tracker, true), pages: pages as u64, tracker }
    }

    /// As the CPU would, which finds the tables at physical 0: a violation is handled, the flag set, the page logged.
    fn write(&mut self, gfn: u64) {
        const LARGE: u64 = 1 << 7;
        const DIRTY: u64 = 1 << 9;
        const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
        self.tables.written(gfn);
        if self.tracker == Tracker::PageModificationLog {
            self.tables.logged(gfn);
        }
        let memory = self.tables.memory();
        let mut table = 0;
        for level in (0..4).rev() {
            let place = &mut memory[(table / 8 + (gfn >> (9 * level) & 511)) as usize];
            if level == 0 || *place & LARGE != 0 {
                *place |= DIRTY;
                return;
            }
            table = *place & ADDRESS;
        }
    }

    /// Writes `each` pages in each of so many regions, or of all.
    fn row(&mut self, what: &str, each: u64, regions: u64) {
        let regions = regions.min(self.pages / 512);
        let (mut least, mut last) = (Duration::MAX, Harvest::default());
        for _ in 0..ROUNDS {
            (0..each * regions).for_each(|page| self.write(page % regions * 512 + page / regions));
            let mut found = 0;
            let start = Instant::now();
            last = self.tables.harvest(|gfn| found += gfn);
            least = least.min(start.elapsed());
            std::hint::black_box(found);
        }
        let guest = format!("{} MiB", self.pages / 256);
        println!("{guest:>9}  {:<16}  {what:<26} {:>12} {least:>10.1?}", self.tracker.text(), last.looked_at);
    }
}
