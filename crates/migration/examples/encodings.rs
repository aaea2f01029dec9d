//! Bytes of a page record by encoding, for pages as guests have them. `cargo run --package migration --example encodings`

use migration::encoding::{delta, lz4};
use migration::wire::{HEADER, PAGE_RECORD, SAME_RECORD};
use migration::{PAGE_SIZE, Page, ZERO_PAGE, is_zero};

/// Numbers without a pattern, the same in every run (Marsaglia, 2003).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

fn words(mut word: impl FnMut(usize) -> u64) -> Page {
    let mut page = ZERO_PAGE;
    page.as_chunks_mut::<8>().0.iter_mut().enumerate().for_each(|(at, place)| *place = word(at).to_le_bytes());
    page
}

fn text(noise: &mut Noise) -> Page {
    let words = ["page", "guest", "the", "of", "memory", "dirty", "round", "and", "host", "is", "kernel", "0x", "link"];
    let bytes: Vec<u8> = core::iter::repeat_with(|| words[noise.below(words.len())].bytes().chain(*b" "))
        .flatten()
        .take(PAGE_SIZE)
        .collect();
    bytes.try_into().unwrap_or(ZERO_PAGE)
}

/// The page, and the same after the guest has written to it.
fn pages() -> Vec<(&'static str, Page, Page)> {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let text = text(&mut noise);
    let counters = words(|at| 1000 + 3 * at as u64);
    let table = words(|at| 0x8000_0000_0000_0067 | (0x1234 + at as u64) << 12);
    let objects =
        words(|at| if at % 4 < 2 { 0xffff_8880_0000_0000 | (noise.next() % 0x100_0000) << 3 } else { at as u64 % 4 });
    let random = words(|_| noise.next());
    let half = words(|at| if at < 256 { noise.next() } else { 0 });
    let change = |page: &Page, range: std::ops::Range<usize>, noise: &mut Noise| {
        let mut new = *page;
        new[range].iter_mut().for_each(|byte| *byte = noise.next() as u8);
        new
    };
    vec![
        ("zero", ZERO_PAGE, ZERO_PAGE),
        ("text, then the same", text, text),
        ("text, then one line of 64 bytes", text, change(&text, 640..704, &mut noise)),
        ("counters, then all of them", counters, words(|at| 1001 + 3 * at as u64)),
        ("page table, then four entries", table, change(&table, 800..832, &mut noise)),
        ("objects with pointers, then a quarter", objects, change(&objects, 0..1024, &mut noise)),
        ("half random, then half of that", half, change(&half, 0..1024, &mut noise)),
        ("random, then one byte", random, change(&random, 77..78, &mut noise)),
        ("random, then all of it", random, change(&random, 0..PAGE_SIZE, &mut noise)),
    ]
}

fn main() {
    println!(
        "{:38} {:>5} {:>5} {:>5} {:>5} {:>5}",
        "page, then what is written", "whole", "zero", "same", "lz4", "delta"
    );
    let mut out = [0; lz4::ROOM];
    for (name, old, new) in pages() {
        let zero = is_zero(&old).then_some(0);
        let packed = lz4::encode(&old, &mut out);
        // No version is kept of a page of zeroes.
        let room = out.get_mut(..PAGE_SIZE - 1).filter(|_| !is_zero(&old));
        let changed = room.and_then(|room| delta::encode(&old, &new, room));
        let [zero, packed, changed] =
            [zero, packed, changed].map(|length| length.map_or("-".into(), |length| (HEADER + length).to_string()));
        println!("{name:38} {PAGE_RECORD:>5} {zero:>5} {SAME_RECORD:>5} {packed:>5} {changed:>5}");
    }
    println!("-: does not apply, or is not shorter than the page. same: where another page like it was sent.");
}
