//! QEMU's own monitor protocol (QMP): a JSON object a line, commands one at a time, events in between.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// How long QEMU may take to answer, on one emulated CPU that others share.
const PATIENCE: Duration = Duration::from_secs(180);

/// Something that QEMU tells unasked.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name, such as `MIGRATION`.
    pub name: String,
    /// What belongs to it.
    pub data: Value,
}

/// A line of QEMU's.
#[derive(Debug, PartialEq)]
enum Message {
    Greeting,
    Return { id: u64, value: Value },
    Error { id: u64, description: String },
    Event(Event),
}

impl Message {
    /// Reads a line; `None` for anything that is none of these.
    fn parse(line: &str) -> Option<Self> {
        let mut value: Value = serde_json::from_str(line.trim()).ok()?;
        if value.get("QMP").is_some() {
            return Some(Message::Greeting);
        }
        if let Some(name) = value["event"].as_str() {
            return Some(Message::Event(Event { name: name.to_owned(), data: value["data"].clone() }));
        }
        let id = value["id"].as_u64()?;
        if let Some(error) = value.get("error") {
            let description = error["desc"].as_str().unwrap_or("no reason given").to_owned();
            return Some(Message::Error { id, description });
        }
        Some(Message::Return { id, value: value.get_mut("return")?.take() })
    }
}

/// A command as a line.
fn line(id: u64, command: &str, arguments: &Value) -> String {
    let mut object = json!({"execute": command, "id": id});
    if !arguments.is_null() {
        object["arguments"] = arguments.clone();
    }
    format!("{object}\n")
}

/// A conversation with one QEMU.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    partial: Vec<u8>,
    commands: u64,
    events: VecDeque<Event>,
}

impl Qmp {
    /// Waits for the greeting, and returns once QEMU has its machine ready and takes commands.
    pub fn open(stream: UnixStream) -> Result<Self> {
        let mut qmp = Qmp { reader: BufReader::new(stream), partial: Vec::new(), commands: 0, events: VecDeque::new() };
        let deadline = Instant::now() + PATIENCE;
        while qmp.message(deadline)?.context("QEMU did not greet")? != Message::Greeting {}
        qmp.execute("qmp_capabilities", Value::Null)?;
        // Only the main loop answers, which begins when the machine is built.
        qmp.execute("query-status", Value::Null)?;
        Ok(qmp)
    }

    /// Has QEMU do something, and returns its answer. Events that come before are kept.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.commands += 1;
        let wanted = self.commands;
        self.reader.get_mut().write_all(line(wanted, command, &arguments).as_bytes())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some(message) = self.message(deadline)? else {
                bail!("QEMU did not answer {command} within {} s", PATIENCE.as_secs());
            };
            match message {
                Message::Return { id, value } if id == wanted => return Ok(value),
                Message::Error { id, description } if id == wanted => bail!("QEMU refuses {command}: {description}"),
                Message::Event(event) => self.events.push_back(event),
                Message::Greeting | Message::Return { .. } | Message::Error { .. } => {}
            }
        }
    }

    /// The next event, if one comes in time.
    pub fn event(&mut self, patience: Duration) -> Result<Option<Event>> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        let deadline = Instant::now() + patience;
        loop {
            match self.message(deadline)? {
                Some(Message::Event(event)) => return Ok(Some(event)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next message before the deadline. What was read of a line when the time is over stays for the next call.
    fn message(&mut self, deadline: Instant) -> Result<Option<Message>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.reader.get_ref().set_read_timeout(Some(left))?;
            match self.reader.read_until(b'\n', &mut self.partial) {
                Ok(read) => {
                    ensure!(read > 0, "QEMU has closed its monitor");
                    let bytes = std::mem::take(&mut self.partial);
                    if let Some(message) = Message::parse(&String::from_utf8_lossy(&bytes)) {
                        return Ok(Some(message));
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).context("cannot read QEMU's monitor"),
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_and_anything_else_is_none() {
        let greeting =
            r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}"#;
        assert_eq!(Message::parse(greeting), Some(Message::Greeting));
        let event =
            r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "MIGRATION", "data": {"status": "active"}}"#;
        let wanted = Event { name: "MIGRATION".into(), data: json!({"status": "active"}) };
        assert_eq!(Message::parse(event), Some(Message::Event(wanted)));
        let answer = Message::parse(r#"{"return": {"status": "completed"}, "id": 7}"#);
        assert_eq!(answer, Some(Message::Return { id: 7, value: json!({"status": "completed"}) }));
        let error = Message::parse(r#"{"id": 8, "error": {"class": "GenericError", "desc": "no such device"}}"#);
        assert_eq!(error, Some(Message::Error { id: 8, description: "no such device".into() }));
        for text in ["", "{}", "[1]", "7", r#"{"return": {}}"#, r#"{"id": 3}"#, "qemu: warning"] {
            assert_eq!(Message::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_answer_is_found_among_events_which_are_kept() {
        let (here, mut qemu) = UnixStream::pair().unwrap();
        let spoken = concat!(
            "{\"QMP\": {}}\n{\"return\": {}, \"id\": 1}\n{\"return\": {}, \"id\": 2}\n",
            "{\"event\": \"STOP\"}\nnoise\n{\"return\": {\"status\": \"active\"}, \"id\": 3}\n",
            "{\"id\": 4, \"error\": {\"desc\": \"not now\"}}\n{\"event\": \"RESUME\"",
        );
        qemu.write_all(spoken.as_bytes()).unwrap();
        let mut qmp = Qmp::open(here).unwrap();
        assert_eq!(qmp.execute("query-migrate", Value::Null).unwrap(), json!({"status": "active"}));
        let refused = qmp.execute("migrate", json!({"uri": "tcp:10.0.0.2:4444"})).unwrap_err();
        assert_eq!(refused.to_string(), "QEMU refuses migrate: not now");
        let mut next = || qmp.event(Duration::from_millis(1)).unwrap().map(|event| event.name);
        assert_eq!(next().as_deref(), Some("STOP"));
        // Half a line waits for its other half.
        assert_eq!(next(), None);
        qemu.write_all(b"}\n").unwrap();
        assert_eq!(next().as_deref(), Some("RESUME"));
        let mut asked = String::new();
        drop(qmp);
        io::Read::read_to_string(&mut qemu, &mut asked).unwrap();
        let last = asked.lines().last().unwrap_or_default();
        let wanted = json!({"execute": "migrate", "id": 4, "arguments": {"uri": "tcp:10.0.0.2:4444"}});
        assert_eq!(serde_json::from_str::<Value>(last).unwrap(), wanted);
    }
}
