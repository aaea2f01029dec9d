//! The lines between the agent and the lab.
//!
//! To the lab: `H K AT TEXT`, H the host (`s` source, `d` destination, `a` the agent itself), K the kind (`m` monitor,
//! `l` log, `n` note, `x` exit status), AT the milliseconds of the agent's one monotonic clock. To the agent:
//! `H TEXT`, a command for that host's monitor, or with H = `a` an [`Order`] to the agent. Short words: the line between them is
//! a UART that is emulated at its baud rate.

use std::fmt;

/// One of the two hosts of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Where the VM starts.
    Source,
    /// Where it moves to.
    Destination,
}

impl Host {
    /// The word for it in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Host::Source => "source",
            Host::Destination => "destination",
        }
    }
}

/// Who speaks, or is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// A host.
    Host(Host),
    /// The agent itself.
    Agent,
}

impl Party {
    fn letter(self) -> char {
        match self {
            Party::Host(Host::Source) => 's',
            Party::Host(Host::Destination) => 'd',
            Party::Agent => 'a',
        }
    }

    fn from_letter(text: &str) -> Option<Self> {
        match text {
            "s" => Some(Party::Host(Host::Source)),
            "d" => Some(Party::Host(Host::Destination)),
            "a" => Some(Party::Agent),
            _ => None,
        }
    }
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An event of a host's monitor.
    Monitor,
    /// A line of a host's log.
    Log,
    /// Something that a person may want to know.
    Note,
    /// A host has ended; the text is its exit status.
    Exit,
}

/// A line on its way to the lab.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Who it is from.
    pub from: Party,
    /// What it is.
    pub kind: Kind,
    /// When it arrived, in ms of the one clock that stamps all lines.
    pub at: f64,
    /// The line itself.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = match self.kind {
            Kind::Monitor => 'm',
            Kind::Log => 'l',
            Kind::Note => 'n',
            Kind::Exit => 'x',
        };
        write!(f, "{} {kind} {:.1} {}", self.from.letter(), self.at, self.text)
    }
}

impl Line {
    /// Reads a line; `None` for anything else, such as a kernel's message on the same port.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(4, ' ');
        let from = Party::from_letter(words.next()?)?;
        let kind = match words.next()? {
            "m" => Kind::Monitor,
            "l" => Kind::Log,
            "n" => Kind::Note,
            "x" => Kind::Exit,
            _ => return None,
        };
        let at = words.next()?.parse().ok()?;
        Some(Line { from, kind, at, text: words.next().unwrap_or_default().to_owned() })
    }
}

/// A command on its way to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Whom it is for.
    pub to: Party,
    /// The command.
    pub text: String,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.to.letter(), self.text)
    }
}

impl Command {
    /// Reads a command.
    pub fn parse(text: &str) -> Option<Self> {
        let (to, text) = text.split_once(' ')?;
        Some(Command { to: Party::from_letter(to)?, text: text.to_owned() })
    }
}

/// What the agent itself is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Stop everything.
    End,
    /// End a host as a failure of power does.
    Kill(Host),
    /// Start a host again that has ended.
    Start(Host),
    /// Cut the link between the hosts: nothing arrives, and neither host is told.
    Cut,
    /// Join it again.
    Join,
}

impl Order {
    const ALL: [Self; 7] = [
        Self::End,
        Self::Kill(Host::Source),
        Self::Kill(Host::Destination),
        Self::Start(Host::Source),
        Self::Start(Host::Destination),
        Self::Cut,
        Self::Join,
    ];

    /// Reads an order.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.to_string() == text)
    }

    /// As a command to the agent.
    pub fn command(self) -> Command {
        Command { to: Party::Agent, text: self.to_string() }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Order::End => f.write_str("end"),
            Order::Kill(host) => write!(f, "kill {}", host.name()),
            Order::Start(host) => write!(f, "start {}", host.name()),
            Order::Cut => f.write_str("cut"),
            Order::Join => f.write_str("join"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_commands_read_back() {
        let line = Line {
            from: Party::Host(Host::Destination),
            kind: Kind::Monitor,
            at: 12345.5,
            text: r#"{"event":"ready", "at":1.5}"#.into(),
        };
        assert_eq!(line.to_string(), r#"d m 12345.5 {"event":"ready", "at":1.5}"#);
        assert_eq!(Line::parse(&line.to_string()), Some(line));
        let command = Command { to: Party::Host(Host::Source), text: "migrate vm=linux to=memory".into() };
        assert_eq!(Command::parse(&command.to_string()), Some(command));
    }

    #[test]
    fn orders_read_back_and_nothing_else_is_one() {
        for order in Order::ALL {
            assert_eq!(Command::parse(&order.command().to_string()), Some(order.command()));
            assert_eq!(Order::parse(&order.to_string()), Some(order));
        }
        for text in ["", "kill", "kill d", "cut source"] {
            assert_eq!(Order::parse(text), None, "{text}");
        }
    }

    #[test]
    fn foreign_text_on_the_line_is_no_line() {
        for text in ["", "s", "s m", "s m x", "[    1.0] reboot: Power down", "z m 1.0 x", "s q 1.0 x"] {
            assert_eq!(Line::parse(text), None, "{text}");
        }
        assert_eq!(Line::parse("s l 2.0").map(|line| line.text), Some(String::new()));
    }
}
