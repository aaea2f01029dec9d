//! A program that must not outlive the lab.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::artifacts::tools;

/// A running program. Dropped, it is killed; if the lab itself is killed, the kernel kills it (`PR_SET_PDEATHSIG`,
/// set by `setpriv`).
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` with what it prints going to `output`; `prepare` may still redirect its streams.
    pub fn start(command: &Command, output: &Path, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        let mut wrapped = tools::command(&tools::SETPRIV)?;
        wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        let file = File::create(output).with_context(|| format!("cannot write {}", output.display()))?;
        wrapped.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        prepare(&mut wrapped);
        let name = command.get_program().to_string_lossy().into_owned();
        Ok(Process { child: wrapped.spawn().with_context(|| format!("cannot start {name}"))? })
    }

    /// The process's streams that were piped.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its id, for a person.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a file, for an error message.
pub fn tail(file: &Path, lines: usize) -> String {
    let bytes = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join(" | ")
}
