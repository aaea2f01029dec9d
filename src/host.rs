//! The host: boots the guests, and runs its one loop.

use crate::machine::boot::BootInfo;

/// Runs the hypervisor; never returns.
pub fn run(boot: BootInfo) -> ! {
    log::info!("qavisor {}: {:?}, {} MiB of RAM", env!("CARGO_PKG_VERSION"), boot.protocol, boot.ram_end() >> 20);
    crate::machine::start::fail("nothing to run yet")
}
