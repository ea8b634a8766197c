//! What the linker of the programs is told.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Without it LLVM calls a loop over bytes for every small copy: slower, and
    // more than half of the verifier's work.
    println!("cargo::rustc-link-arg-bins=--disable-expand-memcpy-in-order");
}
