//! `tracer explain`: the catalogue of causes.

use std::fmt::Write as _;

use anyhow::Result;

use serde_json::json;

use crate::{
    cli::{Format, Options},
    judge::{self, Cause},
    session::Usage,
    terminal,
};

/// Prints the catalogue, or one cause in full.
pub fn run(options: &Options, id: Option<&str>) -> Result<u8> {
    let as_json = options.format == Format::Json;
    let mut out = String::new();
    if as_json && id.is_none() {
        for cause in judge::all() {
            writeln!(out, "{}", object(cause))?;
        }
        terminal::print(&out)?;
        return Ok(0);
    }
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
    if as_json {
        terminal::print(&format!("{}\n", object(cause)))?;
        return Ok(0);
    }
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

/// A cause for programs.
fn object(cause: &Cause) -> serde_json::Value {
    json!({
        "v": 1,
        "type": "cause",
        "cause": cause.id,
        "title": cause.title,
        "condition": cause.condition,
        "counters": cause.counters,
        "sender_told": cause.told,
        "do": cause.remedy,
        "fixes": cause.fixes,
    })
}
