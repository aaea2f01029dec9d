//! The simulated VM.

use migration::{Bitmap, DestinationVm, Offer, Page, SourceVm, ZERO_PAGE};

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
    fn random(&self, step: u64, salt: u64) -> u64 {
        let mut x = self.seed ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn page_of(&self, step: u64) -> u64 {
        self.random(step, 1) % self.range
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
        }
    }

    /// Does up to `steps` steps. Returns the page that it waits for, if it came to one.
    pub fn go(&mut self, steps: u64) -> Option<u64> {
        for _ in 0..steps {
            let gfn = self.program.page_of(self.step);
            if self.missing.as_ref().is_some_and(|missing| missing.test(gfn)) {
                self.blocked_on = Some(gfn);
                return Some(gfn);
            }
            self.blocked_on = None;
            self.program.apply(self.step, &mut self.memory[gfn as usize]);
            self.dirty.set(gfn);
            self.step += 1;
        }
        None
    }

    /// Whether the memory is that of a twin that never migrated and has come as far. `device_write`: the page that a
    /// device wrote when its state was saved.
    #[track_caller]
    pub fn assert_like_its_twin(&self, device_write: Option<(u64, u64)>) {
        let mut twin = Self::new(self.memory.len() as u64, self.program.clone());
        if let Some((gfn, at_step)) = device_write {
            twin.go(at_step);
            twin.memory[gfn as usize][0] ^= 0xff;
            twin.go(self.step - at_step);
        } else {
            twin.go(self.step);
        }
        let different: Vec<usize> = (0..self.memory.len()).filter(|i| self.memory[*i] != twin.memory[*i]).collect();
        assert!(different.is_empty(), "after {} steps, pages {different:?} differ from the twin's", self.step);
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
        dirty.or(&self.dirty);
        self.dirty.clear_all();
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
        self.memory = vec![ZERO_PAGE; offer.page_count as usize];
        self.dirty = Bitmap::new(offer.page_count);
        self.missing = None;
        Ok(())
    }

    fn received(&self, gfn: u64) -> &Page {
        &self.memory[gfn as usize]
    }

    fn write_page(&mut self, gfn: u64, page: &Page) {
        self.memory[gfn as usize] = *page;
        self.missing.as_mut().map(|missing| missing.clear(gfn));
    }

    fn write_zero(&mut self, gfn: u64, untouched: bool) {
        if !untouched {
            self.memory[gfn as usize] = ZERO_PAGE;
        }
        assert_eq!(self.memory[gfn as usize], ZERO_PAGE, "page {gfn} was touched");
        self.missing.as_mut().map(|missing| missing.clear(gfn));
    }

    fn load_state(&mut self, state: &[u8]) -> Result<(), String> {
        if self.refuses_to_load {
            return Err("the timer is of another kind".into());
        }
        let step = state.last_chunk().ok_or("too short")?;
        self.step = u64::from_le_bytes(*step);
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
