//! Two stacks over a cable in memory.

use super::super::wire_pair::{DESTINATION, Pair};
use super::{CloseReason, ConnectionState, receive_buffer};

const PORT: u16 = 4444;

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Sends `length` bytes from source to destination and checks them.
fn transfer(mtu: usize, lose_every: u32, length: usize) {
    let mut pair = Pair::new(mtu, lose_every);
    pair.destination.listen(PORT).unwrap();
    let (source, destination) = pair.open(PORT);
    let (data, mut sent, mut got) = (pattern(length), 0, Vec::new());
    assert!(pair.run(600_000, |pair| {
        sent += pair.source.send(source, &data[sent..]);
        pair.destination.receive(destination, |bytes| {
            got.extend_from_slice(bytes);
            bytes.len()
        });
        got.len() >= length
    }));
    assert!(got == data, "what arrived differs from what was sent");
    assert!(pair.run(1000, |pair| pair.source.send_queue(source) == 0));
}

#[test]
fn bytes_arrive_in_order_at_every_mtu() {
    for mtu in [576, 1500, 9000, 65_521] {
        transfer(mtu, 0, 3 << 20);
    }
}

#[test]
fn a_cable_that_loses_nothing_carries_every_byte_once() {
    for mtu in [1500, 9000, 65_521] {
        let mut pair = Pair::sliced(mtu, 3);
        pair.destination.listen(PORT).unwrap();
        let (source, destination) = pair.open(PORT);
        let (data, mut sent, mut got) = (pattern(8 << 20), 0, 0);
        assert!(pair.run(100_000, |pair| {
            sent += pair.source.send(source, &data[sent..]);
            if pair.now / 1000 % 5 == 0 {
                got += pair.destination.receive(destination, |bytes| bytes.len());
            }
            got == data.len()
        }));
        let headers = (data.len() / (mtu - 40) + 2000) * 2 * 66;
        let carried = pair.source.port().bytes;
        assert!(carried < data.len() + headers, "MTU {mtu}: {carried} bytes for {got}");
    }
}

#[test]
fn bytes_arrive_in_order_over_a_cable_that_loses_frames() {
    for lose_every in [7, 50] {
        transfer(1500, lose_every, 300_000);
    }
}

#[test]
fn a_connection_to_a_port_without_listener_is_refused() {
    let mut pair = Pair::new(1500, 0);
    let id = pair.source.connect(DESTINATION, PORT).unwrap();
    assert!(pair.run(100, |pair| { pair.source.state(id) == ConnectionState::Closed(CloseReason::Refused) }));
}

#[test]
fn a_peer_that_is_not_there_times_out() {
    let mut pair = Pair::new(1500, 0);
    pair.cut();
    let id = pair.source.connect(DESTINATION, PORT).unwrap();
    assert!(pair.run(12_000, |pair| { pair.source.state(id) == ConnectionState::Closed(CloseReason::TimedOut) }));
    assert!(pair.now >= 9_000_000);
}

#[test]
fn a_cut_cable_is_seen_by_both_sides_even_if_nobody_sends() {
    let mut pair = Pair::new(1500, 0);
    pair.destination.listen(PORT).unwrap();
    let (source, destination) = pair.open(PORT);
    assert!(!pair.run(30_000, |pair| pair.source.state(source) != ConnectionState::Open));
    pair.cut();
    assert!(pair.run(15_000, |pair| {
        let over = ConnectionState::Closed(CloseReason::TimedOut);
        pair.source.state(source) == over && pair.destination.state(destination) == over
    }));
}

#[test]
fn a_second_connection_is_refused_while_one_is_open_and_accepted_after_it() {
    let mut pair = Pair::new(1500, 0);
    pair.destination.listen(PORT).unwrap();
    let (first, _) = pair.open(PORT);
    for _ in 0..3 {
        let second = pair.source.connect(DESTINATION, PORT).unwrap();
        assert!(pair.run(100, |pair| { pair.source.state(second) == ConnectionState::Closed(CloseReason::Refused) }));
        assert_eq!(pair.destination.accept(PORT), None);
    }
    assert_eq!(pair.source.state(first), ConnectionState::Open);
    pair.source.abort(first);
    pair.run(10, |_| false);
    let (again, served) = pair.open(PORT);
    assert_eq!(pair.source.send(again, b"hello"), 5);
    let mut got = Vec::new();
    assert!(pair.run(100, |pair| {
        pair.destination.receive(served, |bytes| {
            got.extend_from_slice(bytes);
            bytes.len()
        });
        got == b"hello"
    }));
}

#[test]
fn what_was_sent_before_a_close_arrives_and_both_sides_know_the_end() {
    let mut pair = Pair::new(1500, 0);
    pair.destination.listen(PORT).unwrap();
    let (source, destination) = pair.open(PORT);
    let data = pattern(100_000);
    assert_eq!(pair.source.send(source, &data), data.len());
    pair.source.close(source);
    assert_eq!(pair.source.send(source, b"late"), 0);
    let mut got = Vec::new();
    assert!(pair.run(1000, |pair| {
        pair.destination.receive(destination, |bytes| {
            got.extend_from_slice(bytes);
            bytes.len()
        });
        pair.destination.state(destination) == ConnectionState::PeerClosed && got == data
    }));
    pair.destination.close(destination);
    assert!(pair.run(20_000, |pair| {
        let over = ConnectionState::Closed(CloseReason::Finished);
        pair.source.state(source) == over && pair.destination.state(destination) == over
    }));
}

