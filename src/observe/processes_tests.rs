use alloc::collections::{BTreeMap, BTreeSet};

use super::*;

/// The kernel's entry in every root.
const KERNEL: u64 = 0x0123_4000 | 0x63;
const KERNEL_ENTRY: usize = 511;
/// Present, writable, for user mode, accessed.
const TABLE: u64 = 0x27;
/// The kernel's copy of a user entry under page-table isolation may not be executed.
const NO_EXECUTE: u64 = 1 << 63;
const STACK: usize = 255;

/// A guest's kernel on one CPU: it makes, switches and ends address spaces as Linux does.
struct Guest {
    frames: BTreeMap<u64, BTreeMap<usize, u64>>,
    /// Handed out last freed first.
    free: Vec<u64>,
    written: BTreeSet<u64>,
    /// Each process has a second root beside the first.
    isolated: bool,
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

    fn user_half_is_empty(&mut self, gfn: u64) -> bool {
        self.frames.get(&gfn).is_none_or(|frame| frame.iter().all(|(index, entry)| *index > 255 || *entry == 0))
    }
}

impl Guest {
    /// A guest whose processes, with these roots, existed before the watch began; the first one runs.
    fn with_old(roots: &[u64]) -> Self {
        Self::new(roots, false)
    }

    fn new(roots: &[u64], isolated: bool) -> Self {
        let mut guest = Self {
            frames: BTreeMap::new(),
            free: (100_000..130_000).rev().collect(),
            written: BTreeSet::new(),
            isolated,
            table: ProcessTable::new(),
            cr3: roots[0] << 12,
            seen: Changes::default(),
        };
        for &root in roots {
            guest.make(root);
        }
        guest.begin();
        guest
    }

    fn begin(&mut self) {
        self.written.clear();
        let running = self.cr3;
        self.with(|table, guest| {
            table.begin(&[running], guest);
            Changes::default()
        });
    }

    fn with(&mut self, call: impl FnOnce(&mut ProcessTable, &mut Self) -> Changes) {
        let mut table = core::mem::take(&mut self.table);
        let changes = call(&mut table, self);
        self.table = table;
        self.seen.births += changes.births;
        self.seen.deaths += changes.deaths;
        self.seen.uncounted += changes.uncounted;
    }

    fn write(&mut self, frame: u64, index: usize, entry: u64) {
        self.frames.entry(frame).or_default().insert(index, entry);
        self.written.insert(frame);
    }

    fn take_frame(&mut self) -> u64 {
        let frame = self.free.pop().expect("a frame");
        self.frames.insert(frame, BTreeMap::new());
        frame
    }

    /// Puts a new chain of tables under one entry of a root.
    fn map(&mut self, root: u64, index: usize) {
        let third = self.take_frame();
        let second = self.take_frame();
        let first = self.take_frame();
        self.set_user(root, index, third << 12 | TABLE);
        self.write(third, STACK, second << 12 | TABLE);
        self.write(second, STACK, first << 12 | TABLE);
    }

    fn set_user(&mut self, root: u64, index: usize, entry: u64) {
        if self.isolated {
            self.write(root | 1, index, entry);
            self.write(root, index, if entry == 0 { 0 } else { entry | NO_EXECUTE });
        } else {
            self.write(root, index, entry);
        }
    }

    fn make_root(&mut self, root: u64) {
        self.frames.insert(root, BTreeMap::new());
        self.write(root, KERNEL_ENTRY, KERNEL);
        if self.isolated {
            self.frames.insert(root | 1, BTreeMap::new());
            self.write(root | 1, KERNEL_ENTRY, KERNEL + 0x7000);
        }
    }

    /// A root as a fork makes it.
    fn make(&mut self, root: u64) {
        self.make_root(root);
        self.map(root, 0);
        self.map(root, STACK);
    }

    /// Tears down the user half of a root: its frames are free then.
    fn tear_down(&mut self, root: u64) {
        let entries = self.frames.get(&root).cloned().unwrap_or_default();
        for (index, entry) in entries.range(..USER_ENTRIES) {
            let mut table = (entry & ADDRESS) >> 12;
            let mut chain = alloc::vec![];
            while table != 0 {
                chain.push(table);
                let below = self.frames.get(&table).and_then(|table| table.get(&STACK).copied());
                table = below.map_or(0, |entry| (entry & ADDRESS) >> 12);
            }
            self.free.extend(chain.into_iter().rev());
            self.set_user(root, *index, 0);
        }
    }

