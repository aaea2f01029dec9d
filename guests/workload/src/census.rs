//! Runs what it is told on the console, and tells after each how many processes the kernel has seen come and go. So a
//! test knows the truth, between two moments at which nothing happens.

use crate::clock::{MILLISECOND, Nanos};
use crate::console;
use crate::heartbeat::Counts;
use crate::kernel::{self, Account, Kernel};
use crate::options::{self, Work};
use crate::process::{self, THREADS};
use crate::storm::Storm;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::process::Command;

/// Three processes in a pipeline, in a subshell, again and again.
const PIPELINES: &str =
    "i=0; while [ $i -lt $0 ]; do r=$(echo x | /bin/busybox cat | /bin/busybox wc -c); i=$((i+1)); done";

/// What is being done.
enum Task {
    Storm(Storm),
    /// Until this child has ended.
    Child(Pid),
    /// Nothing until then.
    Rest(Nanos),
}

/// A task in progress, and how things stood before.
struct Running {
    task: Task,
    since: Nanos,
    before: Account,
    forks_before: u64,
    /// It was over at the last step: the kernel tells of an exit after the parent may have reaped.
    over: bool,
}

/// Waits for tasks.
pub struct Census {
    kernel: Kernel,
    running: Option<Running>,
}

impl Census {
    /// From now on.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { kernel: Kernel::listen()?, running: None })
    }

    /// Reaps who has ended.
    pub fn reap(&mut self, counts: &mut Counts) {
        match self.running.as_mut().map(|running| &mut running.task) {
            Some(Task::Storm(storm)) => storm.reap(counts),
            Some(Task::Child(_)) => {}
            _ => while process::reap().is_some() {},
        }
    }

    /// Goes on with the task, or looks for one on the console.
    pub fn step(&mut self, now: Nanos, counts: &mut Counts) {
        let account = self.kernel.account();
        let Some(running) = &mut self.running else {
            if let Some(line) = console_line() {
                self.begin(now, line.trim(), account);
            }
            return;
        };
        if running.over {
            report(running, account, now);
            self.running = None;
            return;
        }
        running.over = match &mut running.task {
            Task::Storm(storm) => {
                storm.step(now, counts);
                storm.is_over()
            }
            Task::Child(pid) => {
                let mut over = false;
                while let Some(ended) = process::reap() {
                    over |= ended == *pid;
                }
                over
            }
            Task::Rest(until) => now >= *until,
        };
    }

    fn begin(&mut self, now: Nanos, line: &str, before: Account) {
        if line.is_empty() {
            return;
        }
        let forks_before = kernel::forks().unwrap_or_default();
        match task(line, now) {
            Ok(task) => self.running = Some(Running { task, since: now, before, forks_before, over: false }),
            Err(error) => console::line(&format!("workload: {error}")),
        }
    }
}

fn report(running: &Running, account: Account, now: Nanos) {
    let Account { births, deaths, threads, kernel_threads, lost } = account.since(&running.before);
    let forks = kernel::forks().unwrap_or_default() - running.forks_before;
    let time = (now - running.since) / MILLISECOND;
    console::line(&format!(
        "census births={births} deaths={deaths} threads={threads} kernel-threads={kernel_threads} forks={forks} lost={lost} time={time}"
    ));
}

/// `storm --rate 10 --count 30`, `pipelines N`, `threads N`, `rest MS`.
fn task(line: &str, now: Nanos) -> Result<Task, String> {
    let words: Vec<String> = line.split_ascii_whitespace().map(String::from).collect();
    let number =
        || words.get(1).and_then(|word| word.parse::<u64>().ok()).ok_or_else(|| format!("`{line}`: how many?"));
    let child = |command: &mut Command| {
        process::spawn(command).map(Task::Child).ok_or_else(|| format!("cannot start `{line}`"))
    };
    match words.first().map(String::as_str) {
        Some("storm") => match options::from_arguments(&words)?.work {
            Work::Storm(storm) if storm.count.is_some() => Ok(Task::Storm(Storm::new(&storm, now))),
            _ => Err(format!("`{line}` has no --count")),
        },
        Some("pipelines") => child(Command::new("/bin/busybox").args(["sh", "-c", PIPELINES, &number()?.to_string()])),
        Some("threads") => child(Command::new("/proc/self/exe").args([THREADS, &number()?.to_string()])),
        Some("rest") => Ok(Task::Rest(now.saturating_add(number()?.saturating_mul(MILLISECOND)))),
        _ => Err(format!("`{line}` is no task: storm, pipelines, threads or rest")),
    }
}

/// A line from the console, if there is one.
fn console_line() -> Option<String> {
    let stdin = std::io::stdin();
    let mut sources = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    if poll(&mut sources, PollTimeout::ZERO).ok()? == 0 {
        return None;
    }
    let mut line = String::new();
    stdin.read_line(&mut line).ok()?;
    Some(line)
}
