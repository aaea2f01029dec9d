//! The simulated VM.

use std::collections::BTreeSet;
use std::ops::Range;

use migration::{Bitmap, DestinationVm, Offer, PAGE_SIZE, Page, SourceVm, ZERO_PAGE};

/// What the guest does, step by step: a function of the step's number alone.
#[derive(Clone, Debug)]
pub struct Program {
    pub seed: u64,
    /// It writes pages below this one.
    pub range: u64,
    /// Of so many steps one clears a whole page; 0: none does.
    pub clears: u64,
}

impl Program {
    /// The seed of a guest that walks through its pages in order.
    pub const IN_ORDER: u64 = 0;

    fn random(&self, step: u64, salt: u64) -> u64 {
        let mut x = self.seed ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn page_of(&self, step: u64) -> u64 {
        if self.seed == Self::IN_ORDER { step % self.range } else { self.random(step, 1) % self.range }
    }

    fn apply(&self, step: u64, page: &mut Page) {
        if self.clears > 0 && self.random(step, 2).is_multiple_of(self.clears) {
            page.fill(0);
        } else {
            // It reads before it writes: a lost write is seen for ever.
            let at = (self.random(step, 3) % 4096) as usize;
            page[at] = page[at].wrapping_mul(3).wrapping_add(self.random(step, 4) as u8 | 1);
        }
    }
}

#[derive(Clone, Debug)]
pub struct SimVm {
    pub program: Program,
    pub memory: Vec<Page>,
    pub step: u64,
    pub running: bool,
    pub missing: Option<Bitmap>,
    pub blocked_on: Option<u64>,
    dirty: Bitmap,
    pub tracked: bool,
    /// The devices refuse to be saved, or loaded.
    pub refuses_to_save: bool,
    pub refuses_to_load: bool,
    pub refuses_to_prepare: Option<String>,
    pub saving_writes: Option<u64>,
    pub runs: u32,
    /// Its memory is zeroed in so many pieces; until then it holds what somebody left there.
    pub pieces: u64,
    unzeroed: u64,
    /// A broken tracker: of the harvests that found something it loses this one (0: the first), and its pages.
    pub loses_harvest: Option<u32>,
    /// Of so many steps one frees a page, whose content the guest then needs no more; 0: none does.
    pub frees: u64,
    free: BTreeSet<u64>,
    /// A broken guest tool: it names the pages that were free when it was first asked.
    pub tells_old_free_pages: bool,
    told: Option<BTreeSet<u64>>,
    /// How it was slowed, in order.
    pub throttled: Vec<u8>,
}

impl SimVm {
    /// A VM after its boot: every other page is in use.
    pub fn new(pages: u64, program: Program) -> Self {
        let mut vm = Self::blank(program);
        vm.memory = vec![ZERO_PAGE; pages as usize];
        for (gfn, page) in vm.memory.iter_mut().enumerate().step_by(2) {
            for (at, byte) in page.iter_mut().enumerate() {
                *byte = (gfn as u64 ^ vm.program.random(at as u64, 9)) as u8;
            }
        }
        vm.dirty = Bitmap::new(pages);
        vm.running = true;
        vm
    }

    /// The place for a VM.
    pub fn blank(program: Program) -> Self {
        Self {
            program,
            memory: Vec::new(),
            step: 0,
            running: false,
            missing: None,
            blocked_on: None,
            dirty: Bitmap::new(0),
            tracked: false,
            refuses_to_save: false,
            refuses_to_load: false,
            refuses_to_prepare: None,
            saving_writes: None,
            runs: 0,
            pieces: 1,
            unzeroed: 0,
            loses_harvest: None,
            frees: 0,
            free: BTreeSet::new(),
            tells_old_free_pages: false,
            told: None,
            throttled: Vec::new(),
        }
    }

    /// Does up to `steps` steps. Returns the page that it waits for, if it came to one.
    pub fn go(&mut self, steps: u64) -> Option<u64> {
        for _ in 0..steps {
            let gfn = self.program.page_of(self.step);
            if self.frees(self.step) {
                self.free.insert(gfn);
                self.step += 1;
                continue;
            }
            if self.missing.as_ref().is_some_and(|missing| missing.test(gfn)) {
                self.blocked_on = Some(gfn);
                return Some(gfn);
            }
            self.blocked_on = None;
            if self.free.remove(&gfn) {
                // As a kernel that gives a page to a new owner.
                self.memory[gfn as usize] = ZERO_PAGE;
            }
            self.program.apply(self.step, &mut self.memory[gfn as usize]);
            self.dirty.set(gfn);
            self.step += 1;
        }
        None
    }

    fn frees(&self, step: u64) -> bool {
        self.frees > 0 && self.program.random(step, 5).is_multiple_of(self.frees)
    }

    /// Pages that the guest does not need now.
    pub fn free(&self) -> &BTreeSet<u64> {
        &self.free
    }

    /// How much of its time it runs.
    pub fn speed_percent(&self) -> u64 {
        100 - u64::from(self.throttled.last().copied().unwrap_or(0))
    }

    /// Whether the memory is that of a twin that never migrated and has come as far. `device_write`: the page that a
    /// device wrote when its state was saved.
    #[track_caller]
    pub fn assert_like_its_twin(&self, device_write: Option<(u64, u64)>) {
        self.is_like_its_twin(device_write).unwrap();
    }

