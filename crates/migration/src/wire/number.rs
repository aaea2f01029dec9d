//! The messages of one direction of one link are numbered: one that was lost, or came twice, is not passed over.

use super::HEADER;

/// Numbers have 24 bits and begin anew after the last.
const NUMBERS: u32 = 1 << 24;

/// The number of the next message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbering {
    next: u32,
}

impl Numbering {
    /// The next number, as a header holds it.
    pub fn take(&mut self) -> [u8; 3] {
        let [n0, n1, n2, _] = self.next.to_le_bytes();
        self.next = (self.next + 1) % NUMBERS;
        [n0, n1, n2]
    }

    /// Numbers the messages that begin in `bytes` at or after `from` and before `until`: each where the one before it
    /// ends. Returns where the last of them ends.
    pub fn stamp(&mut self, bytes: &mut [u8], from: usize, until: usize) -> usize {
        let mut at = from;
        while at < until
            && let Some([_, n0, n1, n2, length @ ..]) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<HEADER>)
        {
            [*n0, *n1, *n2] = self.take();
            at = at.saturating_add(HEADER).saturating_add(u32::from_le_bytes(*length) as usize);
        }
        at
    }
}
