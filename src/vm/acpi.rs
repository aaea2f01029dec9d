//! The ACPI tables of a guest (ACPI 6.5, chapter 5): one processor with its local APIC, two 8259As behind it, the PM1
//! registers and the reset register, and the PCI bus. Linux drives an x2APIC that the firmware has enabled only if a MADT
//! names it, and then looks for a PCI bus nowhere but in the DSDT.

use crate::devices::{BALLOON_IRQ, BALLOON_SLOT, power};
use acpi_tables::{
    Aml, aml,
    facs::FACS,
    fadt::{FADTBuilder, Flags},
    gas::{AccessSize, AddressSpace, GAS},
    madt::{EnabledStatus, ProcessorLocalApic},
    rsdp::Rsdp,
    sdt::Sdt,
    xsdt::XSDT,
};
use alloc::{vec, vec::Vec};

const OEM: [u8; 6] = *b"QAVISR";
const TABLE: [u8; 8] = *b"QAVISOR ";
const REVISION: u32 = 1;
/// The header of every table but RSDP and FACS.
const HEADER: u32 = 36;
/// FACS must be aligned to 64 bytes; the others are, too.
const ALIGNMENT: u64 = 64;

/// MADT: where local APICs lie in memory (ours has no memory-mapped registers), and that there are 8259As.
const APIC_ADDRESS: u32 = 0xfee0_0000;
const PCAT_COMPATIBLE: u32 = 1;
/// FADT, IAPC_BOOT_ARCH: devices of the ISA bus (the serial port); no VGA; no message-signalled interrupts. Bit 1 is
/// left out: there is no keyboard controller to look for.
const BOOT_ARCHITECTURE: u16 = 1 | 1 << 2 | 1 << 3;

/// All tables as one piece of memory for `gpa`, which is aligned to 64 bytes. The RSDP is at its start.
pub fn tables(gpa: u64) -> Vec<u8> {
    let mut bytes = vec![0; Rsdp::len()];
    let dsdt = place(gpa, &mut bytes, &devices());
    let facs = place(gpa, &mut bytes, &FACS::new());
    let fadt = place(gpa, &mut bytes, &fixed_hardware(dsdt, facs).finalize());
    let madt = place(gpa, &mut bytes, &interrupt_controllers());
    let mut list = XSDT::new(OEM, TABLE, REVISION);
    list.add_entry(fadt);
    list.add_entry(madt);
    let list = place(gpa, &mut bytes, &list);
    let mut root = Vec::new();
    Rsdp::new(OEM, list).to_aml_bytes(&mut root);
    bytes.splice(..Rsdp::len(), root);
    bytes
}

/// Appends a table at the next aligned place, and says at which guest-physical address that is.
fn place(gpa: u64, bytes: &mut Vec<u8>, table: &impl Aml) -> u64 {
    bytes.resize((bytes.len() as u64).next_multiple_of(ALIGNMENT) as usize, 0);
    let at = gpa + bytes.len() as u64;
    table.to_aml_bytes(bytes);
    at
}

/// A PCI host bridge: its bus, the ports behind it, and the interrupt line of pin A of the balloon.
fn devices() -> Sdt {
    let bus = aml::AddressSpace::new_bus_number(0u16, 0);
    let mechanism = aml::IO::new(0xCF8, 0xCF8, 1, 8);
    let low = aml::AddressSpace::new_io(0u16, 0xCF7, None);
    let high = aml::AddressSpace::new_io(0xD00u16, 0xFFFF, None);
    let resources = aml::ResourceTemplate::new(vec![&bus, &mechanism, &low, &high]);
    let every_function = BALLOON_SLOT << 16 | 0xFFFF;
    let (pin_a, no_link) = (aml::ZERO, aml::ZERO);
    let wire = aml::Package::new(vec![&every_function, &pin_a, &no_link, &BALLOON_IRQ]);
    let identity = aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0A03"));
    let resources = aml::Name::new("_CRS".into(), &resources);
    let routing = aml::Name::new("_PRT".into(), &aml::Package::new(vec![&wire]));
    let bridge = aml::Device::new("PCI0".into(), vec![&identity, &resources, &routing]);
    let mut code = Vec::new();
    aml::Scope::new("_SB_".into(), vec![&bridge]).to_aml_bytes(&mut code);
    let mut table = Sdt::new(*b"DSDT", HEADER, 2, OEM, TABLE, REVISION);
    table.append_slice(&code);
    table
}

fn fixed_hardware(dsdt: u64, facs: u64) -> FADTBuilder {
    let port =
        |address: u16, bits| GAS::new(AddressSpace::SystemIo, bits, 0, AccessSize::ByteAccess, u64::from(address));
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .firmware_ctrl_64(facs)
        // No fixed buttons (1 says so), caches are coherent, no display.
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    fadt.sci_int = power::SCI.into();
    fadt.pm1a_evt_blk = u32::from(power::EVENT_BLOCK).into();
    fadt.pm1_evt_len = power::EVENT_LENGTH as u8;
    fadt.pm1a_cnt_blk = u32::from(power::CONTROL_BLOCK).into();
    fadt.pm1_cnt_len = power::CONTROL_LENGTH as u8;
    fadt.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    fadt.reset_reg = port(power::RESET_REGISTER, 8);
    fadt.reset_value = power::RESET_VALUE;
    fadt
}

fn interrupt_controllers() -> Sdt {
    let mut madt = Sdt::new(*b"APIC", HEADER, 5, OEM, TABLE, REVISION);
    madt.append_slice(&APIC_ADDRESS.to_le_bytes());
    madt.append_slice(&PCAT_COMPATIBLE.to_le_bytes());
    let mut processor = Vec::new();
    ProcessorLocalApic::new(0, 0, EnabledStatus::Enabled).to_aml_bytes(&mut processor);
    madt.append_slice(&processor);
    madt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> usize {
        bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte))
    }

    #[test]
    fn the_root_leads_to_tables_whose_sums_are_zero() {
        const GPA: usize = 0xe_0000;
        let bytes = tables(GPA as u64);
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!((&bytes[..8], sum(&bytes[..20]), sum(&bytes[..36])), (&b"RSD PTR "[..], 0, 0));
        let table = |at: usize| {
            let rest = &bytes[at - GPA..];
            &rest[..number(&rest[4..8])]
        };
        let list = table(number(&bytes[24..32]));
        assert_eq!((&list[..4], sum(list)), (&b"XSDT"[..], 0));
        let [fadt, madt] = [36, 44].map(|at| table(number(&list[at..at + 8])));
        assert_eq!((&fadt[..4], sum(fadt), &madt[..4], sum(madt)), (&b"FACP"[..], 0, &b"APIC"[..], 0));
        let dsdt = table(number(&fadt[140..148]));
        assert_eq!((&dsdt[..4], sum(dsdt)), (&b"DSDT"[..], 0));
        assert_eq!(number(&fadt[132..140]) % 64, 0, "FACS is aligned");
    }
}
