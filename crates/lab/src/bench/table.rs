//! The tables of the figures.

use super::Row;
use crate::peer::figures::Figures;

/// The image is at most 1 MiB.
const IMAGE_LIMIT: u64 = 1 << 20;
/// The hypervisor's own memory is at most 16 MiB and 0.5 % of the guest's.
const MEMORY_LIMIT: f64 = 16.0 * 1024.0 * 1024.0;
const MEMORY_SHARE: f64 = 0.005;

/// The figures that are no row of QEMU's.
pub fn figures(image: Option<u64>, rows: &[Row]) -> String {
    let mut lines = vec![line("figure", "measured", "compared with")];
    if let Some(image) = image {
        lines.push(line("image, bytes", &image.to_string(), &format!("at most {IMAGE_LIMIT}")));
    }
    for row in rows {
        lines.extend(row_figures(row));
    }
    lines.join("\n") + "\n"
}

fn row_figures(row: &Row) -> Vec<String> {
    let name = |figure: &str| format!("{} {} {}: {figure}", row.environment, row.workload, row.path);
    let mut lines = Vec::new();
    if let Some(error) = row.error() {
        lines.push(line(&name("FAILED"), error, ""));
    }
    if let Some(error) = row.qemu_error() {
        lines.push(line(&name("QEMU FAILED"), error, ""));
    }
    if let (Some(used), Some(memory)) = (row.own_memory, row.number(&["memory"])) {
        let limit = MEMORY_LIMIT + memory * MEMORY_SHARE;
        let used = format!("{:.1}", used as f64 / 1048576.0);
        lines.push(line(&name("own memory, MiB"), &used, &format!("at most {:.1}", limit / 1048576.0)));
    }
    if let Some(start) = row.start {
        let qemu = row.qemu.as_ref().map(beside_start).unwrap_or_default();
        lines.push(line(&name("start to first heartbeat, ms"), &format!("{start:.0}"), &qemu));
    }
    if let Some(ticks) = row.round_trip {
        lines.push(line(&name("VM exit and entry, ticks"), &ticks.to_string(), ""));
    }
    if let Some(harvest) = row.number(&["overhead", "harvest-time", "p50"]) {
        let leaves = row.number(&["memory"]).map(|memory| format!("the guest has {} leaves", memory / 4096.0));
        lines.push(line(&name("harvest, ms"), &format!("{harvest:.2}"), ""));
        if let Some(entries) = entries_a_harvest(row) {
            lines.push(line(&name("harvest, entries"), &format!("{entries:.0}"), &leaves.unwrap_or_default()));
        }
    }
    if let (Some(downtime), Some(least)) = (row.number(&["migration", "downtime"]), least_downtime(row)) {
        let limit = format!("last round / throughput {least:.0}");
        lines.push(line(&name("downtime, ms"), &format!("{downtime:.0}"), &limit));
    }
    let throughput = row.number(&["migration", "throughput"]);
    if let (Some(stream), Some(link)) = (throughput, row.number(&["migration", "link-throughput"])) {
        let share = format!("{:.0} %", 100.0 * stream / link);
        lines.push(line(
            &name("throughput, MB/s"),
            &format!("{:.1}", stream / 1e6),
            &format!("link {:.1}: {share}", link / 1e6),
        ));
    }
    lines.extend(waits(row));
    lines
}

/// How often and how long the guest waited for pages, beside the round trip of an empty message over the same link.
fn waits(row: &Row) -> Option<String> {
    let latency = |part| row.number(&["migration", "fault-latency", part]);
    let (p50, p99) = (latency("p50")?, latency("p99")?);
    let name = format!("{} {} {}: fault latency p50, p99, ms", row.environment, row.workload, row.path);
    let trip = row.number(&["migration", "link-round-trip"]).filter(|trip| *trip > 0.0);
    let trip = trip.map(|trip| format!("empty message {trip:.2}: {:.1}, {:.1} times", p50 / trip, p99 / trip));
    let requests = row.number(&["migration", "postcopy-requests"]);
    let requests = requests.map(|count| format!("{count:.0} requests")).into_iter();
    let compared: Vec<String> = trip.into_iter().chain(requests).collect();
    Some(line(&name, &format!("{p50:.2}, {p99:.2}"), &compared.join("; ")))
}

/// QEMU's way to a first heartbeat, and that of all that it runs on.
fn beside_start(qemu: &Figures) -> String {
    let own = qemu.start.map(|ms| format!("QEMU {ms:.0}"));
    let host = qemu.host_start.map(|ms| format!("QEMU with its Linux and KVM {ms:.0}"));
    own.into_iter().chain(host).collect::<Vec<_>>().join(", ")
}

fn entries_a_harvest(row: &Row) -> Option<f64> {
    let harvests = row.number(&["overhead", "harvests"]).filter(|harvests| *harvests > 0.0)?;
    Some(row.number(&["overhead", "harvest-entries"])? / harvests)
}

