//! The VMs of this host, and whose registers the CPU holds.

use super::tenant::Tenant;
use crate::{
    machine::{PAGE_SIZE, frames},
    monitor::options::Options,
    vm::{Activity, GuestFiles, Vm, archive::Archive, settings::Settings},
    vmx::tracker::Tracker,
};
use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
};

/// Names a tenant for as long as the host runs; numbers are not used again.
pub type TenantId = u32;

/// All VMs.
pub struct Guests {
    archive: Archive<'static>,
    tenants: BTreeMap<TenantId, Tenant>,
    next_id: TenantId,
    next_vpid: u16,
    /// Whose context is in the CPU.
    loaded: Option<TenantId>,
    /// Who ran last, so that everyone gets a turn.
    last: TenantId,
    options: Options,
    tracker: Tracker,
    /// What entering and leaving a guest takes, in TSC ticks.
    switch: u64,
}

impl Guests {
    /// No VM yet. VPIDs from `first_vpid` on are theirs.
    pub fn new(archive: Archive<'static>, options: Options, tracker: Tracker, switch: u64, first_vpid: u16) -> Self {
        let (tenants, next_vpid) = (BTreeMap::new(), first_vpid);
        Self { archive, tenants, next_id: 1, next_vpid, loaded: None, last: 0, options, tracker, switch }
    }

    /// Makes and starts every VM of the archive.
    ///
    /// # Errors
    /// One sentence that names the VM and what is wrong with it.
    pub fn start_all(&mut self) -> Result<(), String> {
        let names: alloc::vec::Vec<&str> = self.archive.vms().collect();
        for name in names {
            self.start(name).map_err(|why| format!("VM `{name}`: {why}"))?;
        }
        Ok(())
    }

    fn start(&mut self, name: &str) -> Result<(), String> {
        let files = self.files(name)?.ok_or("not in the guests' archive")?;
        let id = self.create(name, files.settings.memory)?;
        let tenant = self.tenants.get_mut(&id).ok_or("lost")?;
        while !tenant.vm.memory.zero_some() {}
        tenant.vm.load(files)?;
        tenant.vm.activity = Activity::Running;
        Ok(())
    }

    /// The files of a VM in this host's archive.
    ///
    /// # Errors
    /// When its settings cannot be read.
    pub fn files(&self, name: &str) -> Result<Option<GuestFiles>, String> {
        let Some(kernel) = self.archive.file(name, "kernel") else { return Ok(None) };
        Ok(Some(GuestFiles {
            kernel,
            initrd: self.archive.file(name, "initrd").unwrap_or_default(),
            settings: Settings::parse(self.archive.file(name, "settings").unwrap_or_default())?,
        }))
    }

    /// Makes a paused VM whose memory is still to be zeroed.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn create(&mut self, name: &str, memory: u64) -> Result<TenantId, String> {
        if memory < PAGE_SIZE as u64 || !memory.is_multiple_of(PAGE_SIZE as u64) {
            return Err(format!("{memory} bytes of memory are not whole pages"));
        }
        let vpid = self.next_vpid;
        self.next_vpid = vpid.checked_add(1).ok_or("no VPID is left: restart the host")?;
        let vm = Vm::new(name, memory, vpid, crate::machine::rtc::unix_time(), self.tracker)?;
        let id = self.next_id;
        self.next_id += 1;
        self.tenants.insert(id, Tenant::new(vm, self.options.jiffy, self.options.harvest_jiffies, self.switch));
        Ok(id)
    }

    /// Ends a VM and frees its memory.
    pub fn remove(&mut self, id: TenantId) {
        self.tenants.remove(&id);
        if self.loaded == Some(id) {
            self.loaded = None;
        }
    }

    /// A tenant, to look at.
    pub fn peek(&self, id: TenantId) -> Option<&Tenant> {
        self.tenants.get(&id)
    }

    /// A tenant.
    pub fn get(&mut self, id: TenantId) -> Option<&mut Tenant> {
        self.tenants.get_mut(&id)
    }

    /// The running (or stopped, not merely arriving) VM of that name.
    pub fn find(&self, name: &str) -> Option<TenantId> {
        let named = |tenant: &Tenant| tenant.vm.name == name && tenant.vm.activity == Activity::Running;
        self.tenants.iter().find(|(_, tenant)| named(tenant)).map(|(id, _)| *id)
    }

    /// The same, for a command that names it.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(&mut self, name: &str) -> Result<&mut Tenant, String> {
        self.find(name).and_then(|id| self.tenants.get_mut(&id)).ok_or_else(|| format!("no VM `{name}`"))
    }

    /// All tenants.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (TenantId, &mut Tenant)> {
        self.tenants.iter_mut().map(|(id, tenant)| (*id, tenant))
    }

    /// Jiffies until a running VM is to be looked at; `None` when none runs.
    pub fn due_in(&self) -> Option<u64> {
        self.tenants.values().filter_map(Tenant::due_in).min()
    }

    /// Names of the VMs.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.tenants.values().map(|tenant| tenant.vm.name.to_string())
    }

    /// The next VM that could execute an instruction now, with its registers in the CPU.
    pub fn next_runnable(&mut self) -> Option<(TenantId, &mut Tenant)> {
        let order = self.tenants.range(self.last + 1..).chain(self.tenants.range(..=self.last)).map(|(id, _)| *id);
        let order: alloc::vec::Vec<TenantId> = order.collect();
        let runs = |tenant: &mut Tenant| tenant.vm.is_runnable() && tenant.held_until().is_none();
        let id = order.into_iter().find(|id| self.tenants.get_mut(id).is_some_and(runs))?;
        self.last = id;
        self.load(id);
        self.tenants.get_mut(&id).map(|tenant| (id, tenant))
    }

    fn load(&mut self, id: TenantId) {
        if self.loaded == Some(id) {
            return;
        }
        self.unload();
        if let Some(tenant) = self.tenants.get_mut(&id) {
            tenant.vm.vcpu.load_context();
            self.loaded = Some(id);
        }
    }

    /// Takes the registers of the VM that has them out of the CPU: before they are saved for a migration.
    pub fn unload(&mut self) {
        if let Some(tenant) = self.loaded.take().and_then(|id| self.tenants.get_mut(&id)) {
            tenant.vm.vcpu.save_context();
        }
    }

    /// When a device of a running VM next needs attention, in TSC ticks.
    pub fn device_deadline(&self) -> Option<u64> {
        let running = self.tenants.values().filter(|tenant| tenant.vm.activity == Activity::Running);
        running.filter_map(|tenant| tenant.vm.device_deadline()).min()
    }

    /// When the first guest that is held back may run again, in TSC ticks.
    pub fn next_release(&self) -> Option<u64> {
        self.tenants.values().filter_map(Tenant::held_until).min()
    }

    /// Host memory in use, in bytes: the guests' and what keeping them costs.
    pub fn memory_used(&self) -> u64 {
        self.tenants.values().map(|tenant| tenant.vm.memory.size() + tenant.footprint()).sum()
    }

    /// Host memory that is free, in bytes.
    pub fn memory_free(&self) -> u64 {
        frames::free_bytes()
    }
}
