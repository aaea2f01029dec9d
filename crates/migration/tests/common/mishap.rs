//! What can befall a message on its way.

use migration::Micros;
use migration::wire::{HEADER, Numbering};
use std::collections::VecDeque;

/// What befalls one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// It is lost; what follows is not.
    Lost,
    /// It comes twice.
    Twice,
    /// It, and all that follows, comes so much later.
    Late(Micros),
    /// It and all that follows is lost, and nobody is told.
    Silence,
    /// The link breaks before it has come.
    CutBefore,
    /// The link breaks when it has come.
    CutAfter,
    /// Not a fault: the user gives the migration up just before it comes.
    Cancel,
}

/// What came of some bytes.
#[derive(Debug, Default)]
pub struct Passed {
    pub bytes: Vec<u8>,
    pub cut: bool,
    pub cancel: bool,
}

/// Changes messages, given the kind, as a broken engine would: their numbers are those of the changed stream.
pub type Rewrite = Box<dyn FnMut(u8, Vec<u8>) -> Vec<u8>>;

/// One direction of a link, message by message.
#[derive(Default)]
pub struct Tap {
    /// Bytes of a message that is not whole.
    partial: Vec<u8>,
    waiting: VecDeque<Vec<u8>>,
    /// Messages that passed, or were lost.
    pub count: u64,
    pub mishap: Option<(u64, Mishap)>,
    until: Option<Micros>,
    silent: bool,
    rewrite: Option<Rewrite>,
    numbering: Numbering,
}

impl Tap {
    pub fn with(mishap: Option<(u64, Mishap)>) -> Self {
        Self { mishap, ..Self::default() }
    }

    pub fn rewriting(rewrite: impl FnMut(u8, Vec<u8>) -> Vec<u8> + 'static) -> Self {
        Self { rewrite: Some(Box::new(rewrite)), ..Self::default() }
    }

    /// Takes in what the link delivers, and gives out the messages that pass by now.
    pub fn pass(&mut self, bytes: &[u8], now: Micros) -> Passed {
        self.partial.extend_from_slice(bytes);
        while let Some(header) = self.partial.first_chunk::<HEADER>() {
            let length = HEADER + u32::from_le_bytes(header[4..].try_into().unwrap()) as usize;
            if self.partial.len() < length {
                break;
            }
            self.waiting.push_back(self.partial.drain(..length).collect());
        }
        let mut passed = Passed::default();
        while !passed.cut && !passed.cancel && self.until.is_none_or(|until| now >= until) {
            self.until = None;
            let mishap = self.mishap.filter(|(at, _)| *at == self.count).map(|(_, mishap)| mishap);
            if self.waiting.is_empty() {
                break;
            }
            match mishap {
                Some(Mishap::Late(time)) => {
                    (self.until, self.mishap) = (Some(now + time), None);
                    continue;
                }
                Some(Mishap::Cancel) => {
                    (passed.cancel, self.mishap) = (true, None);
                    continue;
                }
                _ => {}
            }
            let mut message = self.waiting.pop_front().unwrap();
            self.count += 1;
            if let Some(rewrite) = &mut self.rewrite {
                message = rewrite(message[0], message);
                let end = message.len();
                self.numbering.stamp(&mut message, 0, end);
            }
            self.silent |= mishap == Some(Mishap::Silence);
            passed.cut = matches!(mishap, Some(Mishap::CutBefore | Mishap::CutAfter));
            if self.silent || matches!(mishap, Some(Mishap::Lost | Mishap::CutBefore)) {
                continue;
            }
            passed.bytes.extend_from_slice(&message);
            if mishap == Some(Mishap::Twice) {
                passed.bytes.extend_from_slice(&message);
            }
        }
        passed
    }

    /// Whether messages wait for their time.
    pub fn holds(&self) -> bool {
        self.until.is_some()
    }
}
