//! Two QEMUs that migrate a guest themselves. They are told and heard in the words of the image's monitor
//! (docs/monitor.md), so that the lab drives and judges them by the very code that it has for the image.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::Speaker;
use super::job::PeerJob;
use super::qmp::{Event, Qmp};
use super::wire::{Command, Host, Kind, Party};

/// The guest's name.
pub const VM: &str = "linux";
/// How often a side that has nothing to say is left for the other one.
const LOOK: Duration = Duration::from_millis(50);
/// How often QEMU is asked how far it is: an answer costs time that the migration lacks.
const PROGRESS: Duration = Duration::from_secs(5);
/// How long the destination may take to end a migration that has ended at its source.
const PATIENCE: Duration = Duration::from_secs(120);

/// The console of a guest that moves: what it began to print on one side it ends on the other.
#[derive(Clone, Default)]
pub struct Console(Arc<Mutex<Vec<u8>>>);

impl Console {
    /// Passes on what one side prints, line by line, as the image would tell it.
    pub(super) fn relay(&self, mut from: impl Read + Send + 'static, party: Party, speaker: Speaker) {
        let console = self.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read) = from.read(&mut bytes)
                && read > 0
            {
                for text in console.lines(bytes.get(..read).unwrap_or_default()) {
                    let event = json!({"event": "console", "vm": VM, "text": text});
                    speaker.say(party, Kind::Monitor, event.to_string());
                }
            }
        });
    }

    /// The lines that these bytes end.
    fn lines(&self, bytes: &[u8]) -> Vec<String> {
        // No state of these bytes is a broken one.
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.extend_from_slice(bytes);
        let Some(end) = begun.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let whole: Vec<u8> = begun.drain(..=end).collect();
        let text = String::from_utf8_lossy(&whole).into_owned();
        text.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
    }
}

/// How QEMU is to move the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    PreCopy,
    PostCopy,
    /// Rounds first; so many.
    Hybrid(u64),
}

impl Path {
    fn name(self) -> &'static str {
        match self {
            Path::PreCopy => "pre-copy",
            Path::PostCopy => "post-copy",
            Path::Hybrid(_) => "hybrid",
        }
    }
}

/// A `migrate` command of the image's monitor, as far as QEMU has the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ask {
    to: String,
    path: Path,
    auto_converge: bool,
    /// In ms.
    downtime_limit: Option<u64>,
    /// In bytes a second.
    bandwidth: Option<u64>,
}

impl Ask {
    /// Reads the words after `migrate`. Those of the decision and of the image's own ways have no counterpart.
    fn parse(words: &str) -> Result<Self> {
        let value = |key: &str| {
            let mut pairs = words.split_whitespace().filter_map(|word| word.split_once('='));
            pairs.find_map(|(name, value)| (name == key).then_some(value))
        };
        let rounds = value("hybrid-rounds").map_or(Ok(1), str::parse).context("hybrid-rounds is no number")?;
        let milliseconds = |text: &str| text.strip_suffix("ms")?.parse().ok();
        Ok(Ask {
            to: value("to").context("where to?")?.to_owned(),
            path: match value("path") {
                Some("pre-copy") => Path::PreCopy,
                Some("post-copy") => Path::PostCopy,
                Some("hybrid") => Path::Hybrid(rounds),
                other => bail!("QEMU has no path `{}`", other.unwrap_or_default()),
            },
            auto_converge: value("auto-converge") == Some("yes"),
            downtime_limit: value("downtime-limit").and_then(milliseconds),
            bandwidth: value("bandwidth").and_then(|rate| rate.parse().ok()),
        })
    }

    /// QEMU's capabilities for one side.
    fn capabilities(&self, preempt: bool, side: Host) -> Value {
        let post_copy = self.path != Path::PreCopy;
        let states = [
            ("events", true),
            ("postcopy-ram", post_copy),
            ("postcopy-preempt", post_copy && preempt),
            ("auto-converge", self.auto_converge && side == Host::Source),
        ];
        let list: Vec<Value> = states.iter().map(|(name, state)| json!({"capability": name, "state": state})).collect();
        json!({"capabilities": list})
    }

