//! A report as one page that needs nothing but itself: no script, no network.
//! Whatever comes from the machine goes through [`markup::escaped`].

mod markup;
mod path;
mod plot;

use std::fmt::Write as _;

use markup::{escaped, tagged};
pub use plot::Timeline;

use super::{about::About, facts, summary, text};
use crate::{
    event::Start,
    flows::{Report, Row},
};

const STYLE: &str = include_str!("style.css");
/// Nothing is fetched and nothing runs, whatever is in the page.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
/// Most rows that are told in full, and most of the table.
const MAX_BLOCKS: usize = 200;
const MAX_ROWS: usize = 2000;
/// So many are unfolded from the beginning.
const UNFOLDED: usize = 10;

/// What a page is made of besides the report.
pub struct Page<'a, C> {
    pub start: &'a Start,
    pub about: &'a About,
    pub timeline: &'a Timeline,
    /// The time of day of a time.
    pub clock: C,
    pub stack: bool,
}

/// The whole page.
pub fn render<C: Fn(u64) -> String>(page: &Page<'_, C>, report: &Report) -> String {
    let title = match report.drops() {
        0 => "Nothing vanished in a tunnel".to_owned(),
        1 => "1 packet vanished in a tunnel".to_owned(),
        drops => format!("{drops} packets vanished in tunnels"),
    };
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <title>tracer: {title}</title>\n<style>\n{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n"
    );
    head(&mut out, page, report);
    if let Some(plot) = page.timeline.draw(&page.clock) {
        let _ = writeln!(out, "<h2>Drops over time</h2>\n{plot}");
    }
    flows(&mut out, page, report);
    for (n, row) in report.rows.iter().take(MAX_BLOCKS).enumerate() {
        block(&mut out, n, row, page.stack);
    }
    devices(&mut out, report);
    probes(&mut out, page.start);
    let again = page.about.again().join("\n");
    let _ = writeln!(out, "<h2>To measure it again</h2>\n{}", lines(&again));
    out.push_str("</body></html>\n");
    out
}

/// Names and what is known.
fn table<'a>(out: &mut String, facts: impl Iterator<Item = (&'a str, String)>) {
    out.push_str("<div class=\"scroll\"><table><tbody>\n");
    for (name, fact) in facts {
        let _ = writeln!(
            out,
            "<tr>{}{}</tr>",
            tagged("th", name),
            tagged("td", &fact)
        );
    }
    out.push_str("</tbody></table></div>\n");
}

/// Lines as they are.
fn lines(text: &str) -> String {
    let each: Vec<String> = text.lines().map(escaped).collect();
    format!("<pre>{}</pre>", each.join("\n"))
}

fn head<C: Fn(u64) -> String>(out: &mut String, page: &Page<'_, C>, report: &Report) {
    let start = page.start;
    let mut facts = vec![
        ("kernel", format!("{} {}", start.kernel, start.arch)),
        ("traced by", page.about.by()),
        (
            "traced",
            format!(
                "{} for {:.1} s",
                (page.clock)(start.time_ns),
                report.duration.as_secs_f64()
            ),
        ),
        ("complete", summary::complete(report)),
    ];
    if let Some((file, _)) = &page.about.recording {
        facts.push(("recording", file.clone()));
    }
    for (option, value) in &page.about.part {
        facts.push(("shown", format!("{option} {value}")));
    }
    if let Some(selected) = &report.selected {
        facts.push(("vanished in all", selected.of.to_string()));
    }
    table(out, facts.into_iter());
}

fn flows<C: Fn(u64) -> String>(out: &mut String, page: &Page<'_, C>, report: &Report) {
    if report.rows.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Flows</h2>\n<div class=\"scroll\"><table><thead><tr><th>flow</th><th>tunnel</th>\
         <th>cause</th><th>sure</th><th class=\"number\">packets</th><th>sender</th><th>last</th></tr></thead><tbody>\n",
    );
    for (n, row) in report.rows.iter().take(MAX_ROWS).enumerate() {
        let flow = tagged("span", &facts::packet(row.evidence.flow()));
        let flow = match n < MAX_BLOCKS {
            true => format!("<a href=\"#flow-{n}\">{flow}</a>"),
            false => flow,
        };
        let _ = writeln!(
            out,
            "<tr><td>{flow}</td>{}<td><code>{}</code></td><td>{}</td><td class=\"number\">{}</td>{}{}</tr>",
            tagged("td", &text::device_name(row)),
            escaped(row.cause.id),
            sure(row),
            row.count,
            tagged("td", &text::sender(row)),
            tagged("td", &(page.clock)(row.last_ns)),
        );
    }
    out.push_str("</tbody></table></div>\n");
    if report.rows.len() > MAX_ROWS {
        let packets: u64 = report.rows[MAX_ROWS..].iter().map(|row| row.count).sum();
        let more = report.rows.len() - MAX_ROWS;
        let _ = writeln!(out, "<p>And {packets} packets of {more} more flows.</p>");
    }
    out.push_str("<h2>Verdicts</h2>\n");
}

