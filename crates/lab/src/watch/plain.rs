//! A line a second, for a pipe or a file.

use std::io::Write;

use anyhow::Result;

use super::model::{Counts, Model, Phase};
use super::view::View;

/// One line for each second of the image's clock.
pub struct Plain<W: Write> {
    out: W,
    /// Seconds of the image's clock at the last line.
    told: Option<u64>,
}

impl<W: Write> Plain<W> {
    /// Nothing is told yet.
    pub fn new(out: W) -> Self {
        Plain { out, told: None }
    }
}

impl<W: Write> View for Plain<W> {
    fn phase(&mut self, name: &str) {
        eprintln!("{name}");
    }

    fn show(&mut self, model: &Model) -> Result<()> {
        let second = model.now / 1_000_000;
        if model.reading.is_some() && !model.is_over() && self.told.replace(second) != Some(second) {
            writeln!(self.out, "{}", line(model))?;
            self.out.flush()?;
        }
        Ok(())
    }

    fn asked_to_end(&mut self) -> Result<bool> {
        Ok(false)
    }
}

/// The moment in a line.
pub fn line(model: &Model) -> String {
    let id = model.reading.map(|reading| reading.identifier.to_string()).unwrap_or_default();
    // Cut and not rounded: a line stands in the second that it is told for.
    let tenths = model.now / 100_000;
    let mut text = format!("{:5}.{} s  {id}", tenths / 10, tenths % 10);
    text += "  ";
    text += &match (&model.phase, &model.decision) {
        (Phase::Watching(_), Some(decision)) => format!("{} -> {}", decision.condition, decision.path),
        (Phase::Watching(_), None) => "no Ts is over yet".to_owned(),
        _ => "not watched yet".to_owned(),
    };
    if model.watched().is_some() {
        let lately = model.lately();
        let Counts { births, deaths, pages, .. } = lately;
        let rates = [births, deaths, pages].map(|count| lately.rate(count));
        text += &format!("  births {}/s  deaths {}/s  pages {}/s", rates[0], rates[1], rates[2]);
        text += &format!("  exits {}/s", model.exit_rate());
    }
    if let Some(restart) = &model.restart {
        text += &format!("  last restart at {:.1} s by {}", restart.at as f64 / 1e6, restart.cause);
    }
    if let Some(beat) = model.heartbeats.last_number() {
        text += &format!("  hb {beat} e{}", model.heartbeats.errors);
    }
    text
}
