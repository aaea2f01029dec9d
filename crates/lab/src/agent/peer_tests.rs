//! What QEMU is told and what is told of it, against QEMUs that only speak.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use super::*;
use crate::options::MigrateOptions;

fn ask(words: &str) -> Ask {
    let command = MigrateOptions::from_words(words).unwrap().movement.command(VM, "10.0.0.2:4444");
    Ask::parse(command.strip_prefix("migrate ").unwrap()).unwrap()
}

#[test]
fn the_labs_own_command_is_understood() {
    let plain = Ask {
        to: "10.0.0.2:4444".into(),
        path: Path::PreCopy,
        auto_converge: false,
        downtime_limit: None,
        bandwidth: None,
    };
    assert_eq!(ask("--path pre-copy"), plain);
    assert_eq!(ask("--path post-copy"), Ask { path: Path::PostCopy, ..plain.clone() });
    assert_eq!(ask("--path hybrid --hybrid-rounds 3"), Ask { path: Path::Hybrid(3), ..plain.clone() });
    let full = Ask { auto_converge: true, downtime_limit: Some(50), bandwidth: Some(125_000_000), ..plain };
    assert_eq!(ask("--path pre-copy --auto-converge --downtime-limit 50ms --bandwidth 1Gbit"), full);
    for words in ["to=10.0.0.2:4444 path=demand", "path=pre-copy", "to=x path=hybrid hybrid-rounds=many"] {
        assert!(Ask::parse(words).is_err(), "{words}");
    }
}

#[test]
fn a_line_begun_on_one_side_ends_on_the_other() {
    let source = Console::default();
    let destination = source.clone();
    assert_eq!(source.lines(b"start idle\r\nhb 1 e0\r\n\r\nhb"), ["start idle", "hb 1 e0"]);
    assert!(source.lines(b" 2 e").is_empty());
    assert_eq!(destination.lines(b"0\r\nhb 3"), ["hb 2 e0"]);
    assert_eq!(destination.lines(b" e0\n"), ["hb 3 e0"]);
}

