//! The interrupt controllers.

use super::super::pic::PicPair;
use super::*;

#[test]
fn probe_of_the_interrupt_controller_reads_the_mask_back() {
    let mut guest = Guest::new();
    guest.outb(0xFF, 0xA1);
    guest.outb(0xFB, 0x21);
    assert_eq!(guest.inb(0x21), 0xFB);
    guest.init_pics(1 << 0);
    assert_eq!((guest.inb(0x21), guest.inb(0xA1)), (0xFE, 0xFF));
}

#[test]
fn nothing_interrupts_before_the_guest_initializes_the_controllers() {
    let mut guest = Guest::new();
    guest.outb(0x34, 0x43);
    guest.outb(0x10, 0x40);
    guest.outb(0x10, 0x40);
    assert_eq!(guest.run(SECOND), 0);
    assert_eq!(guest.chipset.acknowledge_interrupt(), None);
}

#[test]
fn higher_irq_interrupts_a_lower_one_and_waits_for_its_end() {
    let mut guest = Guest::new();
    guest.init_pics(1 << 0 | 1 << 4);
    guest.outb(0x02, 0x3F9);
    assert_eq!(guest.chipset.acknowledge_interrupt(), Some(0x34));
    guest.outb(0x30, 0x43);
    guest.outb(1, 0x40);
    guest.outb(0, 0x40);
    guest.now += MILLISECOND;
    guest.chipset.advance(guest.now);
    assert_eq!(guest.chipset.acknowledge_interrupt(), Some(0x30));
    guest.outb(0x0B, 0x20);
    assert_eq!(guest.inb(0x20), 0x11, "both are in service");
    guest.outb(0x20, 0x20); // the non-specific end hits the highest
    assert_eq!(guest.inb(0x20), 0x10);
    guest.outb(0x20, 0x20);
    assert_eq!(guest.inb(0x20), 0x00);
    guest.outb(0x0A, 0x20);
    assert_eq!(guest.inb(0x20), 0x00, "a high line is no new request");
}

#[test]
fn a_tick_that_comes_while_masked_is_delivered_when_unmasked() {
    let mut guest = Guest::new();
    guest.init_pics(0);
    guest.outb(0x38, 0x43);
    guest.outb(100, 0x40);
    guest.outb(0, 0x40);
    guest.now += MILLISECOND; // nobody calls advance: the write does
    guest.outb(0xFE, 0x21);
    assert_eq!(guest.chipset.acknowledge_interrupt(), Some(0x30));
    assert_eq!(guest.chipset.acknowledge_interrupt(), None);
}

/// The pair alone, initialized as Linux does: vectors from 0x30, nothing masked.
fn initialized(icw4: u8) -> PicPair {
    let mut pics = PicPair::new();
    for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 0x04), (0x21, icw4)] {
        pics.write(port, value);
    }
    for (port, value) in [(0xA0, 0x11), (0xA1, 0x38), (0xA1, 0x02), (0xA1, icw4)] {
        pics.write(port, value);
    }
    pics
}

#[test]
fn second_controller_interrupts_through_the_first() {
    let mut pics = initialized(0x01);
    pics.set_line(8, true);
    pics.set_line(14, true);
    assert_eq!(pics.acknowledge(), 0x38);
    assert!(!pics.pending(), "IRQ 14 waits for the end of IRQ 8");
    pics.write(0xA0, 0x60);
    assert!(!pics.pending(), "and for the end of IRQ 2");
    pics.write(0x20, 0x62);
    assert_eq!(pics.acknowledge(), 0x3E);
    pics.write(0xA0, 0x66);
    pics.write(0x20, 0x62);
    assert!(!pics.pending());
}

#[test]
fn a_masked_line_waits_on_either_controller() {
    let mut pics = initialized(0x01);
    pics.write(0x21, 0xFF);
    pics.write(0xA1, 0xFF);
    pics.set_line(4, true);
    pics.set_line(12, true);
    assert!(!pics.pending());
    pics.write(0xA1, 0xEF);
    assert!(!pics.pending());
    pics.write(0x21, 0xFB);
    assert_eq!(pics.acknowledge(), 0x3C);
    pics.write(0x21, 0xEF);
    pics.write(0x20, 0x62);
    assert_eq!(pics.acknowledge(), 0x34);
}

#[test]
fn an_acknowledge_without_a_request_gives_the_spurious_vector_and_serves_nothing() {
    let mut pics = initialized(0x01);
    pics.set_line(3, true);
    pics.set_line(3, false);
    assert!(!pics.pending(), "a request falls with its line");
    assert_eq!(pics.acknowledge(), 0x37);
    pics.write(0x20, 0x0B);
    assert_eq!(pics.read(0x20), 0);
}

#[test]
fn an_edge_line_asks_once_and_a_level_line_again_and_again() {
    let mut pics = initialized(0x01);
    pics.set_line(5, true);
    assert_eq!(pics.acknowledge(), 0x35);
    pics.write(0x20, 0x20);
    assert!(!pics.pending());
    pics.write(0x4D0, 0xFF);
    assert_eq!(pics.read(0x4D0), 0xF8, "IRQ 0 to 2 stay edge-triggered");
    assert_eq!(pics.acknowledge(), 0x35);
    pics.write(0x20, 0x20);
    assert_eq!(pics.acknowledge(), 0x35);
    pics.set_line(5, false);
    pics.write(0x20, 0x20);
    assert!(!pics.pending());
}

#[test]
fn automatic_end_of_interrupt_leaves_nothing_in_service() {
    let mut pics = initialized(0x03);
    for irq in [6, 1, 9] {
        pics.pulse(irq);
        assert_eq!(pics.acknowledge(), 0x30 + irq);
    }
    for (port, command) in [(0x20, 0x0B), (0xA0, 0x0B)] {
        pics.write(port, command);
        assert_eq!(pics.read(port), 0);
    }
}

#[test]
fn rotation_gives_the_served_line_the_lowest_priority() {
    let mut pics = initialized(0x01);
    pics.pulse(3);
    pics.pulse(4);
    assert_eq!(pics.acknowledge(), 0x33);
    pics.pulse(3);
    pics.write(0x20, 0xA0);
    assert_eq!(pics.acknowledge(), 0x34);
}

#[test]
fn special_mask_mode_lets_lower_lines_in() {
    let mut pics = initialized(0x01);
    pics.pulse(3);
    assert_eq!(pics.acknowledge(), 0x33);
    pics.pulse(6);
    assert!(!pics.pending());
    pics.write(0x20, 0x68);
    pics.write(0x21, 0x08);
    assert_eq!(pics.acknowledge(), 0x36);
}

#[test]
fn a_poll_acknowledges_and_names_the_line() {
    let mut pics = initialized(0x01);
    pics.write(0x20, 0x0C);
    assert_eq!(pics.read(0x20), 0x00);
    pics.pulse(7);
    pics.write(0x20, 0x0C);
    assert_eq!(pics.read(0x20), 0x87);
    assert!(!pics.pending());
}
