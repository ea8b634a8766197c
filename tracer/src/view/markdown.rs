//! A report to paste where Markdown is read: an issue, an incident, a mail.
//!
//! Texts that come from the machine are shown as code, which no reader makes
//! links, mentions, emoji or HTML of. Of sentences, each word that is not
//! plainly a word is.

use std::fmt::Write as _;

use super::{about::About, facts, summary, text};
use crate::{
    event::Start,
    flows::{Ledger, Report, Row},
};

/// Most rows that are told in full.
const MAX_BLOCKS: usize = 20;
/// Most rows of which a line is said.
const MAX_LINES: usize = 200;

/// The whole report. `began` is the time of day when tracing began.
pub fn render(start: &Start, about: &About, report: &Report, began: &str, stack: bool) -> String {
    let mut out = String::new();
    head(&mut out, start, about, report, began);
    for (n, row) in report.rows.iter().take(MAX_BLOCKS).enumerate() {
        block(&mut out, n + 1, row, stack);
    }
    rest(&mut out, report.rows.get(MAX_BLOCKS..).unwrap_or_default());
    devices(&mut out, report);
    probes(&mut out, start);
    out.push_str("## To measure it again\n\n");
    fenced(&mut out, &about.again());
    out
}

fn head(out: &mut String, start: &Start, about: &About, report: &Report, began: &str) {
    let drops = report.drops();
    let _ = match drops {
        0 => writeln!(out, "# Nothing vanished in a tunnel\n"),
        1 => writeln!(out, "# 1 packet vanished in a tunnel\n"),
        _ => writeln!(out, "# {drops} packets vanished in tunnels\n"),
    };
    let mut facts = vec![
        ("kernel", code(&format!("{} {}", start.kernel, start.arch))),
        ("traced by", words(&about.by())),
        (
            "traced",
            format!("{} for {:.1} s", code(began), report.duration.as_secs_f64()),
        ),
        ("complete", words(&summary::complete(report))),
    ];
    if let Some((file, _)) = &about.recording {
        facts.push(("recording", code(file)));
    }
    for (option, value) in &about.part {
        facts.push(("shown", code(&format!("{option} {value}"))));
    }
    if let Some(selected) = &report.selected {
        facts.push(("vanished in all", selected.of.to_string()));
    }
    table(out, &facts);
}

fn block(out: &mut String, n: usize, row: &Row, stack: bool) {
    let flow = row.evidence.flow();
    let _ = writeln!(
        out,
        "## {n}. {} over {}\n\n**{} ×{}**, {}: {}\n",
        words(&facts::packet(flow)),
        code(&text::device_name(row)),
        facts::fate(row),
        row.count,
        row.confidence.word(),
        words(&text::verdict(row)),
    );
    let known: Vec<(&str, String)> = facts::of(row)
        .into_iter()
        .map(|(name, fact)| (name, words(&fact)))
        .collect();
    table(out, &known);
    fenced(out, &facts::commands(row));
    if stack && !row.stack.is_empty() {
        let places = row.stack.iter().map(|place| text::place(Some(place)));
        out.push_str("Stack, innermost first:\n\n");
        fenced(out, &places.collect::<Vec<_>>());
    }
}

/// What there is no room to tell in full.
fn rest(out: &mut String, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(out, "## {} more flows\n", rows.len());
    for row in rows.iter().take(MAX_LINES) {
        let _ = writeln!(
            out,
            "* {} over {}: {} ×{}, {} ({})",
            words(&facts::packet(row.evidence.flow())),
            code(&text::device_name(row)),
            facts::fate(row),
            row.count,
            code(row.cause.id),
            row.confidence.word(),
        );
    }
    if rows.len() > MAX_LINES {
        let packets: u64 = rows[MAX_LINES..].iter().map(|row| row.count).sum();
        let more = rows.len() - MAX_LINES;
        let _ = writeln!(out, "* and {packets} packets of {more} more");
    }
    out.push('\n');
}

fn devices(out: &mut String, report: &Report) {
    if report.ledgers.is_empty() {
        return;
    }
    out.push_str("## Devices\n\n");
    out.push_str("| device | kind | netns | in | sent | dropped | unexplained | lost after sending | counters moved |\n");
    out.push_str("| --- | --- | --- | --: | --: | --: | --: | --: | --- |\n");
    for ledger in &report.ledgers {
        let later: u64 = ledger.lost_after_sending.iter().map(|(_, n)| n).sum();
        let counters: Vec<String> = ledger
            .counters
            .iter()
            .flatten()
            .map(|(name, by)| format!("{name} +{by}"))
            .collect();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {later} | {} |",
            cell(&code(&ledger.name)),
            cell(&code(&ledger.kind)),
            cell(&code(ledger.netns.as_deref().unwrap_or_default())),
            ledger.tally.packets_in,
            ledger.tally.sent,
            ledger.tally.dropped,
            ledger.unexplained(),
            cell(&words(&counters.join(", "))),
        );
    }
    out.push('\n');
    if report
        .selected
        .is_some_and(|selected| selected.devices_whole)
    {
        out.push_str("These are counts of all packets of the devices.\n\n");
    }
    for ledger in report.ledgers.iter() {
        asymmetry(out, ledger);
    }
}

