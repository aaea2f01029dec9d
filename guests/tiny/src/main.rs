//! guest tiny
fn main() {}
