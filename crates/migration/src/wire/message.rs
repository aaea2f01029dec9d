//! The messages and their fields.

use super::fields::Fields;
use super::{MAGIC, MAX_NAME, MAX_PAGES, MAX_REASON, VERSION};
use crate::report::Latency;
use crate::{Error, Page};
use alloc::borrow::ToOwned;
use alloc::string::String;
use serde::Serialize;

/// How a VM goes from one host to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// Pause, send all, run there: the naive method.
    StopAndCopy,
    /// Pause, send the state, run there, fetch each page when it is touched (Zayas).
    Demand,
    /// Push rounds while the guest runs, then stop-and-copy the rest (Clark et al., NSDI 2005).
    PreCopy,
    /// As demand, and push the rest meanwhile (Hines et al., VEE 2009).
    PostCopy,
    /// A bounded push, then post-copy for the rest (Sahni and Varma, 2012).
    Hybrid,
}

impl Path {
    /// As it is written in commands and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StopAndCopy => "stop-and-copy",
            Self::Demand => "demand",
            Self::PreCopy => "pre-copy",
            Self::PostCopy => "post-copy",
            Self::Hybrid => "hybrid",
        }
    }

    /// Whether the VM runs at the destination before all pages are there.
    #[must_use]
    pub fn runs_early(self) -> bool {
        matches!(self, Self::Demand | Self::PostCopy | Self::Hybrid)
    }

    pub(super) fn code(self) -> u8 {
        match self {
            Self::StopAndCopy => 0,
            Self::Demand => 1,
            Self::PreCopy => 2,
            Self::PostCopy => 3,
            Self::Hybrid => 4,
        }
    }

    fn from_code(code: u8) -> Result<Self, Error> {
        [Self::StopAndCopy, Self::Demand, Self::PreCopy, Self::PostCopy, Self::Hybrid]
            .into_iter()
            .find(|path| path.code() == code)
            .ok_or(Error::BadField("path"))
    }
}

/// What the source tells of the VM before it sends anything of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The VM's name, at most [`MAX_NAME`] bytes.
    pub name: String,
    /// Names this migration, so that a broken one can be resumed and no other. Any number that is not used twice.
    pub session: u64,
    /// Pages of memory.
    pub page_count: u64,
    /// The rate of the source's TSC, which the guest has learnt.
    pub tsc_khz: u64,
    /// The path.
    pub path: Path,
    /// Whether every page is compared at the end.
    pub verify: bool,
    /// The destination acknowledges each time it has handled these many bytes.
    pub acknowledge_every: u32,
}

/// Frame numbers, each checked when it is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gfns<'a>(pub(super) &'a [u8]);

impl<'a> Gfns<'a> {
    /// The numbers, unproven.
    pub fn iter(self) -> impl Iterator<Item = u64> + 'a {
        self.0.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

/// A run of words that begins at an index: a piece of a bitmap, or of the list of hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Index of the first word.
    pub first: u64,
    /// The words.
    pub words: Gfns<'a>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// The kind of a message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $code,)* }

        impl TryFrom<u8> for Kind {
            type Error = Error;

            fn try_from(code: u8) -> Result<Self, Error> {
                match code {
                    $($code => Ok(Self::$name),)*
                    _ => Err(Error::UnknownMessage(code)),
                }
            }
        }
    };
}

kinds! {
    /// Source: magic, version and the offer.
    Hello = 1,
    /// Source: page records.
    Pages = 2,
    /// Source: a round begins.
    Round = 3,
    /// Source: the guest is paused.
    Paused = 4,
    /// Source: pages that were sent and have changed since; they are missing again.
    Stale = 5,
    /// Source: a piece of the state package.
    State = 6,
    /// Source: the hand-over. The destination may run the VM, the source never again.
    Commit = 7,
    /// Source: hashes of its pages.
    Hashes = 8,
    /// Source: nothing follows.
    Done = 9,
    /// Source: magic, version and the session that it wants to resume.
    Recover = 10,
    /// Source, in place of a hello: pages that nobody keeps, to measure the link.
    Probe = 11,
    /// Either: it gives up.
    Abort = 32,
    /// Destination: send.
    Accept = 33,
    /// Destination: it will not have this VM.
    Refuse = 34,
    /// Destination: so many bytes are handled.
    Acknowledge = 35,
    /// Destination: it holds all that it needs to run the VM.
    Ready = 36,
    /// Destination: the VM runs here.
    Running = 37,
    /// Destination: pages that the guest waits for.
    Request = 38,
    /// Destination: every page is here.
    Complete = 39,
    /// Destination: what the comparison showed.
    Verdict = 40,
    /// Destination: a piece of the set of pages that it holds.
    Held = 41,
    /// Destination: the set is whole; the stream may resume.
    Resume = 42,
}

