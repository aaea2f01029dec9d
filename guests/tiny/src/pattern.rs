//! The content of page `p` in its generation `g`: both numbers, then words derived from both.

/// Words of a page.
pub const WORDS: usize = 512;

/// The golden ratio's fraction in 64 bits (Knuth, TAOCP 3, 6.4): neighbours differ in many bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A word that is not what it should be.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The word in the page.
    pub word: usize,
    /// What was written.
    pub expected: u64,
    /// What was found.
    pub found: u64,
}

/// Writes a page's content.
pub fn fill(place: &mut [u64; WORDS], page: u64, generation: u64) {
    let mut word = seed(page, generation);
    for place in place.iter_mut() {
        *place = word;
        word = word.wrapping_add(STEP);
    }
    place[0] = page;
    place[1] = generation;
}

/// The first word that is wrong.
pub fn check(place: &[u64; WORDS], page: u64, generation: u64) -> Option<Mismatch> {
    let mut expected = seed(page, generation);
    let mut difference = (place[0] ^ page) | (place[1] ^ generation);
    for found in place.iter().skip(2) {
        difference |= found ^ expected.wrapping_add(STEP.wrapping_mul(2));
        expected = expected.wrapping_add(STEP);
    }
    if difference == 0 { None } else { first_mismatch(place, page, generation) }
}

fn seed(page: u64, generation: u64) -> u64 {
    (page << 32 | generation).wrapping_mul(STEP)
}

fn first_mismatch(place: &[u64; WORDS], page: u64, generation: u64) -> Option<Mismatch> {
    let mut right = [0; WORDS];
    fill(&mut right, page, generation);
    let mut pairs = place.iter().zip(right).enumerate();
    let (word, (found, expected)) = pairs.find(|(_, (found, expected))| *found != expected)?;
    Some(Mismatch { word, expected, found: *found })
}

/// Pages written in turn, round and round: from how many writes there were follows the generation of each page,
/// so no table of them is needed that a migration could lose together with the pages.
#[derive(Debug)]
pub struct Turns {
    pages: u64,
    next: u64,
    round: u64,
}

impl Turns {
    /// `pages` pages, all in generation 0. More than zero of them.
    pub fn new(pages: u64) -> Self {
        Self { pages, next: 0, round: 0 }
    }

    /// The page that is next, and its new generation.
    pub fn advance(&mut self) -> (u64, u64) {
        let turn = (self.next, self.round + 1);
        self.next += 1;
        if self.next >= self.pages {
            (self.next, self.round) = (0, self.round + 1);
        }
        turn
    }

    /// The generation that a page is in.
    pub fn generation(&self, page: u64) -> u64 {
        self.round + u64::from(page < self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_right_in_its_own_generation_and_place_only() {
        let mut place = [0; WORDS];
        fill(&mut place, 5, 9);
        assert_eq!(check(&place, 5, 9), None);
        assert_eq!(check(&place, 5, 10).map(|mismatch| mismatch.word), Some(1));
        assert_eq!(check(&place, 4, 9).map(|mismatch| mismatch.word), Some(0));
        for word in 0..WORDS {
            place[word] ^= 2;
            assert_eq!(check(&place, 5, 9).map(|mismatch| mismatch.word), Some(word));
            place[word] ^= 2;
        }
    }

    #[test]
    fn the_generation_of_each_page_follows_from_the_turns() {
        let mut turns = Turns::new(3);
        let mut generations = [0; 3];
        for _ in 0..11 {
            let (page, generation) = turns.advance();
            generations[page as usize] = generation;
            for (page, generation) in generations.iter().enumerate() {
                assert_eq!(turns.generation(page as u64), *generation);
            }
        }
    }
}
