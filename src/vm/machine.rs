//! One VM: the parts put together, and the run until something happens that the host must know.

use super::{
    exits::{self, Outcome},
    free::FreePages,
    linux,
    memory::{GuestMemory, Page},
    settings::Settings,
    vcpu::{Event, Vcpu},
};
use crate::{
    devices::{Chipset, GuestRam, RestartCause, Unreachable},
    machine::{PAGE_SIZE, clock},
    vmx::{ept::Ept, exit::Reason, tracker::Tracker},
};
use alloc::{collections::BTreeMap, format, string::String, vec::Vec};
use core::ops::Range;
use migration::Bitmap;

/// What a guest is started, and restarted, from: files in the boot module, which stays where it is.
#[derive(Clone, Debug)]
pub struct GuestFiles {
    /// A bzImage.
    pub kernel: &'static [u8],
    /// May be empty.
    pub initrd: &'static [u8],
    /// Memory and command line.
    pub settings: Settings,
}

/// What a VM does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It runs when it is its turn.
    Running,
    /// It may not run: its right to run is elsewhere, or not here yet.
    Paused,
    /// It cannot go on; the reason.
    Stopped(String),
}

/// Why [`Vm::run_until`] came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The deadline, or an interrupt of the host.
    Yield,
    /// The guest waits for an interrupt.
    Halted,
    /// The guest restarted its OS.
    Restart(RestartCause),
    /// It touched a page that is not here yet.
    PageMissing(u64),
    /// It loaded CR3, from the first value to the second, while loads are watched.
    AddressSpace(u64, u64),
    /// It cannot go on.
    Dead(String),
}

/// What harvests did so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Harvests {
    /// How many there were.
    pub count: u64,
    /// EPT entries, and words of the CPU's log, that they looked at.
    pub looked_at: u64,
}

/// A virtual machine. (The order of the fields is the order in which they are dropped: who refers to memory goes first.)
pub struct Vm {
    /// Its name in the guests' archive.
    pub name: String,
    /// What it does.
    pub activity: Activity,
    /// Its CPU.
    pub vcpu: Vcpu,
    /// Its devices.
    pub chipset: Chipset,
    /// Exits by reason since it is here.
    pub exits: BTreeMap<Reason, u64>,
    /// Pages that a post-copy has not brought yet.
    missing: Option<Bitmap>,
    /// The missing page that the guest waits for.
    waiting_for: Option<u64>,
    /// Pages modified since a migration last asked, while one runs.
    migration_log: Option<Bitmap>,
    /// Pages modified since the sample began, while one runs.
    sample_log: Option<Bitmap>,
    /// Pages modified that the monitor has not told yet, while somebody asks.
    told_log: Option<Bitmap>,
    /// Pages that the guest has reported free and not modified since.
    free: FreePages,
    /// Pages of the harvests that a watch has not told yet, while it tells pages.
    watch_log: Option<Bitmap>,
    /// Harvests so far, and what they looked at.
    pub harvests: Harvests,
    /// What harvests found whose caller does not count it: the next one's does.
    uncounted: u64,
    /// The guest has run since the last harvest.
    ran: bool,
    /// Restarts come from here.
    pub files: Option<GuestFiles>,
    ept: Ept,
    /// Its RAM.
    pub memory: GuestMemory,
}

impl Vm {
    /// A VM whose memory is still to be zeroed, and whose guest is not loaded.
    ///
    /// # Errors
    /// One sentence: no memory, or a missing control.
    pub fn new(name: &str, memory: u64, vpid: u16, unix_time: u64, tracker: Tracker) -> Result<Self, String> {
        let pages = usize::try_from(memory / PAGE_SIZE as u64).map_err(|_| "too much memory")?;
        let memory = GuestMemory::new(pages).map_err(|why| {
            format!("{why}: {} MiB wanted, {} MiB free", memory >> 20, crate::machine::frames::free_bytes() >> 20)
        })?;
        let ept = Ept::new(memory.host(), pages, tracker)?;
        let vcpu = Vcpu::new(&ept, vpid)?;
        let chipset = Chipset::new(unix_time, clock::to_nanos(vcpu.tsc()));
        Ok(Self {
            name: name.into(),
            activity: Activity::Paused,
            vcpu,
            chipset,
            exits: BTreeMap::new(),
            missing: None,
            waiting_for: None,
            migration_log: None,
            sample_log: None,
            told_log: None,
            free: FreePages::new(pages as u64),
            watch_log: None,
            harvests: Harvests::default(),
            uncounted: 0,
            ran: false,
            files: None,
            ept,
            memory,
        })
    }

