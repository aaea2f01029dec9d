//! What a person sees while an experiment runs.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::story::Story;

/// Is told how far the experiment is.
pub trait Watch {
    /// A new phase began.
    fn phase(&mut self, name: &str);
    /// Something may have changed.
    fn look(&mut self, story: &Story);
}

/// Sees nothing: for tests.
pub struct Blind;

impl Watch for Blind {
    fn phase(&mut self, _: &str) {}
    fn look(&mut self, _: &Story) {}
}

/// On a terminal one line that moves; else a line for each phase and each decision.
pub struct Person {
    started: Instant,
    bar: Option<ProgressBar>,
    phase: String,
    decided: bool,
}

impl Default for Person {
    fn default() -> Self {
        Self::new()
    }
}

impl Person {
    /// Begins to count the time.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} [{elapsed_precise}] {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Person { started: Instant::now(), bar, phase: String::new(), decided: false }
    }

    fn say(&self, text: &str) {
        let text = format!("[{:5.1} s] {text}", self.started.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}

impl Watch for Person {
    fn phase(&mut self, name: &str) {
        name.clone_into(&mut self.phase);
        self.say(name);
        if let Some(bar) = &self.bar {
            bar.set_message(name.to_owned());
        }
    }

    fn look(&mut self, story: &Story) {
        if let (Some(decision), false) = (&story.decision, self.decided) {
            self.decided = true;
            self.say(&decided(decision));
        }
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} {}", self.phase, now(story)));
        }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The decision in a sentence.
fn decided(decision: &Value) -> String {
    let text = |key: &str| decision[key].as_str().unwrap_or("-");
    let margin = &decision["margin"];
    let values = match margin["line"].as_str() {
        Some(line) => format!(", {line}: {} and {}", margin["left"], margin["right"]),
        None => String::new(),
    };
    let by = text("chosen-by");
    format!("{} because of \"{}\" (by {by}{values})", text("path"), text("condition"))
}

/// The moment in a line: the identifier, the heartbeat, the stream.
fn now(story: &Story) -> String {
    let mut parts = Vec::new();
    parts.extend(story.identifier.as_ref().map(|id| format!("id {id}")));
    let beats = &story.heartbeats;
    if beats.seen != [0, 0] {
        parts.push(format!("heartbeats {} + {}", beats.seen[0], beats.seen[1]));
    }
    if let Some(progress) = &story.progress {
        let number = |key: &str| progress[key].as_u64().unwrap_or_default();
        parts.push(format!(
            "{}: {} pages sent, {} left, {:.1} MB/s",
            progress["phase"].as_str().unwrap_or("-"),
            number("pages-sent"),
            number("pages-left"),
            number("throughput") as f64 / 1e6,
        ));
    }
    parts.join(" | ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_decision_reads_as_a_sentence_with_its_values() {
        let decision = json!({"path": "post-copy", "condition": "unruly processes", "chosen-by": "policy",
            "margin": {"line": "JSe < Td x dDPCN", "left": 125, "right": 800.0}});
        assert_eq!(
            decided(&decision),
            "post-copy because of \"unruly processes\" (by policy, JSe < Td x dDPCN: 125 and 800.0)"
        );
    }
}
