//! What the events of a run say so far. Lines go in one by one; the driver and the report read it.

use std::time::Instant;

use serde_json::{Map, Value};

use super::heartbeat::Heartbeats;
use crate::agent::wire::{Host, Kind, Line, Party};
use crate::testbed::Wiring;

/// What is known of one side of the migration.
#[derive(Debug, Default)]
pub struct Side {
    /// The host is up.
    pub ready: bool,
    /// It ended; the text is its status.
    pub ended: Option<String>,
    /// The right to run has gone over, as this side saw it, in ms.
    pub handover: Option<f64>,
    /// The `migration` object of this side.
    pub migration: Option<Value>,
    /// Why it failed on this side.
    pub error: Option<String>,
}

/// The story of a run.
pub struct Story {
    one_host: bool,
    vm: String,
    /// The two sides, source first.
    pub sides: [Side; 2],
    /// The guest's heartbeat.
    pub heartbeats: Heartbeats,
    /// The restarts that the hypervisor saw.
    pub restarts: u64,
    /// The latest identifier.
    pub identifier: Option<String>,
    /// The latest progress of the source, as the event.
    pub progress: Option<Value>,
    /// The `sample` object.
    pub sample: Option<Value>,
    /// The `decision` object.
    pub decision: Option<Value>,
    /// The `verify` event.
    pub verify: Option<Value>,
    /// The `overhead` event that came last from the source, before its migration ended.
    pub overhead: Option<Value>,
    /// Why a VM stopped.
    pub stopped: Option<String>,
    /// What a host could not do.
    pub refused: Option<String>,
    /// What the guest printed that is no heartbeat.
    pub guest_said: Vec<String>,
    /// When the guest last printed anything, or its host came up, by the lab's clock.
    pub guest_spoke: Instant,
    /// When the sample ended, in ms of the stamps.
    pub sampled: Option<f64>,
    /// The latest `status` event of each host.
    pub status: [Option<Value>; 2],
}

/// Index of a side.
pub fn index(host: Host) -> usize {
    match host {
        Host::Source => 0,
        Host::Destination => 1,
    }
}

impl Story {
    /// A story without events, of the VM with this name.
    pub fn new(wiring: &Wiring, vm: &str) -> Self {
        Story {
            one_host: matches!(wiring, Wiring::Direct),
            vm: vm.to_owned(),
            sides: Default::default(),
            heartbeats: Heartbeats::default(),
            restarts: 0,
            identifier: None,
            progress: None,
            sample: None,
            decision: None,
            verify: None,
            overhead: None,
            stopped: None,
            refused: None,
            guest_said: Vec::new(),
            guest_spoke: Instant::now(),
            sampled: None,
            status: [None, None],
        }
    }

    /// Takes a line. An event is returned as it goes into the record: with the host and the stamp.
    pub fn tell(&mut self, line: &Line) -> Option<Value> {
        let Party::Host(host) = line.from else {
            return None;
        };
        if line.kind == Kind::Exit {
            self.sides[index(host)].ended = Some(line.text.clone());
        }
        if line.kind != Kind::Monitor {
            return None;
        }
        let Ok(Value::Object(mut event)) = serde_json::from_str(&line.text) else {
            return None;
        };
        self.event(host, line.at, &event);
        let mut record = Map::new();
        record.insert("host".into(), host.name().into());
        record.insert("at".into(), line.at.into());
        // The host's own clock, beside the one that stamps both hosts.
        if let Some(own) = event.shift_remove("at") {
            record.insert("host-at".into(), own);
        }
        record.append(&mut event);
        Some(Value::Object(record))
    }

    /// Where the VM runs as far as one sees: where there is one host, it is told by the hand-over.
    fn side_of(&self, host: Host, event: &Map<String, Value>) -> Host {
        match event.get("side").and_then(Value::as_str) {
            Some("source") => Host::Source,
            Some("destination") => Host::Destination,
            _ if self.one_host && self.sides[1].handover.is_some() => Host::Destination,
            _ => host,
        }
    }

    fn event(&mut self, host: Host, at: f64, event: &Map<String, Value>) {
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let object = |key: &str| event.get(key).cloned();
        let mine = event.get("vm").is_none_or(|vm| *vm == *self.vm);
        let side = self.side_of(host, event);
        match event.get("event").and_then(Value::as_str).unwrap_or_default() {
            "ready" => {
                self.sides[index(host)].ready = true;
                self.guest_spoke = Instant::now();
            }
            "bye" => {
                self.sides[index(host)].ended.get_or_insert_with(|| "bye".to_owned());
            }
            "status" => self.status[index(host)] = Some(Value::Object(event.clone())),
            "error" => self.refused = Some(text("message")),
            _ if !mine => {}
            "console" => self.console(at, side, &text("text")),
            "identifier" => self.identifier = Some(text("id")),
            "restart" => {
                self.restarts += 1;
                self.heartbeats.restarted();
            }
            "stopped" => self.stopped = Some(text("reason")),
            "sample" => {
                self.sample = object("sample");
                self.sampled = Some(at);
            }
            "decision" => self.decision = object("decision"),
            "progress" if side == Host::Source => self.progress = Some(Value::Object(event.clone())),
            "handover" => self.sides[index(side)].handover = Some(at),
            "migration" => {
                let side = &mut self.sides[index(side)];
                side.migration = object("migration");
                side.error = event.get("error").and_then(Value::as_str).map(str::to_owned);
            }
            "verify" => self.verify = Some(Value::Object(event.clone())),
            // After the migration the VM on this host, in `bochs`, is the one that arrived.
            "overhead" if host == Host::Source && self.sides[index(Host::Source)].migration.is_none() => {
                self.overhead = Some(Value::Object(event.clone()));
            }
            _ => {}
        }
    }

