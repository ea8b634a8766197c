//! What the committed recordings tell, byte by byte. `TRACER_BLESS=1` writes what
//! is expected anew.

use std::{env, fs, path::PathBuf};

use clap::Parser as _;

use super::*;
use crate::cli::Cli;

/// What `tracer report` prints of one of them.
fn told(name: &str, options: &[&str]) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/recordings", name]
        .iter()
        .collect();
    let words = [&["tracer", "report", "FILE"], options].concat();
    let options = Cli::try_parse_from(words).unwrap().options;
    let mut out = Vec::new();
    let selection = selection(&options, &path).unwrap();
    let file = open(&path).unwrap();
    let (story, _) = tell(file, name, &options, selection, &mut out).unwrap();
    story.conclude().unwrap();
    String::from_utf8(out)
        .unwrap()
        .replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

fn check(expected: &str, text: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/expected")
        .join(expected);
    if env::var_os("TRACER_BLESS").is_some_and(|value| value == "1") {
        fs::write(&file, text).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    let differs = (1..)
        .zip(text.lines().zip(committed.lines()))
        .find(|(_, (now, then))| now != then);
    assert!(text == committed, "{expected}, first at {differs:?}");
}

#[test]
fn every_format_of_the_seed() {
    for kernel in ["5.10", "6.1"] {
        let recording = format!("seed-{kernel}.rec");
        for (format, ending) in [
            ("table", "txt"),
            ("lines", "lines"),
            ("json", "json"),
            ("markdown", "md"),
            ("html", "html"),
        ] {
            let text = told(&recording, &["--format", format]);
            check(&format!("seed-{kernel}.{ending}"), &text);
        }
    }
}

#[test]
fn a_part_of_the_seed() {
    let ip6 = ["--format", "markdown", "--filter", "inner ip6"];
    check("seed-6.1-ip6.md", &told("seed-6.1.rec", &ip6));
}
