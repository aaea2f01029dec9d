//! From messages and pages to bytes, at the tail of the caller's buffer.

use super::decode::Body;
use super::message::{Kind, Message};
use super::{HEADER, MAGIC, MAX_NAME, MAX_REASON, VERSION, record};
use crate::Page;
use alloc::vec::Vec;

/// Appends a message.
pub fn write(out: &mut Vec<u8>, message: &Message<'_>) {
    let start = open(out, message.kind());
    payload(out, message);
    close(out, start);
}

fn open(out: &mut Vec<u8>, kind: u8) -> usize {
    let start = out.len();
    out.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
    start
}

/// Fills in the length of the message that began at `start`.
fn close(out: &mut [u8], start: usize) {
    let length = u32::try_from(out.len().saturating_sub(start + HEADER)).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start + 4..start + HEADER) {
        field.copy_from_slice(&length.to_le_bytes());
    }
}

fn payload(out: &mut Vec<u8>, message: &Message<'_>) {
    match message {
        Message::Hello(offer) => {
            version(out);
            for number in [offer.session, offer.page_count, offer.tsc_khz] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&[offer.path.code(), offer.verify.into()]);
            out.extend_from_slice(&offer.acknowledge_every.to_le_bytes());
            text(out, &offer.name, MAX_NAME);
        }
        Message::Recover { session } => {
            version(out);
            out.extend_from_slice(&session.to_le_bytes());
        }
        Message::Accept => version(out),
        Message::Probe { pages } => out.extend_from_slice(pages),
        Message::Round { number } => out.extend_from_slice(&number.to_le_bytes()),
        Message::State { total, offset, bytes } => {
            out.extend_from_slice(&total.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
            out.extend_from_slice(bytes);
        }
        Message::Stale(chunk) | Message::Hashes(chunk) | Message::Held(chunk) => {
            out.extend_from_slice(&chunk.first.to_le_bytes());
            out.extend_from_slice(chunk.words.0);
        }
        Message::Abort { reason } | Message::Refuse { reason } => text(out, reason, MAX_REASON),
        Message::Acknowledge { bytes } => out.extend_from_slice(&bytes.to_le_bytes()),
        Message::Request(gfns) => out.extend_from_slice(gfns.0),
        Message::Complete { requests, latency } => {
            out.extend_from_slice(&requests.to_le_bytes());
            out.push(latency.is_some().into());
            let latency = latency.unwrap_or_default();
            for number in [latency.p50, latency.p99, latency.max] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        Message::Verdict { compared, different } => {
            out.extend_from_slice(&compared.to_le_bytes());
            out.extend_from_slice(&different.to_le_bytes());
        }
        Message::Resume { committed } => out.push((*committed).into()),
        Message::Paused | Message::Commit | Message::Done | Message::Ready | Message::Running => {}
    }
}

fn version(out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&VERSION.to_le_bytes());
}

/// As much of a text as the peer takes, cut between characters.
fn text(out: &mut Vec<u8>, text: &str, most: usize) {
    let end = text.floor_char_boundary(most);
    out.extend_from_slice(text.get(..end).unwrap_or_default().as_bytes());
}

/// Appends a message that carries words: a piece of a bitmap, hashes, or a list of pages. `first` is left out for a list.
pub fn write_words(out: &mut Vec<u8>, kind: Kind, first: Option<u64>, words: impl Iterator<Item = u64>) {
    let start = open(out, kind as u8);
    if let Some(first) = first {
        out.extend_from_slice(&first.to_le_bytes());
    }
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
    close(out, start);
}

/// Appends a probe: pages that nobody keeps.
pub fn write_probe<'a>(out: &mut Vec<u8>, pages: impl Iterator<Item = &'a Page>) {
    let start = open(out, Kind::Probe as u8);
    pages.for_each(|page| out.extend_from_slice(page));
    close(out, start);
}

/// A batch of pages that is being written.
#[derive(Debug)]
pub struct Batch {
    start: usize,
    /// The run of zero pages that the last record is: where it lies, the page after it, and its length.
    run: Option<(usize, u64, u16)>,
}

impl Batch {
    /// Begins a batch at the tail of `out`. Nothing else may be appended until it is closed.
    pub fn open(out: &mut Vec<u8>) -> Self {
        Self { start: open(out, Kind::Pages as u8), run: None }
    }

    /// Adds a page that goes like this; the count of zeroes is taken to be 1.
    pub fn add(&mut self, out: &mut Vec<u8>, gfn: u64, body: &Body<'_>) {
        match body {
            Body::Zero { .. } => self.zero(out, gfn),
            Body::Data(page) => self.data(out, gfn, page),
            Body::Same { of } => self.record(out, gfn, record::SAME, 0, &of.to_le_bytes()),
            Body::Delta(bytes) => self.sized(out, gfn, record::DELTA, bytes),
            Body::Lz4(bytes) => self.sized(out, gfn, record::LZ4, bytes),
        }
    }

    /// Adds a page.
    pub fn data(&mut self, out: &mut Vec<u8>, gfn: u64, page: &Page) {
        self.record(out, gfn, record::DATA, 0, page);
    }

    fn sized(&mut self, out: &mut Vec<u8>, gfn: u64, kind: u8, bytes: &[u8]) {
        self.record(out, gfn, kind, u16::try_from(bytes.len()).unwrap_or(u16::MAX), bytes);
    }

    fn record(&mut self, out: &mut Vec<u8>, gfn: u64, kind: u8, argument: u16, bytes: &[u8]) {
        self.run = None;
        out.extend_from_slice(&header(gfn, kind, argument));
        out.extend_from_slice(bytes);
    }

    /// Adds a page of zeroes; neighbours become one record.
    pub fn zero(&mut self, out: &mut Vec<u8>, gfn: u64) {
        self.zeroes(out, gfn, 1);
    }

    /// Adds a run of pages of zeroes.
    pub fn zeroes(&mut self, out: &mut Vec<u8>, first: u64, count: u16) {
        let (mut at, mut begin, mut whole) = (out.len(), first, count);
        if let Some((last, next, before)) = self.run
            && next == first
            && let Some(both) = before.checked_add(count)
        {
            (at, begin, whole) = (last, first.saturating_sub(before.into()), both);
        }
        out.truncate(at);
        out.extend_from_slice(&header(begin, record::ZERO, whole));
        self.run = Some((at, first.saturating_add(count.into()), whole));
    }

    /// Ends the batch. An empty one leaves nothing behind.
    pub fn close(self, out: &mut Vec<u8>) {
        if out.len() == self.start + HEADER {
            out.truncate(self.start);
        } else {
            close(out, self.start);
        }
    }
}

/// A page record's header.
fn header(gfn: u64, kind: u8, argument: u16) -> [u8; HEADER] {
    let [g0, g1, g2, g3, g4, ..] = gfn.to_le_bytes();
    let [a0, a1] = argument.to_le_bytes();
    [g0, g1, g2, g3, g4, kind, a0, a1]
}