    fn load_cr3(&mut self, cr3: u64) {
        let old = core::mem::replace(&mut self.cr3, cr3);
        self.with(|table, guest| table.cr3_load(old, cr3, guest));
        // The walks of the processor mark the tables that are in use (SDM vol. 3, section 29.3.5).
        let gfn = (cr3 & ADDRESS) >> 12;
        self.written.insert(gfn);
        if let Some(kernel) = self.frames.get_mut(&gfn).and_then(|frame| frame.get_mut(&KERNEL_ENTRY)) {
            *kernel |= 0x20;
        }
    }

    fn switch_to(&mut self, root: u64) {
        self.load_cr3(root << 12);
        if self.isolated {
            // To user mode and back.
            self.load_cr3(root << 12 | 0x1801);
            self.load_cr3(root << 12 | 1);
        }
    }

    fn fork(&mut self, child: u64) {
        self.make(child);
        self.switch_to(child);
    }

    /// A new root with the arguments alone is loaded.
    fn begin_exec(&mut self, new: u64) {
        self.make_root(new);
        self.map(new, STACK);
        self.load_cr3(new << 12);
    }

    /// The new root is loaded before the old one is torn down; then the program is mapped.
    fn exec(&mut self, new: u64) {
        let old = self.running();
        self.begin_exec(new);
        self.tear_down(old);
        self.map(new, 0);
    }

    /// A process is torn down while its root is still loaded.
    fn exit_to(&mut self, next: u64) {
        self.tear_down(self.running());
        self.switch_to(next);
    }

    fn running(&self) -> u64 {
        self.cr3 >> 12
    }

    fn swept(&mut self) -> (u64, u64) {
        let running = self.cr3;
        self.with(|table, guest| table.sweep(&[running], guest));
        (self.seen.births, self.seen.deaths)
    }

    fn finished(&mut self) -> (u64, u64) {
        self.swept();
        self.with(|table, _| table.finish());
        (self.seen.births, self.seen.deaths)
    }
}

#[test]
fn switching_among_old_processes_changes_nothing() {
    let mut guest = Guest::with_old(&[2, 4, 6]);
    for round in 0..100 {
        guest.switch_to([2, 4, 6][round % 3]);
        if round % 10 == 0 {
            assert_eq!(guest.swept(), (0, 0));
        }
    }
    assert_eq!(guest.finished(), (0, 0));
}

#[test]
fn a_fork_is_one_birth_and_its_exit_one_death() {
    let mut guest = Guest::with_old(&[2]);
    guest.fork(4);
    assert_eq!((guest.seen.births, guest.seen.deaths), (1, 0));
    guest.switch_to(2);
    guest.switch_to(4);
    guest.exit_to(2);
    assert_eq!((guest.seen.births, guest.seen.deaths), (1, 1));
    assert_eq!(guest.finished(), (1, 1));
}

#[test]
fn fork_then_exec_then_exit_is_one_birth_and_one_death() {
    let mut guest = Guest::with_old(&[2]);
    guest.fork(4);
    guest.switch_to(2);
    guest.switch_to(4);
    guest.exec(6);
    guest.exit_to(2);
    assert_eq!(guest.finished(), (1, 1));
}

#[test]
fn an_exec_of_an_old_process_changes_nothing() {
    let mut guest = Guest::with_old(&[2, 4]);
    guest.exec(6);
    guest.switch_to(4);
    assert_eq!(guest.finished(), (0, 0));
}

#[test]
fn execs_that_take_the_same_two_frames_by_turns_are_one_process() {
    let mut guest = Guest::with_old(&[2]);
    guest.fork(4);
    for round in 0..10 {
        guest.exec(if round % 2 == 0 { 6 } else { 4 });
    }
    guest.exit_to(2);
    assert_eq!(guest.finished(), (1, 1));
}

#[test]
fn an_exec_that_is_preempted_before_the_old_root_is_torn_down_is_told() {
    let mut guest = Guest::with_old(&[2, 4]);
    guest.fork(6);
    guest.begin_exec(8);
    guest.switch_to(4);
    assert_eq!(guest.swept(), (1, 0));
    guest.switch_to(8);
    guest.tear_down(6);
    guest.map(8, 0);
    guest.exit_to(2);
    assert_eq!(guest.finished(), (1, 1));
}

#[test]
fn a_vfork_and_its_exec_are_one_birth() {
    // The child runs on the parent's root until it loads its own.
    let mut guest = Guest::with_old(&[2]);
    guest.begin_exec(4);
    guest.map(4, 0);
    guest.switch_to(2);
    assert_eq!((guest.seen.births, guest.seen.deaths), (1, 0));
    guest.switch_to(4);
    guest.exit_to(2);
    assert_eq!(guest.finished(), (1, 1));
}

