//! A VM and what the host knows of it: its observer, its processes, the lines of its console.

use super::{
    ledger::{Account, Ledger},
    throttle::Throttle,
};
use crate::{
    devices::RestartCause,
    host::Terminal,
    machine::{PAGE_SIZE, clock},
    monitor::{
        command::Watching,
        event::What,
        line::LineAssembler,
        pages,
        report::{HarvestTime, Millionths, OverheadReport},
        runs,
    },
    observe::{GuestRoots, Observed, Observer, ProcessTable, own_values},
    vm::{Activity, Harvests, Stop, Vm},
};
use alloc::{format, string::String, vec::Vec};
use core::time::Duration;
use migration::Bitmap;

/// Durations of harvests that are kept for the report, the latest ones since a sample began.
const HARVEST_TIMES: usize = 256;

/// The most runs of modified pages in one event: some 3 KB, a quarter of a second at 115,200 baud.
const MOST_RUNS: usize = 256;

/// A sample is compared with a stretch before it of its own length, at most this, in microseconds.
const LONGEST_STRETCH: u64 = 30_000_000;
/// A guest that is slowed has its share of each such period, in microseconds.
const THROTTLE_PERIOD: u64 = 10_000;

/// A VM with its observation.
pub struct Tenant {
    /// The VM.
    pub vm: Vm,
    observer: Observer,
    processes: ProcessTable,
    console: LineAssembler,
    /// Bytes of output that were dropped, as far as that was told.
    dropped_told: u64,
    harvest_micros: Vec<u32>,
    harvests: usize,
    watched: Option<Watched>,
    throttle: Option<Throttle>,
    /// What entering and leaving the guest takes, in TSC ticks.
    switch: u64,
    /// TSC ticks in which the guest ran or would have.
    charged: u64,
    ledger: Ledger,
}

/// What somebody who watches all the time was and was not told.
struct Watched {
    /// There was a harvest since.
    untold: bool,
}

/// The page-table roots of a VM, for the process table.
struct Roots<'a>(&'a mut Vm);

impl GuestRoots for Roots<'_> {
    fn written_since_begin(&mut self, gfn: u64) -> bool {
        self.0.written_in_sample(gfn)
    }

    fn entry(&mut self, gfn: u64, index: usize) -> Option<u64> {
        let bytes = self.0.memory.page(gfn)?.chunks_exact(8).nth(index)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    }

    fn user_half_is_empty(&mut self, gfn: u64) -> bool {
        self.0.user_half_is_empty(gfn)
    }
}

impl Tenant {
    /// A VM that starts to be observed now.
    pub fn new(vm: Vm, jiffy: Duration, harvest_jiffies: u64, switch: u64) -> Self {
        Self {
            vm,
            observer: Observer::new(jiffy, harvest_jiffies),
            processes: ProcessTable::new(),
            console: LineAssembler::new(),
            dropped_told: 0,
            harvest_micros: Vec::new(),
            harvests: 0,
            watched: None,
            throttle: None,
            switch,
            charged: 0,
            ledger: Ledger::new(clock::from_micros(LONGEST_STRETCH)),
        }
    }

    /// The time from `from` until now was this guest's, or was spent on letting it run. Returns now, in TSC ticks.
    pub fn charge(&mut self, from: u64) -> u64 {
        let now = clock::now();
        self.charged = self.charged.saturating_add(now.saturating_sub(from));
        now
    }

    fn account(&self) -> Account {
        let guest = self.vm.vcpu.guest_ticks(self.switch);
        Account { guest, host: self.charged.saturating_sub(guest) }
    }

    /// Slows the guest: of its time it is to run `100 - percent` hundredths. 0: it runs at full speed.
    pub fn throttle(&mut self, percent: u8) {
        let period = clock::from_micros(THROTTLE_PERIOD);
        self.throttle = (percent > 0).then(|| Throttle::new(percent, period, clock::now()));
    }

    /// When it may run again, if it has used up its share.
    pub fn held_until(&self) -> Option<u64> {
        self.throttle?.held_until(clock::now())
    }