#[test]
fn capabilities_and_parameters_are_those_of_the_path() {
    let on = |ask: &Ask, preempt, side| {
        let all = ask.capabilities(preempt, side);
        let list = all["capabilities"].as_array().unwrap().clone();
        let on = list.iter().filter(|one| one["state"] == true);
        on.map(|one| one["capability"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let converging = ask("--path pre-copy --auto-converge --downtime-limit 50ms");
    assert_eq!(on(&converging, true, Host::Source), "events auto-converge");
    assert_eq!(on(&converging, true, Host::Destination), "events");
    assert_eq!(converging.parameters(), Some(json!({"downtime-limit": 50})));
    let hybrid = ask("--path hybrid");
    assert_eq!(on(&hybrid, false, Host::Source), "events postcopy-ram");
    assert_eq!(on(&hybrid, true, Host::Destination), "events postcopy-ram postcopy-preempt");
    assert_eq!(hybrid.parameters(), None);
}

#[test]
fn qemus_account_becomes_a_migration_in_our_words() {
    let query = json!({"status": "completed", "total-time": 5885, "downtime": 317, "setup-time": 4,
        "ram": {"transferred": 77_000_000, "normal": 18_000, "duplicate": 15_000, "dirty-sync-count": 3,
            "postcopy-requests": 0, "mbps": 105.2}});
    assert_eq!(
        account(Path::PreCopy, "completed", &query),
        json!({"path": "pre-copy", "status": "completed", "total-time": 5885, "downtime": 317, "setup-time": 4,
            "dirty-sync-count": 3, "postcopy-requests": 0, "pages": {"normal": 18_000, "duplicate": 15_000},
            "bytes": 77_000_000})
    );
    let unended = account(Path::PreCopy, "cancelled", &json!({"ram": {"transferred": 746}}));
    assert_eq!(unended["bytes"], 746);
    assert!(unended.get("downtime").is_none());
}

/// A QEMU that greets, answers everything, and after some commands tells an event. It returns what it was asked.
fn speaking(events: &'static [(&str, &str)], status: &'static str) -> (Qmp, thread::JoinHandle<Vec<String>>) {
    let (here, mut there) = UnixStream::pair().unwrap();
    let qemu = thread::spawn(move || {
        let mut asked = Vec::new();
        writeln!(there, r#"{{"QMP": {{}}}}"#).unwrap();
        for line in BufReader::new(there.try_clone().unwrap()).lines().map_while(Result::ok) {
            let command: Value = serde_json::from_str(&line).unwrap();
            let name = command["execute"].as_str().unwrap().to_owned();
            let answer = match name.as_str() {
                "query-migrate" => json!({"status": status, "ram": {"transferred": 746}}),
                _ => json!({}),
            };
            writeln!(there, "{}", json!({"return": answer, "id": command["id"]})).unwrap();
            for (_, event) in events.iter().filter(|(after, _)| *after == name) {
                writeln!(there, "{event}").unwrap();
            }
            asked.push(name);
        }
        asked
    });
    (Qmp::open(here).unwrap(), qemu)
}

/// Has a source that tells these events asked for a path; returns what was told of it, and the source's commands.
fn conducted(path: &str, limit: u64, events: &'static [(&str, &str)]) -> (Vec<Value>, Vec<String>) {
    let (source, at_source) = speaking(events, "active");
    let (destination, at_destination) = speaking(&[], "completed");
    let (lines, told) = mpsc::channel();
    let speaker = Speaker { started: Instant::now(), lines };
    let job = PeerJob { limit, preempt: false, free_pages: false, below: false };
    let mut conductor = Conductor::new(source, destination, job, speaker);
    let text = format!("migrate vm=linux to=10.0.0.2:4444 path={path}");
    conductor.obey(&Command { to: Party::Host(Host::Source), text });
    drop(conductor);
    at_destination.join().unwrap();
    let told = told.into_iter().filter_map(|line| serde_json::from_str(&line.text).ok());
    (told.collect(), at_source.join().unwrap())
}

const COMPLETED: (&str, &str) = ("migrate", r#"{"event": "MIGRATION", "data": {"status": "completed"}}"#);

#[test]
fn a_post_copy_begins_at_once_and_ends_at_both_sides() {
    let (told, asked) = conducted("post-copy", 60_000, &[COMPLETED]);
    assert_eq!(asked[2..], ["migrate-set-capabilities", "migrate", "migrate-start-postcopy", "query-migrate"]);
    let ends: Vec<&Value> = told.iter().filter(|event| event["event"] == "migration").collect();
    assert_eq!(ends[0]["migration"]["status"], "completed");
    assert_eq!(ends.iter().map(|end| &end["side"]).collect::<Vec<_>>(), ["source", "destination"]);
}

#[test]
fn a_hybrid_turns_to_post_copy_after_its_round() {
    const ONE: &[(&str, &str)] = &[("migrate", r#"{"event": "MIGRATION_PASS", "data": {"pass": 1}}"#), COMPLETED];
    const TWO: &[(&str, &str)] = &[("migrate", r#"{"event": "MIGRATION_PASS", "data": {"pass": 2}}"#), COMPLETED];
    let turns = |events| conducted("hybrid", 60_000, events).1.contains(&"migrate-start-postcopy".to_owned());
    assert!(!turns(ONE));
    assert!(turns(TWO));
}

#[test]
fn what_has_not_ended_at_the_limit_is_cancelled_with_what_was_sent() {
    let (told, asked) = conducted("pre-copy", 1, &[]);
    assert_eq!(asked.last().map(String::as_str), Some("migrate_cancel"));
    let end = told.last().unwrap();
    assert_eq!((&end["migration"]["status"], &end["migration"]["bytes"]), (&"cancelled".into(), &746.into()));
}

#[test]
fn a_path_that_qemu_has_not_is_an_error_in_the_images_words() {
    let (told, asked) = conducted("demand", 1000, &[]);
    assert_eq!(told, [json!({"event": "error", "message": "QEMU has no path `demand`"})]);
    assert_eq!(asked.len(), 2);
}
