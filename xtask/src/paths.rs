//! Where things live. Everything an errand brings or makes is under `target/`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// The workspace.
pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// What setup brought: the linker, the standard library's source, `build-env`.
pub fn tools() -> PathBuf {
    root().join("target/tools")
}

/// Kernels and what was made of them.
pub fn kernels() -> PathBuf {
    root().join("target/kernels")
}

/// Package lists of other releases, apart from the system's own.
pub fn apt() -> PathBuf {
    root().join("target/apt")
}

/// Working files of virtual machines that run.
pub fn vm() -> PathBuf {
    root().join("target/vm")
}

/// The program we are here for; it need not have been built.
pub fn tracer() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |given| root().join(given));
    target.join("release/tracer")
}

/// Writes beside the file, then renames: a reader never meets half of it.
pub fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".new-{}", std::process::id()));
    fs::write(&beside, content).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Makes a directory and its parents.
pub fn make(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

/// Removes a directory if it is there.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