    /// Loads the guest from its files and sets the vCPU to its start.
    ///
    /// # Errors
    /// One sentence that says why the files cannot be loaded.
    pub fn load(&mut self, files: GuestFiles) -> Result<(), String> {
        let plan = linux::plan(files.kernel, files.initrd, &files.settings.command_line, self.memory.size())?;
        for piece in &plan.pieces {
            let (gpa, bytes) = piece.parts();
            self.memory.write(gpa, bytes).map_err(|error| format!("{error}"))?;
        }
        self.vcpu.start(&plan, 0);
        self.files = Some(files);
        Ok(())
    }

    /// Starts the guest's OS again, as a machine's reset does: memory stays, but for what is loaded.
    ///
    /// # Errors
    /// When the guest's files are not on this host.
    pub fn restart(&mut self) -> Result<(), String> {
        let files = self.files.clone().ok_or("the guest restarted its OS, and this host has not its kernel")?;
        let tsc = self.vcpu.tsc();
        self.load(files)?;
        self.vcpu.set_tsc(tsc);
        self.chipset.reset();
        self.free.forget();
        Ok(())
    }

    /// The guest's time in nanoseconds: its TSC, so it goes on over a migration.
    pub fn now(&self) -> u64 {
        clock::to_nanos(self.vcpu.tsc())
    }

    /// When a device of the guest needs attention, in TSC ticks of the host.
    pub fn device_deadline(&self) -> Option<u64> {
        let nanos = self.chipset.next_deadline()?;
        Some(clock::from_nanos(nanos).wrapping_sub(self.vcpu.tsc_offset()))
    }

    /// Whether it could execute an instruction now.
    pub fn is_runnable(&mut self) -> bool {
        if self.activity != Activity::Running || self.waiting_for.is_some() || !self.memory.is_zeroed() {
            return false;
        }
        self.chipset.advance(self.now());
        !self.vcpu.halted || (self.chipset.interrupt_pending() && self.vcpu.can_take_interrupt())
    }

    /// Runs the guest until something happens, at the latest at `deadline` (TSC ticks of the host).
    pub fn run_until(&mut self, deadline: u64) -> Stop {
        loop {
            if let Some(gfn) = self.serve_balloon() {
                self.wait_for(gfn);
                return Stop::PageMissing(gfn);
            }
            self.deliver_interrupt();
            if self.vcpu.halted {
                return Stop::Halted;
            }
            let until = self.device_deadline().map_or(deadline, |device| device.min(deadline));
            let end_in_memory = self.offer_end_in_memory();
            self.ran = true;
            let reason = match self.vcpu.run(until) {
                Ok(reason) => reason,
                Err(number) => return Stop::Dead(format!("VM entry failed, VM-instruction error {number}")),
            };
            if let Some(gpa) = end_in_memory {
                self.take_end_from_memory(gpa);
            }
            *self.exits.entry(reason).or_insert(0) += 1;
            match exits::handle(self, reason) {
                Outcome::Continue => {}
                Outcome::Stop(stop) => return stop,
            }
            if clock::now() >= deadline {
                return Stop::Yield;
            }
        }
    }

    fn deliver_interrupt(&mut self) {
        self.chipset.advance(self.now());
        if !self.chipset.interrupt_pending() {
            self.vcpu.want_interrupt_window(false);
        } else if self.vcpu.can_take_interrupt() {
            self.vcpu.want_interrupt_window(false);
            if let Some(vector) = self.chipset.acknowledge_interrupt() {
                self.vcpu.halted = false;
                self.vcpu.event = Some(Event::interrupt(vector));
            }
        } else if !self.vcpu.halted {
            self.vcpu.want_interrupt_window(true);
        }
    }

    /// Before an entry: says in guest memory that the interrupt in service may be ended there, if it may; and where.
    fn offer_end_in_memory(&mut self) -> Option<u64> {
        let gpa = self.chipset.end_in_memory().filter(|gpa| !self.is_missing(gpa / PAGE_SIZE as u64))?;
        self.memory.write(gpa, &[1]).is_ok().then_some(gpa)
    }

    /// After the exit: the guest has cleared what was said, or it is taken back.
    fn take_end_from_memory(&mut self, gpa: u64) {
        if self.memory.byte(gpa) == Some(0) {
            self.chipset.end_interrupt();
        } else {
            // It was in range a moment ago.
            let _ = self.memory.write(gpa, &[0]);
        }
    }

