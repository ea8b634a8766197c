//! Kernels for guests: which one is meant, and getting it.

mod built;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    apt::{Package, Suite, version},
    paths, process,
};

/// Where an explicit version is looked for, oldest release first.
const SUITES: [&str; 9] = [
    "bullseye",
    "bullseye-security",
    "bookworm",
    "bookworm-security",
    "trixie",
    "trixie-security",
    "trixie-backports",
    "forky",
    "sid",
];

/// A kernel that is here, under `target/kernels/RELEASE`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kernel {
    /// As `uname -r` prints it.
    pub release: String,
    /// Version of the package it came in.
    pub version: String,
    /// Suite the package came from; empty for one that was built.
    pub suite: String,
    /// Where it is if somebody built it.
    #[serde(skip)]
    built: Option<PathBuf>,
}

impl Kernel {
    /// Its directory: `vmlinuz`, and `lib/modules/RELEASE` below.
    pub fn home(&self) -> PathBuf {
        self.built
            .clone()
            .unwrap_or_else(|| paths::kernels().join(&self.release))
    }

    pub fn image(&self) -> PathBuf {
        self.home().join("vmlinuz")
    }

    pub fn modules(&self) -> PathBuf {
        self.home().join("lib/modules").join(&self.release)
    }

    fn read(file: &Path) -> Option<Self> {
        let kernel: Self = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        kernel.image().is_file().then_some(kernel)
    }
}

/// The kernels that a word of `hunt` names: one, a range of the distribution's
/// (`6.1..6.12`), or all in a directory of built ones; oldest first.
pub fn named(word: &str) -> anyhow::Result<Vec<String>> {
    if word.contains('/') {
        return built::names(word);
    }
    match word.split_once("..") {
        Some((first, last)) => range(first, last),
        None => Wanted::parse(word).map(|_| vec![word.to_owned()]),
    }
}

/// Generic kernels of all suites from the first that `first` begins to the last
/// that `last` begins.
fn range(first: &str, last: &str) -> anyhow::Result<Vec<String>> {
    let any = Wanted {
        base: "newest".to_owned(),
        flavour: String::new(),
        reverted: false,
    };
    for end in [first, last] {
        ensure!(
            end.starts_with(|c: char| c.is_ascii_digit()),
            "{first}..{last} is no range of kernels: say how two versions begin, such as 6.1..6.12"
        );
    }
    let (found, failures) = look(&SUITES, &any);
    failures.iter().for_each(|failure| eprintln!("{failure}"));
    let mut versions: Vec<String> = found
        .into_iter()
        .map(|(_, package)| package.version)
        .filter(|version| {
            use std::cmp::Ordering::{Greater, Less};
            (begins(version, first) || version::compare(version, first) == Greater)
                && (begins(version, last) || version::compare(version, last) == Less)
        })
        .collect();
    versions.sort_by(|left, right| version::compare(left, right));
    versions.dedup();
    ensure!(
        !versions.is_empty(),
        "no kernel from {first} to {last} (searched: {})",
        SUITES.join(", ")
    );
    Ok(versions)
}

/// A kernel's name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// `newest`, or how the version begins.
    base: String,
    /// Empty for the generic one, else `cloud` or `rt`.
    flavour: String,
    /// With the fix of the seed's bug taken out of sit.
    pub reverted: bool,
}

impl Wanted {
    pub fn parse(name: &str) -> anyhow::Result<Self> {
        if name.contains('/') {
            return Ok(Self {
                base: name.to_owned(),
                flavour: String::new(),
                reverted: false,
            });
        }
        let (base, reverted) = match name.strip_suffix("-reverted") {
            Some(base) => (base, true),
            None => (name, false),
        };
        let (base, flavour) = ["cloud", "rt"]
            .iter()
            .find_map(|f| Some((base.strip_suffix(f)?.strip_suffix('-')?, *f)))
            .unwrap_or((base, ""));
        ensure!(
            base == "newest" || base.starts_with(|c: char| c.is_ascii_digit()),
            "no kernel is called {name:?}: say newest, or how a version begins (6.1, 6.18.15), \
             then -cloud or -rt for a flavour, then -reverted for the seed's bug; or a built kernel's file, boot/vmlinuz-RELEASE"
        );
        Ok(Self {
            base: base.to_owned(),
            flavour: flavour.to_owned(),
            reverted,
        })
    }

