//! The report in words: one block per flow and cause, one line per device.

use std::{collections::BTreeMap, fmt::Write as _};

use tracer_common::tally::outcome;

use super::{facts, text};
use crate::{
    flows::{Asymmetry, Ledger, Report, Row, Selected},
    judge::Confidence,
    probes::kinds,
};

/// Most blocks that are shown in full.
const MAX_BLOCKS: usize = 20;

/// The whole report.
pub fn render(report: &Report, stack: bool) -> String {
    let mut out = String::new();
    let (own, shown): (Vec<&Row>, Vec<&Row>) =
        report.rows.iter().partition(|row| is_noise(row, report));
    for row in shown.iter().take(MAX_BLOCKS) {
        block(&mut out, row, stack);
    }
    if shown.len() > MAX_BLOCKS {
        let rest: u64 = shown[MAX_BLOCKS..].iter().map(|row| row.count).sum();
        let _ = writeln!(
            out,
            "… and {rest} packets of {} more flows",
            shown.len() - MAX_BLOCKS
        );
    }
    noise(&mut out, &own);
    out.push_str(&devices(report));
    out
}

/// The devices' ledgers and what they add up to.
pub fn devices(report: &Report) -> String {
    let mut out = String::new();
    for ledger in &report.ledgers {
        device(&mut out, ledger);
    }
    end(&mut out, report);
    out
}

/// The kernel's own packets that vanish like a user's on the same device: said
/// in one line, not to crowd out the user's.
fn is_noise(row: &Row, report: &Report) -> bool {
    row.is_kernels()
        && report.rows.iter().any(|other| {
            other.is_users()
                && other.cause.id == row.cause.id
                && other.evidence.key.ifindex == row.evidence.key.ifindex
                && other.evidence.key.netns == row.evidence.key.netns
        })
}

fn block(out: &mut String, row: &Row, stack: bool) {
    let evidence = &row.evidence;
    let flow = evidence.flow();
    let mut who = vec![text::protocol(flow), text::sender(row)];
    who.retain(|part| !part.is_empty());
    let who = if who.is_empty() {
        String::new()
    } else {
        format!(" ({})", who.join(", "))
    };
    let _ = writeln!(
        out,
        "{} {}{who}, {}",
        text::family(flow),
        text::endpoints(flow),
        match row.path.as_slice() {
            [_, .., _] => format!("{} by {}", text::tunnel(row), row.path.join(" > ")),
            _ => text::tunnel(row),
        }
    );
    if let Some(origin) = evidence
        .record
        .as_ref()
        .map(|record| &record.origin)
        .filter(|origin| origin.ethertype != 0)
    {
        let _ = writeln!(
            out,
            "  carrying {} {} ({}), which the tunnels before it count as sent",
            text::family(origin),
            text::endpoints(origin),
            text::protocol(origin)
        );
    }
    let _ = writeln!(
        out,
        "  {} ×{} in {}{} [{}]: {}",
        facts::fate(row),
        row.count,
        text::place(evidence.place.as_ref()),
        source(row),
        row.confidence.word(),
        text::verdict(row),
    );
    let mut known = Vec::new();
    let counters = text::counters(row);
    known.push(if counters.is_empty() {
        "no error counter of the device moved".to_owned()
    } else {
        counters
    });
    if let Some(reason) = &evidence.reason {
        known.push(format!("reason {reason}"));
    }
    if let Some(route) = text::route_of(row).filter(|_| row.cause.id != "route-type-not-accepted") {
        known.push(format!("route {route}"));
    }
    known.extend(facts::told(row));
    let _ = writeln!(out, "  {}  cause {}", known.join("; "), row.cause.id);
    let fixes = match facts::fixes(row) {
        fixes if fixes.is_empty() => fixes,
        fixes => format!(" Fixed upstream by {fixes}."),
    };
    let _ = writeln!(out, "  do: {}.{fixes}", text::remedy(row));
    if stack {
        for place in &row.stack {
            let _ = writeln!(out, "    {}", text::place(Some(place)));
        }
    }
}

/// The source behind a place, where it is not evident from the symbol.
fn source(row: &Row) -> String {
    let evidence = &row.evidence;
    if evidence.key.outcome != outcome::DROPPED {
        return String::new();
    }
    let Some(kind) = kinds::find(&evidence.kind) else {
        return String::new();
    };
    if !evidence.freed_in(kind.xmit) {
        return String::new();
    }
    if kind.name == "sit" && evidence.is_ipv6() {
        return format!(" ({}, {})", kinds::SIT_INNER, kind.file);
    }
    format!(" ({})", kind.file)
}

