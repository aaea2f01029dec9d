use alloc::collections::BTreeMap;

use migration::{Latency, Pages, Path, Round, Status};
use qavns::{DEFAULT_TD, DEFAULT_TP, Paper, Policy, Sample, Version};
use serde_json::{Value, json};

use super::super::command::PathRequest;
use super::super::report::{HarvestTime, Millionths};
use super::*;
use crate::observe::Observed;

fn ms(milliseconds: u64) -> Milliseconds {
    Duration::from_millis(milliseconds).into()
}

fn json_of(what: What) -> Value {
    let line = what.at(Duration::from_micros(1_234_567)).line();
    let text = line.strip_suffix('\n').expect("a line ends with a newline");
    assert!(!text.contains('\n'), "one line: {text}");
    serde_json::from_str(text).expect("JSON")
}

fn vm() -> String {
    "linux".to_string()
}

/// 125 jiffies, 40 births and 9 pages.
fn sample() -> Sample {
    let mut version = Version::new();
    let start = version.reading();
    version.tick(125);
    version.processes(40, 0);
    version.modified(9);
    Sample {
        start,
        end: version.reading(),
        ts: Duration::from_millis(500),
        jiffy: Duration::from_millis(4),
        harvest_period: Duration::from_millis(100),
    }
}

#[test]
fn the_time_of_an_event_is_in_milliseconds() {
    let line = What::Bye.at(Duration::from_micros(1_234_567)).line();
    assert_eq!(line, "{\"at\":1234.567,\"event\":\"bye\"}\n");
}

#[test]
fn ready_leaves_out_a_port_that_is_not_open() {
    let ready = |listening| What::Ready {
        version: "0.1.0",
        vms: alloc::vec![vm()],
        tracker: "pml",
        listening,
        memory_free: 4096,
    };
    let open = json!({"event": "ready", "at": 1234.567, "version": "0.1.0", "vms": ["linux"],
                      "tracker": "pml", "listening": 4444, "memory-free": 4096});
    assert_eq!(json_of(ready(Some(4444))), open);
    assert_eq!(json_of(ready(None)).get("listening"), None);
}

#[test]
fn what_a_guest_prints_stays_on_one_line() {
    let text = "a \"quoted\" \\ \n\r\u{0}\u{1b}[31m\u{2028}é".to_string();
    let event = json_of(What::Console { vm: vm(), text: text.clone() });
    assert_eq!(event.get("text"), Some(&Value::String(text)));
}

#[test]
fn a_reading_becomes_an_identifier_event() {
    let expected = json!({"event": "identifier", "at": 1234.567, "vm": "linux", "id": "000000000125.1.40.9",
                          "restarts": 0, "births": 40, "deaths": 0, "pages-modified": 9});
    assert_eq!(json_of(What::identifier("linux", &sample().end)), expected);
}

#[test]
fn dirty_pages_are_runs_and_absent_before_they_are_known() {
    let event = |runs| json_of(What::Dirty { vm: vm(), runs, left: 7 });
    let expected = json!({"event": "dirty", "at": 1234.567, "vm": "linux", "runs": [[512, 3], [700, 1]], "left": 7});
    assert_eq!(event(Some(alloc::vec![[512, 3], [700, 1]])), expected);
    assert_eq!(event(None).get("runs"), None);
}

#[test]
fn a_watched_harvest_tells_its_pages_and_then_how_many_they_were() {
    let version = (&sample().end).into();
    let event = json_of(What::Identifier { vm: vm(), version, dirty: Some(9) });
    assert_eq!(event.get("dirty"), Some(&json!(9)));
    let event = json_of(What::Pages { vm: vm(), runs: "AAE".to_string() });
    assert_eq!(event, json!({"event": "pages", "at": 1234.567, "vm": "linux", "runs": "AAE"}));
    let event = json_of(What::Watching { vm: vm(), on: true, memory: 4096, jiffy: ms(4), harvest_period: ms(100) });
    assert_eq!(
        event,
        json!({"event": "watching", "at": 1234.567, "vm": "linux", "on": true, "memory": 4096, "jiffy": 4.0,
               "harvest-period": 100.0})
    );
}

#[test]
fn a_restart_names_its_cause() {
    let event = What::restart("linux", RestartCause::I8042Pulse, &sample().end);
    let expected = json!({"event": "restart", "at": 1234.567, "vm": "linux", "cause": "8042 pulse",
                          "id": "000000000125.1.40.9", "restarts": 0, "births": 40, "deaths": 0, "pages-modified": 9});
    assert_eq!(json_of(event), expected);
    let crash = json_of(What::restart("linux", RestartCause::Crash, &sample().end));
    assert_eq!((&crash["cause"], &crash["crash"]), (&json!("triple fault"), &json!(true)));
}

#[test]
fn a_sample_has_the_words_of_the_report() {
    let identifiers = alloc::vec![(Duration::from_micros(100_500), sample().end.identifier)];
    let sample = SampleReport::new(&Observed { sample: sample(), identifiers, uncounted: 2 });
    let expected = json!({
        "ts": 500.0, "jiffy": 4.0, "harvest-period": 100.0,
        "start": "000000000000.1.0.0", "end": "000000000125.1.40.9",
        "identifiers": [{"at": 100.5, "id": "000000000125.1.40.9"}],
        "restarts": 0, "births": 40, "deaths": 0, "processes-uncounted": 2, "pages-modified": 9,
    });
    let event = json_of(What::Sample { vm: vm(), sample });
    assert_eq!(event.get("sample"), Some(&expected));
}