    fn suites(&self) -> &'static [&'static str] {
        match self.base.as_str() {
            // As released: later updates of it have the fix.
            "5.10" => &["bullseye"],
            "6.1" => &["bookworm", "bookworm-security"],
            "6.12" => &["trixie", "trixie-security"],
            "newest" => &["trixie-backports", "forky", "sid"],
            _ => &SUITES,
        }
    }

    /// Whether the package is such a kernel.
    fn fits(&self, package: &Package) -> bool {
        let Some((body, flavour)) = release_of(&package.name).and_then(flavour_of) else {
            return false;
        };
        let meta =
            body.split('.').count() == 2 && body.chars().all(|c| c.is_ascii_digit() || c == '.');
        let candidate = body.contains("rc") || package.version.contains("~rc");
        if meta || candidate || flavour != self.flavour {
            return false;
        }
        self.base == "newest" || begins(body, &self.base) || begins(&package.version, &self.base)
    }
}

/// `6.1` begins `6.1.0-56`, not `6.12.107`.
fn begins(version: &str, prefix: &str) -> bool {
    version
        .strip_prefix(prefix)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// `6.1.0-56-cloud-amd64` of `linux-image-6.1.0-56-cloud-amd64`.
fn release_of(package: &str) -> Option<&str> {
    let release = package.strip_prefix("linux-image-")?;
    (release.starts_with(|c: char| c.is_ascii_digit()) && release.ends_with("-amd64"))
        .then_some(release)
}

/// `6.1.0-56` and `cloud` of `6.1.0-56-cloud-amd64`.
fn flavour_of(release: &str) -> Option<(&str, &str)> {
    let release = release.strip_suffix("-amd64")?;
    Some(match release.rsplit_once('-') {
        Some((body, flavour)) if flavour.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            (body, flavour)
        }
        _ => (release, ""),
    })
}

/// The kernel of that name, fetched first where it is missing.
pub fn get(wanted: &Wanted) -> anyhow::Result<Kernel> {
    if wanted.base.contains('/') {
        return built::get(Path::new(&wanted.base));
    }
    let mut name = wanted.base.clone();
    if !wanted.flavour.is_empty() {
        name = format!("{name}-{}", wanted.flavour);
    }
    // What a name stood for the last time; removing `target/kernels` asks again.
    let chosen = paths::kernels().join("chosen").join(format!("{name}.json"));
    if let Some(kernel) = Kernel::read(&chosen) {
        return Ok(kernel);
    }
    let (suite, package) = search(wanted).with_context(|| {
        format!(
            "kernel {name} cannot be had (searched: {})",
            wanted.suites().join(", ")
        )
    })?;
    let kernel = fetch(&suite, &package)
        .with_context(|| format!("kernel {name} ({} of {})", package.name, suite.name))?;
    paths::make(&paths::kernels().join("chosen"))?;
    paths::write(&chosen, &serde_json::to_vec_pretty(&kernel)?)?;
    Ok(kernel)
}

/// The newest package that fits, over all suites of that name.
fn search(wanted: &Wanted) -> anyhow::Result<(Suite, Package)> {
    let (found, failures) = look(wanted.suites(), wanted);
    match found
        .into_iter()
        .max_by(|left, right| left.1.by_version(&right.1))
    {
        Some(best) => {
            failures.iter().for_each(|failure| eprintln!("{failure}"));
            Ok(best)
        }
        None if failures.is_empty() => bail!("no such package"),
        None => bail!("{}", failures.join("; ")),
    }
}