    fn console(&mut self, at: f64, side: Host, text: &str) {
        self.guest_spoke = Instant::now();
        if self.heartbeats.see(at, side, text) {
            return;
        }
        self.guest_said.push(text.to_owned());
    }

    /// The hosts that are there.
    fn hosts(&self) -> &[Side] {
        if self.one_host { &self.sides[..1] } else { &self.sides }
    }

    /// All hosts are up.
    pub fn all_ready(&self) -> bool {
        self.hosts().iter().all(|side| side.ready)
    }

    /// A host has ended.
    pub fn host_ended(&self) -> Option<(Host, &str)> {
        let all = [Host::Source, Host::Destination].into_iter().zip(&self.sides);
        all.filter_map(|(host, side)| Some((host, side.ended.as_deref()?))).next()
    }

    /// All hosts have ended.
    pub fn all_ended(&self) -> bool {
        self.hosts().iter().all(|side| side.ended.is_some())
    }

    /// The migration has ended on both sides, or can no longer succeed.
    pub fn migration_over(&self) -> bool {
        let status = |side: &Side| {
            let migration = side.migration.as_ref()?;
            migration.get("status").and_then(Value::as_str).map(|status| status == "completed")
        };
        match (status(&self.sides[0]), status(&self.sides[1])) {
            (Some(false), _) => true,
            (Some(true), destination) => destination.is_some(),
            (None, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(host: Host, at: f64, event: &Value) -> Line {
        let text = event.to_string();
        Line { from: Party::Host(host), kind: Kind::Monitor, at, text }
    }

    fn told(wiring: &Wiring, events: &[(Host, f64, Value)]) -> Story {
        let mut story = Story::new(wiring, "linux");
        for (host, at, event) in events {
            story.tell(&line(*host, *at, event));
        }
        story
    }

    fn console(text: &str) -> Value {
        json!({"event": "console", "vm": "linux", "text": text})
    }

    use Host::{Destination, Source};

    #[test]
    fn on_one_host_the_vm_is_at_the_destination_from_its_handover_on() {
        let handover = json!({"event": "handover", "vm": "linux", "side": "destination"});
        let story = told(
            &Wiring::Direct,
            &[(Source, 1.0, console("hb 1 e0")), (Source, 2.0, handover), (Source, 3.0, console("hb 2 e0"))],
        );
        assert_eq!(story.heartbeats.last_at_source, Some(1));
        assert_eq!(story.heartbeats.first_at_destination, Some(2));
        assert_eq!(story.sides[1].handover, Some(2.0));
    }

    #[test]
    fn on_two_hosts_the_vm_is_where_it_speaks() {
        let ready = json!({"event": "ready", "vms": ["linux"]});
        let mut story = told(&Wiring::Agent, &[(Source, 1.0, ready.clone())]);
        assert!(!story.all_ready());
        story.tell(&line(Destination, 2.0, &ready));
        assert!(story.all_ready());
        story.tell(&line(Destination, 3.0, &console("hb 4 e0")));
        assert_eq!(story.heartbeats.first_at_destination, Some(4));
    }

    #[test]
    fn a_migration_is_over_when_the_source_failed_or_both_are_done() {
        let ended = |side: &str, status: &str| json!({"event": "migration", "vm": "linux", "side": side, "migration": {"status": status}, "error": "why"});
        let failed = told(&Wiring::Direct, &[(Source, 1.0, ended("source", "failed"))]);
        assert!(failed.migration_over());
        assert_eq!(failed.sides[0].error.as_deref(), Some("why"));
        let mut story = told(&Wiring::Direct, &[(Source, 1.0, ended("source", "completed"))]);
        assert!(!story.migration_over());
        story.tell(&line(Source, 2.0, &ended("destination", "completed")));
        assert!(story.migration_over());
    }

    #[test]
    fn a_restart_that_the_hypervisor_sees_begins_the_heartbeat_anew() {
        let restart = json!({"event": "restart", "vm": "linux", "cause": "port 0xCF9", "id": "1.2.0.0"});
        let mut story =
            told(&Wiring::Direct, &[(Source, 1.0, console("hb 20 e0")), (Source, 2.0, console("restarting"))]);
        story.tell(&line(Source, 3.0, &restart));
        story.tell(&line(Source, 9.0, &console("hb 1 e0")));
        assert_eq!((story.restarts, story.heartbeats.repeated), (1, 0));
    }

    #[test]
    fn the_record_names_the_host_and_both_clocks_and_leaves_other_vms_out_of_the_story() {
        let mut story = Story::new(&Wiring::Agent, "linux");
        let event = json!({"event": "console", "vm": "tiny", "text": "hb 1 e5", "at": 7.5});
        let record = story.tell(&line(Destination, 12.5, &event)).unwrap();
        assert_eq!(
            record,
            json!({"host": "destination", "at": 12.5, "host-at": 7.5, "event": "console", "vm": "tiny", "text": "hb 1 e5"})
        );
        assert_eq!(story.heartbeats.seen, [0, 0]);
    }
}