    /// Runs the guest until something happens that concerns others, at the latest at `deadline` or when its share is used up.
    pub fn run_until(&mut self, deadline: u64) -> Stop {
        let start = clock::now();
        let share = self.throttle.as_ref().map_or(u64::MAX, |throttle| throttle.may_run_until(start));
        let stop = self.run_and_follow(deadline.min(share));
        if let Some(throttle) = &mut self.throttle {
            throttle.ran(start, clock::now());
        }
        stop
    }

    fn run_and_follow(&mut self, deadline: u64) -> Stop {
        loop {
            match self.vm.run_until(deadline) {
                Stop::AddressSpace(old, new) => self.address_space(old, new),
                other => return other,
            }
            if clock::now() >= deadline {
                return Stop::Yield;
            }
        }
    }

    /// `jiffies` have passed. Harvests when it is time, and gives the sample that this ended.
    pub fn tick(&mut self, jiffies: u64) -> Option<Observed> {
        self.ledger.keep(clock::now(), self.account());
        if self.vm.activity != Activity::Running || !self.observer.tick(jiffies) {
            return None;
        }
        let observed = self.harvest();
        if observed.is_none() {
            self.vm.join_if_unwatched();
        }
        observed
    }

    /// Jiffies until [`Tenant::tick`] has something to do; none while the VM does not run, or its identifier is not kept.
    pub fn due_in(&self) -> Option<u64> {
        (self.vm.activity == Activity::Running && self.observer.active()).then(|| self.observer.due_in())
    }

    /// Keeps the identifier from now on, or no longer. What the guest modifies meanwhile stays flagged until the next harvest.
    pub fn keep_identifier(&mut self, on: bool) -> What {
        self.harvest();
        self.vm.join_if_unwatched();
        self.observer.keep_identifier(on);
        self.ledger.forget();
        self.identifier()
    }

    fn harvest(&mut self) -> Option<Observed> {
        let start = clock::now();
        let pages = self.vm.harvest();
        self.note_harvest(clock::to_micros(clock::now() - start));
        if let Some(watched) = &mut self.watched {
            watched.untold = true;
        }
        if self.observer.watching() {
            let root = self.vm.vcpu.page_table_root();
            let changes = self.processes.sweep(&[root], &mut Roots(&mut self.vm));
            self.observer.processes(changes);
            if self.observer.sample_is_over() {
                self.observer.processes(self.processes.finish());
            }
        }
        let observed = self.observer.harvested(Duration::from_micros(clock::micros()), pages);
        if observed.is_some() {
            let mut account = self.account();
            // This harvest is of the sample, and is charged when the guest runs next.
            if !self.vm.vcpu.halted {
                account.host = account.host.saturating_add(clock::now() - start);
            }
            self.ledger.sample_ends(account);
        }
        if observed.is_some() && !self.observer.watching() {
            self.follow_processes(false);
        }
        observed
    }

    /// Moves the pages modified since the last call to `dirty`, for a migration. They count in the identifier as any others.
    pub fn harvest_for_migration(&mut self, dirty: &mut Bitmap) {
        let pages = self.vm.harvest();
        self.observer.modified(pages);
        self.vm.take_migration_log(dirty);
    }

    /// The pages modified since the last call, for the monitor. The first call opens the log, and names none; `end` closes it.
    pub fn tell_dirty(&mut self, end: bool) -> What {
        let pages = self.vm.harvest();
        self.observer.modified(pages);
        let (runs, left) = match self.vm.told_log() {
            None => (None, 0),
            Some(log) => (Some(runs::take(log, MOST_RUNS)), log.count()),
        };
        if end || runs.is_none() {
            self.vm.log_to_tell(!end);
        }
        What::Dirty { vm: self.vm.name.clone(), runs, left }
    }

