//! The clock, the reset ports, and the ports of what is not there.

use super::*;
use alloc::string::ToString;

#[test]
fn the_clock_shows_the_time_in_bcd_and_runs() {
    let mut guest = Guest::new();
    let read = |guest: &mut Guest, index: u8| {
        guest.outb(index, 0x70);
        guest.inb(0x71)
    };
    let indices = [0x32, 0x09, 0x08, 0x07, 0x06, 0x04, 0x02, 0x00];
    assert_eq!(indices.map(|index| read(&mut guest, index)), [0x20, 0x26, 0x11, 0x24, 0x03, 0x03, 0x14, 0x15]);
    guest.now += 46 * SECOND;
    assert_eq!(indices.map(|index| read(&mut guest, index))[5..], [0x03, 0x15, 0x01]);
    assert_eq!([0x0A, 0x0B, 0x0C, 0x0D].map(|index| read(&mut guest, index)), [0x26, 0x02, 0x00, 0x80]);
    // the update flag precedes the next second by 244 us
    guest.now = 5_000 + 60 * SECOND - 200_000;
    assert_eq!(read(&mut guest, 0x0A), 0xA6);
    guest.now += 200_000;
    assert_eq!(read(&mut guest, 0x0A), 0x26);
}

#[test]
fn a_time_that_the_guest_sets_runs_on_and_survives_its_restart() {
    let mut guest = Guest::new();
    let set = |guest: &mut Guest, index: u8, value: u8| {
        guest.outb(index, 0x70);
        guest.outb(value, 0x71);
    };
    set(&mut guest, 0x0B, 0x82);
    let written = [(0x09, 0x28), (0x08, 0x02), (0x07, 0x29), (0x04, 0x23), (0x02, 0x59), (0x00, 0x58)];
    for (index, value) in written {
        set(&mut guest, index, value);
        guest.now += SECOND; // held: no second passes
    }
    guest.now += SECOND - 100_000;
    guest.outb(0x0A, 0x70);
    assert_eq!(guest.inb(0x71), 0x26, "nothing is about to change while held");
    set(&mut guest, 0x0B, 0x02);
    set(&mut guest, 0x40, 0x77);
    guest.now += 2 * SECOND;
    guest.chipset.reset();
    let read = [0x09, 0x08, 0x07, 0x04, 0x02, 0x00, 0x40].map(|index| {
        guest.outb(index, 0x70);
        guest.inb(0x71)
    });
    assert_eq!(read, [0x28, 0x03, 0x01, 0x00, 0x00, 0x00, 0x77]);
}

#[test]
fn keyboard_probe_gives_up_and_its_wait_ends_at_once() {
    let mut guest = Guest::new();
    for _ in 0..17 {
        assert_eq!(guest.inb(0x64) & 0x03, 0x01, "always output, never a full input buffer");
        guest.inb(0x60);
    }
}

#[test]
fn every_way_to_restart_names_its_cause() {
    let mut guest = Guest::new();
    assert_eq!(guest.outb(0xFE, 0x64), Some(RestartCause::I8042Pulse));
    assert_eq!(guest.outb(0xF0, 0x64), Some(RestartCause::I8042Pulse));
    assert_eq!(guest.outb(0xFF, 0x64), None);
    assert_eq!(guest.outb(0x60, 0x64), None);
    assert_eq!(guest.outb(0x02, 0x92), None);
    assert_eq!(guest.outb(0x03, 0x92), Some(RestartCause::I8042Pulse));
    for hard in [0x06, 0x0E] {
        guest.chipset.reset();
        assert_eq!(guest.outb(hard & !4, 0xCF9), None);
        assert_eq!(guest.outb(hard, 0xCF9), Some(RestartCause::Port0xCF9));
        assert_eq!(guest.outb(hard, 0xCF9), None, "the bit must rise");
    }
    let causes = [
        RestartCause::TripleFault,
        RestartCause::Crash,
        RestartCause::Port0xCF9,
        RestartCause::I8042Pulse,
        RestartCause::AcpiReset,
    ];
    assert_eq!(
        causes.map(|cause| cause.to_string()),
        ["triple fault", "triple fault", "port 0xCF9", "8042 pulse", "ACPI reset"]
    );
}

