//! From bytes, cut anywhere, to messages and page records.

use super::message::{Kind, Message, page};
use super::number::Numbering;
use super::{HEADER, MAX_BATCH, MAX_PAGES, MAX_WHOLE, PAGE_RECORD, SAME_RECORD, record};
use crate::{Error, PAGE_SIZE, Page};
use alloc::vec::Vec;

/// What a page record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A run of pages of zeroes.
    Zero {
        /// Pages in it, at least 1.
        count: u16,
    },
    /// A page.
    Data(&'a Page),
    /// A page with the content of another one.
    Same {
        /// The other one; a claim.
        of: u64,
    },
    /// What changed in a page.
    Delta(&'a [u8]),
    /// A page as an LZ4 block.
    Lz4(&'a [u8]),
}

impl Body<'_> {
    /// Bytes that the record saves against a whole page, or would if it were not one of zeroes.
    #[must_use]
    pub fn saved(&self) -> usize {
        match self {
            Self::Zero { .. } | Self::Data(_) => 0,
            Self::Same { .. } => PAGE_RECORD - SAME_RECORD,
            Self::Delta(bytes) | Self::Lz4(bytes) => PAGE_SIZE.saturating_sub(bytes.len()),
        }
    }
}

/// One page record. Its gfn is a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The (first) page.
    pub gfn: u64,
    /// What it holds.
    pub body: Body<'a>,
}

/// What a decoder hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A message.
    Message(Message<'a>),
    /// A batch of pages begins.
    Batch,
    /// A page of the batch.
    Page(Record<'a>),
}

/// Takes a stream apart. It buffers a unit (a message, or one page record) only if the unit was cut, and at most
/// [`MAX_WHOLE`] bytes of it.
#[derive(Debug, Default)]
pub struct Decoder {
    cut: Cut,
    /// Bytes of the open batch that are still to come.
    batch: usize,
    /// Of the next message.
    number: Numbering,
    /// Bytes handled.
    handled: u64,
}

/// A unit of which the beginning has come.
#[derive(Debug, Default)]
struct Cut {
    bytes: Vec<u8>,
    /// It was handed out and is to be forgotten.
    used: bool,
}

/// Bytes of the unit that begins with this header.
fn unit_length(header: &[u8; HEADER], batch: usize) -> Result<usize, Error> {
    let [kind, _, _, _, l0, l1, l2, l3] = *header;
    if batch > 0 {
        let length = match kind_and_argument(header) {
            (record::ZERO, _) => HEADER,
            (record::DATA, _) => PAGE_RECORD,
            (record::SAME, _) => SAME_RECORD,
            (record::DELTA | record::LZ4, length) if usize::from(length) < PAGE_SIZE => HEADER + usize::from(length),
            _ => return Err(Error::BadRecord),
        };
        return if length <= batch { Ok(length) } else { Err(Error::BadRecord) };
    }
    let kind = Kind::try_from(kind)?;
    let claimed = u32::from_le_bytes([l0, l1, l2, l3]);
    let most = if kind == Kind::Pages { MAX_BATCH } else { MAX_WHOLE };
    let length = usize::try_from(claimed).ok().filter(|length| *length <= most);
    let length = length.ok_or(Error::TooLong { kind: kind as u8, length: claimed })?;
    Ok(if kind == Kind::Pages { HEADER } else { HEADER + length })
}

/// The kind of a page record, and its argument.
fn kind_and_argument(header: &[u8; HEADER]) -> (u8, u16) {
    let [.., kind, a0, a1] = *header;
    (kind, u16::from_le_bytes([a0, a1]))
}

impl Cut {
    /// The next whole unit: a slice of the input, or of the buffer if the unit was cut.
    fn unit<'a, 'b: 'a>(&'a mut self, batch: usize, input: &mut &'b [u8]) -> Result<Option<&'a [u8]>, Error> {
        if core::mem::take(&mut self.used) {
            self.bytes.clear();
        }
        if self.bytes.is_empty()
            && let Some(header) = input.first_chunk()
            && let Some((unit, rest)) = input.split_at_checked(unit_length(header, batch)?)
        {
            *input = rest;
            return Ok(Some(unit));
        }
        self.fill(HEADER, input);
        let Some(header) = self.bytes.first_chunk() else {
            return Ok(None);
        };
        let length = unit_length(header, batch)?;
        self.fill(length, input);
        self.used = self.bytes.len() == length;
        Ok(self.used.then_some(&self.bytes))
    }

    /// Takes from the input until there are `length` bytes.
    fn fill(&mut self, length: usize, input: &mut &[u8]) {
        let wanted = length.saturating_sub(self.bytes.len()).min(input.len());
        let (now, later) = input.split_at(wanted);
        self.bytes.extend_from_slice(now);
        *input = later;
    }
}

impl Decoder {
    /// Bytes handled so far: whole units alone.
    #[must_use]
    pub fn handled(&self) -> u64 {
        self.handled
    }

    /// The next item, or none until more input comes.
    ///
    /// # Errors
    /// When the stream is broken; nothing more can be read from it then.
    pub fn next<'a, 'b: 'a>(&'a mut self, input: &mut &'b [u8]) -> Result<Option<Item<'a>>, Error> {
        let Some(unit) = self.cut.unit(self.batch, input)? else {
            return Ok(None);
        };
        self.handled += unit.len() as u64;
        let (header, payload) = unit.split_first_chunk::<HEADER>().ok_or(Error::BadRecord)?;
        if self.batch > 0 {
            self.batch = self.batch.saturating_sub(unit.len());
            return read_record(header, payload).map(|record| Some(Item::Page(record)));
        }
        let [kind, n0, n1, n2, l0, l1, l2, l3] = *header;
        let kind = Kind::try_from(kind)?;
        if [n0, n1, n2] != self.number.take() {
            return Err(Error::OutOfOrder(kind as u8));
        }
        if kind == Kind::Pages {
            self.batch = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            return Ok(Some(Item::Batch));
        }
        Message::read(kind, payload).map(|message| Some(Item::Message(message)))
    }
}

/// Reads a record whose length is right.
fn read_record<'a>(header: &[u8; HEADER], payload: &'a [u8]) -> Result<Record<'a>, Error> {
    let word = u64::from_le_bytes(*header);
    let gfn = word % MAX_PAGES;
    let body = match kind_and_argument(header) {
        (record::ZERO, count) if count > 0 => Body::Zero { count },
        (record::DATA, 0) => Body::Data(page(payload)?),
        (record::SAME, 0) => {
            Body::Same { of: payload.try_into().map(u64::from_le_bytes).map_err(|_| Error::BadRecord)? }
        }
        (record::DELTA, _) => Body::Delta(payload),
        (record::LZ4, _) => Body::Lz4(payload),
        _ => return Err(Error::BadRecord),
    };
    Ok(Record { gfn, body })
}
