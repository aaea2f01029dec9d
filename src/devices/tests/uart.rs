//! The serial port.

use super::*;

#[test]
fn uart_is_detected_as_16550a() {
    let mut guest = Guest::new();
    // autoconfig: the interrupt enable register has four bits
    guest.outb(0x00, 0x3F9);
    guest.outb(0xFF, 0x80);
    assert_eq!(guest.inb(0x3F9) & 0x0F, 0);
    guest.outb(0x0F, 0x3F9);
    assert_eq!(guest.inb(0x3F9) & 0x0F, 0x0F);
    guest.outb(0x00, 0x3F9);
    // loopback: RTS and OUT2 come back as CTS and DCD
    let control = guest.inb(0x3FC);
    guest.outb(0x1A, 0x3FC);
    assert_eq!(guest.inb(0x3FE) & 0xF0, 0x90);
    guest.outb(control, 0x3FC);
    // the FIFO shows in IIR; no other variant's register is behind DLAB
    guest.outb(0xBF, 0x3FB);
    guest.outb(0x00, 0x3FA);
    guest.outb(0x00, 0x3FB);
    guest.outb(0x01, 0x3FA);
    assert_eq!(guest.inb(0x3FA) >> 6, 3);
    guest.outb(0x80, 0x3FB);
    assert_ne!(guest.inb(0x3FA), 0, "a 16650 would read its EFR as 0");
    guest.outb(0x21, 0x3FA);
    assert_eq!(guest.inb(0x3FA) & 0x20, 0, "a 16750 would show its 64-byte FIFO");
    guest.outb(0x00, 0x3FB);
    // XScale: UUE does not stick
    guest.outb(0x40, 0x3F9);
    assert_eq!(guest.inb(0x3F9) & 0x40, 0);
    // the scratch register of all but the 8250
    guest.outb(0xA5, 0x3FF);
    assert_eq!(guest.inb(0x3FF), 0xA5);
    assert!(guest.printed().is_empty());
}

#[test]
fn only_the_first_serial_port_is_there() {
    let mut guest = Guest::new();
    for base in [0x2F8, 0x3E8, 0x2E8] {
        guest.outb(0x00, base + 1);
        assert_eq!(guest.inb(base + 1), 0xFF);
    }
    assert_eq!(guest.chipset.unknown_ports().iter().count(), 0);
}

#[test]
fn transmitter_interrupt_comes_again_each_time_it_is_enabled() {
    let mut guest = Guest::new();
    guest.init_pics(1 << 4);
    // serial8250_do_startup: the test for UART_BUG_THRE
    guest.outb(0x02, 0x3F9);
    assert_eq!(guest.inb(0x3FA), 0x02);
    assert_eq!(guest.inb(0x3FA), 0x01, "reading it clears it");
    guest.outb(0x03, 0x3F9);
    assert_eq!(guest.inb(0x3FA), 0x01, "only turning it on raises it");
    guest.outb(0x00, 0x3F9);
    guest.outb(0x02, 0x3F9);
    assert_eq!(guest.inb(0x3FA), 0x02);
    guest.outb(0x00, 0x3F9);
    // and for UART_BUG_TXEN
    guest.outb(0x02, 0x3F9);
    assert_eq!((guest.inb(0x3FD) & 0x60, guest.inb(0x3FA)), (0x60, 0x02));
}

#[test]
fn a_burst_is_sent_by_interrupts_whole_and_in_order() {
    let mut guest = Guest::new();
    guest.init_pics(1 << 4);
    guest.outb(0x01, 0x3FA);
    let text: Vec<u8> = (0..200).collect();
    let mut left = text.as_slice();
    guest.outb(0x02, 0x3F9); // start_tx
    while let Some(vector) = guest.chipset.acknowledge_interrupt() {
        assert_eq!(vector, 0x34);
        while guest.inb(0x3FA) & 1 == 0 {
            let chunk;
            (chunk, left) = left.split_at(left.len().min(16));
            chunk.iter().for_each(|byte| assert_eq!(guest.outb(*byte, 0x3F8), None));
            if left.is_empty() {
                guest.outb(0x00, 0x3F9); // stop_tx
            }
        }
        guest.end_of_interrupt(vector);
    }
    assert_eq!(guest.printed(), text);
    assert_eq!(guest.chipset.take_output(), None);
}

#[test]
fn typed_bytes_interrupt_and_are_read_until_none_is_ready() {
    let mut guest = Guest::new();
    guest.init_pics(1 << 4);
    guest.outb(0x81, 0x3FA); // trigger at 8
    guest.outb(0x05, 0x3F9);
    assert_eq!(guest.chipset.type_input(b"ls\n"), 3);
    assert_eq!(guest.chipset.acknowledge_interrupt(), Some(0x34));
    assert_eq!(guest.inb(0x3FA), 0xCC, "fewer than the trigger: character timeout");
    assert_eq!(guest.chipset.type_input(b"0123456789"), 10);
    assert_eq!(guest.inb(0x3FA), 0xC4);
    let mut read = Vec::new();
    while guest.inb(0x3FD) & 1 != 0 {
        read.push(guest.inb(0x3F8));
    }
    assert_eq!(read, b"ls\n0123456789");
    assert_eq!(guest.inb(0x3FA), 0xC1);
    guest.end_of_interrupt(0x34);
    assert!(!guest.chipset.interrupt_pending());
    assert_eq!(guest.chipset.type_input(b"x"), 1);
    assert!(guest.chipset.interrupt_pending());
}

#[test]
fn output_that_nobody_takes_is_bounded_and_the_loss_is_counted() {
    let mut guest = Guest::new();
    for _ in 0..OUTPUT_CAPACITY {
        guest.outb(b'a', 0x3F8);
    }
    guest.outb(b'b', 0x3F8);
    assert_eq!(guest.chipset.dropped_output(), 1);
    let printed = guest.printed();
    assert_eq!((printed.len(), printed.last()), (OUTPUT_CAPACITY, Some(&b'a')));
    assert_eq!(guest.chipset.type_input(&[b'x'; INPUT_CAPACITY + 1]), INPUT_CAPACITY);
}

#[test]
fn a_string_word_reaches_two_byte_registers() {
    let mut guest = Guest::new();
    guest.chipset.write_port(0x3FE, Width::Word, 0x5A00, 0);
    assert_eq!(guest.chipset.read_port(0x3FF, Width::Byte, 0), 0x5A);
    assert_eq!(guest.chipset.read_port(0x3FE, Width::Word, 0), 0x5AB0);
}
