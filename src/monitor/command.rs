//! One line of the monitor, read.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::error::Error;
use core::fmt;
use core::net::SocketAddrV4;
use core::num::NonZeroU64;
use core::time::Duration;

use migration::Encodings;
use qavns::{DEFAULT_TD, DEFAULT_TP, Paper, Policy, Ratio, Robust, td_from_link};

use super::line::LONGEST_LINE;
use super::values::{self, Word, WordError};

/// Ts when none is given.
pub const DEFAULT_TS: Duration = Duration::from_millis(500);
/// The downtime that a pre-copy may end with when none is given, QEMU's own.
pub const DEFAULT_DOWNTIME_LIMIT: Duration = Duration::from_millis(300);
/// The longest name of a VM, in bytes.
pub const LONGEST_NAME: usize = 64;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Tell how things stand.
    Status,
    /// Sample, decide, migrate.
    Migrate(Migrate),
    /// Give up a migration before the hand-over.
    Cancel {
        /// The VM's name.
        vm: String,
    },
    /// Break the link of a migration after the hand-over.
    Pause {
        /// The VM's name.
        vm: String,
    },
    /// Resume a post-copy whose link broke.
    Recover {
        /// The VM's name.
        vm: String,
        /// Where its other half waits.
        to: Target,
    },
    /// Tell which pages were modified since the last such command.
    Dirty {
        /// The VM's name.
        vm: String,
        /// And tell no more.
        end: bool,
    },
    /// Set the default policy.
    Policy(PolicyName),
    /// Type a line on a guest's console.
    Input {
        /// The VM's name.
        vm: String,
        /// What to type, without the newline.
        text: String,
    },
    /// Watch a VM all the time, or no longer.
    Watch {
        /// The VM's name.
        vm: String,
        /// How, or nothing to end it.
        how: Option<Watching>,
    },
    /// Keep a VM's identifier, or do not.
    Identifier {
        /// The VM's name.
        vm: String,
        /// Whether it is kept.
        on: bool,
    },
    /// End the VMs and power off.
    Quit,
}

/// What `watch ... on` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watching {
    /// Whether each harvest's pages are told, too.
    pub pages: bool,
}

/// What `migrate` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrate {
    /// The VM's name.
    pub vm: String,
    /// Where it shall go.
    pub to: Target,
    /// The path, or that the policy picks it.
    pub path: PathRequest,
    /// The policy, unless the default one shall decide.
    pub policy: Option<PolicyName>,
    /// The sampling time.
    pub ts: Duration,
    /// Jiffies for each birth or death; the policy's default if absent.
    pub tp: Option<Ratio>,
    /// Jiffies for each modified page; the policy's own if absent.
    pub td: Option<Ratio>,
    /// The most bytes a second that the stream may take.
    pub bandwidth: Option<NonZeroU64>,
    /// One-way latency of the in-memory link.
    pub latency: Duration,
    /// The downtime that a pre-copy may end with.
    pub downtime_limit: Duration,
    /// How the rounds and the fetching go.
    pub tuning: Tuning,
    /// Whether every page is compared after the move.
    pub verify: bool,
}

/// What `migrate` asks of an engine; the engine's own default where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Slow a guest that dirties pages too fast.
    pub auto_converge: bool,
    /// The most bytes a second that the rounds may take.
    pub rate_limit: Option<u64>,
    /// Rounds of a pre-copy.
    pub max_rounds: Option<u32>,
    /// Bytes that the rounds of a pre-copy or a hybrid may send.
    pub max_bytes: Option<u64>,
    /// Rounds of a hybrid.
    pub hybrid_rounds: Option<u32>,
    /// How long a demand migration fetches only what is touched.
    pub demand_period: Option<Duration>,
    /// How pages may be encoded.
    pub encodings: Option<Encodings>,
}

/// Where a VM goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To another host.
    Host(SocketAddrV4),
    /// To a second VM on this host, over an in-memory link.
    Memory,
}

/// The path that a person asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathRequest {
    /// The policy picks it.
    #[default]
    Auto,
    /// Pause, send all, run there.
    StopAndCopy,
    /// Run there first, fetch each page when touched.
    Demand,
    /// Push rounds while the guest runs here.
    PreCopy,
    /// Run there first, fetch and push.
    PostCopy,
    /// A bounded push, then post-copy.
    Hybrid,
}

