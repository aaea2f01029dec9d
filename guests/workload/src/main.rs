//! guest workload
fn main() {}