/// A pre-copy's guest is silent at least while what its last round left dirty goes over, in ms.
fn least_downtime(row: &Row) -> Option<f64> {
    let rounds = row.report.get("migration")?.get("rounds")?.as_array()?;
    let dirtied = rounds.last()?.get("dirtied")?.as_f64()?;
    let throughput = row.number(&["migration", "throughput"]).filter(|rate| *rate > 0.0)?;
    Some(dirtied * 4096.0 / throughput * 1e3)
}

/// Row by row beside QEMU's own migration.
pub fn rows(rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut lines = vec![format!(
        "{:<28} {:>24} {:>24} {:>24}",
        "migration (QEMU's in brackets)", "total-time ms", "downtime ms", "heartbeat-gap ms"
    )];
    for row in rows {
        let cell = |path: &[&str], theirs: fn(&Figures) -> Option<f64>| {
            let ours = row.number(path).map_or("-".to_owned(), |ms| format!("{ms:.0}"));
            let Some(qemu) = &row.qemu else { return ours };
            match theirs(qemu) {
                Some(ms) => format!("{ours} ({ms:.0})"),
                None if qemu.never_ended => format!("{ours} (never)"),
                None => format!("{ours} (-)"),
            }
        };
        lines.push(format!(
            "{:<30} {:>22} {:>24} {:>24}",
            format!("{} {} {}", row.environment, row.workload, row.path),
            cell(&["migration", "total-time"], |qemu| qemu.total_time),
            cell(&["migration", "downtime"], |qemu| qemu.downtime),
            cell(&["verify", "heartbeat-gap"], |qemu| qemu.heartbeat_gap),
        ));
    }
    lines.join("\n") + "\n"
}

pub fn line(figure: &str, measured: &str, compared: &str) -> String {
    format!("{figure:<60} {measured:>14}   {compared}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::env::Environment;

    fn row() -> Row {
        Row {
            environment: Environment::Bochs,
            workload: "unruly",
            path: "pre-copy",
            report: json!({
                "memory": 1 << 27,
                "migration": {"total-time": 1000.4, "downtime": 20.0, "throughput": 4_096_000, "link-throughput": 8_192_000,
                    "fault-latency": {"p50": 2.0, "p99": 5.0, "max": 9.0}, "link-round-trip": 2.5, "postcopy-requests": 7,
                    "rounds": [{"dirtied": 900}, {"dirtied": 10}]},
                "verify": {"heartbeat-gap": 120.0},
                "overhead": {"harvest-time": {"p50": 0.5, "max": 1.0}, "harvests": 4, "harvest-entries": 4096}
            }),
            start: Some(7200.0),
            round_trip: Some(1234),
            own_memory: Some(8 << 20),
            qemu: Some(Figures {
                start: Some(11_000.0),
                host_start: Some(20_000.0),
                never_ended: true,
                ..Figures::default()
            }),
        }
    }

    #[test]
    fn each_figure_stands_beside_its_limit() {
        let text = figures(Some(600_000), &[row()]);
        let line = |part: &str| {
            let line = text.lines().find(|line| line.contains(part)).unwrap_or_default();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert!(line("image, bytes").ends_with("600000 at most 1048576"));
        assert!(line("own memory").ends_with("8.0 at most 16.6"));
        assert!(line("first heartbeat").ends_with("7200 QEMU 11000, QEMU with its Linux and KVM 20000"));
        assert!(line("VM exit").ends_with("1234"));
        assert!(line("harvest, ms").ends_with("ms 0.50"));
        assert!(line("harvest, entries").ends_with("1024 the guest has 32768 leaves"));
        assert!(line("downtime").ends_with("20 last round / throughput 10"));
        assert!(line("fault latency").ends_with("2.00, 5.00 empty message 2.50: 0.8, 2.0 times; 7 requests"));
        assert!(line("throughput, MB/s").ends_with("4.1 link 8.2: 50 %"));
    }

    #[test]
    fn a_row_stands_beside_qemus_and_says_where_that_never_ended() {
        let text = rows(&[row()]);
        let cells: Vec<&str> = text.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        assert_eq!(cells, ["bochs", "unruly", "pre-copy", "1000", "(never)", "20", "(never)", "120", "(never)"]);
        let mut ended = row();
        ended.qemu = Some(Figures { total_time: Some(5885.4), downtime: Some(317.0), ..Figures::default() });
        assert!(rows(&[ended]).contains("1000 (5885)"));
        let mut alone = row();
        alone.qemu = None;
        assert!(!rows(&[alone]).contains("(never)"));
    }

    #[test]
    fn a_failure_of_qemus_is_named() {
        let mut failed = row();
        failed.qemu = Some(Figures { error: Some("no route".to_owned()), ..Figures::default() });
        assert!(figures(None, &[failed]).contains("no route"));
    }

    #[test]
    fn a_run_that_failed_is_named_and_its_cells_are_empty() {
        let mut failed = row();
        failed.report = json!({"error": "the guest stopped"});
        assert!(figures(None, &[failed.clone()]).contains("the guest stopped"));
        assert!(rows(&[failed]).contains("- (never)"));
    }
}
