//! `tracer compare --a EXPR --b EXPR`: two selections of the same run side by
//! side: how far they go the same way, and where they part.

mod steps;

use std::{collections::BTreeMap, ffi::OsString, fmt::Write as _, path::Path};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    cli::{Format, Options},
    event::{Event, Start},
    filter::{self, Host, World},
    flows::{Book, Report, Row, Selection},
    report,
    session::{self, Usage},
    terminal,
    view::{facts, text},
};
use steps::{NAMES, Parting, Way};

/// Most verdicts of a side that are told.
const MAX_VERDICTS: usize = 10;

/// The two expressions.
#[derive(Clone, Debug)]
pub struct Asked {
    pub a: String,
    pub b: String,
}

/// Two selections, while what happens is taken in.
pub struct Pair {
    asked: Asked,
    a: Book,
    b: Book,
    /// It ends before the run did.
    broken_off: bool,
}

/// What is known of one selection.
struct Side {
    name: &'static str,
    expression: String,
    report: Report,
    /// Packets that were sent, by device; those that were lost later among them.
    sent: BTreeMap<String, u64>,
    /// Packets that were sent and may be of it.
    undecided: u64,
}

/// Compares two selections of a recording, or of what happens while a command
/// runs.
pub fn run(
    options: &Options,
    asked: &Asked,
    file: Option<&Path>,
    command: &[OsString],
) -> Result<u8> {
    if matches!(options.format, Format::Markdown | Format::Html) {
        return Err(Usage("compare has --format table, lines or json".to_owned()).into());
    }
    match (file, command) {
        (Some(file), []) => {
            report::refuse(&[
                ("--dev", options.dev.is_some()),
                ("--netns", options.netns.is_some()),
                ("--filter", options.filter.is_some()),
                ("--duration", options.duration.is_some()),
                ("--all-drops", options.all_drops),
            ])?;
            of_recording(options, asked, file)
        }
        (None, [_, ..]) => {
            // Before anything is attached.
            selections(asked, &Host)?;
            session::compare(options, asked, command)
        }
        _ => Err(Usage(
            "compare takes a recording, or a command behind --: tracer compare --a EXPR --b EXPR FILE"
                .to_owned(),
        )
        .into()),
    }
}

fn of_recording(options: &Options, asked: &Asked, path: &Path) -> Result<u8> {
    let (mut pair, whole) = report::take_in(
        path,
        |begin| Pair::new(&begin.start, asked, &report::world(path)),
        Pair::take,
    )?;
    pair.broken_off = !whole;
    pair.conclude(options.format)
}

fn selections(asked: &Asked, world: &dyn World) -> Result<[Selection; 2]> {
    let of = |text: &str, option| {
        let program = filter::program(text, world);
        let program = program.map_err(|error| error.given_by(option))?;
        anyhow::Ok(Selection::default().by_filter(program))
    };
    Ok([of(&asked.a, "--a")?, of(&asked.b, "--b")?])
}

impl Pair {
    pub fn new(start: &Start, asked: &Asked, world: &dyn World) -> Result<Self> {
        let [a, b] = selections(asked, world)?.map(|selection| {
            let mut book = Book::new(start);
            book.select(selection);
            book
        });
        Ok(Self {
            asked: asked.clone(),
            a,
            b,
            broken_off: false,
        })
    }

    /// Takes in what came next.
    pub fn take(&mut self, event: &Event) {
        self.a.take(event);
        self.b.take(event);
    }

    /// Tells it; gives the exit status.
    pub fn conclude(mut self, format: Format) -> Result<u8> {
        let a = Side::of("A", &self.asked.a, &mut self.a, self.broken_off);
        let b = Side::of("B", &self.asked.b, &mut self.b, self.broken_off);
        let (ways, parting) = compare(&a, &b);
        let text = match format {
            Format::Json => line(&a, &b, &ways, parting),
            _ => render(&a, &b, &ways, parting),
        };
        terminal::print(&text)?;
        Ok(exit_status(&a, &b, parting))
    }
}

