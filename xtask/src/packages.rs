//! Programs of the host that a virtual machine needs, and the Debian packages
//! that hold them.

use std::{fmt, fs, os::unix::fs::MetadataExt as _, path::Path, process::Command};

use anyhow::Context as _;

use crate::process;

/// A package, and a program of it whose presence tells that it is there.
type Needed = (&'static str, &'static str);

/// What scenarios on this machine's own kernel run.
pub const NETWORK: [Needed; 2] = [("iproute2", "ip"), ("iputils-ping", "ping")];

/// What reads the tracer's reports in tests: without them, those are skipped.
pub const READERS: [Needed; 3] = [
    ("tshark", "tshark"),
    ("wireshark-common", "capinfos"),
    ("chromium", "chromium"),
];

/// What virtual machines are made of and run with.
pub const GUEST: [Needed; 11] = [
    ("qemu-system-x86", "qemu-system-x86_64"),
    ("busybox-static", "busybox"),
    ("iproute2", "ip"),
    ("iputils-ping", "ping"),
    ("nftables", "nft"),
    ("wireguard-tools", "wg"),
    ("ethtool", "ethtool"),
    ("kmod", "depmod"),
    ("xz-utils", "xz"),
    ("gcc", "gcc"),
    ("make", "make"),
];

/// Packages are missing and we may not, or cannot, install them.
#[derive(Debug)]
pub struct Missing(Vec<&'static str>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "these packages are missing (Debian's names): {0}\n\
             install them, as root: apt-get install -y --no-install-recommends {0}",
            self.0.join(" ")
        )
    }
}

impl std::error::Error for Missing {}

/// Installs what is missing where we may; otherwise fails with [`Missing`].
pub fn get(needed: &[Needed]) -> anyhow::Result<()> {
    let lacking = missing(needed);
    if lacking.is_empty() {
        return Ok(());
    }
    if !may_install() {
        return Err(Missing(lacking).into());
    }
    eprintln!("setup: installing {}", lacking.join(" "));
    if install(&lacking).is_err() {
        // The usual cause: lists that are older than the archive, or none at all.
        process::quiet(Command::new("apt-get").args(["-q", "update"]))?;
        install(&lacking).with_context(|| Missing(lacking.clone()).to_string())?;
    }
    let still = missing(needed);
    if still.is_empty() {
        Ok(())
    } else {
        Err(Missing(still).into())
    }
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    process::quiet(
        Command::new("apt-get")
            .args(["-q", "install", "-y", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

fn missing(needed: &[Needed]) -> Vec<&'static str> {
    needed
        .iter()
        .filter(|(_, program)| process::find(program).is_none())
        .map(|(package, _)| *package)
        .collect()
}

/// Root on Debian.
fn may_install() -> bool {
    is_root() && Path::new("/etc/debian_version").exists() && process::find("apt-get").is_some()
}

/// Whether this process has root's uid.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}
