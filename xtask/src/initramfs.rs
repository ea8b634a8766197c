//! The guest's file system: host's network tools, busybox for the rest, the
//! kernel's modules, and an init that runs one script.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{kernels::Kernel, libraries, modules, paths, process};

/// Programs of the host. Busybox prefers its own to them wherever it starts
/// another program, so the shell and all that wrap a command are here too.
const TOOLS: [&str; 17] = [
    "ip", "tc", "bridge", "ss", "ping", "nft", "wg", "ethtool", "dash", "env", "nice", "nohup",
    "setsid", "stdbuf", "timeout", "xargs", "chroot",
];
/// Welcome, but not everywhere.
const EXTRA: [&str; 3] = ["nstat", "setpriv", "tcpdump"];
/// kmod under its names.
const KMOD: [&str; 6] = ["modprobe", "insmod", "rmmod", "lsmod", "modinfo", "depmod"];

/// Where init looks for what it shall do.
pub const SCRIPT: &str = "/guest/script";
/// There when the script plays on the console.
pub const ON_CONSOLE: &str = "/guest/on-console";
/// Begins the line that tells the script's exit status.
pub const STATUS_MARK: &str = "\u{1e}guest-status ";

const INIT: &str = include_str!("guest/init.sh");
const SETUIDGID: &str = include_str!("guest/setuidgid.sh");

/// What goes where.
#[derive(Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

enum Entry {
    Directory,
    File { content: Vec<u8>, mode: u32 },
    Link(String),
}

impl Tree {
    fn parents(&mut self, path: &str) {
        let mut rest = path;
        while let Some((parent, _)) = rest.rsplit_once('/') {
            if !parent.is_empty() {
                self.entries
                    .entry(parent.to_owned())
                    .or_insert(Entry::Directory);
            }
            rest = parent;
        }
    }

    pub fn directory(&mut self, path: &str) {
        self.parents(path);
        self.entries
            .entry(path.to_owned())
            .or_insert(Entry::Directory);
    }

    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.parents(path);
        self.entries.insert(
            path.to_owned(),
            Entry::File {
                content: content.into(),
                mode,
            },
        );
    }

    fn link(&mut self, path: &str, to: &str) {
        self.parents(path);
        self.entries
            .insert(path.to_owned(), Entry::Link(to.to_owned()));
    }

    /// A program of the host, with its libraries.
    pub fn program(&mut self, at: &str, source: &Path) -> anyhow::Result<()> {
        self.file(at, 0o755, read(source)?);
        for library in libraries::of(source)? {
            let path = library.to_str().context("a library's path is not UTF-8")?;
            self.file(path, 0o755, read(&library)?);
        }
        Ok(())
    }

    /// Everything below a directory of the host.
    fn copy(&mut self, below: &Path, at: &str) -> anyhow::Result<()> {
        for entry in
            fs::read_dir(below).with_context(|| format!("cannot read {}", below.display()))?
        {
            let entry = entry?;
            let name = entry
                .file_name()
                .into_string()
                .ok()
                .context("a file name is not UTF-8")?;
            let path = format!("{at}/{name}");
            if entry.file_type()?.is_dir() {
                self.copy(&entry.path(), &path)?;
            } else {
                self.file(&path, 0o644, read(&entry.path())?);
            }
        }
        Ok(())
    }

    /// As the archive that the kernel unpacks; parents come before children
    /// because a path sorts after its own beginning.
    pub fn pack(&self) -> anyhow::Result<Vec<u8>> {
        let mut archive = Vec::new();
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            let (mode, content) = match entry {
                Entry::Directory => (0o040_755, &[][..]),
                Entry::File { content, mode } => (0o100_000 | mode, &content[..]),
                Entry::Link(to) => (0o120_777, to.as_bytes()),
            };
            let header = cpio::newc::Builder::new(path.trim_start_matches('/'))
                .ino(number)
                .mode(mode)
                .nlink(1);
            let size = u32::try_from(content.len())
                .with_context(|| format!("{path} is too large for a guest"))?;
            let mut writer = header.write(archive, size);
            writer.write_all(content)?;
            archive = writer.finish()?;
        }
        let mut archive = cpio::newc::trailer(archive)?;
        // Another archive may follow, and must begin at a multiple of four.
        archive.resize(archive.len().next_multiple_of(512), 0);
        Ok(archive)
    }
}

/// The part that stays the same from run to run, made once for each kernel
/// and set of host tools.
pub fn base(kernel: &Kernel, instead: &BTreeMap<String, PathBuf>) -> anyhow::Result<PathBuf> {
    let tools = tools()?;
    let variant = if instead.is_empty() {
        "stock"
    } else {
        "changed"
    };
    let key = fingerprint(&tools, instead)?;
    let file = kernel
        .home()
        .join(format!("initramfs-{variant}-{key:016x}.cpio"));
    if file.is_file() {
        return Ok(file);
    }
    let stage = kernel
        .home()
        .join(format!("stage-{variant}-{}", std::process::id()));
    paths::remove(&stage)?;
    modules::stage(kernel, &stage, instead)?;
    let mut tree = skeleton();
    for (at, source) in &tools {
        tree.program(at, source)?;
    }
    links(&mut tree)?;
    tree.copy(&stage.join("lib"), "/lib")?;
    paths::write(&file, &tree.pack()?)?;
    paths::remove(&stage)?;
    forget_others(&file, variant);
    Ok(file)
}

