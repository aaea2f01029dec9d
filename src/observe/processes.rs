//! Births and deaths of processes, told from the roots of the guest's page tables.
//!
//! A process is an address space, and an address space is the frame of its root table, which the guest
//! loads into CR3 (Antfarm, USENIX ATC 2006). A root that is loaded for the first time is a birth if the
//! root page was written since the watch began: the guest's kernel fills it when it makes the process,
//! while the processor marks the tables that it walks only once they are loaded. The death is the teardown:
//! the kernel clears the user half of the root before it frees the frame.
//!
//! A frame serves again soon, and a process that is preempted while it ends is torn down after its root was
//! left. So each root is remembered with two of its entries: they change in no living process that does not run.
//!
//! An `exec` replaces the address space of a process that lives on. Its new root is told by what it maps when it is
//! loaded: the arguments at the top of the stack and nothing else, in a single table, where a forked one has all that
//! its parent wrote. The old root then dies, unless the process had shared its parent's (`vfork`): then it is born now.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// Roots that are watched at most.
pub const CAPACITY: usize = 4096;
/// Replacements that are kept open at most; the oldest then counts as a birth.
const OPEN: usize = 64;

/// Address bits of CR3 and of a table's entry: 51 to 12 (SDM vol. 3, section 4.5). What lies outside of
/// them in CR3 are PCID or PWT/PCD, the LAM bits 62 and 61, and bit 63, which asks to keep the TLB.
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// The present bit of an entry, and the one that lets user mode through. A kernel's own identity map has the first alone.
const USER: u64 = 1 | 1 << 2;
/// Entries 0 to 255 of a root map the lower half of the address space, the user's.
const USER_ENTRIES: usize = 256;

/// What the table needs to know of the guest's memory. A frame number comes from the guest and may lie
/// anywhere.
pub trait GuestRoots {
    /// Whether the frame was written since [`ProcessTable::begin`], by any harvest or any flag not yet
    /// harvested. False for a frame outside of the guest's memory.
    fn written_since_begin(&mut self, gfn: u64) -> bool;

    /// Entry `index` (0 to 511) of the frame taken as a table; nothing outside of the guest's memory.
    fn entry(&mut self, gfn: u64, index: usize) -> Option<u64>;

    /// Whether the lower half of the frame taken as a table, the user's, is all zero: as if each entry of it were looked at,
    /// and sooner. True for a frame outside of the guest's memory.
    fn user_half_is_empty(&mut self, gfn: u64) -> bool;
}

/// Births and deaths seen by one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Processes born.
    pub births: u64,
    /// Processes ended.
    pub deaths: u64,
    /// Loads of a root that found the table full: births and deaths may have gone unseen.
    pub uncounted: u64,
}

/// The address spaces of one VM.
#[derive(Debug, Default)]
pub struct ProcessTable {
    /// Roots known to be alive.
    live: BTreeMap<u64, Marks>,
    replacements: VecDeque<Replacement>,
}

/// The lowest and the highest entry of a root's user half, each with its index and its address.
type Marks = [(usize, u64); 2];

/// A process got `root` in place of `from`. If that dies before it is loaded again, one process goes on; else two do.
#[derive(Clone, Copy, Debug)]
struct Replacement {
    root: u64,
    from: u64,
}

