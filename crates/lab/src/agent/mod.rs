//! The agent: starts the two hosts where KVM is, stamps what they say with one clock, and passes commands on.

pub mod job;
pub mod network;
pub mod peer;
pub mod qemu;
pub mod qmp;
pub mod wire;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use job::Job;
use peer::{Conductor, Console};
use qemu::Qemu;
use qmp::Qmp;
use wire::{Command, Host, Kind, Line, Order, Party};

/// How often the agent looks whether a host has ended: the price is a few system calls.
const LOOK: Duration = Duration::from_millis(50);

/// The stamp and the way out of every line.
#[derive(Clone)]
struct Speaker {
    started: Instant,
    lines: Sender<Line>,
}

impl Speaker {
    /// Milliseconds of the one clock.
    fn now(&self) -> f64 {
        self.started.elapsed().as_micros() as f64 / 1e3
    }

    fn say(&self, from: Party, kind: Kind, text: String) {
        let at = self.now();
        // The receiver lives as long as the process; after it, nobody listens.
        let _ = self.lines.send(Line { from, kind, at, text });
    }
}

/// Runs the job until every host has ended, the lab says so, or the lab is gone.
pub fn run(job: &Job, input: impl Read + Send + 'static, mut output: impl Write) -> Result<()> {
    let (lines, outgoing) = mpsc::channel();
    let speaker = Speaker { started: Instant::now(), lines };
    let commands = listen(input);
    let mut agent = Agent { job, speaker: &speaker, running: Vec::new(), conductor: None, console: Console::default() };
    let result = agent.serve(&commands, &outgoing, &mut output);
    drop(agent);
    if let Err(error) = &result {
        speaker.say(Party::Agent, Kind::Note, format!("{error:#}"));
    }
    speaker.say(Party::Agent, Kind::Exit, if result.is_ok() { "0" } else { "1" }.into());
    write_all(&outgoing, &mut output)?;
    result
}

struct Agent<'a> {
    job: &'a Job,
    speaker: &'a Speaker,
    running: Vec<Qemu>,
    /// Takes the hosts' commands where QEMU migrates the guest itself.
    conductor: Option<Sender<Command>>,
    /// The console of that guest.
    console: Console,
}

impl Agent<'_> {
    fn serve(
        &mut self,
        commands: &Receiver<Command>,
        outgoing: &Receiver<Line>,
        output: &mut impl Write,
    ) -> Result<()> {
        network::make(self.job)?;
        let mut monitors = Vec::new();
        for host in &self.job.hosts {
            let qemu = start(self.job, host, &self.console, self.speaker)?;
            if self.job.peer.is_some() {
                monitors.push((host.host, open(&qemu, self.speaker)?));
            }
            self.running.push(qemu);
            write_all(outgoing, output)?;
        }
        self.conductor = conduct(self.job, monitors, self.speaker);
        while !self.running.is_empty() {
            if let Ok(line) = outgoing.recv_timeout(LOOK) {
                writeln!(output, "{line}")?;
            }
            write_all(outgoing, output)?;
            while let Ok(command) = commands.try_recv() {
                match (command.to, Order::parse(&command.text)) {
                    (Party::Host(_), _) => self.pass_on(&command),
                    (Party::Agent, Some(Order::End)) => return Ok(()),
                    (Party::Agent, Some(order)) => self.obey(order)?,
                    (Party::Agent, None) => {
                        self.speaker.say(Party::Agent, Kind::Note, format!("no order: {}", command.text));
                    }
                }
            }
            let speaker = self.speaker;
            self.running.retain_mut(|host| still_runs(host, speaker));
        }
        Ok(())
    }

    fn pass_on(&mut self, command: &Command) {
        if let Some(conductor) = &self.conductor {
            // It lives as long as its sender.
            let _ = conductor.send(command.clone());
            return;
        }
        let host = self.running.iter_mut().find(|qemu| Party::Host(qemu.host) == command.to);
        let sent = host.is_some_and(|qemu| qemu.monitor.write_all(format!("{}\n", command.text).as_bytes()).is_ok());
        if !sent {
            self.speaker.say(command.to, Kind::Note, format!("gone before the command: {}", command.text));
        }
    }

    fn obey(&mut self, order: Order) -> Result<()> {
        match order {
            Order::End => Ok(()),
            Order::Cut => network::set(self.job, false),
            Order::Join => network::set(self.job, true),
            Order::Kill(host) => {
                self.kill(host);
                Ok(())
            }
            Order::Start(host) => {
                self.kill(host);
                let wanted = self.job.hosts.iter().find(|job| job.host == host).context("the job has no such host")?;
                self.running.push(start(self.job, wanted, &self.console, self.speaker)?);
                Ok(())
            }
        }
    }

    /// Ends a host, if it runs.
    fn kill(&mut self, host: Host) {
        if let Some(place) = self.running.iter().position(|qemu| qemu.host == host) {
            drop(self.running.remove(place));
            self.speaker.say(Party::Host(host), Kind::Exit, "killed".into());
        }
    }
}

