use alloc::collections::{BTreeMap, BTreeSet};

use super::*;

/// The kernel's entry in every root, with and without the accessed bit.
const KERNEL: u64 = 0x0123_4000 | 0x43;
const STACK: u64 = 0x0777_7000 | 0x67;

/// A guest's kernel on one CPU: it makes, switches and ends address spaces as Linux does.
struct Guest {
    frames: BTreeMap<u64, BTreeMap<usize, u64>>,
    written: BTreeSet<u64>,
    table: ProcessTable,
    cr3: u64,
    seen: Changes,
}

impl GuestRoots for Guest {
    fn written_since_begin(&mut self, gfn: u64) -> bool {
        self.written.contains(&gfn)
    }

    fn entry(&mut self, gfn: u64, index: usize) -> Option<u64> {
        let frame = self.frames.get(&gfn)?;
        Some(frame.get(&index).copied().unwrap_or(0))
    }
}

impl Guest {
    /// A guest whose processes, in these frames, existed before the watch began; the first one runs.
    fn with_old(frames: &[u64]) -> Self {
        Self::with_table(ProcessTable::new(false), frames)
    }

    fn with_table(table: ProcessTable, frames: &[u64]) -> Self {
        let mut guest = Self {
            frames: BTreeMap::new(),
            written: BTreeSet::new(),
            table,
            cr3: frames[0] << 12,
            seen: Changes::default(),
        };
        for &frame in frames {
            guest.make(frame);
        }
        guest.written.clear();
        let running = guest.cr3;
        guest.with(|table, guest| {
            table.begin(&[running], guest);
            Changes::default()
        });
        guest
    }

    fn with(&mut self, call: impl FnOnce(&mut ProcessTable, &mut Self) -> Changes) {
        let mut table = core::mem::replace(&mut self.table, ProcessTable::new(false));
        let changes = call(&mut table, self);
        self.table = table;
        self.seen.births += changes.births;
        self.seen.deaths += changes.deaths;
    }

    fn write(&mut self, frame: u64, index: usize, entry: u64) {
        self.frames.entry(frame).or_default().insert(index, entry);
        self.written.insert(frame);
    }

    /// Fills a new root.
    fn make(&mut self, frame: u64) {
        self.frames.remove(&frame);
        self.write(frame, KERNEL_ENTRY, KERNEL);
        self.write(frame, 255, STACK);
    }

    /// Tears down the user half of a root; the frame is free then.
    fn tear_down(&mut self, frame: u64) {
        self.write(frame, 255, 0);
    }

    /// The kernel takes a free frame for something else.
    fn reuse_for_data(&mut self, frame: u64) {
        for index in 0..512 {
            self.write(frame, index, 0x5555_5555_5555_5555);
        }
    }

    fn load_cr3(&mut self, cr3: u64) {
        let old = core::mem::replace(&mut self.cr3, cr3);
        self.with(|table, guest| table.cr3_load(old, cr3, guest));
        // The walks of the processor mark the tables that are in use (SDM vol. 3, section 29.3.5).
        let gfn = (cr3 & ADDRESS) >> 12;
        self.written.insert(gfn);
        if let Some(kernel) = self.frames.get_mut(&gfn).and_then(|f| f.get_mut(&KERNEL_ENTRY)) {
            *kernel |= 0x20;
        }
    }

    fn switch_to(&mut self, frame: u64) {
        self.load_cr3(frame << 12);
    }

    fn fork(&mut self, child: u64) {
        self.make(child);
        self.switch_to(child);
    }

    /// The new root is loaded before the old one is torn down.
    fn exec(&mut self, new: u64) {
        let old = self.cr3 >> 12;
        self.make(new);
        self.switch_to(new);
        self.tear_down(old);
    }

    /// A process is torn down while its root is still loaded.
    fn exit_to(&mut self, next: u64) {
        self.tear_down(self.cr3 >> 12);
        self.switch_to(next);
    }

    fn swept(&mut self) -> (u64, u64) {
        self.with(ProcessTable::sweep);
        (self.seen.births, self.seen.deaths)
    }
}

#[test]
fn switching_among_old_processes_changes_nothing() {
    let mut guest = Guest::with_old(&[1, 2, 3]);
    for round in 0..100 {
        guest.switch_to([1, 2, 3][round % 3]);
        if round % 10 == 0 {
            assert_eq!(guest.swept(), (0, 0));
        }
    }
    assert_eq!(guest.swept(), (0, 0));
}