impl Side {
    fn of(name: &'static str, expression: &str, book: &mut Book, broken_off: bool) -> Self {
        let (sent, undecided) = book.selected_sent();
        Self {
            name,
            expression: crate::devices::printable(expression.as_bytes()),
            report: Report {
                broken_off,
                ..book.report()
            },
            sent,
            undecided,
        }
    }

    fn is_seen(&self) -> bool {
        !self.report.rows.is_empty() || !self.sent.is_empty()
    }

    /// The row that stands for it: the one of most packets, a user's first.
    fn row(&self) -> Option<&Row> {
        let rows = self.report.rows.iter();
        rows.max_by_key(|row| (!row.is_kernels(), row.count))
    }

    fn way(&self) -> Way {
        match self.row() {
            Some(row) => steps::of_row(row),
            None if self.sent.is_empty() => Way::default(),
            None => {
                let mut devices = self.sent.keys();
                let device = devices.next().cloned();
                steps::of_sent(device.filter(|_| devices.next().is_none()))
            }
        }
    }

    /// `2 vanished, 5 sent`.
    fn counts(&self) -> String {
        let sent: u64 = self.sent.values().sum();
        let mut text = format!("{} vanished, {sent} sent", self.report.drops());
        let may = self.undecided + self.report.undecided();
        if may > 0 {
            let _ = write!(text, "; {may} more may be among them");
        }
        text
    }

    /// Could it be something else, for what is not known?
    fn is_certain(&self) -> bool {
        self.report.is_certain()
    }
}

fn compare(a: &Side, b: &Side) -> ([Way; 2], Parting) {
    let mut ways = [a.way(), b.way()];
    // A device's settings are the same where its name is; of packets that pass,
    // the name is all there is.
    let names = |side: &Side| side.row().map(text::device_name);
    if let ([Some(x), Some(y)], one, other) =
        ([ways[0][0].clone(), ways[1][0].clone()], names(a), names(b))
    {
        let same = one.as_ref().unwrap_or(&x) == other.as_ref().unwrap_or(&y);
        if same && (one.is_none() || other.is_none()) {
            let longer = if x.len() > y.len() { x } else { y };
            ways[0][0] = Some(longer.clone());
            ways[1][0] = Some(longer);
        }
    }
    let parting = steps::parting(&ways[0], &ways[1]);
    (ways, parting)
}

fn exit_status(a: &Side, b: &Side, parting: Parting) -> u8 {
    if !a.is_seen() || !b.is_seen() {
        return crate::COULD_NOT_TRACE;
    }
    // What is not seen to vanish may have, in a run that is not complete.
    let open = |side: &Side| side.row().is_none() && !side.is_certain();
    match parting.parted {
        Some(_) if open(a) || open(b) => crate::COULD_NOT_TRACE,
        Some(_) => 1,
        None if a.is_certain() && b.is_certain() => 0,
        None => crate::COULD_NOT_TRACE,
    }
}

fn render(a: &Side, b: &Side, ways: &[Way; 2], parting: Parting) -> String {
    let mut out = String::new();
    for side in [a, b] {
        let _ = writeln!(out, "{}: {}: {}", side.name, side.expression, side.counts());
    }
    out.push('\n');
    let shown = |step: &Option<String>| step.clone().unwrap_or_else(|| "not known".to_owned());
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let names = width(&mut NAMES.iter().map(|name| name.len()));
    let first = width(&mut ways[0].iter().map(|step| shown(step).chars().count()));
    let _ = writeln!(out, "{:names$}  {:first$}  B", "", "A");
    for (n, name) in NAMES.iter().enumerate() {
        let (x, y) = (shown(&ways[0][n]), shown(&ways[1][n]));
        let mark = if parting.parted == Some(n) {
            "  <- they part"
        } else {
            ""
        };
        let _ = writeln!(out, "{name:names$}  {x:first$}  {y}{mark}");
    }
    out.push('\n');
    out.push_str(&conclusion(a, b, ways, parting));
    for side in [a, b] {
        verdicts(&mut out, side);
    }
    if !a.is_certain() || !b.is_certain() {
        out.push_str("Not everything was counted: what is not shown may have been.\n");
    }
    out
}

