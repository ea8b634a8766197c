//! What names in an expression stand for: on this host, or on the one that a
//! recording was made on.

use std::{collections::BTreeSet, fs};

use crate::devices::{netns, printable};

/// Users and network namespaces by name.
pub trait World {
    /// A user's number, or why there is none.
    fn user(&self, name: &str) -> Result<u32, String>;
    /// The inode of a namespace, or why there is none.
    fn netns(&self, name: &str) -> Result<u32, String>;
}

/// This host.
pub struct Host;

impl World for Host {
    fn user(&self, name: &str) -> Result<u32, String> {
        let users = fs::read("/etc/passwd").unwrap_or_default();
        let found = users.split(|byte| *byte == b'\n').find_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            if fields.next()? != name.as_bytes() {
                return None;
            }
            str::from_utf8(fields.nth(1)?).ok()?.parse().ok()
        });
        found.ok_or_else(|| format!("no user '{}' in /etc/passwd", printable(name.as_bytes())))
    }

    fn netns(&self, name: &str) -> Result<u32, String> {
        netns::find(name)
            .map(|netns| netns.inode)
            .map_err(|error| error.to_string())
    }
}

/// The host of a recording: `names` looks its namespaces up, by inode.
pub struct Recorded<N>(pub N);

impl<N: Fn() -> Vec<(u32, String)>> World for Recorded<N> {
    fn user(&self, name: &str) -> Result<u32, String> {
        match name {
            "root" => Ok(0),
            _ => Err(format!(
                "a recording has users by number, and '{}' is none",
                printable(name.as_bytes())
            )),
        }
    }

    fn netns(&self, name: &str) -> Result<u32, String> {
        let names = (self.0)();
        let inodes: BTreeSet<u32> = names
            .iter()
            .filter(|(inode, known)| known == name || *name == format!("net:[{inode}]"))
            .map(|(inode, _)| *inode)
            .collect();
        let shown = printable(name.as_bytes());
        let mut inodes = inodes.into_iter();
        match (inodes.next(), inodes.next()) {
            (Some(inode), None) => Ok(inode),
            (Some(a), Some(b)) => Err(format!(
                "several network namespaces of the recording were called '{shown}': name an inode, such as {a} or {b}"
            )),
            (None, _) => {
                let known: BTreeSet<String> = names
                    .iter()
                    .map(|(_, name)| printable(name.as_bytes()))
                    .collect();
                let known: Vec<String> = known.into_iter().take(8).collect();
                Err(match known.is_empty() {
                    true => "the recording has no network namespaces".to_owned(),
                    false => format!(
                        "the recording has no network namespace '{shown}', but {}",
                        known.join(", ")
                    ),
                })
            }
        }
    }
}
