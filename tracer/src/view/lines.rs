//! One line per row: for pipes and logs.

use super::text;
use crate::flows::Row;

/// One line, without the newline; with `stack`, another for each place of the
/// kernel's stack. `count` packets since the line before.
pub fn row(row: &Row, count: u64, time: &str, stack: bool) -> String {
    let evidence = &row.evidence;
    let mut parts = vec![
        time.to_owned(),
        format!(
            "{} {}",
            text::family(evidence.flow()),
            text::endpoints(evidence.flow())
        ),
        text::protocol(evidence.flow()),
        text::tunnel(row),
        format!("×{count}"),
        format!("{} [{}]", row.cause.id, row.confidence.word()),
        text::verdict(row),
        text::place(evidence.place.as_ref()),
    ];
    parts.extend(evidence.reason.clone());
    parts.push(text::counters(row));
    parts.push(text::sender(row));
    parts.retain(|part| !part.is_empty());
    let mut line = parts.join("  ");
    for place in row.stack.iter().filter(|_| stack) {
        line.push_str("\n    ");
        line.push_str(&text::place(Some(place)));
    }
    line
}
