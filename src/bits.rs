//! temp
use bitvec::prelude::*;
use alloc::vec::Vec;
/// b
#[derive(Debug, Clone)]
pub struct Bitmap(BitVec<u64, Lsb0>);
#[allow(missing_docs)]
impl Bitmap {
    pub fn new(n: u64) -> Self { Self(bitvec![u64, Lsb0; 0; n as usize]) }
    pub fn set(&mut self, i: u64) { self.0.set(i as usize, true) }
    pub fn clear(&mut self, i: u64) { self.0.set(i as usize, false) }
    pub fn test(&self, i: u64) -> bool { self.0.get(i as usize).is_some_and(|b| *b) }
    pub fn count(&self) -> u64 { self.0.as_raw_slice().iter().map(|w| u64::from(w.count_ones())).sum() }
    pub fn clear_all(&mut self) { self.0.fill(false) }
    pub fn set_all(&mut self) { self.0.fill(true) }
    pub fn or(&mut self, o: &Self) { for (a, b) in self.0.as_raw_mut_slice().iter_mut().zip(o.0.as_raw_slice()) { *a |= b } }
    pub fn v(&self) -> Vec<u64> { Vec::new() }
}
