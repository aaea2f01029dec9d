//! Guests and records that mean harm: nothing panics, and a restored machine behaves as the saved one.

use super::super::uart::Uart;
use super::*;
use proptest::prelude::*;

/// What a guest or its hypervisor does next.
#[derive(Clone, Debug)]
enum Step {
    Read(u16, Width),
    Write(u16, Width, u32),
    Advance(Nanos),
    Acknowledge,
    Type(Vec<u8>),
    TakeOutput,
    Reset,
}

/// What a step let anyone see.
type Seen = (u64, Vec<u8>, bool, Option<Nanos>);

fn ports() -> impl Strategy<Value = u16> {
    let devices = prop::sample::select(&[0x20u16, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1, 0x61, 0x64, 0x70, 0x71, 0x92][..]);
    prop_oneof![4 => devices, 3 => 0x40u16..0x44, 3 => 0x3F8u16..0x400, 1 => 0xCF4u16..0xD00, 1 => 0xC000u16..0xC040, 1 => any::<u16>()]
}

fn widths() -> impl Strategy<Value = Width> {
    prop_oneof![8 => Just(Width::Byte), 1 => Just(Width::Word), 1 => Just(Width::Dword)]
}

fn spans() -> impl Strategy<Value = Nanos> {
    prop_oneof![Just(0), 0..2_000u64, 0..100_000_000u64, 0..100_000 * SECOND, any::<u64>()]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (ports(), widths()).prop_map(|(port, width)| Step::Read(port, width)),
        12 => (ports(), widths(), any::<u32>()).prop_map(|(port, width, value)| Step::Write(port, width, value)),
        4 => spans().prop_map(Step::Advance),
        3 => Just(Step::Acknowledge),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Type),
        1 => Just(Step::TakeOutput),
        1 => Just(Step::Reset),
    ];
    prop::collection::vec(step, 0..120)
}

fn take(chipset: &mut Chipset, now: &mut Nanos, step: &Step) -> Seen {
    let mut output = Vec::new();
    let value = match step {
        Step::Read(port, width) => u64::from(chipset.read_port(*port, *width, *now)),
        Step::Write(port, width, value) => chipset.write_port(*port, *width, *value, *now).map_or(0, |_| 1),
        Step::Advance(span) => {
            *now = now.saturating_add(*span);
            chipset.advance(*now);
            0
        }
        Step::Acknowledge => chipset.acknowledge_interrupt().map_or(256, u64::from),
        Step::Type(bytes) => chipset.type_input(bytes) as u64,
        Step::TakeOutput => {
            output.extend(core::iter::from_fn(|| chipset.take_output()));
            0
        }
        Step::Reset => {
            chipset.reset();
            0
        }
    };
    (value, output, chipset.interrupt_pending(), chipset.next_deadline())
}

fn run(chipset: &mut Chipset, now: &mut Nanos, steps: &[Step]) -> Vec<Seen> {
    steps.iter().map(|step| take(chipset, now, step)).collect()
}

proptest! {
    #[test]
    fn wild_guests_never_panic_and_a_restored_machine_goes_on_the_same(
        unix in any::<u64>(), start in spans(), before in steps(), after in steps(),
    ) {
        let mut now = start;
        let mut source = Chipset::new(unix, now);
        run(&mut source, &mut now, &before);

        let record = source.save();
        let mut destination = Chipset::new(0, 0);
        prop_assert_eq!(destination.restore(&record), Ok(()));
        prop_assert_eq!(destination.save(), record);

        let mut later = now;
        prop_assert_eq!(run(&mut source, &mut now, &after), run(&mut destination, &mut later, &after));
        prop_assert_eq!(source.save(), destination.save());
    }

    #[test]
    fn wild_records_never_panic_nor_does_what_they_restore(
        before in steps(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        after in steps(),
    ) {
        let mut now = 0;
        let mut chipset = Chipset::new(0, now);
        run(&mut chipset, &mut now, &before);
        let mut record = chipset.save();
        for (index, value) in changes {
            let place = index.index(record.len());
            record[place] = value;
        }
        let untouched = chipset.save();
        if chipset.restore(&record).is_err() {
            prop_assert_eq!(chipset.save(), untouched);
        }
        run(&mut chipset, &mut now, &after);
    }

    #[test]
    fn a_cut_record_is_refused_and_leaves_the_machine_as_it_was(
        before in steps(), cut in any::<prop::sample::Index>(),
    ) {
        let mut now = 0;
        let mut chipset = Chipset::new(0, now);
        run(&mut chipset, &mut now, &before);
        let record = chipset.save();
        let mut other = Chipset::new(77, 0);
        let untouched = other.save();
        prop_assert!(other.restore(&record[..cut.index(record.len())]).is_err());
        prop_assert_eq!(other.save(), untouched);
        prop_assert_eq!(other.restore(&record), Ok(()));
    }
}

/// The records of a fresh machine, each device by itself.
fn with_uart_record(uart: &[u8]) -> Vec<u8> {
    let fresh = Chipset::new(0, 0).save();
    let mut length = Vec::new();
    record::save(&Uart::new(), &mut length);
    [uart, &fresh[length.len()..]].concat()
}

#[test]
fn a_device_that_refuses_its_record_takes_it_at_the_second_attempt() {
    let mut good = Vec::new();
    record::save(&Uart::new(), &mut good);
    let mut bad = good.clone();
    bad[1] = 0x10; // interrupt_enable has four bits
    let mut chipset = Chipset::new(0, 0);
    chipset.write_port(0x3FF, Width::Byte, 0x5A, 0);
    let refused = RestoreError::Refused { device: "UART", field: "interrupt_enable" };
    assert_eq!(chipset.restore(&with_uart_record(&bad)), Err(refused));
    assert_eq!(chipset.read_port(0x3FF, Width::Byte, 0), 0x5A);
    assert_eq!(chipset.restore(&with_uart_record(&good)), Ok(()));
    assert_eq!(chipset.read_port(0x3FF, Width::Byte, 0), 0);
}

#[test]
fn a_record_of_another_version_is_refused_by_name() {
    let mut newer = Vec::new();
    record::save(&Uart::new(), &mut newer);
    newer[0] = 2;
    let error = RestoreError::Version { device: "UART", found: 2, expected: 1 };
    assert_eq!(Chipset::new(0, 0).restore(&with_uart_record(&newer)), Err(error));
}

#[test]
fn bytes_behind_the_last_record_are_refused() {
    let mut record = Chipset::new(0, 0).save();
    record.push(0);
    assert_eq!(Chipset::new(0, 0).restore(&record), Err(RestoreError::TrailingBytes));
}
