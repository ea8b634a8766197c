//! Where things lie: the repository, the preamble, and what is kept of a failure.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::marks::Section;

/// What a scenario's setup and trigger may call, next to the scenarios.
const PREAMBLE: &str = "scenarios/preamble.sh";

/// The repository: the nearest folder upwards that holds the scenarios.
pub fn root() -> Result<PathBuf> {
    let here =
        std::env::current_dir().context("the current directory is gone: cd into the repository")?;
    let starts = [here, PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    for start in &starts {
        if let Some(found) = start.ancestors().find(|dir| dir.join(PREAMBLE).is_file()) {
            return Ok(found.to_path_buf());
        }
    }
    bail!("{PREAMBLE} not found here or above: run this inside the repository")
}

pub fn preamble(root: &Path) -> Result<String> {
    fs::read_to_string(root.join(PREAMBLE))
        .with_context(|| format!("cannot read {PREAMBLE}: restore it with git"))
}

/// The folder for what is worth keeping of a run on `kernel`.
pub fn keep(root: &Path, kernel: &str) -> Result<PathBuf> {
    let dir = root.join("target/scenarios").join(kernel);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Removes what an earlier run kept of scenario `name`.
pub fn forget(keep: &Path, name: &str) -> Result<()> {
    let entries = fs::read_dir(keep).with_context(|| format!("cannot list {}", keep.display()))?;
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot list {}", keep.display()))?
            .path();
        let own = path
            .file_name()
            .and_then(|file| file.to_str())
            .and_then(|file| file.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with('.'));
        if own {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Keeps the raw output of every step of scenario `name`.
pub fn store(keep: &Path, name: &str, sections: &[&Section]) -> Result<()> {
    for section in sections {
        let path = keep.join(format!("{name}.{}", section.part));
        fs::write(&path, &section.text)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_only_its_own() {
        let dir = std::env::temp_dir().join(format!("scenario-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let section = Section {
            name: "seed".into(),
            part: "trigger.out".into(),
            status: Some(0),
            text: "x".into(),
        };
        store(&dir, "seed", &[&section]).unwrap();
        store(&dir, "seed-five", &[&section]).unwrap();
        forget(&dir, "seed").unwrap();
        assert!(!dir.join("seed.trigger.out").exists());
        assert!(dir.join("seed-five.trigger.out").exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
