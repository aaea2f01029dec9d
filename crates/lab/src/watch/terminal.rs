//! The terminal that the watch is drawn on: taken at the first picture, given back whatever happens.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::model::Model;
use super::screen;
use super::view::View;

/// A new picture comes so often at most.
const FRAME: Duration = Duration::from_millis(100);

/// A view that takes the whole terminal. Dropped, it gives the terminal back; a panic does, too.
#[derive(Default)]
pub struct Screen {
    terminal: Option<DefaultTerminal>,
    drawn: Option<Instant>,
}

impl View for Screen {
    fn phase(&mut self, name: &str) {
        eprintln!("{name}");
    }

    fn show(&mut self, model: &Model) -> Result<()> {
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < FRAME) {
            return Ok(());
        }
        let terminal = match &mut self.terminal {
            Some(terminal) => terminal,
            none => {
                let taken = ratatui::try_init().inspect_err(|_| ratatui::restore());
                none.insert(taken.context("cannot draw on this terminal")?)
            }
        };
        terminal.draw(|frame| screen::draw(frame, model)).context("cannot draw on this terminal")?;
        self.drawn = Some(Instant::now());
        Ok(())
    }

    fn asked_to_end(&mut self) -> Result<bool> {
        while self.terminal.is_some() && event::poll(Duration::ZERO)? {
            // In raw mode Ctrl-C is a key like any other.
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
                && (key.code == KeyCode::Char('q')
                    || key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal.is_some() {
            ratatui::restore();
        }
    }
}