/// A message that is handled whole, its fields read but not judged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kind documents each message, and the fields are named for what they are")]
pub enum Message<'a> {
    Hello(Offer),
    Round { number: u32 },
    Paused,
    Stale(Chunk<'a>),
    State { total: u32, offset: u32, bytes: &'a [u8] },
    Commit,
    Hashes(Chunk<'a>),
    Done,
    Recover { session: u64 },
    Probe { pages: &'a [u8] },
    Abort { reason: String },
    Accept,
    Refuse { reason: String },
    Acknowledge { bytes: u64 },
    Ready,
    Running,
    Request(Gfns<'a>),
    Complete { requests: u64, latency: Option<Latency> },
    Verdict { compared: u64, different: u64 },
    Held(Chunk<'a>),
    Resume { committed: bool },
}

impl<'a> Message<'a> {
    /// Reads a payload.
    pub(super) fn read(kind: Kind, payload: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(kind as u8, payload);
        let message = match kind {
            Kind::Hello => {
                version(&mut fields)?;
                Self::Hello(offer(&mut fields)?)
            }
            Kind::Recover => {
                version(&mut fields)?;
                Self::Recover { session: fields.u64()? }
            }
            Kind::Round => Self::Round { number: fields.u32()? },
            Kind::Paused => Self::Paused,
            Kind::Stale => Self::Stale(chunk(&mut fields)?),
            Kind::State => Self::State { total: fields.u32()?, offset: fields.u32()?, bytes: fields.rest() },
            Kind::Commit => Self::Commit,
            Kind::Hashes => Self::Hashes(chunk(&mut fields)?),
            Kind::Done => Self::Done,
            Kind::Probe => Self::Probe { pages: fields.rest() },
            Kind::Abort => Self::Abort { reason: reason(&mut fields)? },
            Kind::Accept => {
                version(&mut fields)?;
                Self::Accept
            }
            Kind::Refuse => Self::Refuse { reason: reason(&mut fields)? },
            Kind::Acknowledge => Self::Acknowledge { bytes: fields.u64()? },
            Kind::Ready => Self::Ready,
            Kind::Running => Self::Running,
            Kind::Request => Self::Request(words(&mut fields)?),
            Kind::Complete => Self::Complete { requests: fields.u64()?, latency: latency(&mut fields)? },
            Kind::Verdict => Self::Verdict { compared: fields.u64()?, different: fields.u64()? },
            Kind::Held => Self::Held(chunk(&mut fields)?),
            Kind::Resume => Self::Resume { committed: flag(fields.u8()?, "committed")? },
            // The decoder takes a batch apart itself.
            Kind::Pages => return Err(Error::Unexpected(kind as u8)),
        };
        fields.end()?;
        Ok(message)
    }

    /// The kind's number, to name a message that does not belong.
    #[must_use]
    pub fn kind(&self) -> u8 {
        let kind = match self {
            Self::Hello(_) => Kind::Hello,
            Self::Round { .. } => Kind::Round,
            Self::Paused => Kind::Paused,
            Self::Stale(_) => Kind::Stale,
            Self::State { .. } => Kind::State,
            Self::Commit => Kind::Commit,
            Self::Hashes(_) => Kind::Hashes,
            Self::Done => Kind::Done,
            Self::Recover { .. } => Kind::Recover,
            Self::Probe { .. } => Kind::Probe,
            Self::Abort { .. } => Kind::Abort,
            Self::Accept => Kind::Accept,
            Self::Refuse { .. } => Kind::Refuse,
            Self::Acknowledge { .. } => Kind::Acknowledge,
            Self::Ready => Kind::Ready,
            Self::Running => Kind::Running,
            Self::Request(_) => Kind::Request,
            Self::Complete { .. } => Kind::Complete,
            Self::Verdict { .. } => Kind::Verdict,
            Self::Held(_) => Kind::Held,
            Self::Resume { .. } => Kind::Resume,
        };
        kind as u8
    }
}

/// Magic and version: read before anything that another version may have put elsewhere.
fn version(fields: &mut Fields<'_>) -> Result<(), Error> {
    if fields.u64()? != MAGIC {
        return Err(Error::NotAMigration);
    }
    let theirs = fields.u16()?;
    if theirs == VERSION { Ok(()) } else { Err(Error::Version { theirs, ours: VERSION }) }
}

fn offer(fields: &mut Fields<'_>) -> Result<Offer, Error> {
    let session = fields.u64()?;
    let page_count = fields.u64()?;
    let tsc_khz = fields.u64()?;
    let path = Path::from_code(fields.u8()?)?;
    let verify = flag(fields.u8()?, "verify")?;
    let acknowledge_every = fields.u32()?;
    let name = fields.rest();
    if page_count == 0 || page_count > MAX_PAGES {
        return Err(Error::BadField("page count"));
    }
    if name.len() > MAX_NAME {
        return Err(Error::BadField("name"));
    }
    let name = core::str::from_utf8(name).map_err(|_| Error::BadField("name"))?.to_owned();
    Ok(Offer { name, session, page_count, tsc_khz, path, verify, acknowledge_every })
}

fn flag(byte: u8, name: &'static str) -> Result<bool, Error> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::BadField(name)),
    }
}

fn reason(fields: &mut Fields<'_>) -> Result<String, Error> {
    let bytes = fields.rest();
    if bytes.len() > MAX_REASON {
        return Err(Error::BadField("reason"));
    }
    core::str::from_utf8(bytes).map(ToOwned::to_owned).map_err(|_| Error::BadField("reason"))
}

fn words<'a>(fields: &mut Fields<'a>) -> Result<Gfns<'a>, Error> {
    let bytes = fields.rest();
    if bytes.len().is_multiple_of(8) { Ok(Gfns(bytes)) } else { Err(Error::BadField("list")) }
}

fn chunk<'a>(fields: &mut Fields<'a>) -> Result<Chunk<'a>, Error> {
    Ok(Chunk { first: fields.u64()?, words: words(fields)? })
}

fn latency(fields: &mut Fields<'_>) -> Result<Option<Latency>, Error> {
    let measured = flag(fields.u8()?, "latency")?;
    let latency = Latency { p50: fields.u64()?, p99: fields.u64()?, max: fields.u64()? };
    Ok(measured.then_some(latency))
}

/// A whole page, if `bytes` is one.
pub(super) fn page(bytes: &[u8]) -> Result<&Page, Error> {
    bytes.try_into().map_err(|_| Error::BadRecord)
}
