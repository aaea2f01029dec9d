use qavns::Version;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::super::options::Rule;
use super::*;
use crate::agent::wire::{Host, Kind, Line, Party};

/// A VM of which events come, as the image tells them.
struct Vm {
    model: Model,
    version: Version,
    /// Milliseconds.
    at: u64,
}

impl Vm {
    fn watched(workload: &str) -> Self {
        let model = Model::new(format!("bochs, linux, {workload}"), "linux", Rule::default());
        let mut vm = Vm { model, version: Version::new(), at: 5000 };
        vm.tell(json!({"event": "ready", "vms": ["linux"]}));
        vm.tell(json!({"event": "console", "text": format!("start {workload}")}));
        let periods =
            json!({"event": "watching", "on": true, "memory": 128 << 20, "jiffy": 4.0, "harvest-period": 100.0});
        vm.tell(periods);
        vm.reading("identifier", None);
        vm
    }

    fn tell(&mut self, mut event: Value) {
        event["at"] = json!(self.at);
        event["vm"] = json!("linux");
        let text = event.to_string();
        self.model.take(&Line { from: Party::Host(Host::Source), kind: Kind::Monitor, at: 0.0, text });
    }

    fn reading(&mut self, event: &str, cause: Option<&str>) {
        let reading = self.version.reading();
        let totals = reading.totals;
        self.tell(json!({"event": event, "id": reading.identifier.to_string(), "restarts": totals.restarts,
            "births": totals.births, "deaths": totals.deaths, "pages-modified": totals.pages_modified, "cause": cause}));
    }

    /// A harvest period with as many births, deaths and pages, and a heartbeat.
    fn harvest(&mut self, processes: u64, pages: u64) {
        self.at += 100;
        self.version.tick(25);
        self.version.processes(processes, processes);
        self.version.modified(pages);
        self.reading("identifier", None);
        self.tell(json!({"event": "console", "text": format!("hb {} e0", (self.at - 5000) / 100)}));
    }

    fn restart(&mut self) {
        self.version.restart();
        self.reading("restart", Some("port 0xCF9"));
    }

    fn exits(&mut self, io: u64) {
        self.tell(json!({"event": "overhead", "exits": {"io": io, "hlt": 7}}));
    }

    /// The screen as lines of text.
    fn screen(&self, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &self.model)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).filter_map(|x| buffer.cell((x, y))).map(|cell| cell.symbol()).collect::<String>();
        (0..height).map(row).collect()
    }
}

/// The line that begins, within its frame, with these words.
fn line<'a>(screen: &'a [String], words: &str) -> &'a str {
    let found = screen.iter().find(|line| line.trim_start_matches('│').starts_with(words));
    found.unwrap_or_else(|| panic!("no `{words}` in\n{}", screen.join("\n")))
}

/// Five seconds of a workload as Linux in `bochs` shows it.
fn workload(name: &str) -> Vm {
    let mut vm = Vm::watched(name);
    for harvest in 0..50 {
        match name {
            "calm" => vm.harvest(0, 12),
            "unruly" => vm.harvest(0, 1940),
            "storm" => vm.harvest(12, 230),
            _ => {
                if harvest == 47 {
                    vm.restart();
                }
                // The kernel that starts again writes much: that does not hide why.
                vm.harvest(0, if harvest < 47 { 12 } else { 3000 });
            }
        }
    }
    vm
}

#[test]
fn the_four_workloads_are_told_apart_at_a_glance() {
    let shown = [
        ("calm", " CALM  -> pre-copy", "··········"),
        ("unruly", " UNRULY PROCESSES  -> post-copy", "UUUUUUUUU"),
        ("storm", " STORM OF BIRTH AND DEATH OF PROCESSES  -> post-copy", "SSSSSSSSS"),
        ("reboot", " UNSTABLE OPERATING SYSTEM  -> post-copy", "·R"),
    ];
    for (name, condition, history) in shown {
        let screen = workload(name).screen(100, 30);
        assert!(line(&screen, "the rule now").contains(condition), "{}", screen.join("\n"));
        let named = line(&screen, "what the rule named").trim_end_matches('│');
        assert!(named.ends_with(history), "{named}");
    }
}