impl PathRequest {
    const ALL: [Self; 6] = [Self::Auto, Self::StopAndCopy, Self::Demand, Self::PreCopy, Self::PostCopy, Self::Hybrid];

    /// The word for it in commands and reports.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::StopAndCopy => "stop-and-copy",
            Self::Demand => "demand",
            Self::PreCopy => "pre-copy",
            Self::PostCopy => "post-copy",
            Self::Hybrid => "hybrid",
        }
    }

    fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|path| path.text() == text)
    }
}

/// A policy by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyName {
    /// The paper's rule to the letter.
    #[default]
    Paper,
    /// The rule over counters that never reset.
    Robust,
}

impl PolicyName {
    /// The policy itself, with the thresholds that were given. Without a Td it is taken from the link where that was measured (in
    /// pages a jiffy).
    #[must_use]
    pub fn rule(self, tp: Option<Ratio>, td: Option<Ratio>, pages_per_jiffy: Option<Ratio>) -> Box<dyn Policy> {
        let tp = tp.unwrap_or(DEFAULT_TP);
        let td = td.or_else(|| pages_per_jiffy.map(td_from_link)).unwrap_or(DEFAULT_TD);
        match self {
            Self::Paper => Box::new(Paper { tp, td }),
            Self::Robust => Box::new(Robust { tp, td }),
        }
    }

    fn read(text: &str) -> Option<Self> {
        match text {
            "paper" => Some(Self::Paper),
            "robust" => Some(Self::Robust),
            _ => None,
        }
    }
}

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The line is longer than any command.
    TooLong,
    /// There is no word in it.
    Empty,
    /// The first word is no command.
    Unknown {
        /// That word.
        name: String,
    },
    /// The command needs a word that is not there.
    Missing {
        /// The command.
        command: &'static str,
        /// What it needs.
        what: &'static str,
    },
    /// The command takes nothing more.
    Surplus {
        /// The command.
        command: &'static str,
        /// The first word too many.
        word: String,
    },
    /// One `key=value` word is wrong.
    Word(WordError),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "a command has at most {LONGEST_LINE} bytes"),
            Self::Empty => f.write_str("no command"),
            Self::Unknown { name } => write!(f, "unknown command `{name}`"),
            Self::Missing { command, what } => write!(f, "`{command}` needs {what}"),
            Self::Surplus { command, word } => {
                write!(f, "`{command}` does not take `{word}`")
            }
            Self::Word(error) => error.fmt(f),
        }
    }
}

impl Error for CommandError {}

impl From<WordError> for CommandError {
    fn from(error: WordError) -> Self {
        Self::Word(error)
    }
}

impl Command {
    /// Reads one line, without its end.
    ///
    /// # Errors
    /// Names what is wrong with it.
    pub fn parse(line: &str) -> Result<Self, CommandError> {
        if line.len() > LONGEST_LINE {
            return Err(CommandError::TooLong);
        }
        let (name, rest) = first_word(line);
        match name {
            "" => Err(CommandError::Empty),
            "status" => nothing_more("status", rest).map(|()| Self::Status),
            "quit" => nothing_more("quit", rest).map(|()| Self::Quit),
            "migrate" => migrate(rest).map(Self::Migrate),
            "cancel" => {
                let given = Given::read(rest, &["vm"])?;
                let vm = need(given.vm, "cancel", "vm=NAME")?;
                Ok(Self::Cancel { vm })
            }
            "pause" => {
                let given = Given::read(rest, &["vm"])?;
                Ok(Self::Pause { vm: need(given.vm, "pause", "vm=NAME")? })
            }
            "dirty" => {
                let given = Given::read(rest, &["vm", "end"])?;
                Ok(Self::Dirty { vm: need(given.vm, "dirty", "vm=NAME")?, end: given.end.unwrap_or(false) })
            }
            "recover" => {
                let given = Given::read(rest, &["vm", "to"])?;
                let vm = need(given.vm, "recover", "vm=NAME")?;
                Ok(Self::Recover { vm, to: need(given.to, "recover", "to=IP:PORT or to=memory")? })
            }
            "policy" => policy(rest),
            "input" => input(rest),
            "watch" => watch(rest),
            "identifier" => identifier(rest),
            _ => Err(CommandError::Unknown { name: name.to_string() }),
        }
    }
}