#[test]
fn a_fork_is_one_birth_and_its_exit_one_death() {
    let mut guest = Guest::with_old(&[1]);
    guest.fork(2);
    guest.switch_to(1);
    guest.switch_to(2);
    assert_eq!((guest.seen.births, guest.seen.deaths), (1, 0));
    guest.exit_to(1);
    assert_eq!((guest.seen.births, guest.seen.deaths), (1, 1));
    assert_eq!(guest.swept(), (1, 1));
}

#[test]
fn the_birth_of_a_process_that_runs_on_shows_at_the_sweep() {
    let mut guest = Guest::with_old(&[1]);
    guest.fork(2);
    assert_eq!(guest.swept(), (1, 0));
    assert_eq!(guest.swept(), (1, 0));
}

#[test]
fn fork_then_exec_then_exit_is_one_birth_and_one_death() {
    let mut guest = Guest::with_old(&[1]);
    guest.fork(2);
    guest.switch_to(1);
    guest.switch_to(2);
    guest.exec(3);
    guest.exit_to(1);
    assert_eq!(guest.swept(), (1, 1));
}

#[test]
fn an_exec_is_told_although_the_old_frame_was_put_to_use_at_once() {
    let mut guest = Guest::with_old(&[1]);
    guest.fork(2);
    guest.exec(3);
    guest.reuse_for_data(2);
    guest.switch_to(1);
    guest.switch_to(3);
    assert_eq!(guest.swept(), (1, 0));
}

#[test]
fn a_fork_into_the_frame_that_an_exec_freed_is_counted() {
    let mut guest = Guest::with_old(&[1]);
    guest.fork(2);
    guest.exec(3);
    guest.fork(2);
    guest.exit_to(3);
    guest.exit_to(1);
    assert_eq!(guest.swept(), (2, 2));
}

#[test]
fn an_exec_of_an_old_process_changes_nothing() {
    let mut guest = Guest::with_old(&[1, 2]);
    guest.exec(3);
    guest.switch_to(2);
    assert_eq!(guest.swept(), (0, 0));
}

#[test]
fn an_exec_in_the_parents_address_space_is_one_birth() {
    // vfork: the child runs on the parent's root until it loads its own.
    let mut guest = Guest::with_old(&[1]);
    guest.make(2);
    guest.switch_to(2);
    guest.switch_to(1);
    assert_eq!(guest.swept(), (1, 0));
}

#[test]
fn an_exit_right_before_a_first_run_is_a_death_and_a_birth() {
    let mut guest = Guest::with_old(&[1, 2]);
    guest.switch_to(2);
    guest.make(3);
    guest.exit_to(3);
    assert_eq!((guest.seen.births, guest.seen.deaths), (1, 1));
}

#[test]
fn the_exit_of_an_old_process_is_a_death() {
    let mut guest = Guest::with_old(&[1, 2]);
    guest.exit_to(2);
    assert_eq!(guest.swept(), (0, 1));
}

#[test]
fn a_frame_that_serves_again_is_a_new_birth() {
    let mut guest = Guest::with_old(&[1]);
    for round in 1..=50 {
        guest.fork(2);
        guest.exit_to(1);
        assert_eq!((guest.seen.births, guest.seen.deaths), (round, round));
    }
    assert_eq!(guest.swept(), (50, 50));
}

#[test]
fn a_storm_of_fork_and_exec_counts_each_process_once() {
    let mut guest = Guest::with_old(&[1]);
    for round in 0..200 {
        let free = 10 + round % 7 * 2;
        guest.fork(free);
        guest.exec(free + 1);
        guest.exit_to(1);
        if round % 9 == 0 {
            guest.swept();
        }
    }
    assert_eq!(guest.swept(), (200, 200));
}

/// A small generator (Numerical Recipes' constants), so that a run can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & 0xFFFF_FFFF;
        usize::try_from(self.0 >> 8).expect("24 bits") % sides
    }
}

/// More than so many in a row, with no other load between, look like switches to and fro: they take
/// the same two frames by turns.
const MOST_EXECS: usize = 2;

