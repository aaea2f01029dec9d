//! Links the guest as a flat file that is a bzImage, for the bare-metal target only.

fn main() {
    println!("cargo:rerun-if-changed=tiny.ld");
    println!("cargo:rerun-if-changed=src/boot.s");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
        println!("cargo:rustc-link-arg-bin=guest-tiny=-T{here}/tiny.ld");
        println!("cargo:rustc-link-arg-bin=guest-tiny=--no-dynamic-linker");
        println!("cargo:rustc-link-arg-bin=guest-tiny=--oformat=binary");
    }
}
