//! Shared libraries that a program of the host needs in a guest.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// Libraries and ELF interpreter, by the paths they must have.
pub fn of(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    // It answers 1 for static programs, which is no error for us.
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("cannot start ldd (package libc-bin)")?;
    parse(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("{} does not run on this host either", program.display()))
}

fn parse(text: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some((name, "not found")) = line.split_once(" => ") {
            bail!("library {name} is missing");
        }
        let target = line.split_once(" => ").map_or(line, |(_, target)| target);
        // The kernel's own (vdso) has no path; what ldd says in words has none either.
        if let Some((path, _)) = target.split_once(" (0x")
            && path.starts_with('/')
        {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_interpreter_are_found() {
        let found = parse(
            "\tlinux-vdso.so.1 (0x00007ffe)\n\
             \tlibnftables.so.1 => /lib/x86_64-linux-gnu/libnftables.so.1 (0x00007f01)\n\
             \t/lib64/ld-linux-x86-64.so.2 (0x00007f02)\n",
        );
        let found = found.unwrap();
        assert_eq!(
            found,
            [
                Path::new("/lib/x86_64-linux-gnu/libnftables.so.1"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
    }

    #[test]
    fn static_programs_need_nothing() {
        assert!(parse("\tnot a dynamic executable\n").unwrap().is_empty());
        assert!(parse("\tstatically linked\n").unwrap().is_empty());
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = parse("\tlibx.so.1 => not found\n").unwrap_err().to_string();
        assert!(error.contains("libx.so.1"), "{error}");
    }
}
