//! Running commands in a virtual machine with a stock distribution kernel.

use std::{collections::BTreeMap, fs, io::Write as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::{
    initramfs::{self, Tree},
    kernels::{self, Kernel, Wanted},
    paths,
    qemu::{self, Machine},
    setup, sit,
};

/// What a script left behind.
#[derive(Debug)]
pub struct Guest {
    /// Its stdout and stderr, without the kernel's messages.
    pub output: String,
    pub status: i32,
    /// What the kernel printed.
    pub console: String,
}

/// The `vm` sub-command's options.
#[derive(Debug, Args)]
pub struct Options {
    /// 5.10, 6.1, 6.1-reverted, 6.12, newest, or how a version begins; -cloud
    /// and -rt for flavours
    #[arg(long, value_name = "KERNEL")]
    kernel: String,
    /// Processors
    #[arg(long, default_value_t = 2)]
    smp: u32,
    /// Memory in MB
    #[arg(long, value_name = "MB", default_value_t = 1024)]
    memory: u32,
    /// A module's file, in place of the kernel's own of that name; may be
    /// repeated
    #[arg(long, value_name = "FILE.ko")]
    module: Vec<PathBuf>,
    /// Time limit in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// What to run, after `--`: a program with its arguments, or one shell
    /// line; a shell on the console without
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

/// Runs the command and hands back its exit status.
pub fn command(options: &Options) -> anyhow::Result<i32> {
    setup::vm()?;
    let machine = Machine {
        cpus: options.smp,
        memory: options.memory,
        timeout: Duration::from_secs(options.timeout),
        on_terminal: options.command.is_empty(),
    };
    let script = match options.command.as_slice() {
        [] => "exec sh -i".to_owned(),
        [line] => line.clone(),
        words => words
            .iter()
            .map(|word| quote(word))
            .collect::<Vec<_>>()
            .join(" "),
    };
    let mut stdout = std::io::stdout().lock();
    let system = system(&options.kernel, &options.module)?;
    let ended = run_in(&system, &script, &[], &machine, |bytes| {
        // A closed pipe does not end the guest.
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    })?;
    Ok(ended.status)
}

/// Boots the kernel and runs the script as root with `/bin/sh`; `live` sees its
/// output as it comes.
pub fn run(
    kernel: &str,
    script: &str,
    files: &[(String, Vec<u8>)],
    machine: &Machine,
    live: impl FnMut(&[u8]),
) -> anyhow::Result<Guest> {
    run_in(&system(kernel, &[])?, script, files, machine, live)
        .with_context(|| format!("kernel {kernel}"))
}

fn run_in(
    (kernel, base): &(Kernel, PathBuf),
    script: &str,
    files: &[(String, Vec<u8>)],
    machine: &Machine,
    live: impl FnMut(&[u8]),
) -> anyhow::Result<Guest> {
    let mut initrd = fs::read(base).with_context(|| format!("cannot read {}", base.display()))?;
    initrd.extend(own_files(script, files, machine.on_terminal)?.pack()?);
    let ended = qemu::boot(&kernel.image(), &initrd, machine, live)
        .with_context(|| kernel.release.clone())?;
    Ok(Guest {
        output: String::from_utf8_lossy(&ended.output).into_owned(),
        status: ended.status,
        console: ended.console,
    })
}

/// Fetches and builds what a guest with this kernel needs.
pub fn prepare(kernel: &str) -> anyhow::Result<()> {
    system(kernel, &[]).map(|_| ())
}

/// The kernel, and the file system that stays the same from run to run.
fn system(kernel: &str, modules: &[PathBuf]) -> anyhow::Result<(Kernel, PathBuf)> {
    let wanted = Wanted::parse(kernel)?;
    let stock = kernels::get(&wanted)?;
    let mut instead = BTreeMap::new();
    if wanted.reverted {
        instead.insert("sit".to_owned(), sit::reverted(&stock)?);
    }
    for file in modules {
        let name = file
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".ko"))
            .with_context(|| format!("{} is not called MODULE.ko", file.display()))?;
        ensure!(file.is_file(), "cannot read the module {}", file.display());
        instead.insert(name.replace('-', "_"), file.clone());
    }
    let base = initramfs::base(&stock, &instead)
        .with_context(|| format!("no file system for a guest with {}", stock.release))?;
    Ok((stock, base))
}

/// What differs from run to run.
fn own_files(script: &str, files: &[(String, Vec<u8>)], on_console: bool) -> anyhow::Result<Tree> {
    let mut tree = Tree::default();
    tree.file(initramfs::SCRIPT, 0o755, script);
    if on_console {
        tree.file(initramfs::ON_CONSOLE, 0o644, "");
    }
    let tracer = paths::tracer();
    if tracer.is_file() {
        tree.program("/usr/bin/tracer", &tracer)?;
    }
    for (path, content) in files {
        tree.file(path, 0o755, content.clone());
    }
    Ok(tree)
}

/// A word that the shell takes as it is.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_guest_as_they_are() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