    /// Collects the pages modified since the last harvest, by the guest and by the hypervisor, into every log that is
    /// open, and returns how many there were; a large leaf counts as one.
    pub fn harvest(&mut self) -> u64 {
        core::mem::take(&mut self.uncounted) + self.harvest_now()
    }

    fn harvest_now(&mut self) -> u64 {
        self.ran = false;
        self.take_modification_log();
        self.ept.dirty_regions(|first, count| self.free.some_modified(first, count));
        if let Some(written) = self.memory.written() {
            self.free.all_modified(written);
        }
        let mut logs = [&mut self.migration_log, &mut self.sample_log, &mut self.told_log, &mut self.watch_log];
        let mut by_guest_alone = 0;
        let harvest = self.ept.harvest(|gfn| {
            by_guest_alone += u64::from(!self.memory.was_written(gfn));
            self.free.modified(gfn);
            logs.iter_mut().filter_map(|log| log.as_mut()).for_each(|log| {
                log.set(gfn);
            });
        });
        let by_host = self.memory.take_written(logs.into_iter().flatten());
        self.harvests.count += 1;
        self.harvests.looked_at += harvest.looked_at;
        by_guest_alone + harvest.regions + by_host
    }

    /// Between two entries into the guest: takes what the guest has told its balloon since. Returns the page that must come first.
    fn serve_balloon(&mut self) -> Option<u64> {
        if !self.chipset.balloon_has_work() {
            return None;
        }
        let mut ram = Reach { memory: &mut self.memory, missing: self.missing.as_ref() };
        let served = self.chipset.serve_balloon(&mut ram);
        if served.forget {
            self.free.forget();
        }
        if !served.reported.is_empty() {
            // What was modified until now is not to count as modified after the report.
            self.uncounted += self.harvest_now();
        }
        for (gpa, length) in served.reported {
            self.free.report(gpa, length);
        }
        served.missing
    }

    /// The pages whose content the guest does not need now.
    pub fn free_pages(&mut self) -> &FreePages {
        if self.ran || self.memory.written().is_some() {
            self.uncounted += self.harvest_now();
        }
        &self.free
    }

    /// Takes over what another host knew of free pages. Their arrival here counts as no use of them.
    pub fn take_over_free(&mut self, runs: &[(u64, u64)]) {
        self.uncounted += self.harvest_now();
        self.free.take_over(runs);
    }

    /// Right after a harvest that nobody waits for: large leaves come back if no log is open. Not as the last log closes, because
    /// a migration's opens right after the sample's has closed.
    pub fn join_if_unwatched(&mut self) {
        let logs = [&self.migration_log, &self.sample_log, &self.told_log, &self.watch_log];
        if logs.iter().all(|log| log.is_none()) {
            self.ept.join();
        }
    }

    /// Moves what the CPU has logged to the EPT's own record.
    pub fn take_modification_log(&mut self) {
        self.vcpu.take_modification_log(|gfn| self.ept.logged(gfn));
    }

    /// A write of the guest to its RAM was stopped: by tracking, or by a translation that is no longer true.
    pub fn write_stopped(&mut self, gfn: u64) {
        self.ept.written(gfn);
    }

    /// An empty log. From here on it is known which pages were modified: the caller has harvested, so no large leaf is dirty.
    fn open_log(&mut self) -> Bitmap {
        self.ept.split();
        Bitmap::new(self.memory.pages() as u64)
    }

    /// Opens or closes the log of a migration. Opened, it holds nothing: the first round sends every page.
    pub fn log_for_migration(&mut self, on: bool) {
        self.migration_log = on.then(|| self.open_log());
    }

    /// Moves what the migration's log holds to `dirty`: the pages of all harvests since the last call.
    pub fn take_migration_log(&mut self, dirty: &mut Bitmap) {
        if let Some(log) = &mut self.migration_log {
            dirty.or(log);
            log.clear_all();
        }
    }

    /// Opens or closes the log of a sample.
    pub fn log_for_sample(&mut self, on: bool) {
        self.sample_log = on.then(|| self.open_log());
    }

    /// Opens or closes the log for the monitor.
    pub fn log_to_tell(&mut self, on: bool) {
        self.told_log = on.then(|| self.open_log());
    }

    /// The monitor's log, if it is open.
    pub fn told_log(&mut self) -> Option<&mut Bitmap> {
        self.told_log.as_mut()
    }

