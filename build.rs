//! Hands the linker script to the linker, for the bare-metal image only.

fn main() {
    println!("cargo:rerun-if-changed=linker.ld");
    println!("cargo:rerun-if-changed=boot/entry.s");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
        println!("cargo:rustc-link-arg-bin=qavisor=-T{root}/linker.ld");
        println!("cargo:rustc-link-arg-bin=qavisor=--no-dynamic-linker");
        println!("cargo:rustc-link-arg-bin=qavisor=-zmax-page-size=4096");
    }
}