#[test]
fn an_abort_reaches_the_peer_as_a_reset() {
    let mut pair = Pair::new(1500, 0);
    pair.destination.listen(PORT).unwrap();
    let (source, destination) = pair.open(PORT);
    pair.source.abort(source);
    assert_eq!(pair.source.state(source), ConnectionState::Closed(CloseReason::Aborted));
    assert!(
        pair.run(100, |pair| { pair.destination.state(destination) == ConnectionState::Closed(CloseReason::Reset) })
    );
}

#[test]
fn a_receiver_that_takes_nothing_stops_the_sender_and_loses_nothing() {
    let mut pair = Pair::new(9000, 0);
    pair.destination.listen(PORT).unwrap();
    let (source, destination) = pair.open(PORT);
    let data = pattern(3 << 20);
    let mut sent = 0;
    assert!(!pair.run(20_000, |pair| {
        sent += pair.source.send(source, &data[sent..]);
        sent > 2 << 20
    }));
    assert_eq!(pair.source.state(source), ConnectionState::Open);
    let mut got = Vec::new();
    assert!(pair.run(60_000, |pair| {
        sent += pair.source.send(source, &data[sent..]);
        // An odd share each time, so that pieces end in the middle of everything.
        pair.destination.receive(destination, |bytes| {
            let share = bytes.len().min(7777);
            got.extend_from_slice(&bytes[..share]);
            share
        });
        got.len() == data.len()
    }));
    assert!(got == data);
}

#[test]
fn connections_that_came_and_went_cost_no_memory_and_no_id_twice() {
    let mut pair = Pair::new(1500, 0);
    pair.destination.listen(PORT).unwrap();
    let mut ids = Vec::new();
    for _ in 0..100 {
        let (source, destination) = pair.open(PORT);
        pair.source.abort(source);
        pair.run(5, |_| false);
        assert!(!ids.contains(&source) && !ids.contains(&destination));
        ids.push(source);
    }
    assert!(pair.source.connections.len() <= super::REMEMBERED);
    assert!(pair.destination.connections.len() <= super::REMEMBERED);
    assert!(pair.destination.sockets.iter().count() <= 2);
    assert_eq!(pair.source.state(ids[0]), ConnectionState::Closed(CloseReason::Unknown));
    assert_eq!(pair.source.send(ids[0], b"x"), 0);
}

#[test]
fn altered_frames_break_nothing_but_their_own_connection() {
    for seed in 1..100 {
        let mut pair = Pair::noisy(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        pair.destination.listen(PORT).unwrap();
        let data = pattern(30_000);
        for _ in 0..20 {
            let source = pair.source.connect(DESTINATION, PORT).unwrap();
            let mut served = None;
            pair.run(200, |pair| {
                pair.source.send(source, &data);
                served = pair.destination.accept(PORT).or(served);
                if let Some(served) = served {
                    pair.destination.receive(served, |bytes| bytes.len());
                    pair.destination.send(served, &data[..500]);
                }
                pair.source.receive(source, |bytes| bytes.len());
                pair.source.state(source) != ConnectionState::Connecting && pair.source.send_queue(source) == 0
            });
            pair.source.abort(source);
            pair.run(20, |_| false);
        }
        pair.calm();
        pair.run(120_000, |_| false);
        while pair.destination.accept(PORT).is_some() {}
        let (source, served) = pair.open(PORT);
        assert_eq!(pair.source.send(source, b"still here"), 10);
        let mut got = Vec::new();
        assert!(pair.run(5000, |pair| {
            pair.destination.receive(served, |bytes| {
                got.extend_from_slice(bytes);
                bytes.len()
            });
            got == b"still here"
        }));
    }
}

#[test]
fn attempts_to_reach_nobody_cost_no_memory() {
    let mut pair = Pair::new(1500, 0);
    let nobody = smoltcp::wire::Ipv4Address::new(10, 0, 0, 77);
    for _ in 0..5 {
        let id = pair.source.connect(nobody, PORT).unwrap();
        assert!(pair.run(12_000, |pair| { pair.source.state(id) == ConnectionState::Closed(CloseReason::TimedOut) }));
        let id = pair.source.connect(nobody, PORT).unwrap();
        pair.run(10, |_| false);
        pair.source.abort(id);
        pair.run(2, |_| false);
        assert_eq!(pair.source.sockets.iter().count(), 0);
    }
}

#[test]
fn the_window_of_a_syn_lies_in_the_buffer_even_if_it_is_taken_as_scaled() {
    for wanted in (0..4000).chain((1..1000).map(|i| i * 4099)).chain([65_534, 65_535, 65_536, 1 << 19, 1 << 30]) {
        let length = receive_buffer(wanted);
        // As smoltcp computes them.
        let scale = (usize::BITS - length.leading_zeros()).saturating_sub(16);
        let in_syn = length.min(65_535);
        assert!(in_syn << scale <= length && length <= wanted && length >= wanted / 2, "{wanted}");
    }
}
