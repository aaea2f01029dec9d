//! What is to go out, in order.

use crate::wire::{self, Kind, Message, Numbering};
use alloc::vec::Vec;

/// Whole messages, of the first of which a part may have gone.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// What is left of the message that has begun to go.
    begun: usize,
    numbering: Numbering,
}

impl Outbox {
    /// Appends a message.
    pub fn say(&mut self, message: &Message<'_>) {
        wire::write(&mut self.bytes, message);
    }

    /// Appends a message that carries words.
    pub fn say_words(&mut self, kind: Kind, first: Option<u64>, words: impl Iterator<Item = u64>) {
        wire::write_words(&mut self.bytes, kind, first, words);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets the messages of which nothing has gone.
    pub fn take_back(&mut self) {
        self.bytes.truncate(self.begun);
    }

    /// Moves at most `room` bytes to `out`, and returns how many. A message has its number when it begins to go, so
    /// that one taken back leaves no gap.
    pub fn leave(&mut self, room: usize, out: &mut Vec<u8>) -> usize {
        let count = room.min(self.bytes.len());
        let end = self.numbering.stamp(&mut self.bytes, self.begun, count);
        out.extend(self.bytes.drain(..count));
        self.begun = end.saturating_sub(count);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::Outbox;
    use crate::wire::{Decoder, Item, Message};
    use alloc::string::String;
    use alloc::vec::Vec;

    #[test]
    fn what_is_taken_back_leaves_neither_a_gap_nor_half_a_message() {
        for gone in 0..40 {
            let (mut outbox, mut out) = (Outbox::default(), Vec::new());
            for bytes in [1, 2] {
                outbox.say(&Message::Acknowledge { bytes });
            }
            outbox.leave(gone, &mut out);
            outbox.take_back();
            outbox.say(&Message::Abort { reason: String::new() });
            while outbox.leave(3, &mut out) > 0 {}
            let (mut decoder, mut rest, mut last) = (Decoder::default(), &out[..], false);
            while let Some(item) = decoder.next(&mut rest).unwrap() {
                last = matches!(item, Item::Message(Message::Abort { .. }));
            }
            assert!(last && rest.is_empty(), "{gone} bytes gone");
        }
    }
}
