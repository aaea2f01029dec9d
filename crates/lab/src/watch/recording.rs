//! The file of a recording: docs/recording.md has its format.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use qavns::{Reading, Totals};
use serde::{Deserialize, Serialize};

use super::step::{Fields, Progress, Step};

const MAGIC: &[u8; 8] = b"qavisrec";
const VERSION: u16 = 1;
/// The longest block that is believed: runs of one page each over 64 GiB of memory take less.
const LONGEST_BLOCK: u64 = 64 << 20;
/// Bytes of a page.
const PAGE: u64 = 4096;

/// What a recording is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Where and what it was, in words: environment, guest, workload.
    pub title: String,
    /// The VM's memory in bytes.
    pub memory: u64,
    /// Period of the tick in microseconds.
    pub jiffy: u64,
    /// Period of the harvests in microseconds.
    pub harvest_period: u64,
    /// The rule that was watched by.
    pub rule: RuleValues,
}

/// The values of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleValues {
    /// Its name.
    pub policy: String,
    /// Sampling time in microseconds.
    pub ts: u64,
    /// Tp as numerator and denominator.
    pub tp: (u64, u64),
    /// Td as numerator and denominator.
    pub td: (u64, u64),
}

/// One entry: how the version was reached, and what it then was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From the entry before.
    pub progress: Progress,
    /// When, in microseconds since the image started.
    pub at: u64,
    /// The identifier that the hypervisor told.
    pub identifier: Fields,
    /// The counters that it told; of a step they are the sum of what was before and the step.
    pub totals: Totals,
}

/// The kinds of blocks; the number of each is its first byte.
#[derive(Serialize, Deserialize)]
enum Block {
    Header(Header),
    Begin { at: u64, identifier: Fields, restarts: u64, births: u64, deaths: u64, pages: u64 },
    Step { step: Step, identifier: Fields },
    End { entries: u64 },
}

/// How a recording ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As it was ended.
    Whole,
    /// Without its end; so many bytes of a block that is not whole are at the end of the file.
    Cut {
        /// These bytes.
        left: usize,
    },
    /// With something that is not as it was written.
    Damaged {
        /// Where in the file.
        at: usize,
        /// What.
        why: String,
    },
}

/// A recording that was read.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What it is of.
    pub header: Header,
    /// What could be read of it.
    pub entries: Vec<Entry>,
    /// How it ends.
    pub ending: Ending,
}

/// Writes a recording, entry by entry.
pub struct Writer<W: Write> {
    out: W,
    entries: u64,
    bytes: u64,
}

impl Writer<File> {
    /// Begins a recording in a new file.
    pub fn create(path: &Path, header: Header) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Self::new(file, header)
    }
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    pub fn new(mut out: W, header: Header) -> Result<Self> {
        let mut start = MAGIC.to_vec();
        start.extend(VERSION.to_le_bytes());
        out.write_all(&start)?;
        let mut writer = Self { out, entries: 0, bytes: start.len() as u64 };
        writer.block(&Block::Header(header))?;
        Ok(writer)
    }

    /// Adds an entry. It is in the file when this returns: a lab that is killed loses none.
    pub fn entry(&mut self, progress: &Progress, at: u64, reading: Reading) -> Result<()> {
        let identifier = reading.identifier.into();
        let Totals { restarts, births, deaths, pages_modified: pages } = reading.totals;
        self.block(&match progress {
            Progress::Begin => Block::Begin { at, identifier, restarts, births, deaths, pages },
            Progress::Step(step) => Block::Step { step: step.clone(), identifier },
        })?;
        self.entries += 1;
        Ok(())
    }

    /// Ends the recording, and says how many bytes it has.
    pub fn end(mut self) -> Result<u64> {
        let entries = self.entries;
        self.block(&Block::End { entries })?;
        Ok(self.bytes)
    }

    fn block(&mut self, block: &Block) -> Result<()> {
        let body = postcard::to_stdvec(block)?;
        let mut bytes = postcard::to_stdvec(&(body.len() as u64))?;
        bytes.extend(&body);
        bytes.extend(crc32fast::hash(&body).to_le_bytes());
        self.out.write_all(&bytes).context("cannot write the recording")?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// The next block, or how the blocks end.
fn next_block(rest: &[u8]) -> Result<(Block, &[u8]), Ending> {
    let cut = || Ending::Cut { left: rest.len() };
    let damaged = |why: &str| Ending::Damaged { at: 0, why: why.to_owned() };
    let (length, after) = match postcard::take_from_bytes::<u64>(rest) {
        Ok(read) => read,
        Err(postcard::Error::DeserializeUnexpectedEnd) => return Err(cut()),
        Err(_) => return Err(damaged("a block's length cannot be read")),
    };
    if length > LONGEST_BLOCK {
        return Err(damaged("a block is longer than any can be"));
    }
    let (body, after) =
        usize::try_from(length).ok().and_then(|length| after.split_at_checked(length)).ok_or_else(cut)?;
    let (sum, after) = after.split_first_chunk::<4>().ok_or_else(cut)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return Err(damaged("a block's checksum is wrong"));
    }
    match postcard::take_from_bytes::<Block>(body) {
        Ok((block, [])) => Ok((block, after)),
        _ => Err(damaged("a block's content cannot be read")),
    }
}