    /// QEMU's parameters, where they are not its defaults.
    fn parameters(&self) -> Option<Value> {
        let mut parameters = serde_json::Map::new();
        parameters.extend(self.downtime_limit.map(|limit| ("downtime-limit".to_owned(), limit.into())));
        parameters.extend(self.bandwidth.map(|rate| ("max-bandwidth".to_owned(), rate.into())));
        (!parameters.is_empty()).then_some(Value::Object(parameters))
    }
}

/// QEMU's `query-migrate` in the words of the image's `migration` object.
fn account(path: Path, status: &str, query: &Value) -> Value {
    let mut account = serde_json::Map::new();
    account.insert("path".to_owned(), path.name().into());
    account.insert("status".to_owned(), status.into());
    let ram = &query["ram"];
    let pages = json!({"normal": ram["normal"], "duplicate": ram["duplicate"]});
    let mut add = |key: &str, value: &Value| {
        if !value.is_null() {
            account.insert(key.to_owned(), value.clone());
        }
    };
    for key in ["total-time", "downtime", "setup-time", "expected-downtime", "cpu-throttle-percentage"] {
        add(key, &query[key]);
    }
    for key in ["dirty-sync-count", "postcopy-requests"] {
        add(key, &ram[key]);
    }
    add("pages", &pages);
    add("bytes", &ram["transferred"]);
    Value::Object(account)
}

/// The two QEMUs, and what is to be done with them.
pub struct Conductor {
    source: Option<Qmp>,
    destination: Option<Qmp>,
    job: PeerJob,
    speaker: Speaker,
}

impl Conductor {
    /// Both have their machines ready.
    pub(super) fn new(source: Qmp, destination: Qmp, job: PeerJob, speaker: Speaker) -> Self {
        Conductor { source: Some(source), destination: Some(destination), job, speaker }
    }