#[test]
fn a_vfork_whose_child_ends_before_the_parent_runs_is_one_birth_and_one_death() {
    let mut guest = Guest::with_old(&[2, 4]);
    guest.begin_exec(6);
    guest.map(6, 0);
    guest.exit_to(4);
    assert_eq!((guest.seen.births, guest.seen.deaths), (1, 1));
    guest.switch_to(2);
    assert_eq!(guest.finished(), (1, 1));
}

#[test]
fn what_is_open_when_the_watch_ends_counts_as_born() {
    let mut guest = Guest::with_old(&[2]);
    guest.begin_exec(4);
    guest.map(4, 0);
    assert_eq!(guest.finished(), (1, 0));
}

#[test]
fn an_exit_right_before_a_first_run_is_a_death_and_a_birth() {
    let mut guest = Guest::with_old(&[2, 4]);
    guest.switch_to(4);
    guest.make(6);
    guest.exit_to(6);
    assert_eq!((guest.seen.births, guest.seen.deaths), (1, 1));
}

#[test]
fn the_exit_of_an_old_process_is_a_death() {
    let mut guest = Guest::with_old(&[2, 4]);
    guest.exit_to(4);
    assert_eq!(guest.finished(), (0, 1));
}

#[test]
fn a_frame_that_serves_again_is_a_new_birth() {
    let mut guest = Guest::with_old(&[2]);
    for round in 1..=50 {
        guest.fork(4);
        guest.exit_to(2);
        assert_eq!((guest.seen.births, guest.seen.deaths), (round, round));
    }
}

#[test]
fn a_process_that_is_preempted_while_it_ends_is_told_from_the_next_in_its_frame() {
    let mut guest = Guest::with_old(&[2]);
    for _ in 0..50 {
        guest.fork(4);
        guest.switch_to(2);
        // It goes on without an address space of its own: no load shows it.
        guest.tear_down(4);
    }
    assert_eq!(guest.finished(), (50, 50));
}

#[test]
fn a_death_that_no_load_shows_is_found_by_the_sweep() {
    let mut guest = Guest::with_old(&[2, 4]);
    guest.switch_to(4);
    guest.switch_to(2);
    guest.tear_down(4);
    assert_eq!(guest.swept(), (0, 1));
}

#[test]
fn a_dead_root_that_the_idle_kernel_keeps_loaded_is_found_by_the_sweep() {
    let mut guest = Guest::with_old(&[2]);
    guest.fork(4);
    guest.tear_down(4);
    assert_eq!(guest.swept(), (1, 1));
    guest.switch_to(2);
    assert_eq!(guest.finished(), (1, 1));
}

#[test]
fn a_process_that_maps_more_while_it_runs_lives_on() {
    let mut guest = Guest::with_old(&[2]);
    guest.fork(4);
    guest.map(4, 7);
    guest.set_user(4, 0, 0);
    assert_eq!(guest.swept(), (1, 0));
    guest.switch_to(2);
    guest.switch_to(4);
    assert_eq!(guest.finished(), (1, 0));
}

#[test]
fn the_kernels_own_roots_are_no_processes() {
    let mut guest = Guest::with_old(&[2]);
    guest.write(9, KERNEL_ENTRY, KERNEL);
    // An identity map, as a kernel starts on: present, and not for user mode.
    guest.write(11, 0, 0x5000 | 0x63);
    for _ in 0..10 {
        for root in [9, 11, 2] {
            guest.switch_to(root);
        }
    }
    assert_eq!(guest.finished(), (0, 0));
}

#[test]
fn variants_of_cr3_are_one_process() {
    let mut guest = Guest::with_old(&[2]);
    for flags in [0x801, 0x8000_0000_0000_0000, 0x6000_0000_0000_0FFF, 0] {
        guest.load_cr3(2 << 12 | flags);
    }
    assert_eq!(guest.finished(), (0, 0));
}

#[test]
fn the_two_roots_of_page_table_isolation_are_one_process() {
    let mut guest = Guest::new(&[2], true);
    guest.fork(4);
    for cr3 in [5 << 12 | 0x801, 4 << 12, 5 << 12, 4 << 12, 2 << 12, 3 << 12] {
        guest.load_cr3(cr3);
    }
    assert_eq!(guest.finished(), (1, 0));
}

