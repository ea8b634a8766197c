//! Builds the kernel side and leaves the object where `main` includes it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

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
    .context("building the kernel side failed; `cargo xtask setup` brings the tools it needs")?;
    slim(&Path::new(&env::var("OUT_DIR")?).join("tracer-probes"))
}

/// Takes the debug information out of the object, which is most of it: BTF,
/// made from it, is what the kernel reads.
fn slim(object: &Path) -> anyhow::Result<()> {
    let whole = fs::read(object)?;
    let mut builder = Builder::read(whole.as_slice())?;
    for section in builder.sections.iter_mut() {
        let name = section.name.to_string();
        let name = name.strip_prefix(".rel").unwrap_or(&name);
        section.delete |= name.starts_with(".debug_");
    }
    // LLVM puts the sections' names among the symbols'.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut slim = Vec::new();
    builder.write(&mut slim)?;
    fs::write(object, slim)?;
    Ok(())
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
