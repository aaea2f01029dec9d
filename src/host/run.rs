//! The one loop.

use super::{Guests, Terminal, guests::TenantId, ticker::Ticker};
use crate::{
    machine::{
        boot::{self, BootInfo},
        clock, log as machine_log, power,
        start::fail,
    },
    migrate::Migrations,
    monitor::{
        command::{Command, PolicyName, Watching},
        event::{VmStatus, What},
        options::Options,
    },
    vm::{Activity, Stop, archive::Archive, own},
    vmx,
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

/// A VPID is never 0, which is the host's (SDM 29.1).
const IDLE_VPID: u16 = 1;
/// While pages are streamed a guest runs as long at a time as the stream's last step took, but within these bounds in
/// microseconds: the guest has its half of the CPU, and the link does not run dry.
const STREAMING_SLICE: core::ops::RangeInclusive<u64> = 1000..=8000;
/// The identifier is told once a second.
const IDENTIFIER_PERIOD: u64 = 1_000_000;

/// Runs the hypervisor; never returns.
pub fn run(boot: BootInfo) -> ! {
    match Host::new(&boot) {
        Ok(mut host) => host.run(),
        Err(message) => fail(message),
    }
}

struct Host {
    guests: Guests,
    migrations: Migrations,
    terminal: Terminal,
    idle: own::Idle,
    ticker: Ticker,
    next_identifier: u64,
    /// Until when the time is accounted for, in TSC ticks: the guest that runs next is charged from here on.
    accounted: u64,
    policy: PolicyName,
}

impl Host {
    fn new(boot: &BootInfo) -> Result<Self, String> {
        let options = Options::parse(&boot.command_line).map_err(|error| error.to_string())?;
        machine_log::init(options.log);
        log::info!("qavisor {}: {:?}, {} MiB of RAM", env!("CARGO_PKG_VERSION"), boot.protocol, boot.ram_end() >> 20);
        vmx::operation::enter()?;
        let tracker = own::choose_tracker(options.tracker, IDLE_VPID)?;
        let own::ExitCost { round_trip, switch } = own::exit_cost(IDLE_VPID)?;
        log::info!(
            "VMX: written pages are found by {}, an exit and entry take {round_trip} ticks, the switch {switch} of them",
            tracker.text()
        );
        let terminal = Terminal::new(options.console)?;
        let archive = match &boot.module {
            Some(module) => Archive::read(boot::module_bytes(module))?,
            None if options.listen.is_some() => Archive::default(),
            None => return Err("no guests' archive: give one as boot module (qemu -initrd, GRUB's module2)".into()),
        };
        let mut guests = Guests::new(archive, options, tracker, switch, IDLE_VPID + 1);
        if options.start {
            guests.start_all()?;
        }
        let mut host = Self {
            migrations: Migrations::new(&options)?,
            idle: own::Idle::new(IDLE_VPID)?,
            ticker: Ticker::new(clock::now(), clock::from_nanos(options.jiffy.as_nanos() as u64)),
            next_identifier: clock::micros() + IDENTIFIER_PERIOD,
            accounted: clock::now(),
            policy: PolicyName::default(),
            guests,
            terminal,
        };
        host.terminal.tell(What::Ready {
            version: env!("CARGO_PKG_VERSION"),
            vms: host.guests.names().collect(),
            tracker: tracker.text(),
            listening: options.listen,
            memory_free: host.guests.memory_free(),
        });
        log::info!("ready: TSC {} Hz, {} MiB free", clock::hz(), host.guests.memory_free() >> 20);
        Ok(host)
    }

    fn run(&mut self) -> ! {
        loop {
            self.tick();
            self.terminal.send();
            // A guest that waits for the port may have nothing else to run for.
            self.guests.iter_mut().for_each(|(_, tenant)| tenant.console_lines(&mut self.terminal));
            if let Some(command) = self.terminal.poll() {
                self.execute(command);
            }
            let start = clock::now();
            self.migrations.step(&mut self.guests, &mut self.terminal);
            let streaming = self.migrations.streaming().then(|| clock::to_micros(clock::now() - start));
            self.run_one_guest(streaming);
        }
    }

    /// Counts the jiffies that have passed, and does what is due with them.
    fn tick(&mut self) {
        let jiffies = self.ticker.elapsed(clock::now());
        if jiffies == 0 {
            return;
        }
        let tell_identifier = clock::micros() >= self.next_identifier;
        if tell_identifier {
            self.next_identifier = clock::micros() + IDENTIFIER_PERIOD;
        }
        let mut observed = Vec::new();
        for (id, tenant) in self.guests.iter_mut() {
            if let Some(sample) = tenant.tick(jiffies) {
                observed.push((id, sample));
            }
            if tenant.is_watched() {
                let events = tenant.untold_harvest(self.terminal.room_for_harvests());
                events.into_iter().for_each(|event| self.terminal.tell(event));
            } else if tell_identifier && tenant.due_in().is_some() {
                self.terminal.tell(tenant.identifier());
            }
        }
        for (id, sample) in observed {
            self.migrations.sampled(id, &sample, &mut self.guests, &mut self.terminal);
        }
    }

    /// When the timer has to mark a tick, in TSC ticks, because somebody waits for it: jiffies in between are counted when the
    /// next one is looked at. `None` when no VM runs: then nobody counts.
    fn next_tick(&self) -> Option<u64> {
        let due = self.ticker.deadline_after(self.guests.due_in()? - 1);
        let identifier = self.next_identifier.saturating_sub(clock::micros());
        Some(due.min(clock::now() + clock::from_micros(identifier)))
    }

    /// Lets one guest run; `streaming` is what the stream's last step took, in microseconds, if there is one.
    fn run_one_guest(&mut self, streaming: Option<u64>) {
        let slice = streaming.map(|step| step.clamp(*STREAMING_SLICE.start(), *STREAMING_SLICE.end()));
        let slice_end = slice.map(|slice| clock::now() + clock::from_micros(slice));
        loop {
            let tick = self.next_tick();
            let Some((id, tenant)) = self.guests.next_runnable() else { return self.rest() };
            // While pages stream there are always frames, and they can wait for the end of a slice.
            if slice_end.is_none() && !self.migrations.arm() {
                return;
            }
            let wanted = [slice_end.or_else(|| self.migrations.deadline()), self.terminal.deadline(), tick];
            let deadline = wanted.into_iter().flatten().fold(self.terminal.next_poll(), u64::min);
            let stop = tenant.run_until(deadline);
            self.accounted = tenant.charge(self.accounted);
            tenant.console_lines(&mut self.terminal);
            let goes_on = stop == Stop::Yield && slice_end.is_some_and(|end| clock::now() < end);
            // What the stop brings about is told with the jiffy in which it happened.
            self.tick();
            self.stopped(id, stop);
            if !goes_on {
                return;
            }
            self.terminal.send();
        }
    }

    /// Nobody can run: waits until something happens, unless a stream may go on at once.
    fn rest(&mut self) {
        if self.migrations.has_work() || !self.migrations.arm() {
            return;
        }
        let wanted = [
            self.next_tick(),
            self.guests.device_deadline(),
            self.guests.next_release(),
            self.migrations.deadline(),
            self.terminal.deadline(),
        ];
        let poll = self.terminal.next_poll();
        self.idle.wait(wanted.into_iter().flatten().fold(poll, u64::min));
        self.accounted = clock::now();
    }

    fn stopped(&mut self, id: TenantId, stop: Stop) {
        let Some(tenant) = self.guests.get(id) else { return };
        match stop {
            Stop::Yield | Stop::Halted | Stop::AddressSpace(..) => {}
            Stop::PageMissing(gfn) => self.migrations.page_missing(id, gfn, &mut self.guests),
            Stop::Restart(cause) => match tenant.restart(cause) {
                Ok(event) => self.terminal.tell(event),
                Err(reason) => self.kill(id, reason),
            },
            Stop::Dead(reason) => self.kill(id, reason),
        }
    }

    /// Stops a VM that cannot go on; the host and the other VMs do.
    fn kill(&mut self, id: TenantId, reason: String) {
        let Some(tenant) = self.guests.get(id) else { return };
        log::error!("{}: stopped: {reason}", tenant.vm.name);
        tenant.vm.activity = Activity::Stopped(reason.clone());
        self.terminal.tell(What::Stopped { vm: tenant.vm.name.clone(), reason });
    }

    fn execute(&mut self, command: Command) {
        let outcome = match command {
            Command::Status => {
                self.status();
                Ok(())
            }
            Command::Policy(policy) => {
                self.policy = policy;
                Ok(())
            }
            Command::Migrate(request) => self.migrations.start(request, self.policy, &mut self.guests),
            Command::Cancel { vm } => self.migrations.cancel(&vm, &mut self.guests, &mut self.terminal),
            Command::Pause { vm } => self.migrations.pause(&vm),
            Command::Recover { vm, to } => self.migrations.recover(&vm, to),
            Command::Input { vm, text } => self.input(&vm, &text),
            Command::Dirty { vm, end } => self.dirty(&vm, end),
            Command::Watch { vm, how } => self.watch(&vm, how),
            Command::Identifier { vm, on } => self.identifier(&vm, on),
            Command::Quit => self.quit(),
        };
        if let Err(message) = outcome {
            self.terminal.error(message, None);
        }
    }

    fn watch(&mut self, vm: &str, how: Option<Watching>) -> Result<(), String> {
        let tenant = self.guests.named(vm)?;
        for event in [tenant.watch(how), tenant.identifier()] {
            self.terminal.tell(event);
        }
        Ok(())
    }

    fn identifier(&mut self, vm: &str, on: bool) -> Result<(), String> {
        let tenant = self.guests.named(vm)?;
        self.terminal.tell(tenant.keep_identifier(on));
        Ok(())
    }

    fn input(&mut self, vm: &str, text: &str) -> Result<(), String> {
        let tenant = self.guests.named(vm)?;
        let line = format!("{text}\n");
        let taken = tenant.vm.chipset.type_input(line.as_bytes());
        if taken < line.len() {
            return Err(format!("the console of `{vm}` took {taken} of {} bytes: its guest does not read", line.len()));
        }
        Ok(())
    }

    fn dirty(&mut self, vm: &str, end: bool) -> Result<(), String> {
        let tenant = self.guests.named(vm)?;
        let pages = tenant.tell_dirty(end);
        self.terminal.tell(pages);
        Ok(())
    }

    fn status(&mut self) {
        let mut vms = Vec::new();
        let mut overheads = Vec::new();
        for (_, tenant) in self.guests.iter_mut() {
            vms.push(VmStatus {
                vm: tenant.vm.name.clone(),
                state: match tenant.vm.activity {
                    Activity::Running => "running",
                    Activity::Paused => "paused",
                    Activity::Stopped(_) => "stopped",
                },
                memory: tenant.vm.memory.size(),
                id: tenant.id(),
            });
            overheads.push(What::Overhead { vm: tenant.vm.name.clone(), overhead: tenant.overhead() });
        }
        let (memory_used, memory_free) = (self.guests.memory_used(), self.guests.memory_free());
        self.terminal.tell(What::Status { vms, memory_used, memory_free });
        for overhead in overheads {
            self.terminal.tell(overhead);
        }
    }

    fn quit(&mut self) -> ! {
        self.terminal.tell(What::Bye);
        self.terminal.flush();
        log::info!("bye");
        power::off(power::Ending::Done)
    }
}
