//! A harvest's pages as text, short enough for a line that is slow.
//!
//! A run is two numbers: the pages left out since the last run's end (since page 0 for the first of a line), and the
//! pages in it. The numbers are postcard's varints (LEB128: seven bits a byte, the lowest first), the bytes base64
//! (RFC 4648, without padding). Each line can be read without the others.

use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Bytes of runs in a line: with the rest of its event it stays below [`super::line::LONGEST_LINE`] bytes of text.
const LINE: usize = 660;
/// What an event takes beside its runs and the VM's name, at most.
const FRAME: usize = 64;

/// The pages, given in rising order, as lines; nothing if their events would take more than `room` bytes.
pub fn lines(pages: impl Iterator<Item = u64>, room: usize) -> Option<Vec<String>> {
    let mut lines = Lines { done: Vec::new(), line: Vec::new(), end: 0, room };
    let mut run: Option<(u64, u64)> = None;
    for page in pages {
        run = match run {
            Some((start, end)) if page == end => Some((start, page.saturating_add(1))),
            _ => {
                lines.run(run)?;
                Some((page, page.saturating_add(1)))
            }
        };
    }
    lines.run(run)?;
    lines.flush()?;
    Some(lines.done)
}

struct Lines {
    done: Vec<String>,
    line: Vec<u8>,
    /// The page after the line's last run.
    end: u64,
    room: usize,
}

impl Lines {
    fn run(&mut self, run: Option<(u64, u64)>) -> Option<()> {
        let Some((start, end)) = run else { return Some(()) };
        // Two varints of 64 bits have at most 20 bytes.
        if self.line.len() + 20 > LINE {
            self.flush()?;
        }
        let numbers = (start.saturating_sub(self.end), end.saturating_sub(start));
        self.line = postcard::to_extend(&numbers, core::mem::take(&mut self.line)).ok()?;
        self.end = end;
        Some(())
    }

    /// Ends the line. Nothing if there is no room for it.
    fn flush(&mut self) -> Option<()> {
        if self.line.is_empty() {
            return Some(());
        }
        let text = STANDARD_NO_PAD.encode(&self.line);
        self.room = self.room.checked_sub(text.len() + FRAME)?;
        self.done.push(text);
        self.line.clear();
        self.end = 0;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn read_back(lines: &[String]) -> Vec<u64> {
        let pages = |line: &String| lab::watch::runs::Runs::from_text(line).expect(line).pages().collect::<Vec<_>>();
        lines.iter().flat_map(pages).collect()
    }

    #[test]
    fn neighbours_are_one_run_and_no_page_is_no_line() {
        assert_eq!(lines([512, 513, 514, 600].into_iter(), 1000), Some(alloc::vec!["gAQDVQE".into()]));
        assert_eq!(lines([].into_iter(), 0), Some(Vec::new()));
    }

    #[test]
    fn what_does_not_fit_is_left_out_as_a_whole() {
        let scattered = || (0..2000).map(|page| page * 3);
        let all = lines(scattered(), 100_000).expect("it fits");
        assert!(all.len() > 1);
        let size: usize = all.iter().map(|line| line.len() + FRAME).sum();
        assert_eq!(lines(scattered(), size), Some(all));
        assert_eq!(lines(scattered(), size - 1), None);
    }

    proptest! {
        #[test]
        fn the_lab_reads_what_the_image_writes(pages in proptest::collection::btree_set(0u64..1 << 40, 0..2000), dense in 0u64..5000) {
            let pages: BTreeSet<u64> = pages.into_iter().chain(7..7 + dense).collect();
            let lines = lines(pages.iter().copied(), usize::MAX).expect("it fits");
            prop_assert!(lines.iter().all(|line| line.len() + FRAME + super::super::command::LONGEST_NAME <= super::super::line::LONGEST_LINE));
            prop_assert_eq!(read_back(&lines), pages.into_iter().collect::<Vec<_>>());
        }
    }
}
