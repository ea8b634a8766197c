//! `check`: formatting and lints, of the user side and of the kernel side.

use crate::{process, setup};

/// Every lint is an error.
const DENY: [&str; 3] = ["--", "-D", "warnings"];

pub fn command() -> anyhow::Result<()> {
    let tools = setup::build()?;
    process::run(&mut process::cargo(["fmt", "--all", "--check"]))?;

    let mut user = process::cargo(["clippy", "--locked", "--workspace", "--all-targets"]);
    user.args(["--exclude", "tracer-ebpf"]).args(DENY);
    process::run(&mut user)?;

    // The kernel side has a target, flags and a directory of its own: it must
    // not make the user side build again.
    let mut kernel = process::cargo(["clippy", "--locked", "-p", "tracer-ebpf", "--release"]);
    kernel
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"])
        .args(["--target-dir", "target/bpf-clippy"])
        .args(DENY)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"");
    tools.apply(&mut kernel);
    process::run(&mut kernel)
}