/// Reads a recording from a file.
pub fn read(path: &Path) -> Result<Recording> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads a recording: all of its entries, or those before the place from which on it cannot be read.
pub fn parse(bytes: &[u8]) -> Result<Recording> {
    let (start, rest) = bytes.split_at_checked(MAGIC.len()).context("this is no recording: it is too short")?;
    ensure!(start == MAGIC, "this is no recording: it does not begin with `qavisrec`");
    let (version, rest) = rest.split_first_chunk().context("the recording ends within its header")?;
    let version = u16::from_le_bytes(*version);
    ensure!(version == VERSION, "the recording's format is version {version}, and this lab reads {VERSION}");
    let (header, rest) = match next_block(rest) {
        Ok((Block::Header(header), rest)) => (header, rest),
        Ok(_) => bail!("the recording does not begin with its header"),
        Err(Ending::Damaged { why, .. }) => bail!("the recording's header is damaged: {why}"),
        Err(_) => bail!("the recording ends within its header"),
    };
    check(&header)?;
    let (entries, ending) = entries(&header, rest, bytes.len());
    Ok(Recording { header, entries, ending })
}

/// Every number that something is divided by, or measured by.
fn check(header: &Header) -> Result<()> {
    ensure!(header.jiffy > 0 && header.harvest_period > 0, "the recording's header names a period of zero");
    ensure!(header.rule.tp.1 > 0 && header.rule.td.1 > 0, "the recording's header has a ratio over zero");
    Ok(())
}

fn entries(header: &Header, mut rest: &[u8], whole: usize) -> (Vec<Entry>, Ending) {
    let mut entries: Vec<Entry> = Vec::new();
    let ending = loop {
        let at = whole - rest.len();
        let damaged = |why: &str| Ending::Damaged { at, why: why.to_owned() };
        let (block, after) = match next_block(rest) {
            Ok(next) => next,
            Err(Ending::Damaged { why, .. }) => break damaged(&why),
            Err(ending) => break ending,
        };
        match block {
            Block::End { entries: count } if count != entries.len() as u64 => break damaged("entries are missing"),
            Block::End { .. } if !after.is_empty() => break damaged("something follows the end"),
            Block::End { .. } => break Ending::Whole,
            block => match entry(header, entries.last(), block) {
                Ok(entry) => entries.push(entry),
                Err(why) => break damaged(why),
            },
        }
        rest = after;
    };
    (entries, ending)
}

/// Believes a block that follows this entry.
fn entry(header: &Header, before: Option<&Entry>, block: Block) -> Result<Entry, &'static str> {
    match block {
        Block::Begin { at, identifier, restarts, births, deaths, pages } => {
            let totals = Totals { restarts, births, deaths, pages_modified: pages };
            Ok(Entry { progress: Progress::Begin, at, identifier, totals })
        }
        Block::Step { step, identifier } => {
            let before = before.ok_or("a step follows nothing")?;
            if let Some(dirty) = &step.dirty {
                let all = dirty.count() == step.pages && dirty.end() <= header.memory.div_ceil(PAGE);
                all.then_some(()).ok_or("the pages of a step are not those that it counts")?;
            }
            let at = before.at.saturating_add(step.after);
            let totals = Totals {
                restarts: before.totals.restarts.saturating_add(u64::from(step.restart)),
                births: before.totals.births.saturating_add(step.births),
                deaths: before.totals.deaths.saturating_add(step.deaths),
                pages_modified: before.totals.pages_modified.saturating_add(step.pages),
            };
            Ok(Entry { progress: Progress::Step(step), at, identifier, totals })
        }
        Block::Header(_) | Block::End { .. } => Err("a block is in the wrong place"),
    }
}

#[cfg(test)]
#[path = "recording_tests.rs"]
mod tests;
