//! Wild values.
use crate::options::Options;
/// Runs.
pub fn run(_options: &Options) {}