/// All packages that fit, and which suites could not be asked.
fn look(suites: &[&str], wanted: &Wanted) -> (Vec<(Suite, Package)>, Vec<String>) {
    let ask = |name: &str| -> anyhow::Result<Vec<(Suite, Package)>> {
        let suite = Suite::open(name)?;
        let found = suite.packages("linux-image-", |name| release_of(name).is_some())?;
        Ok(found
            .into_iter()
            .filter(|package| wanted.fits(package))
            .map(|package| (suite.clone(), package))
            .collect())
    };
    let answers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = suites
            .iter()
            .map(|suite| scope.spawn(move || ask(suite)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a search panicked")))
            })
            .collect()
    });
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for answer in answers {
        match answer {
            Ok(packages) => found.extend(packages),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    (found, failures)
}

/// Unpacks image and modules into the cache.
fn fetch(suite: &Suite, package: &Package) -> anyhow::Result<Kernel> {
    let release = release_of(&package.name).context("not a kernel package")?;
    let kernel = Kernel {
        release: release.to_owned(),
        version: package.version.clone(),
        suite: suite.name.clone(),
        built: None,
    };
    if kernel.image().is_file() {
        return Ok(kernel);
    }
    let work = paths::kernels().join(format!("{release}.new-{}", std::process::id()));
    paths::remove(&work)?;
    let unpacked = work.join("unpacked");
    suite.unpack(package, &unpacked)?;
    // Newer releases split the kernel over packages that the image depends on.
    for part in &package.depends {
        if part.starts_with("linux-binary-") || part.starts_with("linux-modules-") {
            suite.unpack(&suite.package(part, &package.version)?, &unpacked)?;
        }
    }
    let pick = |places: &[String]| {
        places
            .iter()
            .map(|place| unpacked.join(place))
            .find(|place| place.exists())
    };
    let image = pick(&[
        format!("boot/vmlinuz-{release}"),
        format!("usr/lib/modules/{release}/vmlinuz"),
        format!("lib/modules/{release}/vmlinuz"),
    ])
    .context("the packages hold no vmlinuz")?;
    let modules = pick(&[
        format!("usr/lib/modules/{release}"),
        format!("lib/modules/{release}"),
    ])
    .context("the packages hold no modules")?;
    let done = work.join("done");
    paths::make(&done.join("lib/modules"))?;
    fs::rename(image, done.join("vmlinuz"))?;
    fs::rename(modules, done.join("lib/modules").join(release))?;
    slim(&done.join("lib/modules").join(release).join("kernel"))?;
    process::quiet(
        Command::new(process::find("depmod").unwrap_or_else(|| "depmod".into()))
            .arg("-b")
            .arg(&done)
            .arg(release),
    )?;
    paths::remove(&kernel.home())?;
    fs::rename(&done, kernel.home())?;
    paths::remove(&work)?;
    Ok(kernel)
}

/// Drops drivers that a virtual machine without hardware never loads: most of
/// a kernel's size.
fn slim(modules: &Path) -> anyhow::Result<()> {
    paths::remove(&modules.join("sound"))?;
    let Ok(drivers) = fs::read_dir(modules.join("drivers")) else {
        return Ok(());
    };
    for driver in drivers.flatten() {
        if driver.file_name() != "net" {
            paths::remove(&driver.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: format!("linux-image-{name}"),
            version: version.into(),
            depends: vec![],
        }
    }

    #[test]
    fn names_are_taken_apart() {
        let wanted = Wanted::parse("6.1-cloud-reverted").unwrap();
        assert_eq!(
            (wanted.base.as_str(), wanted.flavour.as_str()),
            ("6.1", "cloud")
        );
        assert!(wanted.reverted);
        assert_eq!(Wanted::parse("newest-rt").unwrap().flavour, "rt");
        assert_eq!(Wanted::parse("6.18.15").unwrap().base, "6.18.15");
        assert!(Wanted::parse("latest").is_err());
    }

    #[test]
    fn a_version_begins_at_its_dots() {
        let wanted = Wanted::parse("6.1").unwrap();
        assert!(wanted.fits(&package("6.1.0-56-amd64", "6.1.192-2")));
        assert!(!wanted.fits(&package("6.12.107+deb13-amd64", "6.12.107-1")));
        assert!(!wanted.fits(&package("6.1.0-56-cloud-amd64", "6.1.192-2")));
        assert!(!wanted.fits(&package("6.1.0-56-amd64-unsigned", "6.1.192-2")));
        assert!(
            !wanted.fits(&package("6.1-amd64", "6.1.192-2")),
            "a meta package"
        );
    }

    #[test]
    fn the_packages_version_counts_too() {
        let wanted = Wanted::parse("5.10.223").unwrap();
        assert!(wanted.fits(&package("5.10.0-32-amd64", "5.10.223-1")));
        assert!(!wanted.fits(&package("5.10.0-30-amd64", "5.10.218-1")));
    }

    #[test]
    fn the_newest_is_a_released_one() {
        let wanted = Wanted::parse("newest").unwrap();
        assert!(wanted.fits(&package("7.3.4+deb13-amd64", "7.3.4-1~bpo13+1")));
        assert!(!wanted.fits(&package("7.4-rc3-amd64", "7.4~rc3-1~exp1")));
        assert!(!wanted.fits(&package("7.3.4+deb13-rt-amd64", "7.3.4-1~bpo13+1")));
    }
}
