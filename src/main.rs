//! The bare-metal image. All of it is in the library; this binary only pulls it in, under the linker script that
//! lays it out.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
use qavisor as _;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("qavisor runs on a bare machine: build the image with `cargo kbuild`, start it with `cargo lab`");
    std::process::exit(2);
}