/// The first word, and what follows the one blank after it.
fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_ascii_start();
    text.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((text, ""))
}

fn nothing_more(command: &'static str, rest: &str) -> Result<(), CommandError> {
    match first_word(rest) {
        ("", _) => Ok(()),
        (word, _) => Err(CommandError::Surplus { command, word: word.to_string() }),
    }
}

fn need<T>(given: Option<T>, command: &'static str, what: &'static str) -> Result<T, CommandError> {
    given.ok_or(CommandError::Missing { command, what })
}

fn migrate(rest: &str) -> Result<Migrate, CommandError> {
    let given = Given::read(
        rest,
        &[
            "vm",
            "to",
            "path",
            "policy",
            "ts",
            "tp",
            "td",
            "bandwidth",
            "latency",
            "downtime-limit",
            "auto-converge",
            "rate-limit",
            "max-rounds",
            "max-bytes",
            "hybrid-rounds",
            "demand-period",
            "encodings",
            "verify",
        ],
    )?;
    Ok(Migrate {
        vm: need(given.vm, "migrate", "vm=NAME")?,
        to: need(given.to, "migrate", "to=IP:PORT or to=memory")?,
        path: given.path.unwrap_or_default(),
        policy: given.policy,
        ts: given.ts.unwrap_or(DEFAULT_TS),
        tp: given.tp,
        td: given.td,
        bandwidth: given.bandwidth.and_then(NonZeroU64::new),
        latency: given.latency.unwrap_or(Duration::ZERO),
        downtime_limit: given.downtime_limit.unwrap_or(DEFAULT_DOWNTIME_LIMIT),
        tuning: Tuning {
            auto_converge: given.auto_converge.unwrap_or(false),
            rate_limit: given.rate_limit,
            max_rounds: given.max_rounds,
            max_bytes: given.max_bytes,
            hybrid_rounds: given.hybrid_rounds,
            demand_period: given.demand_period,
            encodings: given.encodings,
        },
        verify: given.verify.unwrap_or(false),
    })
}

fn policy(rest: &str) -> Result<Command, CommandError> {
    let (name, rest) = first_word(rest);
    let known = PolicyName::read(name);
    let policy = need(known, "policy", "a name: paper or robust")?;
    nothing_more("policy", rest).map(|()| Command::Policy(policy))
}

/// The text is taken as it stands, blanks included: it goes to a console, not to us.
fn input(rest: &str) -> Result<Command, CommandError> {
    let (word, text) = first_word(rest);
    let given = Given::read(word, &["vm"])?;
    Ok(Command::Input { vm: need(given.vm, "input", "vm=NAME first")?, text: text.to_string() })
}

fn watch(rest: &str) -> Result<Command, CommandError> {
    let (vm, on, rest) = switch("watch", rest)?;
    let how = match on {
        true => Some(Watching { pages: Given::read(rest, &["pages"])?.pages.unwrap_or(false) }),
        false => nothing_more("watch", rest).map(|()| None)?,
    };
    Ok(Command::Watch { vm, how })
}

fn identifier(rest: &str) -> Result<Command, CommandError> {
    let (vm, on, rest) = switch("identifier", rest)?;
    nothing_more("identifier", rest).map(|()| Command::Identifier { vm, on })
}

/// The VM that a command names first, whether it is turned on there or off, and what follows.
fn switch<'a>(command: &'static str, rest: &'a str) -> Result<(String, bool, &'a str), CommandError> {
    let (word, rest) = first_word(rest);
    let vm = need(Given::read(word, &["vm"])?.vm, command, "vm=NAME first")?;
    let (switch, rest) = first_word(rest);
    match switch {
        "on" => Ok((vm, true, rest)),
        "off" => Ok((vm, false, rest)),
        _ => need(None, command, "on or off after the name"),
    }
}