impl ProcessTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to watch, with the CR3 of each vCPU as it is now: these processes are old, although the
    /// processor has marked their tables. Also to be called when the guest's OS restarts.
    pub fn begin(&mut self, running: &[u64], roots: &mut impl GuestRoots) {
        *self = Self::new();
        for &cr3 in running {
            let root = key(cr3, roots);
            self.insert(root, roots, &mut Changes::default());
        }
    }

    /// A vCPU replaces `old` by `new` in CR3.
    pub fn cr3_load(&mut self, old: u64, new: u64, roots: &mut impl GuestRoots) -> Changes {
        let (old, new) = (key(old, roots), key(new, roots));
        let mut changes = Changes::default();
        if old == new {
            return changes;
        }
        let old_lives = self.leave(old, roots, &mut changes);
        if self.live.contains_key(&new) {
            if !self.is_gone(new, roots) {
                self.count_where(&mut changes, |replacement| replacement.from == new);
                return changes;
            }
            self.bury(new, roots, &mut changes);
        }
        self.enter(new, old_lives.then_some(old), roots, &mut changes);
        changes
    }

    /// Looks at every root; to be called at each harvest, with the CR3 of each vCPU.
    pub fn sweep(&mut self, running: &[u64], roots: &mut impl GuestRoots) -> Changes {
        let running: Vec<u64> = running.iter().map(|&cr3| key(cr3, roots)).collect();
        // What runs may change its own entries.
        let mut ended = |root: u64, marks: &Marks| match running.contains(&root) {
            true => marks_of(root, roots).is_none(),
            false => *marks != marks_now(root, marks, roots),
        };
        let dead: Vec<u64> =
            self.live.iter().filter(|(root, marks)| ended(**root, marks)).map(|(root, _)| *root).collect();
        let mut changes = Changes::default();
        for root in dead {
            self.bury(root, roots, &mut changes);
        }
        changes
    }

    /// The watch ends: what is still open counts as born.
    pub fn finish(&mut self) -> Changes {
        let mut changes = Changes::default();
        self.count_where(&mut changes, |_| true);
        changes
    }

    /// Looks at the root that is being left. True if it is a process that lives on.
    fn leave(&mut self, old: u64, roots: &mut impl GuestRoots, changes: &mut Changes) -> bool {
        let Some(known) = self.live.get_mut(&old) else { return false };
        match marks_of(old, roots) {
            Some(marks) => {
                *known = marks;
                true
            }
            None => {
                self.bury(old, roots, changes);
                false
            }
        }
    }

    /// Takes in the root that is being loaded, from `forerunner` if that is a live process.
    fn enter(&mut self, root: u64, forerunner: Option<u64>, roots: &mut impl GuestRoots, changes: &mut Changes) {
        if !self.insert(root, roots, changes) || !roots.written_since_begin(root) {
            return;
        }
        match forerunner {
            Some(from) if maps_one_table(root, roots) => self.replace(Replacement { root, from }, changes),
            _ => changes.births += 1,
        }
    }

    fn replace(&mut self, replacement: Replacement, changes: &mut Changes) {
        if self.replacements.len() >= OPEN && self.replacements.pop_front().is_some() {
            changes.births += 1;
        }
        self.replacements.push_back(replacement);
    }

    /// False if it is no process's, or the table is full.
    fn insert(&mut self, root: u64, roots: &mut impl GuestRoots, changes: &mut Changes) -> bool {
        // The kernel's own root, which no process has, lets nothing through in the user half.
        let Some(marks) = marks_of(root, roots) else { return false };
        if self.live.len() >= CAPACITY {
            changes.uncounted += 1;
            return false;
        }
        self.live.insert(root, marks);
        true
    }

    /// Whether a root that does not run is no more what it was when it was left.
    fn is_gone(&self, root: u64, roots: &mut impl GuestRoots) -> bool {
        self.live.get(&root).is_some_and(|marks| *marks != marks_now(root, marks, roots))
    }

    /// Takes a dead root out. If another replaced it, its process goes on.
    fn bury(&mut self, root: u64, roots: &mut impl GuestRoots, changes: &mut Changes) {
        if self.live.remove(&root).is_none() {
            return;
        }
        // A process that ends has long torn down what it replaced: what is still alive then is another's.
        let own = self.replacements.iter().find(|replacement| replacement.root == root);
        if let Some(&Replacement { from, .. }) = own {
            if self.is_gone(from, roots) {
                self.bury(from, roots, changes);
            }
            self.count_where(changes, |replacement| replacement.root == root);
        }
        let replaced = self.replacements.iter().position(|replacement| replacement.from == root);
        if replaced.and_then(|at| self.replacements.remove(at)).is_none() {
            changes.deaths += 1;
        }
    }

    /// Counts the replacements that `which` picks as births.
    fn count_where(&mut self, changes: &mut Changes, which: impl Fn(&Replacement) -> bool) {
        let open = self.replacements.len();
        self.replacements.retain(|replacement| !which(replacement));
        let counted = open.saturating_sub(self.replacements.len());
        changes.births += u64::try_from(counted).unwrap_or(u64::MAX);
    }
}