    /// What a harvest takes, in microseconds: half of the latest ones took at most this.
    pub fn harvest_time(&self) -> u64 {
        let mut times = self.harvest_micros.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0).into()
    }

    fn note_harvest(&mut self, micros: u64) {
        let micros = u32::try_from(micros).unwrap_or(u32::MAX);
        match self.harvest_micros.get_mut(self.harvests % HARVEST_TIMES) {
            Some(place) => *place = micros,
            None => self.harvest_micros.push(micros),
        }
        self.harvests += 1;
    }

    /// A sample of length `ts` is asked for: how the guest runs until now is what its slowdown in the sample is measured by.
    pub fn sample_asked(&mut self, ts: Duration) {
        if self.observer.watching() || !self.observer.active() {
            self.ledger.forget();
        }
        let length = clock::from_micros(u64::try_from(ts.as_micros()).unwrap_or(u64::MAX));
        self.ledger.sample_asked(clock::now(), self.account(), length);
    }

    /// Begins a sample of length `ts`; the migration starts now (MST).
    pub fn start_sample(&mut self, ts: Duration) {
        self.ledger.sample_begins(self.account());
        self.harvest();
        // What harvests of large leaves took says nothing of those that come.
        self.harvest_micros.clear();
        self.harvests = 0;
        if !self.observer.watching() {
            self.follow_processes(true);
        }
        self.observer.start_sample(ts);
    }

    /// Whether a sample is in progress.
    pub fn sampling(&self) -> bool {
        self.observer.sampling()
    }

    /// Gives the sample in progress up.
    pub fn cancel_sample(&mut self) {
        self.observer.cancel_sample();
        if !self.observer.watching() {
            self.follow_processes(false);
        }
    }

    /// Watches at the pace of a sample from now on, and tells each harvest; or no longer.
    pub fn watch(&mut self, how: Option<Watching>) -> What {
        let before = self.observer.watching();
        // What was written before is not of the first harvest that is told.
        self.harvest();
        self.observer.watch(how.is_some());
        if self.observer.watching() != before {
            self.follow_processes(!before);
        }
        self.vm.log_for_watch(how.is_some_and(|how| how.pages));
        self.watched = how.map(|_| Watched { untold: false });
        let (jiffy, harvest_period) = self.observer.periods();
        What::Watching {
            vm: self.vm.name.clone(),
            on: how.is_some(),
            memory: self.vm.memory.size(),
            jiffy: jiffy.into(),
            harvest_period: harvest_period.into(),
        }
    }

    /// Whether each harvest is told.
    pub fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// The events of the latest harvest, if it was not told yet; its pages only if they fit into `room` bytes. Without any
    /// room it stays untold, and the next one tells of both.
    pub fn untold_harvest(&mut self, room: usize) -> Vec<What> {
        let Some(watched) = self.watched.as_mut().filter(|watched| watched.untold && room > 0) else {
            return Vec::new();
        };
        watched.untold = false;
        let lines = self.vm.watch_log().and_then(|log| {
            let lines = pages::lines(log.iter(), room).map(|lines| (lines, log.count()));
            log.clear_all();
            lines
        });
        let (lines, told) = lines.map_or_else(Default::default, |(lines, count)| (lines, Some(count)));
        let lines = lines.into_iter();
        let mut events: Vec<What> = lines.map(|runs| What::Pages { vm: self.vm.name.clone(), runs }).collect();
        events.push(What::Identifier {
            vm: self.vm.name.clone(),
            version: (&self.observer.reading()).into(),
            dirty: told,
        });
        events
    }

    fn follow_processes(&mut self, on: bool) {
        self.ledger.forget();
        self.vm.log_for_sample(on);
        self.vm.vcpu.watch_cr3(on);
        if on {
            let root = self.vm.vcpu.page_table_root();
            self.processes.begin(&[root], &mut Roots(&mut self.vm));
            self.let_own_switches_be(root);
        }
    }

    /// The process of this CR3 may switch between its own roots without an exit.
    fn let_own_switches_be(&mut self, cr3: u64) {
        // Nested, KVM offers none, and each write of such a field would be an exit to it.
        if self.vm.vcpu.cr3_targets() == 0 {
            return;
        }
        let pcid = self.vm.vcpu.has_pcid();
        let values = own_values(cr3, pcid, &mut Roots(&mut self.vm));
        self.vm.vcpu.set_cr3_targets(&values);
    }

    /// The guest replaced `old` by `new` in CR3.
    fn address_space(&mut self, old: u64, new: u64) {
        let changes = self.processes.cr3_load(old, new, &mut Roots(&mut self.vm));
        self.observer.processes(changes);
        self.let_own_switches_be(new);
    }

    /// The guest restarted its OS; it starts again here.
    ///
    /// # Errors
    /// When it cannot be started again.
    pub fn restart(&mut self, cause: RestartCause) -> Result<What, String> {
        self.vm.restart()?;
        self.observer.restart();
        if self.observer.watching() {
            let root = self.vm.vcpu.page_table_root();
            self.processes.begin(&[root], &mut Roots(&mut self.vm));
            self.let_own_switches_be(root);
        }
        Ok(What::restart(&self.vm.name, cause, &self.observer.reading()))
    }

    /// The event for its identifier.
    pub fn identifier(&self) -> What {
        What::identifier(&self.vm.name, &self.observer.reading())
    }

    /// Its identifier as text.
    pub fn id(&self) -> String {
        format!("{}", self.observer.reading().identifier)
    }

    /// Tells the lines that the guest has printed, as many as find room: a guest that prints without end waits for the port
    /// by itself, and the host does not. What the UART drops meanwhile is told as a number.
    pub fn console_lines(&mut self, terminal: &mut Terminal) {
        while terminal.has_room()
            && let Some(byte) = self.vm.chipset.take_output()
        {
            let text = match self.console.push(byte) {
                None => continue,
                Some(Ok(text)) => text,
                Some(Err(error)) => format!("({error})"),
            };
            terminal.tell(What::Console { vm: self.vm.name.clone(), text });
        }
        let dropped = self.vm.chipset.dropped_output();
        if dropped > self.dropped_told && terminal.has_room() {
            let text =
                format!("({} bytes were dropped: the port is slower than the guest)", dropped - self.dropped_told);
            self.dropped_told = dropped;
            terminal.tell(What::Console { vm: self.vm.name.clone(), text });
        }
    }

    /// The start of a line that the guest has not ended: it goes with the guest, or the line would be lost between two hosts.
    pub fn unended_line(&self) -> &[u8] {
        self.console.partial()
    }

    /// Begins the console with what another host had of a line.
    pub fn begin_line(&mut self, bytes: &[u8]) {
        self.dropped_told = self.vm.chipset.dropped_output();
        for byte in bytes.iter().filter(|byte| !matches!(byte, b'\n' | b'\r')) {
            self.console.push(*byte);
        }
    }

    /// What observing and emulating cost so far.
    pub fn overhead(&self) -> OverheadReport {
        let mut times = self.harvest_micros.clone();
        times.sort_unstable();
        let at = |index: usize| Duration::from_micros(times.get(index).copied().unwrap_or(0).into()).into();
        let harvest_time =
            (!times.is_empty()).then(|| HarvestTime { p50: at(times.len() / 2), max: at(times.len() - 1) });
        let mut exits = alloc::collections::BTreeMap::new();
        for (reason, count) in self.vm.exit_counts() {
            *exits.entry(String::from(reason)).or_insert(0) += count;
        }
        let Harvests { count: harvests, looked_at: harvest_entries } = self.vm.harvests;
        let account = self.account();
        let time = |ticks| Duration::from_micros(clock::to_micros(ticks)).into();
        OverheadReport {
            guest_slowdown_sampling: self.ledger.slowdown().map(Millionths),
            guest_time: time(account.guest),
            host_time: time(account.host),
            harvest_time,
            harvests,
            harvest_entries,
            exits,
        }
    }

    /// Host memory that the VM takes beside its RAM, in bytes.
    pub fn footprint(&self) -> u64 {
        (self.vm.overhead() + 2 * self.vm.memory.pages() / 8 + PAGE_SIZE) as u64
    }
}
