//! `report.json`: the contract is docs/report.md.

use serde_json::{Map, Value, json};

use super::story::Story;
use crate::options::MigrateOptions;

/// What a run amounted to.
pub struct Report {
    /// The whole report.
    pub json: Value,
    /// What went wrong, in one sentence.
    pub error: Option<String>,
}

/// What is asked of a run beyond the migration itself.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Pages were to be compared.
    pub verify: bool,
    /// So many heartbeats were to come from the destination.
    pub heartbeats: u64,
}

/// Puts the report together. `error` is what ended the run early.
pub fn report(options: &MigrateOptions, story: &Story, wanted: Wanted, error: Option<String>) -> Report {
    let error = error.or_else(|| fault(story, wanted));
    let mut json = Map::new();
    let mut add = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            json.insert(key.to_owned(), value);
        }
    };
    add("environment", Some(options.hosts.env.to_string().into()));
    add("guest", Some(options.guest.guest.to_string().into()));
    add("workload", Some(options.guest.workload.to_string().into()));
    add("memory", Some(options.guest.bytes().into()));
    add("sample", sample(story));
    add("decision", story.decision.clone());
    add("migration", migration(story));
    add("verify", Some(verify(story)));
    add("overhead", story.overhead.as_ref().map(without_frame));
    add("error", error.clone().map(Value::String));
    Report { json: Value::Object(json), error }
}

/// The image's account of the sample, with what the guest counted itself, where it does.
fn sample(story: &Story) -> Option<Value> {
    let mut sample = story.sample.as_ref()?.as_object()?.clone();
    let end = story.sampled?;
    let start = end - sample.get("ts")?.as_f64()?;
    if let Some(counted) = story.heartbeats.counted(start, end) {
        sample.insert(
            "guest-count".to_owned(),
            json!({"births": counted.births, "deaths": counted.deaths, "pages-written": counted.pages_written,
                "time": rounded(counted.at)}),
        );
    }
    Some(Value::Object(sample))
}

/// The first thing that is not as it should be.
fn fault(story: &Story, wanted: Wanted) -> Option<String> {
    let [source, destination] = &story.sides;
    let status = |migration: &Option<Value>| {
        let status = migration.as_ref().and_then(|value| value.get("status"));
        status.and_then(Value::as_str).unwrap_or("unknown").to_owned()
    };
    for (name, side) in [("source", source), ("destination", destination)] {
        let status = status(&side.migration);
        if status != "completed" {
            let why = side.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            return Some(format!("the migration is {status} at the {name}{why}"));
        }
    }
    let beats = &story.heartbeats;
    let different = number(&story.verify, "pages-different");
    let checks = [
        (beats.seen[1] < wanted.heartbeats, too_few(beats.seen)),
        (beats.lost > 0, format!("{} heartbeats were lost", beats.lost)),
        (beats.repeated > 0, format!("{} heartbeats came again: the guest ran twice", beats.repeated)),
        (beats.errors > 0, format!("the guest found {} errors in its memory", beats.errors)),
        (wanted.verify && different.is_none(), "the pages were not compared".to_owned()),
        (different.is_some_and(|count| count > 0), format!("{} pages differ", different.unwrap_or_default())),
    ];
    checks.into_iter().find_map(|(wrong, sentence)| wrong.then_some(sentence))
}

fn too_few(seen: [u64; 2]) -> String {
    match seen {
        [0, 0] => "the guest prints no heartbeat: nobody saw whether it runs on".to_owned(),
        [_, count] => format!("only {count} heartbeats came from the destination"),
    }
}

fn number(event: &Option<Value>, key: &str) -> Option<u64> {
    event.as_ref().and_then(|event| event.get(key)).and_then(Value::as_u64)
}