#[test]
fn whatever_processes_do_the_counts_are_the_guests_own() {
    for seed in 0..500 {
        let mut dice = Dice(seed);
        let mut guest = Guest::with_old(&[1, 2, 3]);
        // Frames are handed out last freed first, as Linux does.
        let mut free: alloc::vec::Vec<u64> = (4..40).rev().collect();
        let (mut alive, mut truth) = (alloc::vec![1_u64, 2, 3], (0, 0));
        let mut execs = 0;
        for _ in 0..60 {
            let running = guest.cr3 >> 12;
            let other = alive[dice.roll(alive.len())];
            match dice.roll(5) {
                0 if alive.len() < 20 => {
                    let child = free.pop().expect("a frame");
                    guest.fork(child);
                    alive.push(child);
                    truth.0 += 1;
                }
                1 if execs < MOST_EXECS => {
                    execs += 1;
                    let new = free.pop().expect("a frame");
                    guest.exec(new);
                    free.push(running);
                    alive.retain(|&root| root != running);
                    alive.push(new);
                }
                2 if other != running => {
                    guest.exit_to(other);
                    free.push(running);
                    alive.retain(|&root| root != running);
                    truth.1 += 1;
                }
                3 => assert_eq!(guest.swept(), truth, "seed {seed}"),
                _ => guest.switch_to(other),
            }
            if guest.cr3 >> 12 == other {
                execs = 0;
            }
        }
        assert_eq!(guest.swept(), truth, "seed {seed}");
    }
}

#[test]
fn a_death_that_no_load_shows_is_found_by_the_sweep() {
    let mut guest = Guest::with_old(&[1, 2, 3]);
    guest.switch_to(2);
    guest.switch_to(1);
    guest.tear_down(2);
    assert_eq!(guest.swept(), (0, 1));
}

#[test]
fn a_death_soon_after_it_was_left_shows_before_its_frame_serves_again() {
    let mut guest = Guest::with_old(&[1, 2, 3]);
    guest.switch_to(2);
    guest.switch_to(1);
    guest.tear_down(2);
    guest.switch_to(3);
    guest.fork(2);
    assert_eq!(guest.swept(), (1, 1));
}

#[test]
fn the_kernels_own_root_is_no_process() {
    let mut guest = Guest::with_old(&[1]);
    guest.write(9, KERNEL_ENTRY, KERNEL);
    for _ in 0..10 {
        guest.switch_to(9);
        guest.switch_to(1);
    }
    assert_eq!(guest.swept(), (0, 0));
}

#[test]
fn variants_of_cr3_are_one_process() {
    let mut guest = Guest::with_table(ProcessTable::new(true), &[2]);
    for flags in [0x1801, 0x8000_0000_0000_1000, 0x6000_0000_0000_0FFF, 0] {
        guest.load_cr3(2 << 12 | flags);
    }
    assert_eq!(guest.swept(), (0, 0));
}

#[test]
fn a_fork_under_kpti_is_one_birth() {
    let mut guest = Guest::with_table(ProcessTable::new(true), &[2]);
    guest.make(5);
    guest.fork(4);
    for cr3 in [5 << 12, 4 << 12, 5 << 12, 4 << 12, 2 << 12, 3 << 12] {
        guest.load_cr3(cr3);
    }
    assert_eq!(guest.swept(), (1, 0));
}

#[test]
fn a_full_table_says_so_and_counts_on_when_there_is_room() {
    let mut guest = Guest::with_old(&[1]);
    let last = 1 + u64::try_from(CAPACITY).expect("small");
    for frame in 2..=last {
        guest.fork(frame);
    }
    assert_eq!(guest.table.overflow(), 1);
    guest.switch_to(1);
    let room = u64::try_from(CAPACITY).expect("small") - 1;
    assert_eq!(guest.swept(), (room, 0));
    guest.tear_down(2);
    assert_eq!(guest.swept(), (room, 1));
    guest.fork(2);
    assert_eq!(guest.swept(), (room + 1, 1));
}

#[test]
fn roots_outside_of_memory_are_no_processes() {
    let mut guest = Guest::with_old(&[1]);
    for cr3 in [u64::MAX, 1 << 51, 0, 0x7FF] {
        guest.load_cr3(cr3);
    }
    assert_eq!(guest.swept(), (0, 0));
}

#[test]
fn a_restart_forgets_what_was_held_back() {
    let mut guest = Guest::with_old(&[1]);
    guest.fork(2);
    let running = guest.cr3;
    guest.with(|table, guest| {
        table.begin(&[running], guest);
        Changes::default()
    });
    assert_eq!(guest.swept(), (0, 0));
}
