//! The way of a packet as a drawing: what was sent, the tunnels it went into, the
//! route they got, where it ended.

use std::fmt::Write as _;

use super::markup::escaped;
use crate::{
    flows::Row,
    view::{facts, text},
};

/// Of one character, of a line, of the space around them, and between boxes.
const CHARACTER: usize = 8;
const LINE: usize = 17;
const PADDING: usize = 10;
const GAP: usize = 34;
/// Most characters of a line that are shown; the whole is its title.
const MAX_CHARACTERS: usize = 44;

/// One box.
struct Step {
    class: &'static str,
    name: &'static str,
    lines: Vec<String>,
}

fn steps(row: &Row) -> Vec<Step> {
    let evidence = &row.evidence;
    let record = evidence.record.as_ref();
    let step = |class, name, lines: Vec<String>| Step { class, name, lines };
    let packet = |flow| {
        let (from, to) = endpoints(flow);
        vec![
            format!("{} {}", text::family(flow), text::protocol(flow)),
            from,
            to,
        ]
    };
    let mut steps = Vec::new();
    let origin = record.map(|record| &record.origin);
    if let Some(origin) = origin.filter(|origin| origin.ethertype != 0) {
        steps.push(step("", "sent", packet(origin)));
    } else {
        steps.push(step("", "inner packet", packet(evidence.flow())));
    }
    let last = row.path.len().saturating_sub(1);
    for (n, name) in row.path.iter().enumerate() {
        let mut lines = vec![name.clone()];
        if n == last {
            let device = evidence.device.as_ref();
            lines.push(evidence.kind.clone());
            lines.extend(device.and_then(|device| device.encap.clone()));
            let remote = device.and_then(|device| device.remote);
            lines.extend(remote.map(|remote| format!("to {remote}")));
            lines.extend(row.netns.as_ref().map(|netns| format!("netns {netns}")));
        }
        steps.push(step("way", "tunnel", lines));
    }
    if row.path.is_empty() && evidence.key.ifindex != 0 {
        steps.push(step("way", "tunnel", vec![text::tunnel(row)]));
    }
    if let Some(route) = text::route_of(row) {
        let mut lines = vec![route];
        lines.extend(text::looked_up(row).map(|to| format!("for {to}")));
        steps.push(step("way", "route", lines));
    }
    if let Some(record) = record.filter(|record| record.outer.ethertype != 0) {
        steps.push(step("way", "outer packet", packet(&record.outer)));
    }
    let mut end = vec![text::place(evidence.place.as_ref())];
    let by = if evidence.by_kfree() {
        "kfree_skb"
    } else {
        "consume_skb"
    };
    end.push(format!("by {by}"));
    end.extend(evidence.reason.clone());
    let name = match evidence.received() {
        true => "received, freed in",
        false => "freed in",
    };
    steps.push(step("end", name, end));
    steps
}

fn endpoints(flow: &tracer_common::flow::Flow) -> (String, String) {
    let both = text::endpoints(flow);
    match both.split_once(" > ") {
        Some((from, to)) => (from.to_owned(), format!("> {to}")),
        None => (both, String::new()),
    }
}

/// The drawing.
pub fn draw(row: &Row) -> String {
    let steps: Vec<Step> = steps(row)
        .into_iter()
        .map(|step| Step {
            lines: step
                .lines
                .into_iter()
                .filter(|line| !line.is_empty())
                .collect(),
            ..step
        })
        .collect();
    let most = steps.iter().map(|step| step.lines.len()).max().unwrap_or(0);
    let height = (most + 1) * LINE + 2 * PADDING;
    let widths: Vec<usize> = steps.iter().map(width).collect();
    let whole: usize = widths.iter().sum::<usize>() + GAP * steps.len().saturating_sub(1);
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg role=\"img\" aria-label=\"{}\" width=\"{}\" height=\"{}\" viewBox=\"-1 -1 {} {}\">",
        escaped(&format!("{}: {}", facts::fate(row), text::verdict(row))),
        whole + 2,
        height + 2,
        whole + 2,
        height + 2,
    );
    let mut x = 0;
    for (n, (step, width)) in steps.iter().zip(&widths).enumerate() {
        if n > 0 {
            let (from, to, middle) = (x - GAP + 4, x - 5, height / 2);
            let _ = write!(
                out,
                "<path class=\"arrow\" d=\"M{from} {middle}H{}\"/><path class=\"head\" d=\"M{} {}L{to} {middle}L{} {}Z\"/>",
                to - 6,
                to - 8,
                middle - 4,
                to - 8,
                middle + 4,
            );
        }
        let _ = write!(
            out,
            "<g class=\"{}\"><rect x=\"{x}\" y=\"0\" width=\"{width}\" height=\"{height}\" rx=\"5\"/>",
            step.class
        );
        let left = x + PADDING;
        let _ = write!(
            out,
            "<text class=\"name\" x=\"{left}\" y=\"{}\">{}</text>",
            PADDING + 11,
            escaped(step.name)
        );
        for (n, line) in step.lines.iter().enumerate() {
            let y = PADDING + 11 + (n + 1) * LINE;
            let _ = write!(
                out,
                "<text x=\"{left}\" y=\"{y}\"><title>{}</title>{}</text>",
                escaped(line),
                escaped(&short(line))
            );
        }
        out.push_str("</g>");
        x += width + GAP;
    }
    out.push_str("</svg>");
    out
}

fn width(step: &Step) -> usize {
    let lines = step.lines.iter().map(|line| short(line).chars().count());
    let longest = lines.chain([step.name.len()]).max().unwrap_or(0);
    longest * CHARACTER + 2 * PADDING
}

fn short(line: &str) -> String {
    if line.chars().count() <= MAX_CHARACTERS {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(MAX_CHARACTERS - 1).collect();
    short.push('…');
    short
}
