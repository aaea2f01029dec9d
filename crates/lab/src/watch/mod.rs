//! `cargo lab watch` and `cargo lab replay`: the identifier of a running guest, live; kept; and counted again.
//!
//! Lines of the host become what they say ([`feed`]); readings become steps ([`step`]), by the code that counts in the
//! hypervisor; the steps of the last Ts become what the rule would name now ([`window`]). A [`view`] shows the
//! [`model`], a [`recording`] keeps the steps, and [`replay`] counts them again.

pub mod feed;
pub mod model;
pub mod options;
pub mod plain;
pub mod recording;
pub mod replay;
pub mod runs;
pub mod screen;
pub mod step;
pub mod terminal;
pub mod view;
pub mod window;

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::agent::wire::Host;
use crate::env::Environment;
use crate::interrupt;
use crate::session::stage::Stage;
use crate::session::{folder, vm};
use crate::testbed::{Received, Testbed};
use model::{Counted, Model, Phase};
use options::{Rule, WatchOptions};
use recording::{Header, Writer};
use view::View;

/// How often the view is renewed when nothing comes.
const LOOK: Duration = Duration::from_millis(50);
/// Exits are asked for so often, in microseconds of the image's clock.
const ASK: u64 = 1_000_000;
/// How long the host may take to end the watch, and to power off.
const FAREWELL: Duration = Duration::from_secs(5);

/// A watch that is over.
pub struct Outcome {
    /// Where everything about it lies.
    pub folder: PathBuf,
    /// The recording, and how many bytes it has.
    pub recording: Option<(PathBuf, u64)>,
    /// The model at its end.
    pub model: Model,
}

/// Watches a guest until the person ends it, or its time is over.
///
/// An error is one of the lab's own, or says why the guest cannot be watched any more; a recording then lacks its end.
pub fn watch(options: &WatchOptions, view: &mut dyn View) -> Result<Outcome> {
    let rule = Rule::default().with(&options.rule)?;
    let environment = options.hosts.env;
    let folder = folder(&options.hosts, &format!("watch-{environment}-{}", options.guest.workload))?;
    let keep = options
        .record
        .as_ref()
        .map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())));
    let keep = keep.transpose()?;
    view.phase("building");
    let stage = Stage::set(&options.hosts, &options.guest, folder)?;
    let machines = stage.machines(&options.hosts, &options.guest);
    view.phase("starting the host");
    let testbed = environment.start(&machines)?;
    let title = format!("{environment}, {}, {}", options.guest.guest, options.guest.workload);
    let model = Model::new(title, vm(&options.guest), rule);
    let heard = Instant::now();
    let mut watcher = Watcher { options, testbed, model, view, keep, recording: None, ask_at: 0, heard };
    watcher.run()?;
    let recording = watcher.end()?;
    Ok(Outcome { folder: stage.folder, recording, model: watcher.model })
}

/// How long the host may say nothing in wall time, on a slow machine that does other things too.
fn patience(environment: Environment) -> Duration {
    Duration::from_secs(if environment == Environment::Nested { 300 } else { 120 })
}

/// A watch in progress. Dropped, its machines end.
struct Watcher<'a> {
    options: &'a WatchOptions,
    testbed: Testbed,
    model: Model,
    view: &'a mut dyn View,
    /// Where a recording goes that has not begun.
    keep: Option<File>,
    recording: Option<Writer<File>>,
    /// When exits are next asked for, in microseconds of the image's clock.
    ask_at: u64,
    /// When the host last said anything.
    heard: Instant,
}

impl Watcher<'_> {
    /// From the start of the host to the end of the watch.
    fn run(&mut self) -> Result<()> {
        let from_boot = self.options.from_boot || self.options.guest.is_foreign();
        let begin = |model: &Model| match model.phase {
            Phase::Booting => from_boot || model.heartbeats.last_number().is_some(),
            _ => false,
        };
        if !self.take_until(begin)? {
            return Ok(());
        }
        let pages = if self.options.record.is_some() { " pages=yes" } else { "" };
        self.command(&format!("watch vm={} on{pages}", vm(&self.options.guest)))?;
        let limit = self.options.duration;
        self.take_until(|model| limit.zip(model.watched()).is_some_and(|(limit, watched)| watched >= limit))?;
        Ok(())
    }

    /// Takes lines until `done`; false if the person wants to end before.
    fn take_until(&mut self, done: impl Fn(&Model) -> bool) -> Result<bool> {
        let patience = patience(self.options.hosts.env);
        while !done(&self.model) {
            if interrupt::asked() || self.view.asked_to_end()? {
                return Ok(false);
            }
            if !self.receive()? {
                bail!("the machine ended: {}", self.testbed.last_words());
            }
            let silent = self.heard.elapsed();
            ensure!(silent < patience, "the host has said nothing for {} s", silent.as_secs());
            if let Phase::Failed(reason) = &self.model.phase {
                bail!("{reason}");
            }
            if let (Some(message), false) = (&self.model.refused, self.model.watched().is_some()) {
                bail!("the host refused: {message}");
            }
            self.ask_for_exits()?;
            self.view.show(&self.model)?;
        }
        Ok(true)
    }

    /// Takes one line, or waits a little. False once the machine is gone.
    fn receive(&mut self) -> Result<bool> {
        match self.testbed.receive(LOOK)? {
            Received::Line(line) => {
                self.heard = Instant::now();
                if let Some(counted) = self.model.take(&line) {
                    self.record(&counted)?;
                }
            }
            Received::Silence => {}
            Received::End => return Ok(false),
        }
        Ok(true)
    }

    fn command(&mut self, text: &str) -> Result<()> {
        self.testbed.send(Host::Source, text)
    }

    fn ask_for_exits(&mut self) -> Result<()> {
        if self.model.watched().is_some() && self.model.now >= self.ask_at {
            self.ask_at = self.model.now + ASK;
            self.command("status")?;
        }
        Ok(())
    }

    /// The recording begins with the first reading that is watched.
    fn record(&mut self, (progress, at, reading): &Counted) -> Result<()> {
        if let (Some(file), Some(terms)) = (self.keep.take_if(|_| self.model.terms.is_some()), self.model.terms) {
            let micros = |period: Duration| u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
            let header = Header {
                title: self.model.title.clone(),
                memory: terms.memory,
                jiffy: micros(terms.jiffy),
                harvest_period: micros(terms.harvest_period),
                rule: self.model.rule.values(),
            };
            self.recording = Some(Writer::new(file, header)?);
        }
        match &mut self.recording {
            Some(recording) => recording.entry(progress, *at, *reading),
            None => Ok(()),
        }
    }

    /// Ends the watch, the recording and the hosts. The run is over: a host that does not power off by itself is ended.
    fn end(&mut self) -> Result<Option<(PathBuf, u64)>> {
        if self.model.watched().is_some() {
            self.command(&format!("watch vm={} off", vm(&self.options.guest)))?;
            self.wait_for_end(|model| model.is_over())?;
        }
        let bytes = self.recording.take().map(Writer::end).transpose()?;
        let hosts = self.testbed.hosts();
        if hosts.iter().try_for_each(|host| self.testbed.send(*host, "quit")).is_ok() {
            self.wait_for_end(|_| false)?;
        }
        Ok(self.options.record.clone().zip(bytes))
    }

    fn wait_for_end(&mut self, done: impl Fn(&Model) -> bool) -> Result<()> {
        let deadline = Instant::now() + FAREWELL;
        while !done(&self.model) && Instant::now() < deadline && self.receive()? {}
        Ok(())
    }
}
