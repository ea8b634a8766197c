//! Kernels that somebody built: a directory as `make install` and `make
//! modules_install` leave it, `boot/vmlinuz-RELEASE` and `lib/modules/RELEASE`.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _, fs::symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use super::Kernel;
use crate::{apt::version, paths};

const IMAGE: &str = "vmlinuz-";

/// The images in a directory, oldest release first; or the one image named.
pub fn names(word: &str) -> anyhow::Result<Vec<String>> {
    let path = Path::new(word);
    if !path.is_dir() {
        ensure!(
            path.is_file(),
            "{word} is no kernel and no directory of kernels"
        );
        return Ok(vec![word.to_owned()]);
    }
    let boot = path.join("boot");
    let list = fs::read_dir(&boot).with_context(|| {
        format!("{word} holds no boot/{IMAGE}RELEASE: make install INSTALL_PATH={word}/boot")
    })?;
    let mut releases = Vec::new();
    for entry in list {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // Installing again keeps the former one beside.
        if let Some(release) = name.strip_prefix(IMAGE)
            && !release.ends_with(".old")
        {
            releases.push(release.to_owned());
        }
    }
    ensure!(
        !releases.is_empty(),
        "{} holds no {IMAGE}RELEASE",
        boot.display()
    );
    releases.sort_by(|left, right| version::compare(left, right));
    Ok(releases
        .iter()
        .map(|release| boot.join(format!("{IMAGE}{release}")).display().to_string())
        .collect())
}

/// The kernel with this image. What guests are made of is kept for as long as
/// neither image nor modules change.
pub fn get(image: &Path) -> anyhow::Result<Kernel> {
    let image =
        fs::canonicalize(image).with_context(|| format!("cannot read {}", image.display()))?;
    let release = image
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix(IMAGE))
        .with_context(|| format!("{} is not called {IMAGE}RELEASE", image.display()))?
        .to_owned();
    let modules = modules(&image, &release)?;
    let index = modules.join("modules.dep");
    let key = fingerprint(&[&image, &index])?;
    let home = paths::kernels().join(format!("built/{release}-{key:016x}"));
    if !home.join("vmlinuz").exists() {
        paths::make(&home.join("lib/modules"))?;
        link(&modules, &home.join("lib/modules").join(&release))?;
        link(&image, &home.join("vmlinuz"))?;
    }
    Ok(Kernel {
        version: release.clone(),
        release,
        suite: String::new(),
        built: Some(home),
    })
}

/// Beside `boot`, or beside the image.
fn modules(image: &Path, release: &str) -> anyhow::Result<PathBuf> {
    image
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("lib/modules").join(release))
        .find(|modules| modules.join("modules.dep").is_file())
        .with_context(|| {
            format!(
                "{} has no lib/modules/{release} beside it: make modules_install INSTALL_MOD_PATH=DIRECTORY",
                image.display()
            )
        })
}

fn fingerprint(files: &[&Path]) -> anyhow::Result<u64> {
    let mut hasher = DefaultHasher::new();
    for path in files {
        let file = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        path.as_os_str().as_bytes().hash(&mut hasher);
        (file.len(), file.mtime(), file.mtime_nsec()).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn link(to: &Path, at: &Path) -> anyhow::Result<()> {
    match symlink(to, at) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot make {}", at.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(releases: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("boot")).unwrap();
        for release in releases {
            fs::write(dir.path().join(format!("boot/{IMAGE}{release}")), "").unwrap();
            let modules = dir.path().join("lib/modules").join(release);
            fs::create_dir_all(&modules).unwrap();
            fs::write(modules.join("modules.dep"), "").unwrap();
        }
        dir
    }

    #[test]
    fn a_directory_stands_for_its_kernels_oldest_first() {
        let dir = tree(&["6.12.0-rc3", "6.9.1", "6.9.1.old"]);
        let word = format!("{}/", dir.path().display());
        let found = names(&word).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with("boot/vmlinuz-6.9.1"));
        assert!(found[1].ends_with("boot/vmlinuz-6.12.0-rc3"));
    }

    #[test]
    fn what_is_missing_is_named_with_the_way_to_get_it() {
        let dir = tree(&["6.9.1"]);
        let image = dir.path().join("boot/vmlinuz-6.9.1");
        fs::remove_dir_all(dir.path().join("lib")).unwrap();
        let error = format!("{:#}", get(&image).unwrap_err());
        assert!(error.contains("modules_install"), "{error}");
        let error = names(&format!("{}/lib", dir.path().display())).unwrap_err();
        assert!(error.to_string().contains("no kernel"), "{error}");
    }
}
