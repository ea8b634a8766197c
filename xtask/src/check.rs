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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use crate::paths;

    fn dependencies(manifest: &str) -> BTreeSet<String> {
        let text = fs::read_to_string(paths::root().join(manifest)).expect("it is there");
        let manifest: toml::Table = text.parse().expect("cargo reads it");
        let table = manifest["dependencies"].as_table().expect("it has some");
        table.keys().cloned().collect()
    }

    /// It builds the same modules, and nothing else would say before somebody
    /// fuzzes.
    #[test]
    fn the_fuzz_target_has_what_tracer_depends_on() {
        let (tracer, fuzz) = (
            dependencies("tracer/Cargo.toml"),
            dependencies("fuzz/Cargo.toml"),
        );
        let missing: Vec<_> = tracer.difference(&fuzz).collect();
        assert!(missing.is_empty(), "fuzz/Cargo.toml lacks {missing:?}");
    }
}
