//! The measurement of a link before a migration.

mod common;

use common::vm::{Program, SimVm};
use migration::{Destination, End, Error, Link, Probe};
use proptest::prelude::*;

/// How often both sides look, in us.
const TICK: usize = 200;

const PROGRAM: Program = Program { seed: 0, range: 1, clears: 0 };

fn guest() -> SimVm {
    SimVm::new(10, PROGRAM)
}

/// Lets a probe run over a link; gives the bandwidth and the round trip that it found.
fn measure(mut probe: Probe, bandwidth: u64, latency: u64) -> Option<(u64, u64)> {
    let mut link = Link::new(bandwidth, latency);
    let vm = guest();
    let mut destination = Destination::new(0);
    let mut place = SimVm::blank(PROGRAM);
    let (mut out, mut back) = (Vec::new(), Vec::new());
    for now in (0..20_000_000).step_by(TICK) {
        loop {
            if out.is_empty() {
                probe.transmit(now, &vm, &mut out);
            }
            let sent = link.send(End::A, now, &out);
            out.drain(..sent);
            if sent == 0 {
                break;
            }
        }
        let arrived = take(&mut link, End::B, now);
        destination.receive(&arrived, now, &mut place).expect("pages are taken in");
        destination.transmit(4096, &mut back);
        let sent = link.send(End::B, now, &back);
        back.drain(..sent);
        probe.receive(&take(&mut link, End::A, now), now).expect("an answer");
        if let Some(found) = probe.found() {
            return Some((found.bandwidth, found.round_trip));
        }
    }
    None
}

/// Everything that has arrived.
fn take(link: &mut Link, at: End, now: u64) -> Vec<u8> {
    let mut all = Vec::new();
    while let run = link.arrived(at, now)
        && !run.is_empty()
    {
        all.extend_from_slice(run);
        let count = run.len();
        link.consume(at, count);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_probe_finds_about_what_the_link_carries(bandwidth in 1_000_000u64..200_000_000, latency in 0u64..5_000) {
        let (found, trip) = measure(Probe::new(100_000, 64 << 20), bandwidth, latency).expect("it ends");
        prop_assert!(found <= bandwidth + bandwidth / 20, "{found} of {bandwidth}");
        prop_assert!(found >= bandwidth / 2, "{found} of {bandwidth}");
        // Two empty messages, and at most a look at each side.
        let wire = 2 * 24 * 1_000_000 / bandwidth;
        prop_assert!((2 * latency..=2 * latency + wire + 3 * TICK as u64).contains(&trip), "{trip} at {latency}");
    }
}

#[test]
fn whoever_is_no_destination_is_named() {
    let mut probe = Probe::new(1000, 1 << 20);
    let mut out = Vec::new();
    probe.transmit(0, &guest(), &mut out);
    let error = probe.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n", 1).unwrap_err();
    assert_eq!(error, Error::UnknownMessage(b'H'));
}
