//! `setup`: brings what a build (and, on request, a virtual machine) needs and
//! is not there yet.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Context as _;

use crate::{bpf_linker, packages, paths, process, rust_src};

/// What builds of the kernel side need to be told.
#[derive(Debug, Clone)]
pub struct BuildEnv {
    pub bpf_linker: PathBuf,
    /// The `library` directory, when the toolchain has none of its own.
    pub rust_src: Option<PathBuf>,
}

impl BuildEnv {
    /// The file that `tracer/build.rs` reads.
    fn render(&self) -> String {
        let mut text = format!("BPF_LINKER={}\n", self.bpf_linker.display());
        if let Some(library) = &self.rust_src {
            text.push_str(&format!("RUST_SRC={}\n", library.display()));
        }
        text
    }

    /// The same for a cargo that we start ourselves for the BPF target.
    pub fn apply(&self, cargo: &mut Command) {
        cargo
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.bpf_linker);
        if let Some(library) = &self.rust_src {
            cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
        }
    }
}

/// All a build needs; silent and fast when it is there.
pub fn build() -> anyhow::Result<BuildEnv> {
    let tools = paths::tools();
    paths::make(&tools)?;
    let found = BuildEnv {
        bpf_linker: bpf_linker::get()?,
        rust_src: rust_src::get()?,
    };
    // Only when it differs: its modification time makes cargo build again.
    let file = tools.join("build-env");
    let text = found.render();
    if fs::read_to_string(&file).ok().as_deref() != Some(&text) {
        paths::write(&file, text.as_bytes())?;
        eprintln!("setup: wrote {}", file.display());
    }
    Ok(found)
}

/// What scenarios on the running kernel need.
pub fn native() -> anyhow::Result<()> {
    packages::get(&packages::NETWORK)
}

/// What some unit tests run; they do without where it cannot be had.
pub fn readers() {
    if let Err(error) = packages::get(&packages::READERS) {
        eprintln!("setup: some tests will be skipped: {error:#}");
    }
}

/// All a virtual machine needs besides a kernel.
pub fn vm() -> anyhow::Result<()> {
    packages::get(&packages::GUEST)
}

/// The `setup` sub-command.
pub fn command(with_vm: bool) -> anyhow::Result<()> {
    let found = build()?;
    println!("setup: bpf-linker: {}", found.bpf_linker.display());
    match &found.rust_src {
        Some(library) => println!("setup: rust-src: {}", library.display()),
        None => println!("setup: rust-src: the toolchain's own"),
    }
    if with_vm {
        vm()?;
        let version = process::read(Command::new("qemu-system-x86_64").arg("--version"))
            .context("qemu-system-x86_64 is there but does not run")?;
        println!("setup: vm: {}", version.lines().next().unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_env_names_the_source_only_when_the_toolchain_has_none() {
        let mut found = BuildEnv {
            bpf_linker: "/a/bpf-linker".into(),
            rust_src: None,
        };
        assert_eq!(found.render(), "BPF_LINKER=/a/bpf-linker\n");
        found.rust_src = Some("/b/library".into());
        assert_eq!(
            found.render(),
            "BPF_LINKER=/a/bpf-linker\nRUST_SRC=/b/library\n"
        );
    }
}