    pub fn is_like_its_twin(&self, device_write: Option<(u64, u64)>) -> Result<(), String> {
        let mut twin = Self::new(self.memory.len() as u64, self.program.clone());
        twin.frees = self.frees;
        if let Some((gfn, at_step)) = device_write {
            twin.go(at_step);
            twin.memory[gfn as usize][0] ^= 0xff;
            twin.go(self.step - at_step);
        } else {
            twin.go(self.step);
        }
        assert_eq!(self.free, twin.free);
        let needed = (0..self.memory.len()).filter(|i| !self.free.contains(&(*i as u64)));
        let different: Vec<usize> = needed.filter(|i| self.memory[*i] != twin.memory[*i]).collect();
        if different.is_empty() {
            return Ok(());
        }
        Err(format!("after {} steps, pages {different:?} differ from the twin's", self.step))
    }
}

impl SourceVm for SimVm {
    fn page_count(&self) -> u64 {
        self.memory.len() as u64
    }

    fn page(&self, gfn: u64) -> &Page {
        &self.memory[gfn as usize]
    }

    fn track(&mut self, on: bool) {
        self.tracked = on;
        self.dirty.clear_all();
    }

    fn harvest(&mut self, dirty: &mut Bitmap) {
        assert!(self.tracked, "a harvest without tracking");
        let lost = self.loses_harvest.as_mut().filter(|_| !self.dirty.is_empty()).is_some_and(|left| {
            let lost = *left == 0;
            *left = left.wrapping_sub(1);
            lost
        });
        if !lost {
            dirty.or(&self.dirty);
        }
        self.dirty.clear_all();
    }

    fn free_pages(&mut self, into: &mut Bitmap) {
        let told = self.told.get_or_insert_with(|| self.free.clone());
        for gfn in if self.tells_old_free_pages { &*told } else { &self.free } {
            into.set(*gfn);
        }
    }

    fn throttle(&mut self, percent: u8) {
        self.throttled.push(percent);
    }

    fn pause(&mut self) {
        assert!(self.running);
        self.running = false;
    }

    fn resume(&mut self) {
        assert!(!self.running);
        self.running = true;
    }

    fn save_state(&mut self) -> Result<Vec<u8>, String> {
        assert!(!self.running, "the state of a running VM");
        if self.refuses_to_save {
            return Err("the timer is busy".into());
        }
        if let Some(gfn) = self.saving_writes {
            self.memory[gfn as usize][0] ^= 0xff;
            self.dirty.set(gfn);
        }
        // Longer than one piece, so that the pieces are put together.
        let mut state = vec![0x5a; 40_000];
        state.extend_from_slice(&self.step.to_le_bytes());
        Ok(state)
    }
}

impl DestinationVm for SimVm {
    fn prepare(&mut self, offer: &Offer) -> Result<(), String> {
        if let Some(reason) = &self.refuses_to_prepare {
            return Err(reason.clone());
        }
        if offer.page_count > 1 << 14 {
            return Err("too little memory".into());
        }
        self.memory = vec![[0xa5; PAGE_SIZE]; offer.page_count as usize];
        self.unzeroed = self.pieces;
        self.dirty = Bitmap::new(offer.page_count);
        self.missing = None;
        Ok(())
    }

    fn zero_some(&mut self) -> bool {
        self.unzeroed = self.unzeroed.saturating_sub(1);
        if self.unzeroed == 0 {
            self.memory.fill(ZERO_PAGE);
        }
        self.unzeroed == 0
    }

    fn received(&self, gfn: u64) -> &Page {
        &self.memory[gfn as usize]
    }

    fn write_page(&mut self, gfn: u64, page: &Page) {
        assert_eq!(self.unzeroed, 0, "page {gfn} came before there was room for it");
        self.memory[gfn as usize] = *page;
        self.missing.as_mut().map(|missing| missing.clear(gfn));
    }

    fn write_zeroes(&mut self, gfns: Range<u64>, untouched: bool) {
        assert_eq!(self.unzeroed, 0, "pages {gfns:?} came before there was room for them");
        for gfn in gfns {
            if !untouched {
                self.memory[gfn as usize] = ZERO_PAGE;
            }
            assert_eq!(self.memory[gfn as usize], ZERO_PAGE, "page {gfn} was touched");
            self.missing.as_mut().map(|missing| missing.clear(gfn));
        }
    }

    fn load_state(&mut self, state: &[u8]) -> Result<(), String> {
        if self.refuses_to_load {
            return Err("the timer is of another kind".into());
        }
        let step = state.last_chunk().ok_or("too short")?;
        self.step = u64::from_le_bytes(*step);
        // What is free the guest keeps in its memory; here it follows from the steps.
        self.free.clear();
        if self.frees > 0 {
            for step in 0..self.step {
                let gfn = self.program.page_of(step);
                if self.frees(step) {
                    self.free.insert(gfn);
                } else {
                    self.free.remove(&gfn);
                }
            }
        }
        Ok(())
    }

    fn set_missing(&mut self, missing: &Bitmap) {
        assert!(!self.running);
        // What is missing must not be read: make that visible.
        for gfn in missing.iter() {
            assert!(missing.test(gfn));
        }
        self.missing = Some(missing.clone());
    }

    fn all_present(&mut self) {
        if let Some(missing) = self.missing.take() {
            assert!(missing.is_empty());
        }
    }

    fn run(&mut self) {
        assert!(!self.running);
        self.running = true;
        self.runs += 1;
    }
}
