//! The image's command line.

use core::error::Error;
use core::fmt;
use core::net::Ipv4Addr;
use core::num::NonZeroU64;
use core::time::Duration;

use log::LevelFilter;

use super::values::{self, Word, WordError};
use crate::vmx::tracker::Tracker;

/// The jiffy when none is given: the tick of Linux at 250 Hz.
const DEFAULT_JIFFY: Duration = Duration::from_millis(4);
/// Dirty flags are collected so often when nothing else is said: twice in a sample of the default length. More often counts a
/// small working set again and again, which a migration would send once, and pays for every collecting.
const DEFAULT_HARVEST: Duration = Duration::from_millis(250);
/// Every IPv4 host takes in packets of this size (RFC 791, section 3.1).
const SMALLEST_MTU: u16 = 576;

/// An address and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Prefix {
    /// The host's address.
    pub address: Ipv4Addr,
    /// Leading bits that the whole network shares, 1 to 32.
    pub length: u8,
}

/// Which port the monitor is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Console {
    /// On the log's port; log lines become events.
    Com1,
    /// On its own port.
    #[default]
    Com2,
    /// On a virtio console.
    Virtio,
}

/// What the image was told at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Period of the tick, 1 to 100 ms.
    pub jiffy: Duration,
    /// Period at which dirty flags are collected, in jiffies, at least 1.
    pub harvest_jiffies: u64,
    /// Address of the network card; without it the card is left alone.
    pub ip: Option<Ipv4Prefix>,
    /// Largest IP packet; without it, what the card offers.
    pub mtu: Option<u16>,
    /// TCP port on which migrations are taken in.
    pub listen: Option<u16>,
    /// Bytes a second that all streams which leave this host share.
    pub bandwidth: Option<NonZeroU64>,
    /// Whether the guests of the archive are started; if not, it only serves those that arrive and restart.
    pub start: bool,
    /// How much is logged.
    pub log: LevelFilter,
    /// Where the monitor is.
    pub console: Console,
    /// How written pages are found; without it, as the CPU allows.
    pub tracker: Option<Tracker>,
}

/// Why a command line was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionsError {
    /// One option is wrong by itself.
    Word(WordError),
    /// The harvest period does not consist of whole jiffies.
    UnevenHarvest {
        /// The harvest period that was asked for.
        harvest: Duration,
        /// The jiffy that it should be a multiple of.
        jiffy: Duration,
    },
    /// `listen` without `ip`: there is no address to listen on.
    ListenWithoutAddress,
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(error) => error.fmt(f),
            Self::UnevenHarvest { harvest, jiffy } => {
                write!(f, "`harvest` of {harvest:?} is no multiple of the jiffy of {jiffy:?}")
            }
            Self::ListenWithoutAddress => f.write_str("`listen` needs an address: ip=..."),
        }
    }
}

impl Error for OptionsError {}

impl From<WordError> for OptionsError {
    fn from(error: WordError) -> Self {
        Self::Word(error)
    }
}

/// What the words of the line said, before defaults.
#[derive(Default)]
struct Given {
    jiffy: Option<Duration>,
    harvest: Option<Duration>,
    ip: Option<Ipv4Prefix>,
    mtu: Option<u16>,
    listen: Option<u16>,
    bandwidth: Option<u64>,
    start: Option<bool>,
    log: Option<LevelFilter>,
    console: Option<Console>,
    tracker: Option<Option<Tracker>>,
}

impl Given {
    fn take(&mut self, word: Word<'_>) -> Result<(), WordError> {
        match word.key {
            "jiffy" => word.into(&mut self.jiffy, "jiffy", "1ms to 100ms", |text| {
                values::duration(text, Duration::from_millis(1)..=Duration::from_millis(100))
            }),
            "harvest" => word.into(&mut self.harvest, "harvest", "1ms to 60s", |text| {
                values::duration(text, Duration::from_millis(1)..=Duration::from_secs(60))
            }),
            "ip" => word.into(&mut self.ip, "ip", "ADDRESS/LENGTH, as 10.0.0.1/24", prefix),
            "mtu" => word.into(&mut self.mtu, "mtu", "576 to 65535", |text| {
                let mtu = u16::try_from(values::number(text)?).ok()?;
                (mtu >= SMALLEST_MTU).then_some(mtu)
            }),
            "listen" => word.into(&mut self.listen, "listen", "a port, 1 to 65535", values::port),
            "bandwidth" => {
                word.into(&mut self.bandwidth, "bandwidth", "bytes a second, 0 for no limit", values::number)
            }
            "start" => word.into(&mut self.start, "start", "yes or no", values::yes_or_no),
            "log" => word.into(&mut self.log, "log", "error, warn, info, debug or trace", level),
            "console" => word.into(&mut self.console, "console", "com1, com2 or virtio", console),
            "tracker" => word.into(&mut self.tracker, "tracker", "auto, dirty-bits, pml or write-protection", tracker),
            _ => Err(word.unknown()),
        }
    }
}

impl Options {
    /// Reads a command line: words separated by blanks, in any order, none twice.
    ///
    /// # Errors
    /// Names the first option that is unknown or has a value that cannot be used.
    pub fn parse(line: &str) -> Result<Self, OptionsError> {
        let mut given = Given::default();
        for word in line.split_ascii_whitespace() {
            given.take(Word::split(word)?)?;
        }
        if given.listen.is_some() && given.ip.is_none() {
            return Err(OptionsError::ListenWithoutAddress);
        }
        let jiffy = given.jiffy.unwrap_or(DEFAULT_JIFFY);
        Ok(Self {
            jiffy,
            harvest_jiffies: harvest_jiffies(given.harvest, jiffy)?,
            ip: given.ip,
            mtu: given.mtu,
            listen: given.listen,
            bandwidth: given.bandwidth.and_then(NonZeroU64::new),
            start: given.start.unwrap_or(true),
            log: given.log.unwrap_or(LevelFilter::Info),
            console: given.console.unwrap_or_default(),
            tracker: given.tracker.flatten(),
        })
    }