/// What the `key=value` words of a command said.
#[derive(Default)]
struct Given {
    vm: Option<String>,
    to: Option<Target>,
    path: Option<PathRequest>,
    policy: Option<PolicyName>,
    ts: Option<Duration>,
    tp: Option<Ratio>,
    td: Option<Ratio>,
    bandwidth: Option<u64>,
    latency: Option<Duration>,
    downtime_limit: Option<Duration>,
    auto_converge: Option<bool>,
    rate_limit: Option<u64>,
    max_rounds: Option<u32>,
    max_bytes: Option<u64>,
    hybrid_rounds: Option<u32>,
    demand_period: Option<Duration>,
    encodings: Option<Encodings>,
    verify: Option<bool>,
    end: Option<bool>,
    pages: Option<bool>,
}

impl Given {
    /// Reads words, all of whose keys must be in `keys`.
    fn read(words: &str, keys: &[&str]) -> Result<Self, WordError> {
        let mut given = Self::default();
        for word in words.split_ascii_whitespace() {
            let word = Word::split(word)?;
            if !keys.contains(&word.key) {
                return Err(word.unknown());
            }
            given.take(word)?;
        }
        Ok(given)
    }

    fn take(&mut self, word: Word<'_>) -> Result<(), WordError> {
        const RATIO: &str = "N or N/M, M not 0";
        match word.key {
            "vm" => word.into(&mut self.vm, "vm", "a name of 1 to 64 bytes", name),
            "to" => word.into(&mut self.to, "to", "IP:PORT or memory", target),
            "path" => word.into(
                &mut self.path,
                "path",
                "auto, stop-and-copy, demand, pre-copy, post-copy or hybrid",
                PathRequest::read,
            ),
            "policy" => word.into(&mut self.policy, "policy", "paper or robust", PolicyName::read),
            "ts" => word.into(&mut self.ts, "ts", "1ms to 600s", |text| {
                values::duration(text, Duration::from_millis(1)..=Duration::from_secs(600))
            }),
            "tp" => word.into(&mut self.tp, "tp", RATIO, |text| text.parse().ok()),
            "td" => word.into(&mut self.td, "td", RATIO, |text| text.parse().ok()),
            "bandwidth" => {
                word.into(&mut self.bandwidth, "bandwidth", "bytes a second, 0 for no limit", values::number)
            }
            "latency" => word.into(&mut self.latency, "latency", "0us to 10s", |text| {
                values::duration(text, Duration::ZERO..=Duration::from_secs(10))
            }),
            "downtime-limit" => word.into(&mut self.downtime_limit, "downtime-limit", "1ms to 600s", |text| {
                values::duration(text, Duration::from_millis(1)..=Duration::from_secs(600))
            }),
            "auto-converge" => word.into(&mut self.auto_converge, "auto-converge", "yes or no", values::yes_or_no),
            "rate-limit" => word.into(&mut self.rate_limit, "rate-limit", "bytes a second, not 0", positive),
            "max-rounds" => word.into(&mut self.max_rounds, "max-rounds", "1 to 1000", rounds),
            "max-bytes" => word.into(&mut self.max_bytes, "max-bytes", "bytes, not 0", positive),
            "hybrid-rounds" => word.into(&mut self.hybrid_rounds, "hybrid-rounds", "1 to 1000", rounds),
            "demand-period" => word.into(&mut self.demand_period, "demand-period", "0ms to 600s", |text| {
                values::duration(text, Duration::ZERO..=Duration::from_secs(600))
            }),
            "encodings" => word.into(&mut self.encodings, "encodings", Encodings::WORDS, Encodings::read),
            "verify" => word.into(&mut self.verify, "verify", "yes or no", values::yes_or_no),
            "end" => word.into(&mut self.end, "end", "yes or no", values::yes_or_no),
            "pages" => word.into(&mut self.pages, "pages", "yes or no", values::yes_or_no),
            _ => Err(word.unknown()),
        }
    }
}

fn name(text: &str) -> Option<String> {
    (1..=LONGEST_NAME).contains(&text.len()).then(|| text.to_string())
}

fn target(text: &str) -> Option<Target> {
    if text == "memory" {
        return Some(Target::Memory);
    }
    values::endpoint(text).map(Target::Host)
}

fn positive(text: &str) -> Option<u64> {
    values::number(text).filter(|number| *number > 0)
}

/// A stream that has not ended after 1000 rounds will not.
fn rounds(text: &str) -> Option<u32> {
    u32::try_from(values::number(text)?).ok().filter(|rounds| (1..=1000).contains(rounds))
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
