//! `tracer explain`: the catalogue of causes.

use std::fmt::Write as _;

use anyhow::Result;

use crate::{judge, session::Usage, terminal};

/// Prints the catalogue, or one cause in full.
pub fn run(id: Option<&str>) -> Result<u8> {
    let mut out = String::new();
    let Some(id) = id else {
        let width = judge::all().map(|cause| cause.id.len()).max().unwrap_or(0);
        for cause in judge::all() {
            writeln!(out, "{:width$}  {}", cause.id, cause.title)?;
        }
        terminal::print(&out)?;
        return Ok(0);
    };
    let Some(cause) = judge::cause(id) else {
        return Err(Usage(format!(
            "no cause named '{}' (tracer explain lists them)",
            crate::devices::printable(id.as_bytes())
        ))
        .into());
    };
    writeln!(out, "{}: {}", cause.id, cause.title)?;
    for (name, text) in [
        ("condition", cause.condition),
        ("counters", cause.counters),
        ("sender told", cause.told),
        ("do", cause.remedy),
    ] {
        if !text.is_empty() {
            writeln!(out, "  {name:12} {text}")?;
        }
    }
    if !cause.fixes.is_empty() {
        writeln!(out, "  {:12} {}", "fixed by", cause.fixes.join(", "))?;
    }
    terminal::print(&out)?;
    Ok(0)
}
