//! Two QEMU/KVM hosts on this machine.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, ensure};
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::Kvm;

use super::{Machines, record};
use crate::agent::job::Link;
use crate::agent::wire::Line;
use crate::machine::bochs::read_lines;
use crate::machine::process::Process;
use crate::testbed::{Testbed, Wiring};

/// CPUID leaf 1, ECX: VMX (SDM volume 3, section 24.6).
const VMX: u32 = 1 << 5;

/// Whether this machine's KVM offers VMX to its guests, which is what counts: the host's own CPUID says nothing of it.
pub fn offers_vmx() -> Result<()> {
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("KVM does not tell its CPUID")?;
    let offered = cpuid.as_slice().iter().any(|leaf| leaf.function == 1 && leaf.ecx & VMX != 0);
    ensure!(offered, "this machine's KVM offers no VMX to guests (kvm_intel with nested=1 does)");
    Ok(())
}

/// Starts the agent here.
pub fn start(machines: &Machines) -> Result<Testbed> {
    offers_vmx()?;
    let text = |path: &std::path::Path| path.to_str().map(str::to_owned).context("a path is no text");
    let folder = fs::canonicalize(machines.folder)?;
    let image = text(&machines.artifacts.image)?;
    // Sockets by a short path: their names are limited to 107 bytes.
    let job = machines.job(&image, &text(&fs::canonicalize(machines.guests)?)?, Link::Datagrams, ".")?;
    let file = folder.join("job.json");
    fs::write(&file, job.to_json())?;
    let mut command = Command::new(&machines.artifacts.agent);
    command.arg("--job").arg(&file).current_dir(&folder);
    let output = machines.file("machine.log");
    let mut process = Process::start(&command, &output, |command| {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
    })?;
    let commands = process.child().stdin.take().context("the agent's input is piped")?;
    let stdout = process.child().stdout.take().context("the agent's output is piped")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        read_lines(stdout, |text| {
            if let Some(line) = Line::parse(text) {
                let _ = sender.send(line);
            }
        });
    });
    Ok(Testbed {
        commands: Box::new(commands),
        lines,
        wiring: Wiring::Agent,
        process,
        machine_logs: vec![output],
        record: record(machines.folder)?,
    })
}
