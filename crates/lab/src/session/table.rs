//! The closing table.

use serde_json::Value;

/// The rows of a report that a person wants first: a name, and where the value is.
const ROWS: [(&str, &[&str]); 24] = [
    ("identifier before", &["sample", "start"]),
    ("identifier after", &["sample", "end"]),
    ("path", &["decision", "path"]),
    ("condition", &["decision", "condition"]),
    ("guest-slowdown", &["overhead", "guest-slowdown-sampling"]),
    ("status", &["migration", "status"]),
    ("total-time ms", &["migration", "total-time"]),
    ("downtime ms", &["migration", "downtime"]),
    ("heartbeat-gap ms", &["verify", "heartbeat-gap"]),
    ("rounds", &["migration", "rounds"]),
    ("cpu-throttle %", &["migration", "cpu-throttle-percentage"]),
    ("postcopy-requests", &["migration", "postcopy-requests"]),
    ("pages normal", &["migration", "pages", "normal"]),
    ("pages duplicate", &["migration", "pages", "duplicate"]),
    ("pages same", &["migration", "pages", "same"]),
    ("pages delta", &["migration", "pages", "delta"]),
    ("pages compressed", &["migration", "pages", "compressed"]),
    ("pages free", &["migration", "pages", "free"]),
    ("bytes", &["migration", "bytes"]),
    ("throughput B/s", &["migration", "throughput"]),
    ("pages-compared", &["verify", "pages-compared"]),
    ("pages-different", &["verify", "pages-different"]),
    ("heartbeats-lost", &["verify", "heartbeats-lost"]),
    ("guest-errors", &["verify", "guest-errors"]),
];

/// The report as a table; a row that does not apply is left out.
pub fn table(report: &Value) -> String {
    let title = ["environment", "guest", "workload"].map(|key| report[key].as_str().unwrap_or("-"));
    let mut text = format!("{} | {} | {}\n", title[0], title[1], title[2]);
    for (name, path) in ROWS {
        let value = path.iter().try_fold(report, |value, key| value.get(key));
        if let Some(value) = value {
            text += &format!("  {name:<20} {:>20}\n", cell(value));
        }
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.len().to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_shows_what_is_there_and_nothing_else() {
        let report = json!({"environment": "bochs", "guest": "tiny", "workload": "calm",
            "migration": {"status": "completed", "rounds": [{}, {}]}, "verify": {"heartbeats-lost": 0}});
        let table = table(&report);
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["bochs", "|", "tiny", "|", "calm"]);
        assert_eq!(rows[1..], [vec!["status", "completed"], vec!["rounds", "2"], vec!["heartbeats-lost", "0"]]);
    }
}
