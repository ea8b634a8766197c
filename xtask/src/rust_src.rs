//! Source of the standard library: `core` is built from it for the BPF target.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};

use crate::{apt::Suite, paths, process};

/// Names a `library` directory, or an archive (`.tar.xz`) that holds one.
const GIVEN: &str = "TRACER_RUST_SRC";

/// Releases whose `rust-src` may be of the toolchain's version.
const SUITES: [&str; 4] = ["trixie-backports", "forky", "sid", "trixie"];

/// The `library` directory; `None` when the toolchain has it itself.
pub fn get() -> anyhow::Result<Option<PathBuf>> {
    if in_toolchain()? {
        return Ok(None);
    }
    let version = pinned()?;
    let home = paths::tools().join("rust-src").join(&version);
    if let Some(library) = library_below(&home) {
        return Ok(Some(library));
    }
    let mut failures = Vec::new();
    eprintln!("setup: bringing rust-src {version}");
    match from_rustup(&version) {
        Ok(true) => return Ok(None),
        Ok(false) => failures.push("rustup: brought it, but not to this toolchain".to_owned()),
        Err(error) => failures.push(format!("rustup: {error:#}")),
    }
    let ways: [(&str, &Way); 2] = [("Debian", &from_debian), (GIVEN, &from_given)];
    for (name, way) in ways {
        match way(&version, &home) {
            Ok(library) => {
                eprintln!("setup: rust-src {version} from {name}");
                return Ok(Some(library));
            }
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
    }
    bail!(
        "no source of the standard library of Rust {version}:\n  {}\nset {GIVEN} to a `library` \
         directory of that version, or to a .tar.xz that holds one",
        failures.join("\n  ")
    )
}

type Way = dyn Fn(&str, &Path) -> anyhow::Result<PathBuf>;

fn in_toolchain() -> anyhow::Result<bool> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let sysroot = process::read(
        rustc
            .args(["--print", "sysroot"])
            .current_dir(paths::root()),
    )?;
    Ok(is_library(
        &Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library"),
    ))
}

/// The version that `rust-toolchain.toml` pins.
fn pinned() -> anyhow::Result<String> {
    let file = paths::root().join("rust-toolchain.toml");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    channel(&text).with_context(|| format!("{} pins no toolchain", file.display()))
}

fn channel(text: &str) -> Option<String> {
    let table: toml::Table = text.parse().ok()?;
    Some(table.get("toolchain")?.get("channel")?.as_str()?.to_owned())
}

/// Whether the toolchain has it after this.
fn from_rustup(version: &str) -> anyhow::Result<bool> {
    let mut rustup = Command::new("rustup");
    process::quiet(rustup.args(["component", "add", "rust-src", "--toolchain", version]))?;
    in_toolchain()
}

fn from_debian(version: &str, home: &Path) -> anyhow::Result<PathBuf> {
    let mut failures = Vec::new();
    for name in SUITES {
        let found = Suite::open(name).and_then(|suite| {
            Ok((
                suite.packages("rust-src", |found| found == "rust-src")?,
                suite,
            ))
        });
        let (packages, suite) = match found {
            Ok(found) => found,
            Err(error) => {
                failures.push(format!("{error:#}"));
                continue;
            }
        };
        let fits = |upstream: &str| {
            upstream
                .strip_prefix(version)
                .is_some_and(|rest| rest.starts_with(['+', '-', '~']))
        };
        let newest = packages
            .into_iter()
            .filter(|package| fits(&package.version))
            .max_by(|left, right| left.by_version(right));
        if let Some(package) = newest {
            return fill(home, |into| suite.unpack(&package, into));
        }
        failures.push(format!("{name} has no rust-src {version}"));
    }
    bail!("{}", failures.join("; "))
}

fn from_given(_version: &str, home: &Path) -> anyhow::Result<PathBuf> {
    let given = env::var_os(GIVEN).context("not set")?;
    let given = PathBuf::from(given);
    ensure!(given.exists(), "{} does not exist", given.display());
    unpack_given(&given, home)
}

fn unpack_given(given: &Path, home: &Path) -> anyhow::Result<PathBuf> {
    let given = given.canonicalize()?;
    if given.is_dir() {
        return library_below(&given)
            .with_context(|| format!("{} holds no library/core", given.display()));
    }
    fill(home, |into| {
        process::quiet(
            Command::new("tar")
                .arg("-xf")
                .arg(&given)
                .arg("-C")
                .arg(into),
        )
    })
}

/// Lets `unpack` fill a directory beside, which takes its name when it is whole.
fn fill(home: &Path, unpack: impl Fn(&Path) -> anyhow::Result<()>) -> anyhow::Result<PathBuf> {
    let mut beside = home.as_os_str().to_owned();
    beside.push(format!(".new-{}", std::process::id()));
    let beside = PathBuf::from(beside);
    paths::remove(&beside)?;
    paths::make(&beside)?;
    unpack(&beside)?;
    ensure!(library_below(&beside).is_some(), "it holds no library/core");
    paths::remove(home)?;
    fs::rename(&beside, home)?;
    library_below(home).with_context(|| format!("{} is gone", home.display()))
}

fn is_library(path: &Path) -> bool {
    path.join("core/src/lib.rs").is_file()
}

/// The directory itself, its `library`, or that of Debian's package.
fn library_below(home: &Path) -> Option<PathBuf> {
    let mut candidates = vec![home.to_owned(), home.join("library")];
    if let Ok(sources) = fs::read_dir(home.join("usr/src")) {
        candidates.extend(
            sources
                .flatten()
                .map(|source| source.path().join("library")),
        );
    }
    candidates.into_iter().find(|path| is_library(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_version_is_read() {
        let text = "# why\n[toolchain]\nchannel = \"1.95.0\"\ncomponents = [\"rustfmt\"]\n";
        assert_eq!(channel(text).as_deref(), Some("1.95.0"));
        assert_eq!(channel("[toolchain]\n"), None);
    }

    #[test]
    fn a_library_is_found_in_a_directory_and_in_an_archive() {
        let place = env::temp_dir().join(format!("xtask-rust-src-{}", std::process::id()));
        let library = place.join("library");
        fs::create_dir_all(library.join("core/src")).unwrap();
        fs::write(library.join("core/src/lib.rs"), "").unwrap();
        let home = place.join("home/1.0.0");
        assert_eq!(
            unpack_given(&place, &home).unwrap(),
            library.canonicalize().unwrap()
        );

        let archive = place.join("library.tar");
        let mut tar = Command::new("tar");
        tar.arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&place)
            .arg("library");
        process::quiet(&mut tar).unwrap();
        fs::create_dir_all(place.join("home")).unwrap();
        assert_eq!(unpack_given(&archive, &home).unwrap(), home.join("library"));
        fs::remove_dir_all(&place).unwrap();
    }
}
