//! Builds the kernel side and leaves the object where `main` includes it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-env-changed=RUSTUP_TOOLCHAIN");
    // aya-build watches the kernel side only; what both sides share matters too.
    println!("cargo::rerun-if-changed=../tracer-common");
    println!("cargo::rerun-if-changed=../target/tools/build-env");
    let toolchain = toolchain()?;
    // SAFETY: a build script has one thread at this point.
    unsafe {
        // The BPF target is not a stable one: this lets the pinned stable
        // toolchain build `core` for it.
        env::set_var("RUSTC_BOOTSTRAP", "1");
        for (key, value) in tools()? {
            env::set_var(key, value);
        }
    }
    aya_build::build_ebpf(
        [aya_build::Package {
            name: "tracer-ebpf",
            root_dir: "../tracer-ebpf",
            ..Default::default()
        }],
        aya_build::Toolchain::Custom(&toolchain),
    )
    .context("building the kernel side failed; `cargo xtask setup` brings the tools it needs")
}

/// The toolchain that builds this crate builds the kernel side too.
fn toolchain() -> anyhow::Result<String> {
    if let Ok(name) = env::var("RUSTUP_TOOLCHAIN") {
        return Ok(name);
    }
    let pinned = fs::read_to_string("../rust-toolchain.toml")?;
    pinned
        .lines()
        .find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'))
        .map(str::to_owned)
        .context("rust-toolchain.toml names no channel")
}

/// Tools that `cargo xtask setup` brought, as environment for the build.
fn tools() -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let found = Path::new("../target/tools/build-env");
    let Ok(text) = fs::read_to_string(found) else {
        return Ok(Vec::new());
    };
    let mut variables = Vec::new();
    for line in text.lines() {
        let (key, value) = line
            .split_once('=')
            .with_context(|| format!("{}: {line:?}", found.display()))?;
        match key {
            "BPF_LINKER" => {
                variables.push((
                    "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER",
                    PathBuf::from(value),
                ));
            }
            "RUST_SRC" => {
                variables.push(("__CARGO_TESTS_ONLY_SRC_ROOT", PathBuf::from(value)));
            }
            _ => {}
        }
    }
    Ok(variables)
}
