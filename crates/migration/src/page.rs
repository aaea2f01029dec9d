//! One page of a guest's memory.

use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a page (4 KiB: the unit of dirty tracking and of the stream).
pub const PAGE_SIZE: usize = 4096;

/// The bytes of one page.
pub type Page = [u8; PAGE_SIZE];

/// The page that every page of a new VM is.
pub static ZERO_PAGE: Page = [0; PAGE_SIZE];

/// Bytes that are looked at before the scan may stop: one cache line, so that a page that is not zero costs one miss.
const LINE: usize = 64;

/// Whether a page holds zeroes alone. Most pages that do not show it in their first line.
#[must_use]
pub fn is_zero(page: &Page) -> bool {
    let (lines, _) = page.as_chunks::<LINE>();
    lines.iter().all(|line| {
        let (words, _) = line.as_chunks::<8>();
        words.iter().fold(0, |all, word| all | u64::from_ne_bytes(*word)) == 0
    })
}

/// The hash by which two hosts compare a page without sending it. Not a defence against forgery: it finds pages that
/// were lost or mixed up.
#[must_use]
pub fn hash(page: &Page) -> u64 {
    xxh3_64(page)
}

#[cfg(test)]
mod tests {
    use super::{PAGE_SIZE, ZERO_PAGE, is_zero};

    #[test]
    fn one_byte_anywhere_makes_a_page_not_zero() {
        assert!(is_zero(&ZERO_PAGE));
        for at in 0..PAGE_SIZE {
            let mut page = ZERO_PAGE;
            page[at] = 1;
            assert!(!is_zero(&page), "byte {at}");
        }
    }
}