/// Starts a host and the threads that read from it.
fn start(job: &Job, host: &job::HostJob, console: &Console, speaker: &Speaker) -> Result<Qemu> {
    let name = host.host.name();
    if job.peer.is_some() {
        let status = json!({"event": "status", "vms": [], "started": speaker.now()});
        speaker.say(Party::Host(host.host), Kind::Monitor, status.to_string());
    }
    let mut qemu = Qemu::start(job, host).with_context(|| format!("cannot start the {name}"))?;
    let party = Party::Host(host.host);
    speaker.say(party, Kind::Note, format!("QEMU runs as process {}", qemu.child.id()));
    let output = qemu.child.stdout.take().context("QEMU's output is piped")?;
    if job.peer.is_some() {
        console.relay(output, party, speaker.clone());
    } else {
        let (monitor, log) = (speaker.clone(), speaker.clone());
        relay(qemu.monitor.try_clone()?, move |text| monitor.say(party, Kind::Monitor, text));
        relay(output, move |text| log.say(party, Kind::Log, text));
    }
    let complaints = speaker.clone();
    let stderr = qemu.child.stderr.take().context("QEMU's complaints are piped")?;
    relay(stderr, move |text| complaints.say(party, Kind::Note, text));
    Ok(qemu)
}

/// Waits until a QEMU that migrates its guest itself has its machine ready.
fn open(qemu: &Qemu, speaker: &Speaker) -> Result<Qmp> {
    let monitor =
        Qmp::open(qemu.monitor.try_clone()?).with_context(|| format!("no word of the {}", qemu.host.name()))?;
    speaker.say(Party::Host(qemu.host), Kind::Monitor, json!({"event": "ready", "vms": [peer::VM]}).to_string());
    Ok(monitor)
}

/// Starts the thread that has two QEMUs migrate their guest.
fn conduct(job: &Job, monitors: Vec<(Host, Qmp)>, speaker: &Speaker) -> Option<Sender<Command>> {
    let (mut source, mut destination) = (None, None);
    for (host, monitor) in monitors {
        match host {
            Host::Source => source = Some(monitor),
            Host::Destination => destination = Some(monitor),
        }
    }
    let conductor = Conductor::new(source?, destination?, job.peer?, speaker.clone());
    let (sender, commands) = mpsc::channel();
    thread::spawn(move || conductor.serve(&commands));
    Some(sender)
}

/// Passes lines on until the stream ends.
fn relay(from: impl Read + Send + 'static, each: impl Fn(String) + Send + 'static) {
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            if !text.is_empty() {
                each(text);
            }
            bytes.clear();
        }
    });
}

/// Reads the lab's commands. The end of the input means that the lab is gone: everything ends.
fn listen(input: impl Read + Send + 'static) -> Receiver<Command> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(input).lines().map_while(Result::ok) {
            if let Some(command) = Command::parse(line.trim()) {
                let _ = sender.send(command);
            }
        }
        let _ = sender.send(Order::End.command());
    });
    receiver
}

/// Whether a host still runs; if not, its status is said after its last words.
fn still_runs(qemu: &mut Qemu, speaker: &Speaker) -> bool {
    match qemu.child.try_wait() {
        Ok(None) => true,
        Ok(Some(status)) => {
            speaker.say(Party::Host(qemu.host), Kind::Exit, show(status));
            false
        }
        Err(_) => false,
    }
}

fn show(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| code.to_string())
}

fn write_all(outgoing: &Receiver<Line>, output: &mut impl Write) -> Result<()> {
    while let Ok(line) = outgoing.try_recv() {
        writeln!(output, "{line}")?;
    }
    Ok(output.flush()?)
}