fn noise(out: &mut String, rows: &[&Row]) {
    let mut groups: BTreeMap<(String, &str), (u64, Vec<String>)> = BTreeMap::new();
    for row in rows {
        let (count, kinds) = groups
            .entry((text::device_name(row), row.cause.id))
            .or_default();
        *count += row.count;
        let kind = text::protocol(row.evidence.flow());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    for ((device, cause), (count, kinds)) in groups {
        let _ = writeln!(
            out,
            "{device}: {count} more of the kernel's own ({}), cause {cause} as well",
            kinds.join(", ")
        );
    }
}

fn device(out: &mut String, ledger: &Ledger) {
    let mut facts = Vec::new();
    if !ledger.kind.is_empty() {
        facts.push(ledger.kind.clone());
    }
    facts.extend(ledger.netns.as_ref().map(|netns| format!("netns {netns}")));
    let facts = if facts.is_empty() {
        String::new()
    } else {
        format!(" ({})", facts.join(", "))
    };
    let _ = write!(
        out,
        "{}{facts}: {} in = {} sent + {} dropped + {} unexplained",
        ledger.name,
        ledger.tally.packets_in,
        ledger.tally.sent,
        ledger.tally.dropped,
        ledger.unexplained(),
    );
    if !ledger.families.is_empty() {
        let _ = write!(out, "; {}", text::families(ledger));
    }
    let later: u64 = ledger
        .lost_after_sending
        .iter()
        .map(|(_, count)| count)
        .sum();
    if later > 0 {
        let _ = write!(out, "; {later} of {} sent lost later", ledger.tally.sent);
    }
    out.push('\n');
    // Where families are it, they were told.
    let told = ledger.asymmetry.first();
    let told = told.is_some_and(|split| split.attribute == "family");
    let first: &[Asymmetry] = if told { &[] } else { &ledger.asymmetry };
    let mut separations = separation(first, "sent");
    let later = &ledger.asymmetry_after_sending;
    separations.extend(separation(later, "not lost later"));
    for text in separations {
        let _ = writeln!(out, "  what separates them: {text}");
    }
}

/// Was everything counted?
pub fn completeness(report: &Report) -> String {
    let lost = &report.lost;
    if !lost.is_nothing() {
        format!(
            "incomplete: the tracer lost {} records, {} counts, {} frames, {} events.",
            lost.ring, lost.tally, lost.frames, lost.missed
        )
    } else if report.broken_off {
        "incomplete: the recording breaks off.".to_owned()
    } else if report.unexplained() > 0 {
        format!(
            "nothing was lost by the tracer, but what became of {} packets was not seen.",
            report.unexplained()
        )
    } else {
        "nothing was lost by the tracer.".to_owned()
    }
}

/// Was everything counted, and was everything seen?
pub fn complete(report: &Report) -> String {
    let mut text = match report.is_exact() {
        true if !report.is_complete() => "no".to_owned(),
        true => "yes: nothing was lost by the tracer".to_owned(),
        false if report.undecided() > 0 => format!(
            "no: of {} more only the count is known, they may belong here",
            report.undecided()
        ),
        false => format!("no: {}", completeness(report)),
    };
    match report.unexplained() {
        0 => {}
        n => {
            let _ = write!(text, "; what became of {n} packets was not seen");
        }
    }
    if !report.frames {
        text += "; what goes into tunnels could not be followed";
    }
    text
}

/// What separates the packets of a device, in sentences: `destination: 10.0.0.2
/// 0 of 5 sent, 10.0.0.3 7 of 7 sent`.
pub fn separations(ledger: &Ledger) -> Vec<String> {
    let mut all = separation(&ledger.asymmetry, "sent");
    all.extend(separation(
        &ledger.asymmetry_after_sending,
        "not lost later",
    ));
    all
}

fn separation(splits: &[Asymmetry], word: &str) -> Vec<String> {
    splits
        .chunk_by(|a, b| a.attribute == b.attribute)
        .filter_map(|values| {
            let first = values.first()?;
            let each: Vec<String> = values
                .iter()
                .map(|value| {
                    let of = value.passed + value.dropped;
                    format!("{} {} of {of} {word}", value.value, value.passed)
                })
                .collect();
            let clean = match first.clean {
                100 => String::new(),
                clean => format!(", {clean} % clean"),
            };
            Some(format!("{}: {}{clean}", first.attribute, each.join(", ")))
        })
        .collect()
}

/// What counts stand for where only a part was asked for.
fn selection(out: &mut String, selected: &Selected) {
    if selected.devices_whole {
        out.push_str(
            "The devices' counts are of all their packets: they were counted without what was asked for.\n",
        );
    }
    if selected.undecided > 0 {
        let _ = writeln!(
            out,
            "{} more vanished of which only the count is known: they may have been asked for as well.",
            selected.undecided
        );
    }
}

fn end(out: &mut String, report: &Report) {
    let packets: u64 = report
        .ledgers
        .iter()
        .map(|ledger| ledger.tally.packets_in)
        .sum();
    let unexplained = report.unexplained();
    let _ = write!(
        out,
        "{packets} packets into tunnels, {} accounted for, {}; ",
        packets - unexplained,
        match &report.selected {
            None => format!("{} vanished", report.drops()),
            Some(selected) => format!(
                "{} of the {} that vanished were asked for",
                report.drops(),
                selected.of
            ),
        }
    );
    let _ = writeln!(out, "{}", completeness(report));
    if let Some(selected) = &report.selected {
        selection(out, selected);
    }
    if report
        .rows
        .iter()
        .any(|row| row.confidence == Confidence::Unknown)
    {
        let _ = writeln!(
            out,
            "Causes marked unknown: the evidence fits none in the catalogue (tracer explain)."
        );
    }
}