#[test]
fn the_pci_bus_has_a_bridge_and_a_balloon_and_nothing_else() {
    let mut guest = Guest::new();
    guest.outb(0x01, 0xCFB); // pci_check_type1
    let mut found = Vec::new();
    for function in 0..32 * 8u32 {
        let address = 0x8000_0000 | function << 8;
        assert_eq!(guest.chipset.write_port(0xCF8, Width::Dword, address, 0), None);
        assert_eq!(guest.chipset.read_port(0xCF8, Width::Dword, 0), address);
        match guest.chipset.read_port(0xCFC, Width::Dword, 0) {
            u32::MAX => assert_eq!(guest.chipset.read_port(0xCFE, Width::Word, 0), 0xFFFF),
            identity => found.push((function, identity)),
        }
    }
    assert_eq!(found, [(0, 0x0008_1B36), (8, 0x1002_1AF4)]);
    guest.chipset.write_port(0xCF8, Width::Dword, 0x8000_0008, 0);
    assert_eq!(guest.chipset.read_port(0xCFE, Width::Word, 0), 0x0600, "a host bridge");
    guest.chipset.write_port(0xCF8, Width::Dword, 0x8001_0000, 0);
    assert_eq!(guest.chipset.read_port(0xCFC, Width::Dword, 0), u32::MAX, "there is one bus");
}

#[test]
fn the_balloons_ports_have_a_size_and_move_where_the_guest_says() {
    let mut guest = Guest::new();
    let features = |guest: &mut Guest, base: u16| guest.chipset.read_port(base, Width::Dword, 0);
    let write = |guest: &mut Guest, register: u32, value: u32| {
        guest.chipset.write_port(0xCF8, Width::Dword, 0x8000_0800 | register, 0);
        guest.chipset.write_port(0xCFC, Width::Dword, value, 0);
        guest.chipset.read_port(0xCFC, Width::Dword, 0)
    };
    assert_eq!(features(&mut guest, 0xC000), 1 << 5);
    assert_eq!(write(&mut guest, 0x04, 0) & 1, 0);
    assert_eq!(features(&mut guest, 0xC000), u32::MAX, "no longer decoded");
    assert_eq!(write(&mut guest, 0x10, u32::MAX), 0xFFC1, "64 ports");
    assert_eq!(write(&mut guest, 0x10, 0xD041), 0xD041);
    assert_eq!(write(&mut guest, 0x04, u32::MAX), 0x0405);
    assert_eq!((features(&mut guest, 0xD040), features(&mut guest, 0xC000)), (1 << 5, u32::MAX));
    // Ports that nobody has assigned are not taken from those that have them.
    assert_eq!(write(&mut guest, 0x10, 0), 1);
    guest.outb(0xA5, 0x21);
    assert_eq!(guest.inb(0x21), 0xA5);
    assert_eq!(write(&mut guest, 0x3C, 0x05) & 0xFFFF, 0x0105, "pin A, and the guest's note");
    assert_eq!(write(&mut guest, 0x00, 0), 0x1002_1AF4);
}

#[test]
fn the_pci_mechanism_never_restarts_by_wide_accesses() {
    let mut guest = Guest::new();
    for port in 0xCF5..=0xCF9 {
        for width in [Width::Word, Width::Dword] {
            assert_eq!(guest.chipset.write_port(port, width, 0x0606_0606, 0), None);
        }
    }
}

#[test]
fn unknown_ports_read_all_ones_and_are_noted_without_growing() {
    let mut guest = Guest::new();
    assert_eq!(guest.chipset.read_port(0x1F0, Width::Dword, 0), 0xFFFF_FFFF);
    assert_eq!(guest.chipset.read_port(0x1F0, Width::Word, 0), 0xFFFF);
    guest.outb(0xFF, 0x80);
    for port in 0x1000..0x1100 {
        guest.inb(port);
    }
    let noted: Vec<_> = guest.chipset.unknown_ports().iter().collect();
    assert_eq!((noted.len(), noted[0]), (16, (0x1F0, 2)));
    assert_eq!(guest.chipset.unknown_ports().others(), 256 - 15);
}

#[test]
fn restart_keeps_pending_output_and_nothing_else_of_the_old_os() {
    let mut guest = Guest::new();
    guest.init_pics(1 << 0 | 1 << 4);
    guest.outb(0x34, 0x43);
    guest.outb(0x00, 0x40);
    guest.outb(0x10, 0x40);
    guest.outb(b'!', 0x3F8);
    guest.outb(0x07, 0x3F9);
    guest.chipset.type_input(b"x");
    guest.chipset.reset();
    assert!(!guest.chipset.interrupt_pending());
    assert_eq!(guest.chipset.next_deadline(), None);
    assert_eq!((guest.inb(0x3F9), guest.inb(0x3FD) & 1, guest.inb(0x21)), (0, 0, 0xFF));
    assert_eq!(guest.printed(), b"!");
}
