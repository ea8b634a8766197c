//! One suite with package lists of its own under `target/apt/SUITE`.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, ensure};

use super::{sources::Mirrors, version};
use crate::{paths, process};

/// How long package lists are good for.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// Debian's key, which every release's keyring package brings.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite whose lists are here.
#[derive(Debug, Clone)]
pub struct Suite {
    pub name: String,
    home: PathBuf,
}

/// A package as the lists describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// Names only, of the first alternative each.
    pub depends: Vec<String>,
}

impl Package {
    pub fn by_version(&self, other: &Self) -> Ordering {
        version::compare(&self.version, &other.version)
    }
}

impl Suite {
    /// Brings the suite's lists where they are missing or old.
    pub fn open(name: &str) -> anyhow::Result<Self> {
        ensure!(
            process::find("apt-get").is_some() && process::find("dpkg-deb").is_some(),
            "{name} is read with apt, which this host does not have: install apt and dpkg"
        );
        let suite = Self {
            name: name.to_owned(),
            home: paths::apt().join(name),
        };
        let stamp = suite.home.join("stamp");
        let age = fs::metadata(&stamp)
            .and_then(|file| file.modified())
            .ok()
            .and_then(|then| SystemTime::now().duration_since(then).ok());
        if age.is_some_and(|age| age < FRESH) {
            return Ok(suite);
        }
        for directory in ["lists/partial", "cache/archives/partial"] {
            paths::make(&suite.home.join(directory))?;
        }
        let mirror = Mirrors::of_host()?;
        let signed = if Path::new(KEYRING).exists() {
            format!("[signed-by={KEYRING}] ")
        } else {
            String::new()
        };
        let line = format!("deb {signed}{} {name} main\n", mirror.serving(name)?);
        paths::write(&suite.home.join("sources.list"), line.as_bytes())?;
        paths::write(&suite.home.join("status"), b"")?;
        match process::quiet(suite.apt("apt-get").args([
            "-q",
            "update",
            "-o",
            "APT::Update::Error-Mode=any",
        ])) {
            Ok(()) => paths::write(&stamp, b"")?,
            Err(error) if age.is_some() => {
                eprintln!("{name}: keeping the old package lists: {error:#}");
            }
            Err(error) => return Err(error.context(format!("no package lists of {name}"))),
        }
        Ok(suite)
    }

    /// An apt program that sees this suite and nothing else.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(process::find(program).unwrap_or_else(|| program.into()));
        let home = self.home.display();
        for option in [
            format!("Dir::Etc::sourcelist={home}/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            "Dir::Etc::preferences=-".to_owned(),
            "Dir::Etc::preferencesparts=-".to_owned(),
            format!("Dir::State::lists={home}/lists"),
            format!("Dir::State::status={home}/status"),
            format!("Dir::Cache={home}/cache"),
            "APT::Architecture=amd64".to_owned(),
            "APT::Default-Release=".to_owned(),
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.env("LC_ALL", "C");
        command
    }

    /// All versions of the packages whose name begins so and is wanted.
    pub fn packages(
        &self,
        prefix: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<Vec<Package>> {
        let names = process::read(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        let names: Vec<_> = names.lines().filter(|name| wanted(name)).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        // Names that are only mentioned have nothing to show; that is no error.
        let shown = self.apt("apt-cache").arg("show").args(&names).output()?;
        Ok(parse_packages(&String::from_utf8_lossy(&shown.stdout)))
    }

    /// One package in one version.
    pub fn package(&self, name: &str, version: &str) -> anyhow::Result<Package> {
        self.packages(name, |found| found == name)?
            .into_iter()
            .find(|package| package.version == version)
            .with_context(|| format!("{} has no {name} {version}", self.name))
    }

    /// Unpacks a package below `into`, without installing anything.
    pub fn unpack(&self, package: &Package, into: &Path) -> anyhow::Result<()> {
        let cache =
            self.home
                .join("cache")
                .join(format!("{}-{}", package.name, std::process::id()));
        paths::remove(&cache)?;
        paths::make(&cache)?;
        paths::make(into)?;
        eprintln!(
            "{}: fetching {} {}",
            self.name, package.name, package.version
        );
        let wanted = format!("{}={}", package.name, package.version);
        process::quiet(
            self.apt("apt-get")
                .args(["-q", "download", &wanted])
                .current_dir(&cache),
        )
        .with_context(|| format!("cannot fetch {} from {}", package.name, self.name))?;
        let file = fs::read_dir(&cache)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get brought no file for {wanted}"))?;
        process::quiet(Command::new("dpkg-deb").arg("-x").arg(&file).arg(into))?;
        paths::remove(&cache)
    }
}

/// Splits control text into stanzas of fields; continued lines are joined.
pub fn stanzas(text: &str) -> Vec<Vec<(String, String)>> {
    let mut all = vec![Vec::<(String, String)>::new()];
    for line in text.lines() {
        if line.trim().is_empty() {
            all.push(Vec::new());
        } else if let Some(stanza) = all.last_mut() {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = stanza.last_mut() {
                    value.push('\n');
                    value.push_str(line.trim());
                }
            } else if let Some((field, value)) = line.split_once(':') {
                stanza.push((field.to_owned(), value.trim().to_owned()));
            }
        }
    }
    all.retain(|stanza| !stanza.is_empty());
    all
}

fn parse_packages(text: &str) -> Vec<Package> {
    stanzas(text)
        .iter()
        .filter_map(|stanza| {
            let field = |wanted: &str| {
                stanza
                    .iter()
                    .find(|(name, _)| name == wanted)
                    .map(|(_, value)| value.clone())
            };
            let depends = field("Depends").unwrap_or_default();
            let first = |clause: &str| {
                clause
                    .split(['(', '|', ':'])
                    .next()
                    .map(|n| n.trim().to_owned())
            };
            Some(Package {
                name: field("Package")?,
                version: field("Version")?,
                depends: depends
                    .split(',')
                    .filter_map(first)
                    .filter(|name| !name.is_empty())
                    .collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_with_the_first_of_each_alternative() {
        let found = parse_packages(
            "Package: linux-image-7.3.4+deb13-amd64\nVersion: 7.3.4-1~bpo13+1\n\
             Depends: dracut | initramfs-tools (>= 0.120), linux-modules-7.3.4+deb13-amd64 (= 7.3.4-1~bpo13+1)\n\
             Description: text\n with more\n .\n\n\
             Package: b\nVersion: 2\n",
        );
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[0].depends,
            ["dracut", "linux-modules-7.3.4+deb13-amd64"]
        );
        assert_eq!(found[1].depends, Vec::<String>::new());
    }

    #[test]
    fn packages_are_ordered_by_version() {
        let package = |version: &str| Package {
            name: "p".into(),
            version: version.into(),
            depends: vec![],
        };
        assert!(
            package("6.12.107-1")
                .by_version(&package("6.12.96-1"))
                .is_gt()
        );
    }
}
