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
/// made from it, is what the kernel reads. Of that, the source line of each
/// instruction goes too: it only decorates the verifier's log, and would be
/// parsed, kept and checked at each start. `TRACER_LINES=1` leaves it in.
fn slim(object: &Path) -> anyhow::Result<()> {
    println!("cargo::rerun-if-env-changed=TRACER_LINES");
    let lines = env::var_os("TRACER_LINES").is_some();
    let whole = fs::read(object)?;
    let mut builder = Builder::read(whole.as_slice())?;
    for section in builder.sections.iter_mut() {
        let name = section.name.to_string();
        // Loaders take the values that are there already.
        section.delete |= name == ".rel.BTF" || name == ".rel.BTF.ext";
        if name == ".BTF.ext"
            && !lines
            && let SectionData::Data(data) = &section.data
        {
            section.data = SectionData::Data(without_lines(data)?.into());
        }
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

/// The section `.BTF.ext` (`struct btf_ext_header` and what it points to)
/// without the information about lines, which comes behind that about functions.
fn without_lines(section: &[u8]) -> anyhow::Result<Vec<u8>> {
    const HEADER_LENGTH: usize = 4;
    const FUNCTIONS: usize = 8;
    const LINES: usize = 16;
    const RELOCATIONS: usize = 24;
    let word = |at: usize| -> anyhow::Result<usize> {
        let bytes = section.get(at..at + 4).and_then(|b| b.first_chunk());
        let bytes = bytes.context(".BTF.ext is too short")?;
        Ok(u32::from_le_bytes(*bytes) as usize)
    };
    let header = word(HEADER_LENGTH)?;
    let end = header + word(FUNCTIONS)? + word(FUNCTIONS + 4)?;
    if header >= RELOCATIONS + 8 && word(RELOCATIONS + 4)? != 0 {
        anyhow::bail!(".BTF.ext has CO-RE relocations, which would be lost");
    }
    let mut short = section
        .get(..end)
        .context(".BTF.ext ends within what it says of functions")?
        .to_vec();
    // Both begin where the section ends by now, and are empty.
    let behind = u32::try_from(end - header)?.to_le_bytes();
    for (at, value) in [(LINES, behind), (LINES + 4, [0; 4]), (RELOCATIONS, behind)] {
        if at < header
            && let Some(field) = short.get_mut(at..at + 4)
        {
            field.copy_from_slice(&value);
        }
    }
    Ok(short)
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