    /// Does what is asked until nobody can ask any more.
    pub(super) fn serve(mut self, commands: &Receiver<Command>) {
        loop {
            match commands.recv_timeout(LOOK) {
                Ok(command) => self.obey(&command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for host in [Host::Source, Host::Destination] {
                // A monitor that is closed belongs to a QEMU that has ended, which the agent tells by itself.
                if self.listen(host, Duration::ZERO).is_err() {
                    *self.side(host) = None;
                }
            }
        }
    }

    fn side(&mut self, host: Host) -> &mut Option<Qmp> {
        match host {
            Host::Source => &mut self.source,
            Host::Destination => &mut self.destination,
        }
    }

    fn say(&self, host: Host, event: &Value) {
        self.speaker.say(Party::Host(host), Kind::Monitor, event.to_string());
    }

    fn obey(&mut self, command: &Command) {
        let Party::Host(host) = command.to else { return };
        let (word, rest) = command.text.split_once(' ').unwrap_or((&command.text, ""));
        let done = match word {
            "migrate" => Ask::parse(rest).and_then(|ask| self.migrate(&ask)),
            "quit" => self.execute(host, "quit", Value::Null).map(drop),
            "status" => Ok(()),
            _ => Err(anyhow::anyhow!("QEMU's side knows no command `{word}`")),
        };
        if let Err(error) = done {
            self.say(host, &json!({"event": "error", "message": format!("{error:#}")}));
        }
    }

    fn execute(&mut self, host: Host, command: &str, arguments: Value) -> Result<Value> {
        let qmp = self.side(host).as_mut().with_context(|| format!("the {} has ended", host.name()))?;
        qmp.execute(command, arguments).with_context(|| format!("at the {}", host.name()))
    }

    /// Takes what a side has to tell: a restart of the guest is passed on, a change of the migration is returned.
    fn listen(&mut self, host: Host, patience: Duration) -> Result<Option<Event>> {
        let Some(qmp) = self.side(host).as_mut() else { return Ok(None) };
        let event = qmp.event(patience)?;
        if let Some(Event { name, data }) = &event
            && name == "RESET"
            && data["guest"] == true
        {
            self.say(host, &json!({"event": "restart", "vm": VM, "cause": data["reason"]}));
        }
        Ok(event)
    }

    /// Moves the guest, and tells of it what the image would tell.
    fn migrate(&mut self, ask: &Ask) -> Result<()> {
        let (_, port) = ask.to.rsplit_once(':').context("an address has a port")?;
        for host in [Host::Destination, Host::Source] {
            self.execute(host, "migrate-set-capabilities", ask.capabilities(self.job.preempt, host))?;
        }
        self.execute(Host::Destination, "migrate-incoming", json!({"uri": format!("tcp:0.0.0.0:{port}")}))?;
        if let Some(parameters) = ask.parameters() {
            self.execute(Host::Source, "migrate-set-parameters", parameters)?;
        }
        let decision = json!({"path": ask.path.name(), "condition": "asked for", "chosen-by": "user"});
        self.say(Host::Source, &json!({"event": "decision", "vm": VM, "decision": decision}));
        self.execute(Host::Source, "migrate", json!({"uri": format!("tcp:{}", ask.to)}))?;
        let started = Instant::now();
        if ask.path == Path::PostCopy {
            self.execute(Host::Source, "migrate-start-postcopy", Value::Null)?;
        }
        let status = self.follow(ask, started)?;
        let query = self.execute(Host::Source, "query-migrate", Value::Null)?;
        let mut ended = json!({"event": "migration", "vm": VM, "side": "source",
            "migration": account(ask.path, &status, &query)});
        if status == "cancelled" {
            self.execute(Host::Source, "migrate_cancel", Value::Null)?;
            ended["error"] = format!("it had not ended after {} s", self.job.limit / 1000).into();
        } else if let Some(reason) = query["error-desc"].as_str() {
            ended["error"] = reason.into();
        }
        self.say(Host::Source, &ended);
        ensure!(status != "failed", "QEMU's migration failed");
        if status == "completed" {
            self.complete()?;
        }
        Ok(())
    }

    /// Waits for the end at the source, or for the limit, and returns the status.
    fn follow(&mut self, ask: &Ask, started: Instant) -> Result<String> {
        let limit = Duration::from_millis(self.job.limit);
        let mut told = Instant::now();
        while started.elapsed() < limit {
            if told.elapsed() >= PROGRESS {
                self.progress()?;
                told = Instant::now();
            }
            self.listen(Host::Destination, Duration::ZERO)?;
            let Some(event) = self.listen(Host::Source, LOOK)? else { continue };
            match (event.name.as_str(), event.data["status"].as_str()) {
                ("MIGRATION", Some(status @ ("completed" | "failed" | "cancelled"))) => return Ok(status.to_owned()),
                ("MIGRATION_PASS", _) => self.passed(ask, event.data["pass"].as_u64().unwrap_or_default())?,
                _ => {}
            }
        }
        Ok("cancelled".to_owned())
    }

    /// A pass over the memory begins, counted from 1.
    fn passed(&mut self, ask: &Ask, pass: u64) -> Result<()> {
        if matches!(ask.path, Path::Hybrid(rounds) if pass == rounds + 1) {
            self.execute(Host::Source, "migrate-start-postcopy", Value::Null)?;
        }
        self.speaker.say(Party::Host(Host::Source), Kind::Note, format!("pass {pass}"));
        Ok(())
    }

    fn progress(&mut self) -> Result<()> {
        let query = self.execute(Host::Source, "query-migrate", Value::Null)?;
        let number = |key: &str| query["ram"][key].as_f64().unwrap_or_default();
        self.say(
            Host::Source,
            &json!({"event": "progress", "vm": VM, "phase": query["status"],
                "pages-sent": (number("normal") + number("duplicate")) as u64,
                "pages-left": (number("remaining") / 4096.0) as u64,
                "throughput": (number("mbps") * 125e3) as u64}),
        );
        Ok(())
    }

    /// Waits until the destination has everything, too.
    fn complete(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let query = self.execute(Host::Destination, "query-migrate", Value::Null)?;
            match query["status"].as_str().unwrap_or_default() {
                status @ ("completed" | "failed") => {
                    let ended = json!({"event": "migration", "vm": VM, "side": "destination",
                        "migration": {"status": status}});
                    self.say(Host::Destination, &ended);
                    return Ok(());
                }
                status => ensure!(Instant::now() < deadline, "the destination does not end: {status}"),
            }
            self.listen(Host::Destination, LOOK)?;
        }
    }
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
