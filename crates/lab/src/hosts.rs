//! `lab hosts`: starts the hosts and lets a person talk to their monitors.

use std::io::{self, BufRead};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::agent::wire::Host;
use crate::env::{Environment, Machines};
use crate::testbed::Received;

/// Relays lines between a person and the hosts until the machines end or the input does.
pub fn talk(environment: Environment, machines: &Machines) -> Result<()> {
    let mut testbed = environment.start(machines)?;
    let typed = typed_lines();
    loop {
        match testbed.receive(Duration::from_millis(100))? {
            Received::Line(line) => println!("{line}"),
            Received::Silence => {}
            Received::End => break,
        }
        while let Ok(line) = typed.try_recv() {
            let (host, text) = match line.split_once(' ') {
                Some(("d", text)) => (Host::Destination, text),
                Some(("s", text)) => (Host::Source, text),
                _ => (Host::Source, line.as_str()),
            };
            testbed.send(host, text)?;
        }
        crate::interrupt::check()?;
    }
    println!("the machines ended: {}", testbed.last_words());
    Ok(())
}

fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
