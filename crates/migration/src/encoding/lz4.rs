//! A page by itself, as an LZ4 block.

use crate::{PAGE_SIZE, Page};
use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

/// Room that [`encode`] needs, whatever the page.
pub const ROOM: usize = get_maximum_output_size(PAGE_SIZE);

/// Writes the page's block. Returns its length, or none if it is not shorter than the page.
#[must_use]
pub fn encode(page: &Page, out: &mut [u8]) -> Option<usize> {
    compress_into(page, out).ok().filter(|length| *length < PAGE_SIZE)
}

/// The page that a block holds; none if it does not hold exactly one.
#[must_use]
pub fn decode(block: &[u8]) -> Option<Page> {
    let mut page = [0; PAGE_SIZE];
    // It never writes past the page: a block that would is an error.
    (decompress_into(block, &mut page).ok()? == PAGE_SIZE).then_some(page)
}

#[cfg(test)]
mod tests {
    use super::{ROOM, decode, encode};
    use crate::{PAGE_SIZE, Page};
    use proptest::prelude::*;

    #[test]
    fn a_block_of_more_or_less_than_a_page_is_none() {
        for length in [0, 1, PAGE_SIZE - 1, PAGE_SIZE + 1, 1 << 20] {
            let mut out = vec![0; lz4_flex::block::get_maximum_output_size(length)];
            let size = lz4_flex::block::compress_into(&vec![5; length], &mut out).unwrap();
            assert_eq!(decode(&out[..size]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn what_is_decoded_is_the_page(
            runs in prop::collection::vec((1usize..300, any::<u8>()), 1..60),
            noise in prop::collection::vec(any::<u8>(), 0..PAGE_SIZE),
        ) {
            let mut bytes: Vec<u8> = runs.iter().flat_map(|(length, value)| vec![*value; *length]).collect();
            bytes.extend(&noise);
            bytes.resize(PAGE_SIZE, 9);
            let page: Page = bytes.try_into().unwrap();
            let mut out = [0; ROOM];
            match encode(&page, &mut out) {
                Some(length) => prop_assert!(length < PAGE_SIZE && decode(&out[..length]) == Some(page)),
                None => prop_assert!(noise.len() > PAGE_SIZE / 2),
            }
        }

        #[test]
        fn no_bytes_can_panic_it(bytes in prop::collection::vec(any::<u8>(), 0..PAGE_SIZE)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn no_altered_block_can_panic_it(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in 0usize..40,
        ) {
            let page: Page = core::array::from_fn(|at| (at / 7 * (at % 3)) as u8);
            let mut out = [0; ROOM];
            let length = encode(&page, &mut out).unwrap();
            let mut block = out[..length].to_vec();
            for (at, value) in changes {
                let at = at.index(block.len());
                block[at] = value;
            }
            block.truncate(length.saturating_sub(cut));
            let _ = decode(&block);
        }
    }
}
