//! The live table: one row per inner flow and cause, newest trouble on top.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};

use super::{summary, text};
use crate::flows::{Report, Row};

/// Most rows of the table.
const MAX_ROWS: usize = 30;

/// Below this width, only what matters most.
const NARROW: u16 = 100;

/// Renders for a terminal of this size. `age` says how long ago a row's
/// newest packet was, in seconds.
pub fn render(report: &Report, width: u16, height: u16, age: impl Fn(&Row) -> u64) -> String {
    let narrow = width < NARROW;
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width);
    table.set_header(if narrow {
        vec!["FLOW", "TUNNEL", "CAUSE", "COUNT"]
    } else {
        vec![
            "FLOW",
            "TUNNEL",
            "OUTER DST",
            "CAUSE",
            "ROUTE",
            "COUNTERS",
            "COUNT",
            "RATE",
            "SENDER",
            "LAST",
        ]
    });
    let mut rows: Vec<&Row> = report.rows.iter().collect();
    rows.sort_by_key(|row| (!row.is_users(), std::cmp::Reverse(row.last_ns)));
    for row in rows.iter().take(MAX_ROWS) {
        let flow = row.evidence.flow();
        let flow_text = format!(
            "{} {} {}",
            text::family(flow),
            text::endpoints(flow),
            text::protocol(flow)
        );
        let cause = format!("{} [{}]", text::verdict(row), row.confidence.word());
        table.add_row(if narrow {
            vec![
                flow_text,
                text::device_name(row),
                cause,
                row.count.to_string(),
            ]
        } else {
            vec![
                flow_text,
                text::tunnel(row),
                text::outer_destination(row).map_or(String::new(), |to| to.to_string()),
                cause,
                text::route(row).unwrap_or_default(),
                text::counters(row),
                row.count.to_string(),
                format!("{:.1}/s", row.rate),
                text::sender(row),
                format!("{}s ago", age(row)),
            ]
        });
    }
    let mut out = String::new();
    if report.rows.is_empty() {
        out.push_str("nothing vanished so far\n");
    } else {
        for line in table
            .lines()
            .take(usize::from(height.saturating_sub(4)).max(4))
        {
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    for line in summary::devices(report)
        .lines()
        .take(usize::from(height / 3).max(2))
    {
        let _ = writeln!(out, "{}", cut(line, usize::from(width)));
    }
    out
}

/// A line no wider than the terminal. Everything in it is printable; wide
/// characters are only ever in names, where one column more does no harm.
fn cut(line: &str, width: usize) -> String {
    line.chars().take(width).collect()
}