/// Where they part, in a sentence or two.
fn conclusion(a: &Side, b: &Side, ways: &[Way; 2], parting: Parting) -> String {
    for side in [a, b] {
        if !side.is_seen() {
            return format!("Of {} no packet was seen.\n", side.name);
        }
    }
    let mut out = String::new();
    if let Some(common) = parting.common {
        let value = ways[0][common].as_deref().unwrap_or_default();
        let _ = writeln!(out, "Last step in common: {}, {value}.", NAMES[common]);
    }
    match parting.parted {
        None => out.push_str("As far as is known, they do not part.\n"),
        Some(n) => {
            let value = |way: &Way| way[n].clone().unwrap_or_default();
            let _ = writeln!(
                out,
                "They part at: {}: {} in A, {} in B.",
                NAMES[n],
                value(&ways[0]),
                value(&ways[1])
            );
            let between = parting.common.map_or(0, |common| common + 1)..n;
            let unknown: Vec<&str> = NAMES[between].to_vec();
            if !unknown.is_empty() {
                let _ = writeln!(
                    out,
                    "Not known of both, so that they may part there already: {}.",
                    unknown.join(", ")
                );
            }
        }
    }
    out
}

fn verdicts(out: &mut String, side: &Side) {
    let _ = writeln!(out, "\n{}:", side.name);
    let mut rows: Vec<&Row> = side.report.rows.iter().collect();
    rows.sort_by_key(|row| (row.is_kernels(), std::cmp::Reverse(row.count)));
    for row in rows.iter().take(MAX_VERDICTS) {
        let _ = writeln!(
            out,
            "  {} ×{} [{}, {}]: {}\n    {}, {}",
            facts::fate(row),
            row.count,
            row.cause.id,
            row.confidence.word(),
            text::verdict(row),
            facts::packet(row.evidence.flow()),
            text::tunnel(row),
        );
    }
    if rows.len() > MAX_VERDICTS {
        let _ = writeln!(out, "  and {} more", rows.len() - MAX_VERDICTS);
    }
    if rows.is_empty() {
        let word = match side.sent.is_empty() {
            true => "no packet of it was seen",
            false => "nothing of it was seen to vanish",
        };
        let _ = writeln!(out, "  {word}");
    }
}

fn line(a: &Side, b: &Side, ways: &[Way; 2], parting: Parting) -> String {
    let side = |side: &Side, way: &Way| -> Value {
        let steps: serde_json::Map<_, _> = NAMES
            .iter()
            .zip(way)
            .filter_map(|(name, step)| Some(((*name).to_owned(), json!(step.as_ref()?))))
            .collect();
        let rows = side.report.rows.iter();
        let verdicts: Vec<Value> = rows
            .map(|row| {
                json!({
                    "cause": row.cause.id, "confidence": row.confidence.word(),
                    "verdict": text::verdict(row), "count": row.count,
                })
            })
            .collect();
        json!({
            "filter": side.expression, "vanished": side.report.drops(),
            "sent": side.sent.values().sum::<u64>(),
            "undecided": side.undecided + side.report.undecided(),
            "complete": side.is_certain(), "steps": steps, "verdicts": verdicts,
        })
    };
    let name = |step: Option<usize>| step.and_then(|n| NAMES.get(n)).copied();
    let mut line = json!({
        "v": 1, "type": "compare", "a": side(a, &ways[0]), "b": side(b, &ways[1]),
    });
    if let Some(common) = name(parting.common) {
        line["common"] = json!(common);
    }
    if let Some(parted) = name(parting.parted) {
        line["parted"] = json!(parted);
    }
    format!("{line}\n")
}

#[cfg(test)]
mod tests;
