//! Births and deaths of processes, told from the roots of the guest's page tables.
//!
//! A process is an address space, and an address space is the frame of its root table, which the guest
//! loads into CR3 (Antfarm, USENIX ATC 2006). A root that is loaded for the first time is a birth if the
//! root page was written since the watch began: the guest's kernel fills it when it makes the process,
//! while the processor marks the tables that it walks only once they are loaded. A root whose user half
//! has become empty is a death: the kernel tears that down before it frees the frame.
//!
//! An `exec` replaces the address space of a process that lives on. A process ends while its own root is
//! loaded; so a root that was alive when it was left, and dies without being loaded again, was replaced by
//! the root that was loaded from it. The birth of a root that was loaded from a live one is held back until
//! it shows which it was.
//!
//! What stays untold: a process of three and more `exec`s with no other load between, which take the same
//! two frames by turns, looks like two that alternate.

use alloc::collections::{BTreeMap, VecDeque};

/// Roots that are watched at most.
pub const CAPACITY: usize = 4096;
/// Roots left last that are looked at on each load.
const RECENT: usize = 4;
/// Births that are held back at most; the oldest then counts.
const HELD_BACK: usize = 8;

/// Address bits of CR3 and of a table's entry: 51 to 12 (SDM vol. 3, section 4.5). What lies outside of
/// them in CR3 are PCID or PWT/PCD, the LAM bits 62 and 61, and bit 63, which asks to keep the TLB.
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// The present bit of an entry.
const PRESENT: u64 = 1;
/// Entries 0 to 255 of a root map the lower half of the address space, the user's.
const USER_ENTRIES: usize = 256;
/// The entry that maps the kernel's text; it is the same for as long as the frame is a root.
const KERNEL_ENTRY: usize = 511;

/// What the table needs to know of the guest's memory. A frame number comes from the guest and may lie
/// anywhere.
pub trait GuestRoots {
    /// Whether the frame was written since [`ProcessTable::begin`], by any harvest or any flag not yet
    /// harvested. False for a frame outside of the guest's memory.
    fn written_since_begin(&mut self, gfn: u64) -> bool;

    /// Entry `index` (0 to 511) of the frame taken as a table; nothing outside of the guest's memory.
    fn entry(&mut self, gfn: u64, index: usize) -> Option<u64>;
}

/// Births and deaths seen by one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Processes born.
    pub births: u64,
    /// Processes ended.
    pub deaths: u64,
}

/// The address spaces of one VM.
#[derive(Debug)]
pub struct ProcessTable {
    kpti: bool,
    /// Roots known to be alive, each with its kernel entry when it was first seen.
    live: BTreeMap<u64, u64>,
    recent: VecDeque<u64>,
    held_back: VecDeque<HeldBack>,
    overflow: u64,
}

/// A birth that an `exec` would explain: `root` was new when it was loaded from `forerunner`, which was
/// alive then.
#[derive(Clone, Copy, Debug)]
struct HeldBack {
    root: u64,
    forerunner: u64,
    /// The forerunner was loaded again. Either it lives on and this was a birth; or it was replaced, its
    /// frame became free, and `root` was replaced in turn by a root in that very frame.
    reloaded: bool,
}

impl ProcessTable {
    /// An empty table. With `kpti` a root is one of an aligned pair of frames, and the kernel's, the
    /// lower one, stands for both.
    #[must_use]
    pub fn new(kpti: bool) -> Self {
        Self { kpti, live: BTreeMap::new(), recent: VecDeque::new(), held_back: VecDeque::new(), overflow: 0 }
    }

    /// Begins to watch, with the CR3 of each vCPU as it is now: these processes are old, although the
    /// processor has marked their tables. Also to be called when the guest's OS restarts.
    pub fn begin(&mut self, running: &[u64], roots: &mut impl GuestRoots) {
        *self = Self::new(self.kpti);
        for &cr3 in running {
            let root = self.key(cr3);
            self.insert(root, roots);
        }
    }

    /// Loads that found the table full, so that processes went uncounted.
    #[must_use]
    pub fn overflow(&self) -> u64 {
        self.overflow
    }

    /// A vCPU replaces `old` by `new` in CR3.
    pub fn cr3_load(&mut self, old: u64, new: u64, roots: &mut impl GuestRoots) -> Changes {
        let (old, new) = (self.key(old), self.key(new));
        let mut changes = self.bury_recent(roots);
        if old == new {
            return changes;
        }
        let old_lives = self.leave(old, roots, &mut changes);
        self.count_where(&mut changes, |held| held.root == new && held.reloaded);
        for held in self.held_back.iter_mut().filter(|held| held.forerunner == new) {
            held.reloaded = true;
        }
        self.recent.retain(|&root| root != new);
        self.enter(new, old_lives.then_some(old), roots, &mut changes);
        changes
    }

