//! Qavisor
fn main() {}
