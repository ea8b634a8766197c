//! bpf-linker, of exactly the version whose LLVM reads our rustc's bitcode.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{paths, process};

/// 0.10 is the last line that borrows rustc's own LLVM instead of needing one.
const VERSION: &str = "0.10.4";

/// The linker, built first where it is missing.
pub fn get() -> anyhow::Result<PathBuf> {
    let home = paths::tools().join(format!("bpf-linker-{VERSION}"));
    let linker = home.join("bin/bpf-linker");
    if version(&linker).is_some_and(|found| found == VERSION) {
        return Ok(linker);
    }
    eprintln!("setup: building bpf-linker {VERSION} (about two minutes, once)");
    let mut install = process::cargo(["install", "bpf-linker", "--locked", "--force", "--version"]);
    install.arg(VERSION).arg("--root").arg(&home);
    // It is a tool of the host: flags meant for this workspace are not for it.
    install
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    process::run(&mut install).with_context(|| {
        format!("bpf-linker {VERSION} cannot be had; is the crate registry reachable?")
    })?;
    let found = version(&linker).unwrap_or_else(|| "none".to_owned());
    ensure!(
        found == VERSION,
        "{} says it is version {found}, not {VERSION}: remove {} and try again",
        linker.display(),
        home.display(),
    );
    Ok(linker)
}

/// What the program says about itself: `bpf-linker 0.10.4`.
fn version(linker: &Path) -> Option<String> {
    if !linker.is_file() {
        return None;
    }
    let said = process::read(Command::new(linker).arg("--version")).ok()?;
    said.split_whitespace().nth(1).map(str::to_owned)
}
