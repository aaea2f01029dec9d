//! What the command line asks for.

/// What tiny does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Writes `rate` pages an interval.
    Write,
    /// Only beats and verifies.
    Halt,
    /// The same, without interrupts and without halting.
    Spin,
    /// Tries wild values, then goes on as [`Mode::Halt`].
    Wild,
    /// Loads one root of page tables after the other.
    Flip,
    /// Restarts after some beats.
    Restart(Restart),
}

/// How the machine is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// A fault without an IDT.
    TripleFault,
    /// A fault that cannot be delivered, as none could after it.
    Crash,
    /// The chipset's reset control register.
    Cf9,
    /// The keyboard controller's pulse.
    Keyboard,
}

/// What ends an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Ten ticks of the PIT at 100 Hz.
    Pit,
    /// The work of the interval is done. No interrupts: the run is the same each time.
    Work,
}

/// All options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What to do.
    pub mode: Mode,
    /// What ends an interval.
    pub clock: Clock,
    /// Pages written an interval, or loads of CR3.
    pub rate: u64,
    /// Pages verified an interval: by default 64, and 2400 (some 100 ms of a slow CPU) where nothing else ends one.
    pub verify: u64,
    /// Pages of the range.
    pub pages: u64,
    /// GPA of the range.
    pub start: u64,
    /// Roots of `flip`, in the pages after the range.
    pub roots: u64,
    /// Beats before a restart.
    pub after: u64,
    /// Start of the random numbers of `wild`.
    pub seed: u64,
    /// Tries of each random kind of `wild`.
    pub count: u64,
    /// Whether `wild` also touches addresses where no RAM is.
    pub holes: bool,
}

impl Options {
    /// Reads a command line. `mode` comes before what refines it.
    ///
    /// # Errors
    /// The word that cannot be read.
    pub fn parse(line: &str) -> Result<Self, &str> {
        let mut options = Self {
            mode: Mode::Halt,
            clock: Clock::Pit,
            rate: 0,
            verify: 64,
            pages: 256,
            start: 2 << 20,
            roots: 2,
            after: 5,
            seed: 1,
            count: 500,
            holes: false,
        };
        for word in line.split_ascii_whitespace() {
            options.take(word).ok_or(word)?;
        }
        Ok(options)
    }

    fn take(&mut self, word: &str) -> Option<()> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "mode" => {
                self.mode = mode(value)?;
                if self.mode == Mode::Spin {
                    (self.clock, self.verify) = (Clock::Work, 2400);
                }
            }
            "clock" => self.clock = clock(value)?,
            "rate" => self.rate = number(value)?,
            "verify" => self.verify = number(value)?,
            "pages" => self.pages = number(value).filter(|pages| *pages > 0)?,
            "start" => self.start = number(value)?,
            "roots" => self.roots = number(value).filter(|roots| *roots > 0)?,
            "after" => self.after = number(value)?,
            "seed" => self.seed = number(value)?,
            "count" => self.count = number(value)?,
            "holes" if value.is_empty() => self.holes = true,
            _ => return None,
        }
        Some(())
    }
}

fn mode(value: &str) -> Option<Mode> {
    Some(match value {
        "write" => Mode::Write,
        "hlt" => Mode::Halt,
        "spin" => Mode::Spin,
        "wild" => Mode::Wild,
        "flip" => Mode::Flip,
        "triple" => Mode::Restart(Restart::TripleFault),
        "crash" => Mode::Restart(Restart::Crash),
        "cf9" => Mode::Restart(Restart::Cf9),
        "8042" => Mode::Restart(Restart::Keyboard),
        _ => return None,
    })
}

fn clock(value: &str) -> Option<Clock> {
    match value {
        "pit" => Some(Clock::Pit),
        "work" => Some(Clock::Work),
        _ => None,
    }
}

/// Decimal, or hexadecimal with 0x.
fn number(value: &str) -> Option<u64> {
    match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => value.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_line_halts_and_beats() {
        let options = Options::parse("").expect("no option is needed");
        assert_eq!((options.mode, options.clock, options.rate), (Mode::Halt, Clock::Pit, 0));
    }

    #[test]
    fn each_option_is_read() {
        let options = Options::parse("mode=write rate=7 pages=0x40 start=0x300000 clock=work verify=3 after=1")
            .expect("all known");
        assert_eq!((options.mode, options.clock), (Mode::Write, Clock::Work));
        assert_eq!((options.rate, options.pages, options.start), (7, 64, 3 << 20));
        assert_eq!((options.verify, options.after), (3, 1));
        let flip = Options::parse("mode=flip roots=5000 rate=10").expect("all known");
        assert_eq!((flip.mode, flip.roots, flip.rate), (Mode::Flip, 5000, 10));
        assert_eq!(Options::parse("mode=spin").map(|options| options.clock), Ok(Clock::Work));
        assert_eq!(Options::parse("mode=8042").map(|options| options.mode), Ok(Mode::Restart(Restart::Keyboard)));
    }

    #[test]
    fn a_word_that_cannot_be_read_is_named() {
        for word in ["mode=mad", "rate=-1", "pages=0", "roots=0", "colour=red", "start=0xg", "holes=1", "clock="] {
            let line = ["mode=hlt ", word].concat();
            assert_eq!(Options::parse(&line), Err(word));
        }
    }
}