fn asymmetry(out: &mut String, ledger: &Ledger) {
    let separations = summary::separations(ledger);
    for text in &separations {
        let _ = writeln!(
            out,
            "* what separates packets of {}: {}",
            code(&ledger.name),
            words(text)
        );
    }
    if !separations.is_empty() {
        out.push('\n');
    }
}

fn probes(out: &mut String, start: &Start) {
    let _ = writeln!(
        out,
        "## Probes\n\n{} attached, {} missing.\n",
        start.attached.len(),
        start.missing.len()
    );
    if !start.missing.is_empty() {
        out.push_str("| missing | why | what is lost |\n| --- | --- | --- |\n");
        for missing in &start.missing {
            let _ = writeln!(
                out,
                "| {} | {} | {} |",
                cell(&code(&missing.point)),
                cell(&words(&missing.why)),
                cell(&words(&missing.lost)),
            );
        }
        out.push('\n');
    }
    if !start.attached.is_empty() {
        out.push_str("<details><summary>attached</summary>\n\n");
        for attached in &start.attached {
            let module = attached.module.as_ref();
            let module = module.map_or(String::new(), |name| format!(" [{name}]"));
            let _ = writeln!(
                out,
                "* {} by {}",
                code(&format!("{}: {}{module}", attached.point, attached.target)),
                code(&attached.way),
            );
        }
        out.push_str("\n</details>\n\n");
    }
    if !start.config.is_empty() {
        let config: Vec<String> = start
            .config
            .iter()
            .map(|(name, value)| code(&format!("{name}={value}")))
            .collect();
        let _ = writeln!(out, "The kernel has {}.\n", config.join(", "));
    }
}

/// Names and what is known.
fn table(out: &mut String, facts: &[(&str, String)]) {
    out.push_str("| | |\n| --- | --- |\n");
    for (name, fact) in facts {
        let _ = writeln!(out, "| {name} | {} |", cell(fact));
    }
    out.push('\n');
}

/// Lines as they are.
fn fenced(out: &mut String, lines: &[String]) {
    let longest = lines.iter().map(|line| backticks(line)).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let _ = writeln!(out, "{fence}sh\n{}\n{fence}\n", lines.join("\n"));
}

/// Text as code, whatever is in it.
fn code(text: &str) -> String {
    let text = crate::devices::printable(text.as_bytes());
    if text.trim().is_empty() {
        return String::new();
    }
    let fence = "`".repeat(backticks(&text) + 1);
    // One blank at each side is taken away again.
    let pad = match text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) {
        true => " ",
        false => "",
    };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// The longest run of backticks.
fn backticks(text: &str) -> usize {
    text.split(|char| char != '`')
        .map(str::len)
        .max()
        .unwrap_or(0)
}

/// Words with a number in them that are words all the same.
const WORDS: [&str; 3] = ["IPv4", "IPv6", "ICMPv6"];

/// A sentence; what in it is no word, as code. One end of a flow and the other
/// are one piece of it.
fn words(text: &str) -> String {
    let mut pieces: Vec<String> = Vec::new();
    let mut goes_on = false;
    for word in text.split(' ') {
        match pieces.last_mut() {
            Some(piece) if goes_on || word == ">" => {
                piece.push(' ');
                piece.push_str(word);
            }
            _ => pieces.push(word.to_owned()),
        }
        goes_on = word == ">";
    }
    let marked: Vec<String> = pieces.iter().map(|piece| marked(piece)).collect();
    marked.join(" ")
}

fn marked(word: &str) -> String {
    let core = word.trim_start_matches('(');
    let before = &word[..word.len() - core.len()];
    let core = core.trim_end_matches([')', ',', '.', ';', ':']);
    let after = &word[before.len() + core.len()..];
    let plain = |char: char| char.is_ascii_alphabetic() || "'-".contains(char);
    let dashes = core.starts_with('-') || core.contains("--");
    let number = core.chars().all(|char| char.is_ascii_digit());
    if (core.chars().all(plain) && !dashes) || number || WORDS.contains(&core) {
        word.to_owned()
    } else {
        format!("{before}{}{after}", code(core))
    }
}

/// What a cell of a table may hold.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests;