fn sure(row: &Row) -> String {
    let word = row.confidence.word();
    format!("<span class=\"sure {word}\">{word}</span>")
}

fn block(out: &mut String, n: usize, row: &Row, stack: bool) {
    let open = if n < UNFOLDED { " open=\"open\"" } else { "" };
    let _ = writeln!(
        out,
        "<details id=\"flow-{n}\"{open}><summary><strong>{}</strong> over {} <span class=\"fate\">{} ×{}</span> {}</summary>",
        escaped(&facts::packet(row.evidence.flow())),
        tagged("code", &text::device_name(row)),
        facts::fate(row),
        row.count,
        sure(row),
    );
    let _ = writeln!(
        out,
        "<p class=\"verdict\">{}</p>",
        escaped(&text::verdict(row))
    );
    let _ = writeln!(out, "<div class=\"scroll\">{}</div>", path::draw(row));
    table(out, facts::of(row).into_iter());
    let _ = writeln!(out, "{}", lines(&facts::commands(row).join("\n")));
    if stack && !row.stack.is_empty() {
        let places = row.stack.iter().map(|place| text::place(Some(place)));
        let places = places.collect::<Vec<_>>().join("\n");
        let _ = writeln!(out, "<p>Stack, innermost first:</p>{}", lines(&places));
    }
    out.push_str("</details>\n");
}

fn devices(out: &mut String, report: &Report) {
    if report.ledgers.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Devices</h2>\n<div class=\"scroll\"><table><thead><tr><th>device</th><th>kind</th><th>netns</th>\
         <th class=\"number\">in</th><th class=\"number\">sent</th><th class=\"number\">dropped</th>\
         <th class=\"number\">unexplained</th><th class=\"number\">lost after sending</th><th>what separates</th></tr></thead><tbody>\n",
    );
    for ledger in &report.ledgers {
        let later: u64 = ledger.lost_after_sending.iter().map(|(_, n)| n).sum();
        let _ = write!(
            out,
            "<tr>{}{}{}",
            tagged("td", &ledger.name),
            tagged("td", &ledger.kind),
            tagged("td", ledger.netns.as_deref().unwrap_or_default()),
        );
        let tally = &ledger.tally;
        for number in [
            tally.packets_in,
            tally.sent,
            tally.dropped,
            ledger.unexplained(),
            later,
        ] {
            let _ = write!(out, "<td class=\"number\">{number}</td>");
        }
        let separations = summary::separations(ledger).join("; ");
        let _ = writeln!(out, "{}</tr>", tagged("td", &separations));
    }
    out.push_str("</tbody></table></div>\n");
    if report
        .selected
        .is_some_and(|selected| selected.devices_whole)
    {
        out.push_str("<p>These are counts of all packets of the devices.</p>\n");
    }
}

fn probes(out: &mut String, start: &Start) {
    let _ = writeln!(
        out,
        "<h2>Probes</h2>\n<p>{} attached, {} missing.</p>",
        start.attached.len(),
        start.missing.len()
    );
    let missing = start.missing.iter();
    let missing = missing.map(|one| {
        let what = format!("{}; lost: {}", one.why, one.lost);
        (one.point.as_str(), what)
    });
    table(out, missing);
    out.push_str("<details><summary>Attached</summary>\n");
    let attached = start.attached.iter().map(|one| {
        let module = one.module.as_ref();
        let module = module.map_or(String::new(), |name| format!(" [{name}]"));
        (
            one.point.as_str(),
            format!("{}{module} by {}", one.target, one.way),
        )
    });
    table(out, attached);
    let config = start.config.iter();
    table(
        out,
        config.map(|(name, value)| (name.as_str(), value.clone())),
    );
    out.push_str("</details>\n");
}

#[cfg(test)]
mod tests;
