//! Measures the link before the sample: a guest is unruly when it modifies pages faster than its link carries them.

use super::pipe::Pipe;
use crate::{machine::clock, net::CloseReason};
use alloc::{format, string::String};
use migration::{LinkMeasure, Probe, SourceVm};

/// How long pages are sent, in microseconds, and at most how many bytes.
const DURATION: u64 = 100_000;
const MOST: u64 = 64 << 20;
/// When the answer is given up, in microseconds from the first byte: the migration then goes on without a measure.
const PATIENCE: u64 = 5_000_000;

/// A measurement over a connection of its own.
pub struct Measure {
    probe: Probe,
    pipe: Pipe,
    connected: Option<u64>,
}

/// What became of it.
pub enum Outcome {
    /// It goes on; whether anything happened.
    Busy(bool),
    /// What was measured, if the other side answered in time.
    Found(Option<LinkMeasure>),
    /// There is no migration to be had over this link.
    Failed(String),
}

impl Measure {
    /// Over a connection that may still be in the making.
    pub fn new(pipe: Pipe) -> Self {
        Self { probe: Probe::new(DURATION, MOST), pipe, connected: None }
    }

    /// Moves it on.
    pub fn step(&mut self, vm: &impl SourceVm) -> Outcome {
        if let Some(reason) = self.pipe.broken() {
            return Outcome::Failed(explain(reason));
        }
        if self.pipe.is_connecting() {
            return Outcome::Busy(false);
        }
        let since = *self.connected.get_or_insert_with(clock::micros);
        let probe = &mut self.probe;
        let received = self.pipe.receive(|bytes| probe.receive(bytes, clock::micros()));
        let sent = self.pipe.send(|_, out| {
            probe.transmit(clock::micros(), vm, out);
            Ok::<(), migration::Error>(())
        });
        match (received, sent) {
            (Err(error), _) | (_, Err(error)) => Outcome::Failed(format!("{error}")),
            _ if self.probe.found().is_some() => Outcome::Found(self.probe.found()),
            _ if clock::micros().saturating_sub(since) > PATIENCE => Outcome::Found(None),
            (Ok(came), Ok(went)) => Outcome::Busy(came || went),
        }
    }

    /// Ends the connection.
    pub fn end(&mut self) {
        self.pipe.abort();
    }
}

fn explain(reason: CloseReason) -> String {
    format!("cannot reach the destination: {reason}")
}