/// What the host contributes: path in the guest, path here.
fn tools() -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut tools = Vec::new();
    let mut add = |name: &str, at: &str, must: bool| match process::find(name) {
        Some(path) => {
            tools.push((format!("{at}/{name}"), path));
            Ok(())
        }
        None if must => Err(anyhow::anyhow!(
            "{name} is missing here: `cargo xtask setup --vm` brings what guests need"
        )),
        None => Ok(()),
    };
    add("busybox", "/bin", true)?;
    add("kmod", "/bin", true)?;
    for name in TOOLS {
        add(name, "/usr/sbin", true)?;
    }
    for name in EXTRA {
        add(name, "/usr/sbin", false)?;
    }
    // For its `traffic`.
    let me = std::env::current_exe().context("cannot find myself")?;
    tools.push(("/usr/bin/xtask".to_owned(), me));
    Ok(tools)
}

fn skeleton() -> Tree {
    let mut tree = Tree::default();
    for directory in [
        "/dev",
        "/proc",
        "/sys",
        "/tmp",
        "/run",
        "/root",
        "/home/ops",
        "/var/tmp",
        "/mnt",
        "/usr/bin",
        "/usr/sbin",
        "/usr/local/bin",
        "/sbin",
        "/etc",
        "/guest",
    ] {
        tree.directory(directory);
    }
    tree.link("/var/run", "/run");
    tree.file(
        "/etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nops:x:1000:1000:ops:/home/ops:/bin/sh\n",
    );
    tree.file("/etc/group", 0o644, "root:x:0:\nops:x:1000:\n");
    tree.file("/etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n");
    for (name, content) in databases() {
        tree.file(&name, 0o644, content);
    }
    tree.file("/init", 0o755, INIT);
    tree.file("/usr/bin/setuidgid", 0o755, SETUIDGID);
    tree
}

/// Names of protocols, services and packet fields, where the host has them.
fn databases() -> Vec<(String, Vec<u8>)> {
    [
        "/etc/protocols",
        "/etc/services",
        "/etc/iproute2/rt_tables",
        "/etc/iproute2/rt_protos",
    ]
    .iter()
    .filter_map(|name| Some(((*name).to_owned(), fs::read(name).ok()?)))
    .collect()
}

/// Busybox's applets, except where the real program is there.
fn links(tree: &mut Tree) -> anyhow::Result<()> {
    let busybox = process::find("busybox").context("busybox is missing")?;
    let list = process::read(Command::new(busybox).arg("--list"))?;
    let real: BTreeSet<String> = tree
        .entries
        .keys()
        .filter(|path| path.contains("bin/"))
        .filter_map(|path| path.rsplit('/').next())
        .map(str::to_owned)
        .collect();
    let real = |applet: &str| real.contains(applet) || KMOD.contains(&applet);
    for applet in list.lines().filter(|applet| !real(applet)) {
        tree.link(&format!("/bin/{applet}"), "/bin/busybox");
    }
    for name in KMOD {
        tree.link(&format!("/bin/{name}"), "/bin/kmod");
    }
    tree.link("/bin/sh", "/usr/sbin/dash");
    // The path that the kernel itself calls.
    tree.link("/sbin/modprobe", "/bin/kmod");
    tree.link("/bin/ping6", "/usr/sbin/ping");
    Ok(())
}

/// Changes when a tool, this program among them, or a replaced module does.
fn fingerprint(
    tools: &[(String, PathBuf)],
    instead: &BTreeMap<String, PathBuf>,
) -> anyhow::Result<u64> {
    let mut hasher = DefaultHasher::new();
    for path in tools.iter().map(|(_, path)| path).chain(instead.values()) {
        let file = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        (path, file.len(), file.mtime(), file.mtime_nsec()).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// Removes what an older set of tools made.
fn forget_others(kept: &Path, variant: &str) {
    let Some(Ok(files)) = kept.parent().map(fs::read_dir) else {
        return;
    };
    for file in files.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let old = name.starts_with(&format!("initramfs-{variant}-")) && name.ends_with(".cpio");
        if old && file.path() != kept {
            // Somebody else may have been faster.
            let _ = fs::remove_file(file.path());
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    ensure!(path.exists(), "{} is missing", path.display());
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_all_is_kept() {
        let mut tree = Tree::default();
        tree.file("/a/b/c", 0o644, "text");
        tree.link("/a/l", "/a/b/c");
        let archive = tree.pack().unwrap();
        assert_eq!(archive.len() % 512, 0);
        let mut rest = &archive[..];
        let mut names = Vec::new();
        loop {
            let reader = cpio::newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            names.push((reader.entry().name().to_owned(), reader.entry().mode()));
            rest = reader.finish().unwrap();
        }
        assert_eq!(
            names,
            [
                ("a".to_owned(), 0o040_755),
                ("a/b".to_owned(), 0o040_755),
                ("a/b/c".to_owned(), 0o100_644),
                ("a/l".to_owned(), 0o120_777),
            ]
        );
    }
}