#[test]
fn a_process_switches_between_its_own_values_of_cr3() {
    let mut guest = Guest::new(&[2], true);
    guest.fork(4);
    let keep = 1 << 63;
    let values = own_values(4 << 12 | 3 | keep, true, &mut guest);
    assert_eq!(values, [0x4003 | keep, 0x5803 | keep, 0x4003, 0x5803]);
    assert_eq!(own_values(5 << 12 | 0x803, true, &mut guest), values);
    assert_eq!(own_values(4 << 12, false, &mut guest), [0x4000, 0x5000, 0x4000, 0x5000]);
}

#[test]
fn without_isolation_a_process_has_one_root() {
    let mut guest = Guest::with_old(&[2]);
    guest.fork(4);
    guest.fork(5);
    let keep = 1 << 63;
    assert_eq!(own_values(4 << 12 | 3, true, &mut guest), [0x4003 | keep, 0x4003 | keep, 0x4003, 0x4003]);
    assert_eq!(own_values(5 << 12, false, &mut guest), [0x5000; 4]);
    assert_eq!(own_values(u64::MAX, false, &mut guest), [!keep; 4]);
}

#[test]
fn neighbouring_roots_without_isolation_are_two_processes() {
    let mut guest = Guest::with_old(&[2]);
    guest.fork(4);
    guest.fork(5);
    guest.exit_to(4);
    guest.exit_to(2);
    assert_eq!(guest.finished(), (2, 2));
}

#[test]
fn a_full_table_says_so_and_counts_on_when_there_is_room() {
    let mut guest = Guest::with_old(&[2]);
    let capacity = u64::try_from(CAPACITY).expect("small");
    for process in 2..=capacity + 1 {
        guest.fork(process * 2);
    }
    assert_eq!(guest.seen.uncounted, 1);
    guest.switch_to(2);
    assert_eq!(guest.swept(), (capacity - 1, 0));
    guest.tear_down(4);
    assert_eq!(guest.swept(), (capacity - 1, 1));
    guest.fork(4);
    assert_eq!(guest.swept(), (capacity, 1));
}

#[test]
fn roots_outside_of_memory_are_no_processes() {
    let mut guest = Guest::with_old(&[2]);
    for cr3 in [u64::MAX, 1 << 51, 0, 0x7FF] {
        guest.load_cr3(cr3);
    }
    assert_eq!(guest.finished(), (0, 0));
}

#[test]
fn tables_that_lead_in_circles_are_bounded_work() {
    let mut guest = Guest::with_old(&[2]);
    for index in 0..USER_ENTRIES {
        guest.write(4, index, 4 << 12 | TABLE);
    }
    guest.switch_to(4);
    assert_eq!(guest.finished(), (1, 0));
}

#[test]
fn a_restart_forgets_what_was_open() {
    let mut guest = Guest::with_old(&[2]);
    guest.begin_exec(4);
    guest.begin();
    assert_eq!(guest.finished(), (0, 0));
}

/// A small generator (Numerical Recipes' constants), so that a run can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & 0xFFFF_FFFF;
        usize::try_from(self.0 >> 8).expect("24 bits") % sides
    }
}

#[test]
fn whatever_processes_do_the_counts_are_the_guests_own() {
    for seed in 0..1000 {
        let isolated = seed % 2 == 1;
        let mut dice = Dice(seed);
        let mut guest = Guest::new(&[2, 4, 6], isolated);
        let mut free: Vec<u64> = (4..40).rev().map(|root| root * 2).collect();
        let (mut alive, mut truth) = (alloc::vec![2_u64, 4, 6], (0, 0));
        for _ in 0..80 {
            let running = guest.running();
            let other = alive[dice.roll(alive.len())];
            match dice.roll(8) {
                0 | 1 if alive.len() < 20 => {
                    let child = free.pop().expect("a root");
                    guest.fork(child);
                    alive.push(child);
                    truth.0 += 1;
                }
                2 => {
                    let new = free.pop().expect("a root");
                    guest.exec(new);
                    free.push(running);
                    alive.retain(|&root| root != running);
                    alive.push(new);
                }
                3 if alive.len() < 20 => {
                    let new = free.pop().expect("a root");
                    guest.begin_exec(new);
                    guest.map(new, 0);
                    guest.switch_to(running);
                    alive.push(new);
                    truth.0 += 1;
                }
                4 if other != running => {
                    guest.exit_to(other);
                    free.push(running);
                    alive.retain(|&root| root != running);
                    truth.1 += 1;
                }
                5 if other != running => {
                    guest.switch_to(other);
                    guest.tear_down(running);
                    free.push(running);
                    alive.retain(|&root| root != running);
                    truth.1 += 1;
                }
                6 => {
                    guest.swept();
                }
                _ => guest.switch_to(other),
            }
        }
        assert_eq!(guest.finished(), truth, "seed {seed}");
    }
}
