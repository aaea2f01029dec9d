//! The VMs of this host as the engines see them.

use crate::{
    host::{Guests, tenant::Tenant},
    machine::{PAGE_SIZE, clock},
    vm::{Activity, memory::Page, state},
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::ops::Range;
use migration::{Bitmap, DestinationVm, Offer, SourceVm, ZERO_PAGE};
use serde::{Deserialize, Serialize};

/// The version of the state package.
const VERSION: u16 = 3;

/// How long memory is zeroed at a time, in microseconds, before the guests have their turn.
const ZEROING: u64 = 1000;

/// What is not memory: the vCPU's record and the devices', each with a version of its own.
#[derive(Serialize, Deserialize)]
struct Package {
    version: u16,
    vcpu: Vec<u8>,
    devices: Vec<u8>,
    /// The start of a line on the guest's console, at most a line long.
    console: Vec<u8>,
    /// Free pages, as runs: see [`crate::vm::free::FreePages::runs`].
    free: Vec<(u64, u64)>,
}

/// A VM that leaves.
pub struct Leaving<'a> {
    /// The VMs of the host.
    pub guests: &'a mut Guests,
    /// Which one.
    pub id: u32,
}

impl Leaving<'_> {
    fn tenant(&mut self) -> Option<&mut Tenant> {
        self.guests.get(self.id)
    }
}

impl SourceVm for Leaving<'_> {
    fn page_count(&self) -> u64 {
        self.guests.peek(self.id).map_or(0, |tenant| tenant.vm.memory.pages() as u64)
    }

    fn page(&self, gfn: u64) -> &Page {
        self.guests.peek(self.id).and_then(|tenant| tenant.vm.memory.page(gfn)).unwrap_or(&ZERO_PAGE)
    }

    fn track(&mut self, on: bool) {
        if let Some(tenant) = self.tenant() {
            // What was written before is of no interest: every page is sent once anyway.
            tenant.harvest_for_migration(&mut Bitmap::new(0));
            tenant.vm.log_for_migration(on);
        }
    }

    fn harvest(&mut self, dirty: &mut Bitmap) {
        if let Some(tenant) = self.tenant() {
            tenant.harvest_for_migration(dirty);
        }
    }

    fn free_pages(&mut self, into: &mut Bitmap) {
        if let Some(tenant) = self.tenant() {
            into.or(tenant.vm.free_pages().set());
        }
    }

    fn nanos(&self) -> u64 {
        clock::to_nanos(clock::now())
    }

    fn throttle(&mut self, percent: u8) {
        if let Some(tenant) = self.tenant() {
            tenant.throttle(percent);
        }
    }

    fn pause(&mut self) {
        self.guests.unload();
        if let Some(tenant) = self.tenant() {
            tenant.vm.activity = Activity::Paused;
        }
    }

    fn resume(&mut self) {
        if let Some(tenant) = self.tenant() {
            tenant.vm.activity = Activity::Running;
        }
    }

    fn save_state(&mut self) -> Result<Vec<u8>, String> {
        self.guests.unload();
        let tenant = self.tenant().ok_or("the VM is gone")?;
        let package = Package {
            version: VERSION,
            vcpu: state::save(&tenant.vm.vcpu)?,
            devices: tenant.vm.chipset.save(),
            console: tenant.unended_line().to_vec(),
            free: tenant.vm.free_pages().runs(),
        };
        postcard::to_allocvec(&package).map_err(|error| format!("cannot encode the state: {error}"))
    }
}

/// A VM that arrives.
pub struct Arriving<'a> {
    /// The VMs of the host.
    pub guests: &'a mut Guests,
    /// The VM, once there is one.
    pub id: &'a mut Option<u32>,
    /// It comes from this very host, so a VM of that name is here.
    pub local: bool,
}

impl Arriving<'_> {
    fn tenant(&mut self) -> Option<&mut Tenant> {
        self.id.and_then(|id| self.guests.get(id))
    }
}

impl DestinationVm for Arriving<'_> {
    fn prepare(&mut self, offer: &Offer) -> Result<(), String> {
        // Another attempt for a VM that never ran here replaces what the first one brought.
        if let Some(id) = self.id.take() {
            self.guests.remove(id);
        }
        let here = clock::hz() / 1000;
        if here.abs_diff(offer.tsc_khz) > here / 1000 {
            return Err(format!("the VM's TSC runs at {} kHz, this host's at {here} kHz", offer.tsc_khz));
        }
        if !self.local && self.guests.find(&offer.name).is_some() {
            return Err(format!("a VM `{}` runs here already", offer.name));
        }
        let size = offer.page_count.checked_mul(PAGE_SIZE as u64).ok_or("more memory than there can be")?;
        let files = self.guests.files(&offer.name)?;
        if files.is_none() {
            log::warn!("{}: this host has not its kernel: a restart of its OS will stop it", offer.name);
        }
        let id = self.guests.create(&offer.name, size)?;
        *self.id = Some(id);
        if let Some(tenant) = self.tenant() {
            tenant.vm.files = files;
        }
        Ok(())
    }

    fn zero_some(&mut self) -> bool {
        let end = clock::micros() + ZEROING;
        self.tenant().is_none_or(|tenant| {
            while !tenant.vm.memory.zero_some() && clock::micros() < end {}
            tenant.vm.memory.is_zeroed()
        })
    }

    fn received(&self, gfn: u64) -> &Page {
        let tenant = self.id.and_then(|id| self.guests.peek(id));
        tenant.and_then(|tenant| tenant.vm.memory.page(gfn)).unwrap_or(&ZERO_PAGE)
    }

    fn write_page(&mut self, gfn: u64, page: &Page) {
        if let Some(tenant) = self.tenant() {
            tenant.vm.install(gfn, page);
        }
    }

    fn write_zeroes(&mut self, gfns: Range<u64>, untouched: bool) {
        if let Some(tenant) = self.tenant() {
            tenant.vm.install_zeroes(gfns, untouched);
        }
    }

    fn load_state(&mut self, bytes: &[u8]) -> Result<(), String> {
        let package: Package = postcard::from_bytes(bytes).map_err(|error| format!("state package: {error}"))?;
        if package.version != VERSION {
            return Err(format!("state package: version {} (this host reads {VERSION})", package.version));
        }
        let tenant = self.tenant().ok_or("there is no VM to load")?;
        // The devices first: they are all-or-nothing, and the vCPU's record starts the guest's clock.
        tenant.vm.chipset.restore(&package.devices).map_err(|error| error.to_string())?;
        state::restore(&mut tenant.vm.vcpu, &package.vcpu)?;
        tenant.vm.take_over_free(&package.free);
        tenant.begin_line(&package.console);
        Ok(())
    }

    fn set_missing(&mut self, missing: &Bitmap) {
        if let Some(tenant) = self.tenant() {
            tenant.vm.set_missing(missing.clone());
        }
    }

    fn all_present(&mut self) {
        if let Some(tenant) = self.tenant() {
            tenant.vm.none_missing();
        }
    }

    fn run(&mut self) {
        if let Some(tenant) = self.tenant() {
            tenant.vm.activity = Activity::Running;
        }
    }
}