    /// Opens or closes the log of a watch.
    pub fn log_for_watch(&mut self, on: bool) {
        self.watch_log = on.then(|| self.open_log());
    }

    /// The watch's log, if it is open.
    pub fn watch_log(&mut self) -> Option<&mut Bitmap> {
        self.watch_log.as_mut()
    }

    /// Whether a page was modified since the sample began.
    pub fn written_in_sample(&mut self, gfn: u64) -> bool {
        self.ept.is_dirty(gfn) || self.sample_log.as_ref().is_some_and(|log| log.test(gfn))
    }

    /// These pages are missing until [`Vm::install`] brings each: touching one stops the guest.
    pub fn set_missing(&mut self, missing: Bitmap) {
        self.ept.revoke(&missing);
        self.missing = Some(missing);
    }

    /// Whether a page has not come yet.
    pub fn is_missing(&self, gfn: u64) -> bool {
        self.missing.as_ref().is_some_and(|missing| missing.test(gfn))
    }

    /// Writes a page that came from the source. It counts as modified.
    pub fn install(&mut self, gfn: u64, page: &Page) {
        if let Some(place) = self.memory.page_mut(gfn) {
            place.copy_from_slice(page);
            self.arrived(gfn);
        }
    }

    /// Makes pages zero; `untouched` says that they still are, because memory starts zeroed.
    pub fn install_zeroes(&mut self, gfns: Range<u64>, untouched: bool) {
        if untouched {
            self.memory.note_all_written(gfns.clone());
        } else {
            for gfn in gfns.clone() {
                self.memory.page_mut(gfn).into_iter().for_each(|page| page.fill(0));
            }
        }
        if self.missing.is_some() {
            gfns.for_each(|gfn| self.arrived(gfn));
        }
    }

    fn arrived(&mut self, gfn: u64) {
        if self.missing.as_mut().is_some_and(|missing| missing.clear(gfn)) {
            self.ept.grant(gfn);
            if self.waiting_for == Some(gfn) {
                self.waiting_for = None;
            }
        }
    }

    /// Every page is here.
    pub fn none_missing(&mut self) {
        if let Some(missing) = self.missing.take() {
            missing.iter().for_each(|gfn| self.ept.grant(gfn));
        }
        self.waiting_for = None;
    }

    /// The page that the guest waited for is here.
    pub fn stop_waiting(&mut self) {
        self.waiting_for = None;
    }

    /// The guest waits for a page.
    pub fn wait_for(&mut self, gfn: u64) {
        self.waiting_for = Some(gfn);
    }

    /// Reads one page-table root's user half: whether nothing is mapped there.
    pub fn user_half_is_empty(&self, gfn: u64) -> bool {
        const USER_HALF: usize = PAGE_SIZE / 2;
        self.memory
            .page(gfn)
            .and_then(|page| page.get(..USER_HALF))
            .is_none_or(|half| half.iter().all(|byte| *byte == 0))
    }

    /// Exits by reason, for reports.
    pub fn exit_counts(&self) -> Vec<(&'static str, u64)> {
        self.exits.iter().map(|(reason, count)| (reason.name(), *count)).collect()
    }

    /// Bytes of tables and logs that this VM costs the host beside its memory.
    pub fn overhead(&self) -> usize {
        self.ept.size()
    }
}

/// Guest memory as the devices reach it: pages that have not come yet are out of reach.
struct Reach<'a> {
    memory: &'a mut GuestMemory,
    missing: Option<&'a Bitmap>,
}

impl Reach<'_> {
    fn all_present(&self, gpa: u64, length: usize) -> Result<(), Unreachable> {
        let Some(missing) = self.missing else { return Ok(()) };
        let last = gpa.saturating_add((length as u64).saturating_sub(1)) / PAGE_SIZE as u64;
        match missing.next_set(gpa / PAGE_SIZE as u64).filter(|gfn| *gfn <= last) {
            Some(gfn) => Err(Unreachable::Missing(gfn)),
            None => Ok(()),
        }
    }
}

impl GuestRam for Reach<'_> {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), Unreachable> {
        self.all_present(gpa, into.len())?;
        self.memory.read(gpa, into).then_some(()).ok_or(Unreachable::Outside)
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), Unreachable> {
        self.all_present(gpa, bytes.len())?;
        self.memory.write(gpa, bytes).map_err(|_| Unreachable::Outside)
    }
}
