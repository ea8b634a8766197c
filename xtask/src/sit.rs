//! `sit.ko` built alone, from the distribution's source against the
//! distribution's headers, nothing of which is installed: with the fix of the
//! seed's bug taken out, or as somebody changed it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::{
    apt::Suite,
    kernels::{self, Kernel, Wanted},
    paths, process,
};

/// What the fix (ed6ae5ca437d) wrote, and what was there before it.
const FIXED: &str = "if (rt->rt_type != RTN_UNICAST && rt->rt_type != RTN_LOCAL)";
const BEFORE: &str = "if (rt->rt_type != RTN_UNICAST)";

/// What building takes: fetched once for each version of the kernel.
pub struct Workshop {
    home: PathBuf,
    headers: PathBuf,
    /// `net/ipv6/sit.c` as the distribution has it.
    pub source: String,
}

#[derive(Debug, Args)]
pub struct Options {
    /// As for `vm`
    #[arg(long, value_name = "KERNEL")]
    kernel: String,
    /// The source
    source: PathBuf,
    /// The module
    module: PathBuf,
}

pub fn command(options: &Options) -> anyhow::Result<()> {
    let kernel = kernels::get(&Wanted::parse(&options.kernel)?)?;
    let source = fs::read_to_string(&options.source)
        .with_context(|| format!("cannot read {}", options.source.display()))?;
    let module = Workshop::of(&kernel)?.build(&source)?;
    paths::write(&options.module, &module)
}

/// The module with the fix reverted; built once for each version of the kernel.
pub fn reverted(kernel: &Kernel) -> anyhow::Result<PathBuf> {
    let built = kernel.home().join("reverted/sit.ko");
    if built.is_file() {
        return Ok(built);
    }
    let build = || -> anyhow::Result<()> {
        let workshop = Workshop::of(kernel)?;
        eprintln!(
            "building sit of {} with the fix reverted (once)",
            kernel.release
        );
        let module = workshop.build(&revert(&workshop.source)?)?;
        paths::make(&kernel.home().join("reverted"))?;
        paths::write(&built, &module)
    };
    build().with_context(|| format!("sit of {} with the fix reverted", kernel.release))?;
    Ok(built)
}

impl Workshop {
    pub fn of(kernel: &Kernel) -> anyhow::Result<Self> {
        let home = kernel.home().join("workshop");
        let headers = home
            .join("headers/usr/src")
            .join(format!("linux-headers-{}", kernel.release));
        let source = home.join("sit.c");
        ensure!(
            !kernel.suite.is_empty(),
            "{} is no distribution's kernel: its own tree builds its modules",
            kernel.release
        );
        // Written last.
        if !source.is_file() {
            let suite = Suite::open(&kernel.suite)?;
            paths::remove(&home)?;
            unpack_headers(kernel, &suite, &home.join("headers"))?;
            let unpacked = home.join("source");
            let text = read_source(kernel, &suite, &unpacked)?;
            paths::remove(&unpacked)?;
            paths::write(&source, text.as_bytes())?;
        }
        Ok(Self {
            source: fs::read_to_string(&source)
                .with_context(|| format!("cannot read {}", source.display()))?,
            home,
            headers,
        })
    }

    /// The module's bytes.
    pub fn build(&self, source: &str) -> anyhow::Result<Vec<u8>> {
        let module = self.home.join(format!("module-{}", std::process::id()));
        paths::make(&module)?;
        paths::write(&module.join("sit.c"), source.as_bytes())?;
        paths::write(&module.join("Makefile"), b"obj-m := sit.o\n")?;
        let mut make = Command::new("make");
        make.arg("-C")
            .arg(&self.headers)
            .arg(format!("M={}", module.display()))
            // The compiler of this host: modules of one source file do not mind.
            .arg("CC=gcc")
            .arg("modules");
        // Flags for other programs, such as those of a make or cargo above us.
        for variable in [
            "MAKEFLAGS",
            "MFLAGS",
            "MAKELEVEL",
            "CFLAGS",
            "ARCH",
            "CROSS_COMPILE",
        ] {
            make.env_remove(variable);
        }
        process::quiet(&mut make)?;
        let built = module.join("sit.ko");
        ensure!(built.is_file(), "make made no sit.ko");
        // As in the package: without the debug information, which is most of it.
        process::quiet(Command::new("strip").arg("--strip-debug").arg(&built))?;
        let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        paths::remove(&module)?;
        Ok(bytes)
    }
}

