//! The host: boots the guests, and runs its one loop.

use crate::{
    machine::{boot::BootInfo, clock, frames, start::fail},
    vm::{Activity, Vm, archive::Archive, own, settings::Settings},
    vmx,
};
use alloc::{format, string::String, vec::Vec};

/// Runs the hypervisor; never returns.
pub fn run(boot: BootInfo) -> ! {
    log::info!("qavisor {}: {:?}, {} MiB of RAM", env!("CARGO_PKG_VERSION"), boot.protocol, boot.ram_end() >> 20);
    match go(boot) {
        Ok(()) => crate::machine::power::off(crate::machine::power::Ending::Done),
        Err(message) => fail(message),
    }
}

fn go(boot: BootInfo) -> Result<(), String> {
    vmx::operation::enter()?;
    own::test_dirty_flags(1)?;
    log::info!("VMX is on, EPT dirty flags work; TSC {} Hz, {} MiB free", clock::hz(), frames::free_bytes() >> 20);
    let module = boot.module.clone().ok_or("no guests' archive: give one as boot module (-initrd, or GRUB's module2)")?;
    let bytes: &'static [u8] = crate::machine::boot::module_bytes(&module);
    let archive = Archive::read(bytes)?;
    let mut vms = Vec::new();
    for name in archive.vms() {
        let settings = Settings::parse(archive.file(name, "settings").unwrap_or_default())?;
        let mut vm = Vm::new(name, settings.memory, 2, 0)?;
        vm.load(crate::vm::GuestFiles { kernel: archive.file(name, "kernel").unwrap_or_default(), initrd: archive.file(name, "initrd").unwrap_or_default(), settings })?;
        vm.activity = Activity::Running;
        vms.push(vm);
    }
    let mut idle = own::Idle::new(1)?;
    let vm = vms.get_mut(0).ok_or("no VM")?;
    vm.vcpu.load_context();
    let mut line = Vec::new();
    let tick = clock::from_micros(4000);
    loop {
        let deadline = clock::now() + tick;
        if vm.is_runnable() {
            use crate::vm::Stop;
            match vm.run_until(deadline) {
                Stop::Yield | Stop::Halted => {}
                Stop::Restart(cause) => { log::info!("restart: {cause}"); vm.restart()?; }
                other => return Err(format!("{other:?} exits {:?}", vm.exit_counts())),
            }
        } else {
            let until = vm.device_deadline().map_or(deadline, |d| d.min(deadline));
            idle.wait(until);
        }
        if vm.chipset.has_output() {
            vm.chipset.take_output(&mut line);
            while let Some(at) = line.iter().position(|b| *b == b'\n') {
                let text: Vec<u8> = line.drain(..=at).collect();
                log::info!("{}: {}", vm.name, String::from_utf8_lossy(&text).trim_end());
            }
        }
    }
}
