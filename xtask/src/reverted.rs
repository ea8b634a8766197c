//! sit with the fix of the seed's bug taken out, for kernels that have it:
//! built alone from the distribution's source against the distribution's
//! headers, nothing of which is installed.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};

use crate::{apt::Suite, kernels::Kernel, paths, process};

/// What the fix (ed6ae5ca437d) wrote, and what was there before it.
const FIXED: &str = "if (rt->rt_type != RTN_UNICAST && rt->rt_type != RTN_LOCAL)";
const BEFORE: &str = "if (rt->rt_type != RTN_UNICAST)";

/// The module's file; built once for each version of the kernel.
pub fn sit(kernel: &Kernel) -> anyhow::Result<PathBuf> {
    let built = kernel.home().join("reverted/sit.ko");
    if built.is_file() {
        return Ok(built);
    }
    let work = kernel
        .home()
        .join(format!("reverted.new-{}", std::process::id()));
    paths::remove(&work)?;
    let module = build(kernel, &work)
        .with_context(|| format!("sit of {} with the fix reverted", kernel.release))?;
    paths::make(&kernel.home().join("reverted"))?;
    fs::rename(module, &built)?;
    paths::remove(&work)?;
    Ok(built)
}

fn build(kernel: &Kernel, work: &Path) -> anyhow::Result<PathBuf> {
    eprintln!(
        "building sit of {} with the fix reverted (once)",
        kernel.release
    );
    let suite = Suite::open(&kernel.suite)?;
    let headers = headers(kernel, &suite, &work.join("headers"))?;
    let module = work.join("sit");
    paths::make(&module)?;
    let source = source(kernel, &suite, &work.join("source"))?;
    paths::write(&module.join("sit.c"), revert(&source)?.as_bytes())?;
    paths::write(&module.join("Makefile"), b"obj-m := sit.o\n")?;

    let mut make = Command::new("make");
    make.arg("-C")
        .arg(&headers)
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
    Ok(built)
}

/// Unpacks headers, common headers and build tools as if into `/`, and bends
/// what they say about `/` to where they are; answers the directory to build in.
fn headers(kernel: &Kernel, suite: &Suite, into: &Path) -> anyhow::Result<PathBuf> {
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
    Ok(directory)
}

/// `net/ipv6/sit.c` of the distribution's source.
fn source(kernel: &Kernel, suite: &Suite, into: &Path) -> anyhow::Result<String> {
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
fn revert(source: &str) -> anyhow::Result<String> {
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