    /// Looks at every root; to be called at each harvest. No birth stays held back after it.
    pub fn sweep(&mut self, roots: &mut impl GuestRoots) -> Changes {
        let mut changes = Changes::default();
        let dead = self.live.iter().filter(|(root, kernel)| torn_down(**root, **kernel, roots));
        let dead: alloc::vec::Vec<u64> = dead.map(|(root, _)| *root).collect();
        for root in dead {
            self.bury(root, &mut changes);
        }
        self.count_where(&mut changes, |_| true);
        changes
    }

    /// The root's frame number, the same for all CR3 values of one process.
    fn key(&self, cr3: u64) -> u64 {
        let gfn = (cr3 & ADDRESS) >> 12;
        if self.kpti { gfn & !1 } else { gfn }
    }

    /// Looks at the root that is being left. True if it is a process that lives on.
    fn leave(&mut self, old: u64, roots: &mut impl GuestRoots, changes: &mut Changes) -> bool {
        let Some(&kernel) = self.live.get(&old) else {
            return false;
        };
        if torn_down(old, kernel, roots) {
            self.bury(old, changes);
            return false;
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(old);
        true
    }

    /// Takes in the root that is being loaded, from `forerunner` if that is a live process.
    fn enter(&mut self, new: u64, forerunner: Option<u64>, roots: &mut impl GuestRoots, changes: &mut Changes) {
        // The kernel's own root, which no process has, maps nothing in the user half.
        if self.live.contains_key(&new) || user_half_empty(new, roots) {
            return;
        }
        if !self.insert(new, roots) || !roots.written_since_begin(new) {
            return;
        }
        let Some(forerunner) = forerunner else {
            changes.births += 1;
            return;
        };
        if self.held_back.len() >= HELD_BACK && self.held_back.pop_front().is_some() {
            changes.births += 1;
        }
        self.held_back.push_back(HeldBack { root: new, forerunner, reloaded: false });
    }

    /// False if the table is full.
    fn insert(&mut self, root: u64, roots: &mut impl GuestRoots) -> bool {
        if self.live.len() >= CAPACITY {
            self.overflow = self.overflow.saturating_add(1);
            return false;
        }
        self.live.insert(root, kernel_entry(root, roots));
        true
    }

    fn bury_recent(&mut self, roots: &mut impl GuestRoots) -> Changes {
        let mut changes = Changes::default();
        for _ in 0..self.recent.len() {
            let Some(root) = self.recent.pop_front() else {
                break;
            };
            let Some(&kernel) = self.live.get(&root) else {
                continue;
            };
            if torn_down(root, kernel, roots) {
                self.bury(root, &mut changes);
            } else {
                self.recent.push_back(root);
            }
        }
        changes
    }

    /// Takes a dead root out. If an `exec` replaced it, be it by a new root or by one in the very frame that
    /// its forerunner had, neither its death nor the birth that was held back counts.
    fn bury(&mut self, root: u64, changes: &mut Changes) {
        self.live.remove(&root);
        let replaced = self
            .held_back
            .iter()
            .position(|held| (held.forerunner == root && !held.reloaded) || (held.root == root && held.reloaded));
        if replaced.and_then(|held| self.held_back.remove(held)).is_none() {
            self.count_where(changes, |held| held.root == root || held.forerunner == root);
            changes.deaths += 1;
        }
    }

    /// Counts the held-back births that `which` picks.
    fn count_where(&mut self, changes: &mut Changes, which: impl Fn(&HeldBack) -> bool) {
        let held = self.held_back.len();
        self.held_back.retain(|held| !which(held));
        let counted = held.saturating_sub(self.held_back.len());
        changes.births += u64::try_from(counted).unwrap_or(u64::MAX);
    }
}

/// Whether a frame is the root of its process no more: its user half is empty, or the frame has become
/// something else, which its kernel entry shows. The latter is common after an `exec`, for the guest
/// hands out the frame that was freed last first.
fn torn_down(root: u64, kernel: u64, roots: &mut impl GuestRoots) -> bool {
    kernel_entry(root, roots) != kernel || user_half_empty(root, roots)
}

/// From the top down, where a process has its stack: a live one is told by its first entry.
fn user_half_empty(root: u64, roots: &mut impl GuestRoots) -> bool {
    (0..USER_ENTRIES).rev().all(|index| roots.entry(root, index).unwrap_or(0) == 0)
}

/// Without the accessed bit and other flags that change while it is in use.
fn kernel_entry(root: u64, roots: &mut impl GuestRoots) -> u64 {
    roots.entry(root, KERNEL_ENTRY).unwrap_or(0) & (ADDRESS | PRESENT)
}

#[cfg(test)]
#[path = "processes_tests.rs"]
mod tests;
