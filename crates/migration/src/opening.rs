//! What a source that connects wants, before there is an engine for it.

use crate::wire::{Decoder, Item, Message};

/// The first words of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Not enough has come to tell.
    Unknown,
    /// It resumes the migration with this session, a claim: the stream belongs to the [`crate::Destination`] that has it.
    Resumes(u64),
    /// Anything else, also what cannot be read: a new [`crate::Destination`] will say so.
    Begins,
}

impl Opening {
    /// Looks at all bytes that have come so far.
    #[must_use]
    pub fn of(mut bytes: &[u8]) -> Self {
        match Decoder::default().next(&mut bytes) {
            Ok(None) => Self::Unknown,
            Ok(Some(Item::Message(Message::Recover { session }))) => Self::Resumes(session),
            Ok(Some(_)) | Err(_) => Self::Begins,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Opening;
    use crate::wire::{self, Message, Numbering};
    use alloc::vec::Vec;

    fn stream(message: &Message<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::write(&mut bytes, message);
        let end = bytes.len();
        Numbering::default().stamp(&mut bytes, 0, end);
        bytes
    }

    #[test]
    fn a_stream_that_resumes_is_told_from_every_other_once_its_first_message_is_there() {
        let resumes = stream(&Message::Recover { session: 77 });
        for cut in 0..resumes.len() {
            assert_eq!(Opening::of(&resumes[..cut]), Opening::Unknown, "{cut}");
        }
        assert_eq!(Opening::of(&resumes), Opening::Resumes(77));
        assert_eq!(Opening::of(&[resumes, Vec::from([0; 3])].concat()), Opening::Resumes(77));
        assert_eq!(Opening::of(&stream(&Message::Done)), Opening::Begins);
        assert_eq!(Opening::of(b"GET / HTTP/1.1\r\n"), Opening::Begins);
    }
}
