//! The live table: one row per inner flow and cause, newest trouble on top.

use std::{cmp::Reverse, fmt::Write as _};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

use super::{summary, text};
use crate::flows::{Report, Row};

/// Most rows of the table.
const MAX_ROWS: usize = 30;

/// Below this width, only what matters most.
const NARROW: u16 = 100;

/// A column: its title, what it shows of a row, and whether it gives way when
/// the terminal is narrow.
struct Column {
    title: &'static str,
    gives_way: bool,
    show: fn(&Row, u64) -> String,
}

const WIDE: &[Column] = &[
    flexible("FLOW", |row, _| flow(row)),
    flexible("TUNNEL", |row, _| text::tunnel(row)),
    fixed("OUTER DST", |row, _| {
        text::outer_destination(row).map_or(String::new(), |to| to.to_string())
    }),
    flexible("CAUSE", |row, _| {
        format!("{} [{}]", text::verdict(row), row.confidence.word())
    }),
    flexible("ROUTE", |row, _| text::route_of(row).unwrap_or_default()),
    flexible("COUNTERS", |row, _| text::counters(row)),
    fixed("COUNT", |row, _| row.count.to_string()),
    fixed("RATE", |row, _| format!("{:.1}/s", row.rate)),
    flexible("SENDER", |row, _| text::sender(row)),
    fixed("LAST", |_, age| format!("{age}s")),
];

const FEW: &[Column] = &[
    flexible("FLOW", |row, _| flow(row)),
    flexible("TUNNEL", |row, _| text::device_name(row)),
    flexible("CAUSE", |row, _| row.cause.id.to_owned()),
    fixed("COUNT", |row, _| row.count.to_string()),
];

const fn flexible(title: &'static str, show: fn(&Row, u64) -> String) -> Column {
    Column {
        title,
        gives_way: true,
        show,
    }
}

const fn fixed(title: &'static str, show: fn(&Row, u64) -> String) -> Column {
    Column {
        title,
        gives_way: false,
        show,
    }
}

/// `IPv6 fe80::1 > fe80::2 ICMPv6 echo request`.
fn flow(row: &Row) -> String {
    let flow = row.evidence.flow();
    format!(
        "{} {} {}",
        text::family(flow),
        text::endpoints(flow),
        text::protocol(flow)
    )
}

/// Renders for a terminal of this size. `age` says how long ago a row's
/// newest packet was, in seconds.
pub fn render(report: &Report, width: u16, height: u16, age: impl Fn(&Row) -> u64) -> String {
    let columns = if width < NARROW { FEW } else { WIDE };
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header(columns.iter().map(|column| column.title));
    let mut rows: Vec<&Row> = report.rows.iter().collect();
    rows.sort_by_key(|row| (!row.is_users(), Reverse(row.last_ns)));
    for row in rows.iter().take(MAX_ROWS) {
        table.add_row(columns.iter().map(|column| (column.show)(row, age(row))));
    }
    for (column, made) in columns.iter().zip(table.column_iter_mut()) {
        if !column.gives_way {
            made.set_constraint(ColumnConstraint::ContentWidth);
        }
    }

    let devices = summary::devices(report);
    let devices: Vec<&str> = devices.lines().collect();
    // The last line says whether all was counted; the devices before it may
    // have to make room.
    let below = devices.len().min(usize::from(height / 3).max(2));
    let above = usize::from(height).saturating_sub(below);
    let mut out = String::new();
    if report.rows.is_empty() {
        out.push_str("nothing vanished so far\n");
    } else {
        for line in table.lines().take(above) {
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    let kept = devices.len() - below;
    for line in devices[..below.saturating_sub(1)]
        .iter()
        .chain(devices[kept..].last())
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