#[test]
fn a_decision_has_the_words_of_the_report() {
    let policy = Paper { tp: DEFAULT_TP, td: DEFAULT_TD };
    let decision = DecisionReport::by_policy(&policy.decide(&sample()));
    let expected = json!({
        "policy": "paper", "path": "post-copy", "condition": "storm of birth and death of processes",
        "tp": "8", "td": "1/20", "chosen-by": "policy",
        "margin": {"line": "jiffies < Tp x births and deaths", "count": 40, "left": 125, "right": 320.0,
                   "ratio": 0.390625},
    });
    let event = json_of(What::Decision { vm: vm(), decision });
    assert_eq!(event.get("decision"), Some(&expected));
}

#[test]
fn a_path_asked_for_is_chosen_by_the_user() {
    let decision = DecisionReport::by_user(PathRequest::StopAndCopy, None);
    let event = json_of(What::Decision { vm: vm(), decision });
    let expected = json!({"path": "stop-and-copy", "chosen-by": "user"});
    assert_eq!(event.get("decision"), Some(&expected));
}

#[test]
fn a_migration_has_the_words_of_the_report() {
    let migration = Report {
        path: Path::PreCopy,
        status: Status::PostcopyPaused,
        total_time: 7_000_000,
        downtime: Some(200_000),
        setup_time: Some(1000),
        expected_downtime: Some(150_000),
        cpu_throttle_percentage: None,
        dirty_sync_count: 3,
        rounds: alloc::vec![Round { pages: 10, bytes: 41_000, time: 5000, dirtied: 2 }],
        postcopy_requests: 4,
        demand_fetched: None,
        fault_latency: Some(Latency { p50: 1000, p99: 2000, max: 3000 }),
        pages: Pages { normal: 8, duplicate: 2, same: 3, delta: 4, compressed: 5, free: 6, skipped: 1, twice: 0 },
        bytes: 41_000,
        bytes_saved: 9000,
        throughput: Some(5),
        link_throughput: None,
        link_round_trip: Some(1500),
        verify: None,
    };
    let expected = json!({
        "path": "pre-copy", "status": "postcopy-paused", "total-time": 7000.0, "downtime": 200.0,
        "setup-time": 1.0, "expected-downtime": 150.0, "dirty-sync-count": 3,
        "rounds": [{"pages": 10, "bytes": 41000, "time": 5.0, "dirtied": 2}], "postcopy-requests": 4,
        "fault-latency": {"p50": 1.0, "p99": 2.0, "max": 3.0},
        "pages": {"normal": 8, "duplicate": 2, "same": 3, "delta": 4, "compressed": 5, "free": 6, "skipped": 1, "twice": 0},
        "bytes": 41000, "bytes-saved": 9000, "throughput": 5, "link-round-trip": 1.5,
    });
    let error = Some("the link broke".to_string());
    let event = json_of(What::Migration { vm: vm(), side: Side::Source, migration, error });
    assert_eq!(event.get("migration"), Some(&expected));
    assert_eq!(event.get("side"), Some(&json!("source")));
    assert_eq!(event.get("error"), Some(&json!("the link broke")));
}

#[test]
fn progress_and_overhead_are_flat() {
    let progress =
        Progress { path: "pre-copy", phase: "push", round: 2, pages_sent: 7, pages_left: 8, bytes: 9, throughput: 10 };
    let expected = json!({
        "event": "progress", "at": 1234.567, "vm": "linux", "side": "destination", "path": "pre-copy",
        "phase": "push", "round": 2, "pages-sent": 7, "pages-left": 8, "bytes": 9, "throughput": 10,
    });
    assert_eq!(json_of(What::Progress { vm: vm(), side: Side::Destination, progress }), expected);
    let overhead = OverheadReport {
        guest_slowdown_sampling: Some(Millionths(12_500)),
        guest_time: ms(900),
        host_time: ms(100),
        harvest_time: Some(HarvestTime { p50: ms(1), max: ms(2) }),
        harvests: 3,
        harvest_entries: 1024,
        exits: BTreeMap::from([("HLT".to_string(), 5)]),
    };
    let expected = json!({"event": "overhead", "at": 1234.567, "vm": "linux",
                          "guest-slowdown-sampling": 0.0125, "guest-time": 900.0, "host-time": 100.0,
                          "harvest-time": {"p50": 1.0, "max": 2.0}, "harvests": 3, "harvest-entries": 1024,
                          "exits": {"HLT": 5}});
    assert_eq!(json_of(What::Overhead { vm: vm(), overhead }), expected);
}

#[test]
fn an_error_carries_the_command_that_caused_it() {
    let error = What::Error { message: "no".to_string(), command: Some("quit now".to_string()) };
    let expected = json!({"event": "error", "at": 1234.567, "message": "no", "command": "quit now"});
    assert_eq!(json_of(error), expected);
}
