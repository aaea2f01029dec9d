//! PCI: finding a device, and pointing its MSI-X interrupts at a vector of ours.
//!
//! Configuration space is reached by mechanism 1 (ports 0xCF8 and 0xCFC, PCI Local Bus Specification 3.0, 3.2.2.3.2):
//! every emulator has it, and 256 bytes a function are all that we read.

use super::paging;
use alloc::vec::Vec;
use virtio_drivers::transport::pci::bus::{
    CapabilityInfo, Command, ConfigurationAccess, DeviceFunction, DeviceFunctionInfo, HeaderType, PciRoot,
};
use x86_64::instructions::port::Port;

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
const CAPABILITY_MSIX: u8 = 0x11;
/// Secondary bus number of a PCI-to-PCI bridge, in the second byte of this register.
const BRIDGE_BUSES: u8 = 0x18;
/// A capability list that is longer than configuration space has a loop.
const MOST_CAPABILITIES: usize = 48;

/// Configuration mechanism 1.
#[derive(Debug)]
pub struct ConfigPorts(());

/// The PCI devices of this machine.
pub type Pci = PciRoot<ConfigPorts>;

fn select(function: DeviceFunction, register: u8) {
    let address = 0x8000_0000
        | u32::from(function.bus) << 16
        | u32::from(function.device & 0x1f) << 11
        | u32::from(function.function & 7) << 8
        | u32::from(register & 0xfc);
    // SAFETY: writing the address register only chooses what the data register means.
    unsafe { Port::<u32>::new(CONFIG_ADDRESS).write(address) };
}

impl ConfigurationAccess for ConfigPorts {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        select(function, register);
        // SAFETY: reading configuration space has no effect on memory, and the host has one CPU in this code.
        unsafe { Port::<u32>::new(CONFIG_DATA).read() }
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, data: u32) {
        select(function, register);
        // SAFETY: what is written here are the registers of a device that this module's callers own: BARs while they
        // are sized, the command register, and MSI-X control.
        unsafe { Port::<u32>::new(CONFIG_DATA).write(data) };
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self(())
    }
}

/// The machine's PCI configuration space.
pub fn root() -> Pci {
    PciRoot::new(ConfigPorts(()))
}

/// Every function on bus 0 and on the buses behind its bridges.
pub fn functions(pci: &Pci) -> Vec<(DeviceFunction, DeviceFunctionInfo)> {
    let mut found = Vec::new();
    let mut buses = Vec::from([0u8]);
    let mut next = 0;
    while let Some(&bus) = buses.get(next) {
        next += 1;
        for (function, info) in pci.enumerate_bus(bus) {
            if info.header_type == HeaderType::PciPciBridge {
                let secondary = read(function, BRIDGE_BUSES).to_le_bytes()[1];
                if !buses.contains(&secondary) {
                    buses.push(secondary);
                }
            }
            found.push((function, info));
        }
    }
    found
}

/// One register of a function.
pub fn read(function: DeviceFunction, register: u8) -> u32 {
    ConfigPorts(()).read_word(function, register)
}

/// Lets a function answer at its memory BARs and reach our memory; its INTx line stays off.
pub fn enable(pci: &mut Pci, function: DeviceFunction) {
    let (_, command) = pci.get_status_command(function);
    let wanted = Command::MEMORY_SPACE | Command::BUS_MASTER | Command::INTERRUPT_DISABLE;
    pci.set_command(function, command | wanted);
}

/// The physical address of `offset` in memory BAR `bar`, if `length` bytes fit there.
pub fn bar_address(pci: &mut Pci, function: DeviceFunction, bar: u8, offset: u32, length: u32) -> Option<u64> {
    if bar > 5 {
        return None;
    }
    let (address, size) = pci.bar_info(function, bar).ok()??.memory_address_size()?;
    let end = u64::from(offset).checked_add(u64::from(length))?;
    (address != 0 && end <= size).then(|| address.checked_add(u64::from(offset)))?
}

/// The capabilities of a function.
pub fn capabilities(pci: &Pci, function: DeviceFunction) -> impl Iterator<Item = CapabilityInfo> {
    pci.capabilities(function).take(MOST_CAPABILITIES)
}

/// Turns MSI-X on for a function and sends the message of its table entry 0 to `vector` of the local APIC `apic_id`
/// (PCI Local Bus Specification 3.0, 6.8.2; the message's format: SDM 11.11). Every other entry stays masked, as it is
/// after reset.
///
/// # Errors
/// When the function has no MSI-X, or a table that lies nowhere.
pub fn route_msix(pci: &mut Pci, function: DeviceFunction, vector: u8, apic_id: u8) -> Result<(), &'static str> {
    const ENTRY_BYTES: u32 = 16;
    const ENABLE: u32 = 1 << 31;
    const FUNCTION_MASK: u32 = 1 << 30;

    let capability = capabilities(pci, function)
        .find(|capability| capability.id == CAPABILITY_MSIX)
        .ok_or("the device has no MSI-X")?
        .offset;
    let table = read(function, capability.saturating_add(4));
    let bar = (table & 7) as u8;
    let entry = bar_address(pci, function, bar, table & !7, ENTRY_BYTES)
        .ok_or("the device's MSI-X table lies in no memory BAR")?;
    paging::map_mmio(entry, ENTRY_BYTES as usize)?;

    let entry = entry as *mut u32;
    let message = [0xfee0_0000 | u32::from(apic_id) << 12, 0, u32::from(vector), 0];
    for (index, word) in message.into_iter().enumerate() {
        // SAFETY: the entry lies in the device's own BAR (checked above), mapped uncached, and is 16 bytes long. The
        // message can only raise an interrupt that is counted.
        unsafe { entry.add(index).write_volatile(word) };
    }
    let control = read(function, capability);
    let mut ports = ConfigPorts(());
    ports.write_word(function, capability, (control | ENABLE) & !FUNCTION_MASK);
    Ok(())
}
