//! The timer.

use super::*;

#[test]
fn oneshot_interrupts_once_for_each_count_and_not_before() {
    let mut guest = Guest::new();
    guest.init_pics(1 << 0);
    guest.outb(0x38, 0x43); // pit_set_oneshot
    assert_eq!(guest.chipset.next_deadline(), None);
    for count in [0x000Fu16, 0x1234, 0x7FFF] {
        let [low, high] = count.to_le_bytes();
        guest.outb(low, 0x40);
        guest.outb(high, 0x40);
        let exact = Nanos::from(count) * SECOND / 1_193_182;
        assert_eq!(guest.run(exact - 1), 0);
        assert_eq!(guest.run(3), 1);
        assert_eq!(guest.run(SECOND), 0);
    }
}

#[test]
fn a_new_oneshot_replaces_the_running_one() {
    let mut guest = Guest::new();
    guest.init_pics(1 << 0);
    guest.outb(0x38, 0x43);
    for _ in 0..5 {
        guest.outb(0x00, 0x40);
        guest.outb(0x80, 0x40); // 27 ms
        assert_eq!(guest.run(20 * MILLISECOND), 0);
    }
    assert_eq!(guest.run(20 * MILLISECOND), 1);
}

#[test]
fn periodic_timer_does_not_drift() {
    let mut guest = Guest::new();
    guest.init_pics(1 << 0);
    guest.outb(0x34, 0x43); // pit_set_periodic at 250 Hz
    guest.outb((4773u16 & 0xFF) as u8, 0x40);
    guest.outb((4773u16 >> 8) as u8, 0x40);
    // 3600 s of 4773 ticks each
    assert_eq!(guest.run(3600 * SECOND), (3600 * 1_193_182u64 / 4773) as usize);
    assert_eq!(guest.chipset.coalesced_ticks(), 0);
}

#[test]
fn a_late_host_gives_one_interrupt_and_keeps_the_phase() {
    let mut guest = Guest::new();
    guest.init_pics(1 << 0);
    guest.outb(0x34, 0x43);
    guest.outb(0x00, 0x40);
    guest.outb(0x10, 0x40); // 4096 ticks
    let start = guest.now;
    guest.now += 10 * 3600 * SECOND;
    guest.chipset.advance(guest.now);
    assert_eq!(guest.chipset.acknowledge_interrupt(), Some(0x30));
    guest.end_of_interrupt(0x30);
    assert_eq!(guest.chipset.acknowledge_interrupt(), None);
    let periods = 10 * 3600 * 1_193_182 / 4096;
    assert_eq!(guest.chipset.coalesced_ticks(), periods - 1);
    let next = u128::from(periods + 1) * 4096;
    assert_eq!(guest.chipset.next_deadline(), Some(start + (next * u128::from(SECOND)).div_ceil(1_193_182) as u64));
}

#[test]
fn the_shortest_period_interrupts_at_most_every_100_us() {
    let mut guest = Guest::new();
    guest.init_pics(1 << 0);
    guest.outb(0x14, 0x43);
    guest.outb(1, 0x40);
    let interrupts = guest.run(10 * MILLISECOND);
    assert!((90..=100).contains(&interrupts), "{interrupts}");
}

#[test]
fn shutdown_of_the_timer_leaves_at_most_one_interrupt() {
    let mut guest = Guest::new();
    guest.init_pics(1 << 0);
    guest.outb(0x34, 0x43);
    guest.outb(0x00, 0x40);
    guest.outb(0x10, 0x40);
    assert!(guest.run(SECOND) > 200);
    for (value, port) in [(0x30, 0x43), (0, 0x40), (0, 0x40)] {
        guest.outb(value, port); // pit_shutdown
    }
    assert_eq!(guest.run(SECOND), 1);
    assert_eq!(guest.chipset.next_deadline(), None);
}

#[test]
fn calibration_by_channel_2_sees_its_gate_and_its_end() {
    let mut guest = Guest::new();
    let gate = guest.inb(0x61) & !0x02 | 0x01;
    guest.outb(gate, 0x61);
    guest.outb(0xB0, 0x43);
    let count = 59_659u16; // 50 ms
    guest.outb(count as u8, 0x42);
    guest.outb((count >> 8) as u8, 0x42);
    guest.now += 49_999_000;
    assert_eq!(guest.inb(0x61) & 0x20, 0);
    guest.now += 2_000;
    assert_eq!(guest.inb(0x61) & 0x20, 0x20);
    assert_eq!(guest.inb(0x61) & 0x0F, 0x01);
}

#[test]
fn quick_calibration_sees_the_high_byte_count_down() {
    let mut guest = Guest::new();
    guest.outb(0x01, 0x61);
    guest.outb(0xB0, 0x43);
    guest.outb(0xFF, 0x42);
    guest.outb(0xFF, 0x42);
    for expected in (0xF0..=0xFF).rev() {
        guest.inb(0x42);
        assert_eq!(guest.inb(0x42), expected);
        guest.now += 256 * SECOND / 1_193_182 + 1;
    }
}

#[test]
fn closed_gate_stops_channel_2_where_it_is() {
    let mut guest = Guest::new();
    guest.outb(0x01, 0x61);
    guest.outb(0xB0, 0x43);
    guest.outb(0x00, 0x42);
    guest.outb(0x80, 0x42);
    guest.now += MILLISECOND;
    guest.outb(0x00, 0x61);
    guest.outb(0x80, 0x43);
    let stopped = [guest.inb(0x42), guest.inb(0x42)];
    guest.now += SECOND;
    assert_eq!([guest.inb(0x42), guest.inb(0x42)], stopped);
    guest.outb(0x01, 0x61);
    guest.now += MILLISECOND;
    let gone_on = u16::from_le_bytes([guest.inb(0x42), guest.inb(0x42)]);
    let before = u16::from_le_bytes(stopped);
    assert!((1192..=1195).contains(&(before - gone_on)), "{before} {gone_on}");
}

#[test]
fn latched_count_stays_until_it_is_read() {
    let mut guest = Guest::new();
    guest.outb(0x34, 0x43);
    guest.outb(0x00, 0x40);
    guest.outb(0x10, 0x40);
    guest.now += MILLISECOND;
    guest.outb(0x00, 0x43); // i8253_read
    guest.now += MILLISECOND;
    let latched = u16::from_le_bytes([guest.inb(0x40), guest.inb(0x40)]);
    assert_eq!(latched, 4096 - 1193);
    let live = u16::from_le_bytes([guest.inb(0x40), guest.inb(0x40)]);
    assert_eq!(live, 4096 - 2386);
}

#[test]
fn read_back_gives_status_then_count() {
    let mut guest = Guest::new();
    guest.outb(0x34, 0x43);
    guest.outb(0xC2, 0x43);
    assert_eq!(guest.inb(0x40), 0b1111_0100, "OUT high, no count yet, both bytes, mode 2");
    guest.inb(0x40);
    guest.inb(0x40);
    guest.outb(0x00, 0x40);
    guest.outb(0x10, 0x40);
    guest.outb(0xC2, 0x43);
    assert_eq!(guest.inb(0x40), 0b1011_0100);
    assert_eq!([guest.inb(0x40), guest.inb(0x40)], [0x00, 0x10]);
}