/// The source's account, with what only the destination knows.
fn migration(story: &Story) -> Option<Value> {
    let [source, destination] = story.sides.each_ref().map(|side| side.migration.as_ref().and_then(Value::as_object));
    let mut merged = source.or(destination)?.clone();
    for (key, value) in destination.into_iter().flatten() {
        merged.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Some(Value::Object(merged))
}

fn verify(story: &Story) -> Value {
    let beats = &story.heartbeats;
    let mut verify = Map::new();
    for key in ["pages-compared", "pages-different"] {
        if let Some(count) = number(&story.verify, key) {
            verify.insert(key.to_owned(), count.into());
        }
    }
    for (key, beat) in
        [("heartbeat-last-source", beats.last_at_source), ("heartbeat-first-destination", beats.first_at_destination)]
    {
        if let Some(beat) = beat {
            verify.insert(key.to_owned(), beat.into());
        }
    }
    verify.insert("heartbeats-lost".to_owned(), beats.lost.into());
    verify.insert("heartbeat-gap".to_owned(), json!(rounded(beats.longest_gap)));
    verify.insert("guest-errors".to_owned(), beats.errors.into());
    Value::Object(verify)
}

/// Thousandths of a millisecond are the resolution of all clocks here.
pub(crate) fn rounded(millis: f64) -> f64 {
    (millis * 1e3).round() / 1e3
}

/// An event's own words, without what every event has.
fn without_frame(event: &Value) -> Value {
    let mut object = event.as_object().cloned().unwrap_or_default();
    object.retain(|key, _| !["event", "at", "vm", "side"].contains(&key.as_str()));
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::wire::{Host, Kind, Line, Party};
    use crate::testbed::Wiring;

    const WANTED: Wanted = Wanted { verify: true, heartbeats: 2 };

    /// A run in which everything went well, with `change` in place of the events of the same kind and side.
    fn run(change: &[Value]) -> Report {
        let migration = |side: &str, more: Value| {
            let mut migration = json!({"status": "completed", "path": "pre-copy"});
            migration.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
            json!({"event": "migration", "vm": "linux", "side": side, "migration": migration})
        };
        let console = |text: &str| json!({"event": "console", "vm": "linux", "text": text});
        let mut events = vec![
            console("hb 1 e0"),
            json!({"event": "sample", "vm": "linux", "sample": {"ts": 500.0}}),
            json!({"event": "decision", "vm": "linux", "decision": {"path": "pre-copy", "condition": "calm"}}),
            json!({"event": "handover", "vm": "linux", "side": "destination"}),
            console("hb 2 e0"),
            json!({"event": "overhead", "vm": "linux", "at": 1.0, "exits": {"hlt": 3}}),
            migration("source", json!({"downtime": 12.0})),
            migration("destination", json!({"downtime": 99.0, "postcopy-requests": 3})),
            json!({"event": "overhead", "vm": "linux", "at": 2.0, "exits": {"hlt": 99}}),
            json!({"event": "verify", "vm": "linux", "pages-compared": 10, "pages-different": 0}),
            console("hb 3 e0"),
        ];
        for new in change {
            let same = |old: &&mut Value| old["event"] == new["event"] && old["side"] == new["side"];
            match events.iter_mut().rev().find(same) {
                Some(old) => *old = new.clone(),
                None => events.push(new.clone()),
            }
        }
        let mut story = Story::new(&Wiring::Direct, "linux");
        for (step, event) in events.iter().enumerate() {
            let at = 100.0 * step as f64;
            let from = Party::Host(Host::Source);
            story.tell(&Line { from, kind: Kind::Monitor, at, text: event.to_string() });
        }
        let options = MigrateOptions::from_words("--env bochs --verify").unwrap();
        report(&options, &story, WANTED, None)
    }

    #[test]
    fn a_run_without_fault_reports_both_sides_and_no_error() {
        let report = run(&[]);
        assert_eq!(report.error, None);
        assert_eq!(
            report.json,
            json!({
                "environment": "bochs", "guest": "linux", "workload": "calm", "memory": 128 << 20,
                "sample": {"ts": 500.0},
                "decision": {"path": "pre-copy", "condition": "calm"},
                "migration": {"status": "completed", "path": "pre-copy", "downtime": 12.0, "postcopy-requests": 3},
                "verify": {
                    "pages-compared": 10, "pages-different": 0, "heartbeat-last-source": 1,
                    "heartbeat-first-destination": 2, "heartbeats-lost": 0, "heartbeat-gap": 600.0, "guest-errors": 0
                },
                "overhead": {"exits": {"hlt": 3}}
            })
        );
    }

    #[test]
    fn each_fault_is_one_sentence_and_in_the_report() {
        let console = |text: &str| json!({"event": "console", "vm": "linux", "text": text});
        let failed = json!({"event": "migration", "vm": "linux", "side": "source",
            "migration": {"status": "failed"}, "error": "no route"});
        for (change, sentence) in [
            (console("hb 9 e0"), "6 heartbeats were lost"),
            (console("hb 2 e0"), "1 heartbeats came again"),
            (console("hb 3 e4"), "4 errors"),
            (console("no beat"), "only 1 heartbeats"),
            (json!({"event": "verify", "vm": "linux", "pages-compared": 9, "pages-different": 2}), "2 pages differ"),
            (json!({"event": "verify", "vm": "other"}), "not compared"),
            (failed, "the migration is failed at the source: no route"),
        ] {
            let report = run(std::slice::from_ref(&change));
            let error = report.error.unwrap_or_default();
            assert!(error.contains(sentence), "{change}: {error}");
            assert_eq!(report.json["error"], error);
        }
    }
}
