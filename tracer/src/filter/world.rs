//! What names in an expression stand for on this host.

use std::fs;

use crate::devices::netns;

/// Users and network namespaces by name.
pub trait World {
    fn user(&self, name: &str) -> Option<u32>;
    /// The inode of a namespace, or why there is none.
    fn netns(&self, name: &str) -> Result<u32, String>;
}

/// This host.
pub struct Host;

impl World for Host {
    fn user(&self, name: &str) -> Option<u32> {
        let users = fs::read("/etc/passwd").ok()?;
        users.split(|byte| *byte == b'\n').find_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            if fields.next()? != name.as_bytes() {
                return None;
            }
            str::from_utf8(fields.nth(1)?).ok()?.parse().ok()
        })
    }

    fn netns(&self, name: &str) -> Result<u32, String> {
        netns::find(name)
            .map(|netns| netns.inode)
            .map_err(|error| error.to_string())
    }
}