/// The last cell of a field's history, both of its rows together: 0 for empty to 16 for full.
fn last_bar(screen: &[String], field: &str) -> usize {
    let row = screen.iter().position(|line| line.trim_start_matches('│').starts_with(field)).unwrap();
    let height = |line: &String| " ▁▂▃▄▅▆▇█".chars().position(|bar| Some(bar) == line.chars().rev().nth(1)).unwrap();
    screen[row..row + 2].iter().map(height).sum()
}

#[test]
fn a_history_is_full_where_the_rule_would_fire_and_low_where_the_guest_is_calm() {
    let bars = |name: &str| {
        let screen = workload(name).screen(100, 30);
        ["JS ", "PCN ", "DPCN "].map(|field| last_bar(&screen, field))
    };
    let [js, pcn, dpcn] = bars("calm");
    assert_eq!((js, pcn), (16, 0));
    assert!(dpcn < 2, "{dpcn}");
    assert_eq!(bars("unruly")[1..], [0, 16]);
    let [_, pcn, dpcn] = bars("storm");
    assert!(pcn == 16 && (4..12).contains(&dpcn), "{pcn} {dpcn}");
}

#[test]
fn rates_exits_console_and_heartbeat_are_shown() {
    let mut vm = workload("storm");
    vm.exits(1000);
    vm.at += 1000;
    vm.exits(4500);
    vm.tell(json!({"event": "console", "text": "it \u{1b}[31mspeaks"}));
    let screen = vm.screen(110, 30);
    assert!(screen[0].contains("bochs, linux, storm, 128 MiB: watched for 6.0 s"), "{}", screen[0]);
    assert!(line(&screen, "JS.OSIN.PCN.DPCN").contains("000000001250.1.1200.230"));
    assert!(line(&screen, "PCN ").contains("births 120/s, deaths 120/s"));
    assert!(line(&screen, "DPCN ").contains("2300 pages/s"));
    assert!(line(&screen, "┌ exits: 3500/s").contains("console"));
    assert!(screen.iter().any(|line| line.contains("io") && line.contains("3500/s") && line.contains("4500")));
    assert!(screen.iter().any(|line| line.contains("it [31mspeaks")));
    assert!(line(&screen, "heartbeat 50, 1.0 s ago; longest silence 100 ms").ends_with('│'));
}

#[test]
fn a_plain_line_names_the_condition_and_the_rates() {
    let line = super::super::plain::line(&workload("storm").model);
    let wanted = "10.0 s  000000001250.1.1200.230  storm of birth and death of processes -> post-copy  \
                  births 120/s  deaths 120/s  pages 2300/s  exits 0/s  hb 50 e0";
    assert_eq!(line.trim_start(), wanted);
    let line = super::super::plain::line(&workload("reboot").model);
    assert!(line.contains("unstable operating system -> post-copy"), "{line}");
    assert!(line.contains("last restart at 9.7 s by port 0xCF9"), "{line}");
}

#[test]
fn a_restart_says_by_which_way_and_when() {
    let screen = workload("reboot").screen(100, 30);
    assert!(line(&screen, "OSIN ").contains("2  port 0xCF9, 0.3 s ago"), "{}", screen.join("\n"));
}

#[test]
fn before_there_is_anything_to_show_the_screen_says_what_is_awaited() {
    let model = Model::new("bochs, tiny, idle".to_owned(), "tiny", Rule::default());
    let vm = Vm { model, version: Version::new(), at: 0 };
    let screen = vm.screen(80, 24);
    assert!(screen[0].contains("the host starts"));
    assert!(line(&screen, "the rule now").contains("not watched yet"));
    assert!(line(&screen, "no heartbeat yet").ends_with('│'));
}

#[test]
fn no_size_of_the_terminal_panics() {
    let vm = workload("storm");
    for (width, height) in [(1, 1), (3, 2), (20, 5), (46, 12), (80, 24), (300, 100)] {
        vm.screen(width, height);
    }
}
