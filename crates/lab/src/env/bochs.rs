//! The image itself on one emulated machine.

use std::sync::mpsc;
use std::thread;

use anyhow::Result;

use super::{Environment, Machines, record};
use crate::agent::wire::{Host, Kind, Line, Party};
use crate::artifacts::iso::{self, Contents, Protocol};
use crate::machine::bochs::{Bochs, Config, read_lines};
use crate::testbed::{Testbed, Wiring};

/// Starts the machine. Its log (COM1) is `source.log`.
pub fn start(machines: &Machines) -> Result<Testbed> {
    let iso = machines.file("image.iso");
    let contents = Contents {
        protocol: Protocol::Multiboot2,
        kernel: &machines.artifacts.image,
        module: machines.guests,
        command_line: machines.options,
    };
    iso::build(&iso, &contents)?;
    let log = machines.file("source.log");
    let bochs = Bochs::start(&Config {
        folder: machines.folder,
        cdrom: &iso,
        disks: &[],
        memory: machines.source_memory(Environment::Bochs)?,
        cpu: machines.cpu,
        log: &log,
    })?;
    let (sender, lines) = mpsc::channel();
    let serial = bochs.serial.try_clone()?;
    thread::spawn(move || {
        read_lines(serial, |text| {
            let _ = sender.send(stamped(text));
        });
    });
    Ok(Testbed {
        commands: Box::new(bochs.serial),
        lines,
        wiring: Wiring::Direct,
        process: bochs.process,
        machine_logs: vec![log, machines.file("bochs.out")],
        record: record(machines.folder)?,
    })
}

/// One machine, one clock: the line's stamp is the image's own.
fn stamped(text: &str) -> Line {
    let at = serde_json::from_str::<serde_json::Value>(text).ok().and_then(|event| event["at"].as_f64());
    let kind = if at.is_some() { Kind::Monitor } else { Kind::Note };
    Line { from: Party::Host(Host::Source), kind, at: at.unwrap_or_default(), text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_stamped_by_itself_and_anything_else_is_a_note() {
        let line = stamped(r#"{"event":"ready","at":12.5}"#);
        assert_eq!((line.kind, line.at), (Kind::Monitor, 12.5));
        assert_eq!(stamped("garbage").kind, Kind::Note);
    }
}