    /// Period at which dirty flags are collected.
    #[must_use]
    pub fn harvest_period(&self) -> Duration {
        let jiffies = u32::try_from(self.harvest_jiffies).unwrap_or(u32::MAX);
        self.jiffy.saturating_mul(jiffies)
    }
}

/// A period that was asked for must be whole jiffies; the default one is rounded up to them, so that
/// every jiffy can be given by itself.
fn harvest_jiffies(asked: Option<Duration>, jiffy: Duration) -> Result<u64, OptionsError> {
    let (tick, period) = (jiffy.as_micros().max(1), asked.unwrap_or(DEFAULT_HARVEST).as_micros());
    if let Some(harvest) = asked
        && period % tick != 0
    {
        return Err(OptionsError::UnevenHarvest { harvest, jiffy });
    }
    Ok(u64::try_from(period.div_ceil(tick)).unwrap_or(u64::MAX))
}

fn prefix(text: &str) -> Option<Ipv4Prefix> {
    let (address, length) = text.split_once('/')?;
    let length = u8::try_from(values::number(length)?).ok()?;
    let address = values::host_address(address)?;
    (1..=32).contains(&length).then_some(Ipv4Prefix { address, length })
}

fn level(text: &str) -> Option<LevelFilter> {
    match text {
        "error" => Some(LevelFilter::Error),
        "warn" => Some(LevelFilter::Warn),
        "info" => Some(LevelFilter::Info),
        "debug" => Some(LevelFilter::Debug),
        "trace" => Some(LevelFilter::Trace),
        _ => None,
    }
}

fn console(text: &str) -> Option<Console> {
    match text {
        "com1" => Some(Console::Com1),
        "com2" => Some(Console::Com2),
        "virtio" => Some(Console::Virtio),
        _ => None,
    }
}

fn tracker(text: &str) -> Option<Option<Tracker>> {
    match text {
        "auto" => Some(None),
        _ => Tracker::ALL.into_iter().find(|tracker| tracker.text() == text).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn refused(line: &str) -> alloc::string::String {
        Options::parse(line).expect_err("refused").to_string()
    }

    #[test]
    fn an_empty_line_gives_the_defaults() {
        let options = Options::parse("").expect("defaults");
        assert_eq!(options.jiffy, Duration::from_millis(4));
        assert_eq!(options.harvest_jiffies, 63);
        assert_eq!((options.ip, options.mtu, options.listen), (None, None, None));
        assert_eq!((options.bandwidth, options.start), (None, true));
        assert_eq!((options.log, options.console), (LevelFilter::Info, Console::Com2));
        assert_eq!((options.tracker, Options::parse("tracker=auto").map(|auto| auto.tracker)), (None, Ok(None)));
    }

    #[test]
    fn every_option_is_taken() {
        let line = " jiffy=10ms  harvest=250ms ip=10.0.0.1/24 mtu=9000\tlisten=4444 log=debug console=com1 \
                    tracker=pml bandwidth=125000000 start=no";
        let options = Options::parse(line).expect("all options");
        assert_eq!(options.jiffy, Duration::from_millis(10));
        assert_eq!(options.harvest_period(), Duration::from_millis(250));
        let ip = options.ip.expect("an address");
        assert_eq!((ip.address.octets(), ip.length), ([10, 0, 0, 1], 24));
        assert_eq!((options.mtu, options.listen), (Some(9000), Some(4444)));
        assert_eq!((options.bandwidth, options.start), (NonZeroU64::new(125_000_000), false));
        assert_eq!(options.tracker, Some(Tracker::PageModificationLog));
        assert_eq!((options.log, options.console), (LevelFilter::Debug, Console::Com1));
    }

    #[test]
    fn an_unknown_option_is_named() {
        assert_eq!(refused("jify=4ms"), "unknown option `jify`");
        assert_eq!(refused("quiet"), "`quiet` needs a value: quiet=...");
    }

    #[test]
    fn a_bad_value_names_option_and_value() {
        let wrong = "`jiffy=200ms` cannot be used: jiffy takes 1ms to 100ms";
        assert_eq!(refused("log=info jiffy=200ms"), wrong);
        for word in [
            "ip=10.0.0.1",
            "ip=10.0.0.1/0",
            "ip=10.0.0.1/33",
            "ip=255.255.255.255/24",
            "mtu=575",
            "mtu=65536",
            "listen=0",
            "bandwidth=1Gbit",
            "start=maybe",
            "log=off",
            "console=com3",
            "tracker=flags",
            "harvest=0ms",
            "jiffy=",
        ] {
            let message = refused(word);
            assert!(message.starts_with(&alloc::format!("`{word}` cannot")), "{message}");
        }
    }

    #[test]
    fn an_option_given_twice_is_refused() {
        assert_eq!(refused("log=info log=warn"), "`log` is given twice");
    }

    #[test]
    fn listening_needs_an_address() {
        assert_eq!(refused("listen=1"), "`listen` needs an address: ip=...");
    }

    #[test]
    fn a_harvest_that_was_asked_for_is_whole_jiffies() {
        let message = "`harvest` of 100ms is no multiple of the jiffy of 3ms";
        assert_eq!(refused("harvest=100ms jiffy=3ms"), message);
        let default = Options::parse("jiffy=3ms").expect("the default adapts");
        assert_eq!(default.harvest_jiffies, 84);
    }
}
