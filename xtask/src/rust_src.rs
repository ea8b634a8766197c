//! Source of the standard library: `core` is built from it for the BPF target.

use std::{path::PathBuf, process::Command};

use anyhow::bail;

use crate::{paths, process};

/// `None` when the toolchain has it itself.
pub fn get() -> anyhow::Result<Option<PathBuf>> {
    let sysroot = process::read(
        Command::new("rustc")
            .args(["--print", "sysroot"])
            .current_dir(paths::root()),
    )?;
    if PathBuf::from(sysroot.trim())
        .join("lib/rustlib/src/rust/library")
        .is_dir()
    {
        return Ok(None);
    }
    bail!("not there yet")
}