/// Unpacks headers, common headers and build tools as if into `/`, and bends
/// what they say about `/` to where they are.
fn unpack_headers(kernel: &Kernel, suite: &Suite, into: &Path) -> anyhow::Result<()> {
    let package = suite.package(
        &format!("linux-headers-{}", kernel.release),
        &kernel.version,
    )?;
    suite.unpack(&package, into)?;
    for needed in &package.depends {
        if needed.ends_with("-common") || needed.starts_with("linux-kbuild-") {
            suite.unpack(&suite.package(needed, &kernel.version)?, into)?;
        }
    }
    let directory = into
        .join("usr/src")
        .join(format!("linux-headers-{}", kernel.release));
    let makefile = directory.join("Makefile");
    let text = fs::read_to_string(&makefile)
        .with_context(|| format!("cannot read {}", makefile.display()))?;
    let here = format!("{}/usr/", into.display());
    paths::write(&makefile, text.replace("/usr/", &here).as_bytes())?;
    // Links between the packages are relative in some releases only.
    for name in ["scripts", "tools"] {
        let link = directory.join(name);
        let Ok(to) = fs::read_link(&link) else {
            continue;
        };
        if let Ok(below) = to.strip_prefix("/") {
            fs::remove_file(&link)?;
            symlink(into.join(below), &link)?;
        }
    }
    Ok(())
}

/// `net/ipv6/sit.c` of the distribution's source.
fn read_source(kernel: &Kernel, suite: &Suite, into: &Path) -> anyhow::Result<String> {
    let series: Vec<_> = kernel.version.split(['.', '-']).take(2).collect();
    let series = series.join(".");
    let package = suite.package(&format!("linux-source-{series}"), &kernel.version)?;
    suite.unpack(&package, into)?;
    let archive = into.join(format!("usr/src/linux-source-{series}.tar.xz"));
    ensure!(
        archive.is_file(),
        "{} is not in the package",
        archive.display()
    );
    // The file is found by its end, and reading stops there.
    let mut tar = Command::new("tar")
        .arg("-xJf")
        .arg(&archive)
        .args(["--to-stdout", "--occurrence=1"])
        .arg(format!("linux-source-{series}/net/ipv6/sit.c"))
        .stdin(Stdio::null())
        .output()
        .context("cannot start tar")?;
    if !tar.status.success() {
        bail!(
            "{}: {}",
            archive.display(),
            String::from_utf8_lossy(&tar.stderr).trim()
        );
    }
    String::from_utf8(std::mem::take(&mut tar.stdout)).context("sit.c is not text")
}

/// The source as it was before the fix.
pub fn revert(source: &str) -> anyhow::Result<String> {
    let found = source.matches(FIXED).count();
    ensure!(
        found == 1,
        "sit.c has `{FIXED}` {found} times, not once: the source has changed"
    );
    Ok(source.replace(FIXED, BEFORE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_fix_is_taken_out() {
        let source = format!("a\n\t{FIXED} {{\nb\n");
        assert_eq!(revert(&source).unwrap(), format!("a\n\t{BEFORE} {{\nb\n"));
    }

    #[test]
    fn another_source_is_refused() {
        assert!(revert("int x;").is_err());
        assert!(revert(&format!("{FIXED}\n{FIXED}\n")).is_err());
    }
}
