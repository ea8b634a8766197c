//! The host's own apt sources, for the mirrors they name: whoever works behind
//! a local mirror has written it there.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};

/// Where Debian's packages are had from.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mirrors {
    pub main: Option<String>,
    pub security: Option<String>,
}

impl Mirrors {
    /// Reads `sources.list` and `sources.list.d` of the host.
    pub fn of_host() -> anyhow::Result<Self> {
        Self::under(Path::new("/etc/apt"))
    }

    fn under(etc: &Path) -> anyhow::Result<Self> {
        let mut files = vec![etc.join("sources.list")];
        if let Ok(parts) = fs::read_dir(etc.join("sources.list.d")) {
            files.extend(parts.flatten().map(|entry| entry.path()));
        }
        files.sort();
        let mut mirrors = Self::default();
        for file in files {
            let kind = file.extension().and_then(|extension| extension.to_str());
            let Ok(text) = fs::read_to_string(&file) else {
                continue;
            };
            for source in match kind {
                Some("list") => one_line(&text),
                Some("sources") => deb822(&text),
                _ => continue,
            } {
                mirrors.take(&source);
            }
        }
        if mirrors == Self::default() {
            bail!(
                "no Debian mirror is named under {}: kernels are taken from Debian, \
                 so add a source of it there (any release, component main)",
                etc.display()
            );
        }
        Ok(mirrors)
    }

    /// The mirror that serves the suite.
    pub fn serving(&self, suite: &str) -> anyhow::Result<&str> {
        let (mirror, what) = if suite.ends_with("-security") {
            (&self.security, "security updates")
        } else {
            (&self.main, "packages")
        };
        mirror.as_deref().with_context(|| {
            format!("apt's sources name no mirror of Debian's {what}, which {suite} needs")
        })
    }

    /// The first source of each sort counts.
    fn take(&mut self, source: &Source) {
        if !source.is_debian() {
            return;
        }
        let place = if source.suite.ends_with("-security") {
            &mut self.security
        } else {
            &mut self.main
        };
        place.get_or_insert_with(|| source.uri.trim_end_matches('/').to_owned());
    }
}

/// One URI with one suite.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
    components: Vec<String>,
}

impl Source {
    /// Others offer packages for Debian's suites too; Debian's own archive is
    /// mirrored under its name and has a component `main`.
    fn is_debian(&self) -> bool {
        self.components.iter().any(|component| component == "main")
            && self
                .uri
                .split('/')
                .any(|part| part == "debian" || part == "debian-security")
    }
}

/// `deb [options] URI SUITE COMPONENT…`
fn one_line(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next()?.trim().strip_prefix("deb")?;
            // Not `deb-src`.
            let mut line = line.strip_prefix([' ', '\t'])?.trim_start();
            if let Some(options) = line.strip_prefix('[') {
                line = options.split_once(']')?.1;
            }
            let mut words = line.split_whitespace().map(str::to_owned);
            Some(Source {
                uri: words.next()?,
                suite: words.next()?,
                components: words.collect(),
            })
        })
        .collect()
}

/// Stanzas of `Field: value`.
fn deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let text: String = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    for stanza in super::suite::stanzas(&text) {
        let words = |field: &str| -> Vec<String> {
            let value = stanza
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(field));
            value
                .map_or("", |(_, value)| value)
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        };
        let off = words("Enabled")
            .iter()
            .any(|word| word == "no" || word == "false");
        if off || !words("Types").iter().any(|word| word == "deb") {
            continue;
        }
        for uri in words("URIs") {
            for suite in words("Suites") {
                sources.push(Source {
                    uri: uri.clone(),
                    suite,
                    components: words("Components"),
                });
            }
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors(sources: &[Source]) -> Mirrors {
        let mut mirrors = Mirrors::default();
        sources.iter().for_each(|source| mirrors.take(source));
        mirrors
    }

    #[test]
    fn a_list_file_names_mirrors() {
        let sources = one_line(
            "# deb http://commented.example/debian sid main\n\
             deb-src http://source.example/debian bookworm main\n\
             deb http://extra.example/linux/debian bookworm stable\n\
             deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian/ bookworm main # x\n\
             deb http://mirror.example/debian-security bookworm-security main contrib\n",
        );
        let found = mirrors(&sources);
        assert_eq!(found.main.as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(
            found.security.as_deref(),
            Some("http://mirror.example/debian-security")
        );
        assert_eq!(
            found.serving("sid").unwrap(),
            "http://mirror.example/debian"
        );
    }

    #[test]
    fn a_sources_file_names_mirrors() {
        let sources = deb822(
            "Types: deb\n# a remark\nURIs: http://mirror.example/debian\n\
             Suites: bookworm bookworm-updates\nComponents: main\n\n\
             Types: deb\nURIs: http://off.example/debian-security\n\
             Suites: bookworm-security\nComponents: main\nEnabled: no\n\n\
             Types: deb deb-src\nURIs:\n http://mirror.example/debian-security\n\
             Suites: bookworm-security\nComponents: main\n",
        );
        assert_eq!(sources.len(), 3);
        let found = mirrors(&sources);
        assert_eq!(found.main.as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(
            found.security.as_deref(),
            Some("http://mirror.example/debian-security")
        );
    }

    #[test]
    fn a_missing_mirror_says_what_for() {
        let found = mirrors(&one_line("deb http://mirror.example/debian sid main\n"));
        let error = found.serving("bookworm-security").unwrap_err().to_string();
        assert!(error.contains("security updates"), "{error}");
        assert!(Mirrors::under(Path::new("/nonexistent")).is_err());
    }
}
