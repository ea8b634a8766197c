//! `build` and `run`: the release binary, and starting it with the rights it needs.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, bail};

use crate::{packages, paths, process, setup};

/// Setup, then `target/release/tracer`.
pub fn build() -> anyhow::Result<()> {
    setup::build()?;
    process::run(&mut process::cargo([
        "build",
        "--release",
        "--locked",
        "-p",
        "tracer",
    ]))
}

/// Builds, then becomes tracer.
pub fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    build()?;
    let tracer = paths::tracer();
    let mut command = if packages::is_root() {
        Command::new(&tracer)
    } else if let Some(sudo) = process::find("sudo") {
        let mut through = Command::new(sudo);
        through.arg("-E").arg(&tracer);
        through
    } else {
        bail!(
            "tracer needs root here, and there is no sudo: run {} as root",
            tracer.display()
        );
    };
    let error = command.args(arguments).exec();
    Err(error).with_context(|| format!("cannot start `{}`", process::line(&command)))
}