/// The values of CR3 between which the process of `cr3` switches by itself, the most frequent first: the kernel's root
/// and, with page-table isolation, the user's; without, the one again, by which Linux drops translations at each fork. With
/// `pcid` (CR4.PCIDE) bit 63 of what is written asks to keep the TLB, and the user's PCID is the kernel's with bit 11 set (Linux,
/// `arch/x86/entry/calling.h`). Where there are fewer than four, some come twice.
pub fn own_values(cr3: u64, pcid: bool, roots: &mut impl GuestRoots) -> [u64; 4] {
    const KEEP: u64 = 1 << 63;
    const USERS_ROOT: u64 = 1 << 12;
    let root = key(cr3, roots);
    let users = match root & 1 == 0 && maps_the_same(root, root | 1, roots) {
        true => USERS_ROOT | if pcid { 1 << 11 } else { 0 },
        false => 0,
    };
    let kernels = cr3 & !KEEP & !users;
    let keep = if pcid { KEEP } else { 0 };
    [kernels | keep, kernels | users | keep, kernels, kernels | users]
}

/// The root's frame number, the same for all CR3 values of one process. With page-table isolation (Linux's KPTI) a
/// process has two roots side by side, and the kernel's, the lower one, stands for both: they map the same.
fn key(cr3: u64, roots: &mut impl GuestRoots) -> u64 {
    let gfn = (cr3 & ADDRESS) >> 12;
    let kernels = gfn & !1;
    if gfn != kernels && maps_the_same(gfn, kernels, roots) { kernels } else { gfn }
}

/// Whether the page beside a root that is loaded is the same process's. The loaded one comes first: a process has its marks
/// where they are soon found, and the other page may be anything.
fn maps_the_same(loaded: u64, beside: u64, roots: &mut impl GuestRoots) -> bool {
    marks_of(loaded, roots).is_some_and(|marks| marks == marks_now(beside, &marks, roots))
}

/// Nothing if the user half lets nobody through. From the top down first, where a process has its stack: one that
/// lives is told by its first entry.
fn marks_of(root: u64, roots: &mut impl GuestRoots) -> Option<Marks> {
    if user_entry(root, USER_ENTRIES - 1, roots).is_none() && roots.user_half_is_empty(root) {
        return None;
    }
    let mut mark = |index: usize| user_entry(root, index, roots).map(|address| (index, address));
    let highest = (0..USER_ENTRIES).rev().find_map(&mut mark)?;
    let lowest = (0..USER_ENTRIES).find_map(&mut mark)?;
    Some([lowest, highest])
}

/// Whether the user half leads to a single table of the lowest level.
fn maps_one_table(root: u64, roots: &mut impl GuestRoots) -> bool {
    let only = |table: u64, roots: &mut _| {
        let mut used = (0..2 * USER_ENTRIES).filter_map(|index| user_entry(table, index, roots));
        used.next().filter(|_| used.next().is_none()).map(|address| address >> 12)
    };
    // What has two marks is soon told.
    let third =
        marks_of(root, roots).filter(|[lowest, highest]| lowest == highest).map(|[(_, address), _]| address >> 12);
    let second = third.and_then(|table| only(table, roots));
    second.and_then(|table| only(table, roots)).is_some()
}

/// What is in the place of these marks now.
fn marks_now(root: u64, marks: &Marks, roots: &mut impl GuestRoots) -> Marks {
    marks.map(|(index, _)| (index, user_entry(root, index, roots).unwrap_or(0)))
}

/// The address in an entry that lets user mode through: without the accessed bit and other flags that change.
fn user_entry(root: u64, index: usize, roots: &mut impl GuestRoots) -> Option<u64> {
    let entry = roots.entry(root, index)?;
    (entry & USER == USER).then_some(entry & ADDRESS)
}

#[cfg(test)]
#[path = "processes_tests.rs"]
mod tests;
