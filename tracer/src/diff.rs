//! `tracer diff A B`: what vanishes in one recording and not in the other.
//!
//! Flows are the same by what they are (device, namespace, family, protocol,
//! destination, service port), not by when they were, whose process sent them
//! or which ephemeral port they had. That a flow fares otherwise is a
//! difference only where both recordings could see it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use tracer_common::{
    flow::{Flow, IPPROTO_ICMP, IPPROTO_ICMPV6},
    tally::outcome,
};

use crate::{
    cli::{Format, Options},
    devices::printable,
    flows::{Report, Row, Sent},
    judge::Confidence,
    record::{Recording, Scope},
    report,
    session::Usage,
    story::{Manner, Story},
    view::{about::About, text},
};

/// Ports from here on are chosen by the sender's kernel
/// (net.ipv4.ip_local_port_range).
const EPHEMERAL: u16 = 32768;

/// What a recording says.
struct Run {
    name: String,
    kernel: String,
    points: BTreeSet<String>,
    /// What was asked for.
    scope: Scope,
    report: Report,
    sent: Vec<Sent>,
}

/// What makes two flows the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    device: String,
    netns: Option<String>,
    /// On its way into the tunnel, or where it arrives.
    arriving: bool,
    family: u16,
    proto: u8,
    dst: [u8; 16],
    icmp_type: u8,
    port: u16,
}

/// How a flow fared in one recording.
#[derive(Clone, Debug, Default)]
struct Fate {
    /// Packets that vanished in the tunnel, by cause.
    dropped: BTreeMap<&'static str, (u64, Confidence)>,
    /// Packets that were sent and vanished then, or where they arrived.
    lost: BTreeMap<&'static str, (u64, Confidence)>,
    /// Packets that the tunnel sent, those that were lost later among them.
    sent: u64,
    row: Option<Row>,
}

/// What a comparison of two fates comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Different,
    /// It may be different, but for what one recording could not see.
    Unsure,
    OnlyA,
    OnlyB,
    Same,
}

struct Compared {
    id: Id,
    a: Fate,
    b: Fate,
    verdict: Verdict,
}

/// Compares two recordings and tells it.
pub fn run(options: &Options, a: &Path, b: &Path) -> Result<u8> {
    report::refuse(&[
        ("--dev", options.dev.is_some()),
        ("--netns", options.netns.is_some()),
        ("--filter", options.filter.is_some()),
        ("--duration", options.duration.is_some()),
        ("--all-drops", options.all_drops),
    ])?;
    let (a, b) = (Run::read(a)?, Run::read(b)?);
    let compared = compare(&a, &b);
    let text = match options.format {
        Format::Json => lines(&a, &b, &compared),
        Format::Markdown | Format::Html => {
            let text = "diff has --format table, lines or json";
            return Err(Usage(text.to_owned()).into());
        }
        Format::Table | Format::Lines => render(&a, &b, &compared),
    };
    io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .context("cannot write to stdout")?;
    Ok(exit_status(&a, &b, &compared))
}

fn exit_status(a: &Run, b: &Run, compared: &[Compared]) -> u8 {
    let count = |verdict| count(compared, verdict);
    let complete = a.report.is_complete() && b.report.is_complete();
    let comparable = compared.is_empty() || count(Verdict::Same) > 0;
    if count(Verdict::Different) > 0 {
        1
    } else if complete && comparable && count(Verdict::Unsure) == 0 {
        0
    } else {
        crate::COULD_NOT_TRACE
    }
}

fn count(compared: &[Compared], verdict: Verdict) -> usize {
    compared
        .iter()
        .filter(|compared| compared.verdict == verdict)
        .count()
}

impl Run {
    fn read(path: &Path) -> Result<Self> {
        let name = report::shown(path);
        let file = report::open(path)?;
        let (mut recording, begin) =
            Recording::open(file).map_err(|error| anyhow!("{name}: {error:#}"))?;
        let manner = Manner {
            format: Format::Json,
            stack: false,
            appended: false,
            ledgers: false,
        };
        let start = begin.start;
        let kernel = start.kernel.clone();
        let points = start.attached.iter();
        let points = points.map(|attached| attached.point.clone()).collect();
        let mut story = Story::new(start, manner, About::default(), io::sink());
        loop {
            match recording.next() {
                Ok(Some(event)) => story.take(&event),
                Ok(None) => break,
                Err(broken) => {
                    let _ = writeln!(
                        io::stderr(),
                        "tracer: {name}: {broken}; compared is what is before"
                    );
                    story.break_off();
                    break;
                }
            }
        }
        Ok(Self {
            name,
            kernel,
            points,
            // Stacks are no part of what is compared, nor is what else ran.
            scope: Scope {
                stack: false,
                command: Vec::new(),
                ..begin.scope
            },
            sent: story.book().sent(),
            report: story.report(),
        })
    }

    /// How each flow fared that a user, or another host, has sent: the kernel's
    /// own housekeeping comes when it comes.
    fn fates(&self) -> BTreeMap<Id, Fate> {
        let mut fates: BTreeMap<Id, Fate> = BTreeMap::new();
        for row in self.report.rows.iter().filter(|row| !row.is_kernels()) {
            let fate = fates.entry(Id::of(row)).or_default();
            let vanished = match row.evidence.key.outcome {
                outcome::DROPPED => &mut fate.dropped,
                _ => &mut fate.lost,
            };
            let (count, confidence) = vanished
                .entry(row.cause.id)
                .or_insert((0, Confidence::Proved));
            *count += row.count;
            *confidence = (*confidence).max(row.confidence);
            if fate.row.is_none() {
                fate.row = Some(row.clone());
            }
        }
        for sent in &self.sent {
            let mut known = false;
            for (id, fate) in fates.iter_mut().filter(|(id, _)| id.is_among(sent)) {
                // Of one destination, the kernel side does not count by port.
                fate.sent += sent.packets;
                known |= !id.arriving;
            }
            if !known {
                let id = Id::of_sent(sent);
                fates.entry(id).or_default().sent += sent.packets;
            }
        }
        fates
    }
}

/// A namespace without a name has another number in each run.
fn namespace(label: Option<&String>) -> Option<String> {
    label.map(|label| match label.starts_with("net:[") {
        true => "net".to_owned(),
        false => label.clone(),
    })
}

/// The port that says what a flow is for, 0: none does.
fn service(flow: &Flow) -> u16 {
    let port = match (flow.sport, flow.dport) {
        (0, port) | (port, 0) => port,
        (a, b) => a.min(b),
    };
    if port < EPHEMERAL { port } else { 0 }
}

impl Id {
    fn of(row: &Row) -> Self {
        let key = &row.evidence.key;
        let sending = matches!(key.outcome, outcome::DROPPED | outcome::LOST_LATER);
        let is_icmp = matches!(key.flow.proto, IPPROTO_ICMP | IPPROTO_ICMPV6);
        Self {
            device: text::device_name(row),
            netns: namespace(row.netns.as_ref()),
            arriving: !sending,
            family: key.flow.ethertype,
            proto: key.flow.proto,
            dst: key.flow.dst,
            icmp_type: if is_icmp { key.flow.icmp_type } else { 0 },
            port: service(&key.flow),
        }
    }

    fn of_sent(sent: &Sent) -> Self {
        Self {
            device: sent.device.clone(),
            netns: namespace(sent.netns.as_ref()),
            arriving: false,
            family: sent.ethertype,
            proto: sent.proto,
            dst: sent.dst,
            icmp_type: 0,
            port: 0,
        }
    }

    /// Are its packets among those that were counted as sent?
    fn is_among(&self, sent: &Sent) -> bool {
        !self.arriving
            && self.device == sent.device
            && self.netns == namespace(sent.netns.as_ref())
            && self.family == sent.ethertype
            && self.proto == sent.proto
            // Where there was no room, they are counted without destination.
            && (self.dst == sent.dst || sent.dst == [0; 16])
    }

    /// The same flow without what is only known of packets that vanish.
    fn coarse(&self) -> Self {
        Self {
            icmp_type: 0,
            port: 0,
            ..self.clone()
        }
    }
}

impl Fate {
    fn is_seen(&self) -> bool {
        self.sent > 0 || self.vanished()
    }

    fn vanished(&self) -> bool {
        !self.dropped.is_empty() || !self.lost.is_empty()
    }

    /// How far packets came: none out of the tunnel, out of it, all the way.
    fn stages(&self) -> (bool, bool) {
        (!self.dropped.is_empty(), !self.lost.is_empty())
    }

    fn causes(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        (
            self.dropped.keys().copied().collect(),
            self.lost.keys().copied().collect(),
        )
    }

    fn is_proved(&self) -> bool {
        let all = self.dropped.values().chain(self.lost.values());
        all.into_iter()
            .all(|(_, confidence)| *confidence == Confidence::Proved)
    }

    fn words(&self) -> String {
        let list = |causes: &BTreeMap<&'static str, (u64, Confidence)>| {
            let causes: Vec<String> = causes
                .iter()
                .map(|(id, (count, confidence))| format!("×{count} [{id}, {}]", confidence.word()))
                .collect();
            causes.join(", ")
        };
        let mut parts = Vec::new();
        if !self.dropped.is_empty() {
            parts.push(format!("dropped {}", list(&self.dropped)));
        }
        if self.sent > 0 {
            parts.push(format!("sent ×{}", self.sent));
        }
        if !self.lost.is_empty() {
            parts.push(format!("lost {}", list(&self.lost)));
        }
        if parts.is_empty() {
            parts.push("nothing vanished".to_owned());
        }
        parts.join(", ")
    }

    fn word(&self) -> &'static str {
        match (self.stages(), self.sent) {
            ((true, false), 0) => "dropped",
            ((true, _), _) => "dropped in part",
            ((false, true), 0) => "lost",
            ((false, true), _) => "sent, then lost",
            ((false, false), 0) => "not lost",
            ((false, false), _) => "sent",
        }
    }
}

fn compare(a: &Run, b: &Run) -> Vec<Compared> {
    let (of_a, of_b) = (a.fates(), b.fates());
    let ids: BTreeSet<Id> = of_a.keys().chain(of_b.keys()).cloned().collect();
    let sent = |fates: &BTreeMap<Id, Fate>, id: &Id| Fate {
        sent: fates.get(&id.coarse()).map_or(0, |fate| fate.sent),
        ..Fate::default()
    };
    // A flow of which packets vanished in one is, where all were sent, counted
    // without its details.
    let fates: Vec<(Id, Fate, Fate)> = ids
        .into_iter()
        .map(|id| {
            let of = |fates: &BTreeMap<Id, Fate>| match fates.get(&id) {
                Some(fate) => fate.clone(),
                None => sent(fates, &id),
            };
            (id.clone(), of(&of_a), of(&of_b))
        })
        .collect();
    let detailed: BTreeSet<Id> = fates
        .iter()
        .filter(|(_, a, b)| a.vanished() || b.vanished())
        .map(|(id, _, _)| id.coarse())
        .collect();
    let mut compared: Vec<Compared> = fates
        .into_iter()
        .filter(|(id, a, b)| a.vanished() || b.vanished() || !detailed.contains(id))
        .map(|(id, of_a, of_b)| Compared {
            verdict: verdict(&id, &of_a, &of_b, a, b),
            id,
            a: of_a,
            b: of_b,
        })
        .collect();
    compared.sort_by(|x, y| (x.verdict, &x.id).cmp(&(y.verdict, &y.id)));
    compared
}

fn verdict(id: &Id, a: &Fate, b: &Fate, of_a: &Run, of_b: &Run) -> Verdict {
    // What arrives well is not counted: there, no drop is all that can be seen.
    if !id.arriving {
        match (a.is_seen(), b.is_seen()) {
            (true, false) => return Verdict::OnlyA,
            (false, true) => return Verdict::OnlyB,
            _ => {}
        }
    }
    if a.stages() != b.stages() {
        // A stage that is not there was not, or was not seen.
        let complete = |run: &Run| run.report.is_complete();
        return match complete(of_a) && complete(of_b) && of_a.scope == of_b.scope {
            true => Verdict::Different,
            false => Verdict::Unsure,
        };
    }
    if a.causes() == b.causes() {
        return Verdict::Same;
    }
    match a.is_proved() && b.is_proved() {
        true => Verdict::Different,
        false => Verdict::Unsure,
    }
}

/// `IPv6 to fd09::2 (ICMPv6 echo request) over t0 (sit, netns A)`.
fn title(compared: &Compared) -> String {
    let Compared { id, a, b, .. } = compared;
    let row = a.row.as_ref().or(b.row.as_ref());
    let mut what = text::family_of(id.family);
    if let Some(dst) = text::address(&id.dst, id.family) {
        let _ = write!(what, " to {dst}");
    }
    if let Some(row) = row {
        let _ = write!(what, " ({})", text::protocol(row.evidence.flow()));
    }
    let device = row.map_or_else(|| id.device.clone(), text::tunnel);
    format!("{what} over {device}")
}

fn render(a: &Run, b: &Run, compared: &[Compared]) -> String {
    let mut out = format!(
        "A: {} ({})\nB: {} ({})\n",
        a.name,
        printable(a.kernel.as_bytes()),
        b.name,
        printable(b.kernel.as_bytes())
    );
    for one in compared.iter().filter(|one| one.verdict != Verdict::Same) {
        let said = match one.verdict {
            Verdict::Different => format!("{} in A, {} in B", one.a.word(), one.b.word()),
            Verdict::Unsure => "told differently, which may be what was traced".to_owned(),
            Verdict::OnlyA => "only A has such packets".to_owned(),
            Verdict::OnlyB => "only B has such packets".to_owned(),
            Verdict::Same => continue,
        };
        let _ = writeln!(out, "\n{}: {said}{}", title(one), alike(one, compared));
        for (name, fate) in [("A", &one.a), ("B", &one.b)] {
            let why = match &fate.row {
                Some(row) => format!(": {}", text::verdict(row)),
                None => String::new(),
            };
            let _ = writeln!(out, "  {name}: {}{why}", fate.words());
        }
    }
    let _ = writeln!(
        out,
        "\n{} different, {} the same, {} unsure, {} only in A, {} only in B",
        count(compared, Verdict::Different),
        count(compared, Verdict::Same),
        count(compared, Verdict::Unsure),
        count(compared, Verdict::OnlyA),
        count(compared, Verdict::OnlyB),
    );
    if a.scope != b.scope {
        out += "They were recorded with other options: what one does not show may have been.\n";
    }
    for (name, run, other) in [("A", a, b), ("B", b, a)] {
        if !run.report.is_complete() {
            let _ = writeln!(
                out,
                "{name} is incomplete: what it does not show may have been."
            );
        }
        let without: Vec<String> = other
            .points
            .difference(&run.points)
            .map(|point| printable(point.as_bytes()))
            .collect();
        if !without.is_empty() {
            let _ = writeln!(out, "{name} was traced without {}.", without.join(", "));
        }
    }
    out
}

/// The other families of the device that fare alike in both.
fn alike(one: &Compared, compared: &[Compared]) -> String {
    let families: BTreeSet<u16> = compared
        .iter()
        .filter(|other| {
            other.verdict == Verdict::Same
                && other.id.device == one.id.device
                && other.id.netns == one.id.netns
                && other.id.family != one.id.family
        })
        .map(|other| other.id.family)
        .filter(|family| {
            !compared.iter().any(|other| {
                other.verdict != Verdict::Same
                    && other.id.device == one.id.device
                    && other.id.family == *family
            })
        })
        .collect();
    families
        .iter()
        .map(|family| format!("; {} the same in both", text::family_of(*family)))
        .collect()
}

fn lines(a: &Run, b: &Run, compared: &[Compared]) -> String {
    let fate = |fate: &Fate| {
        let sum = |causes: &BTreeMap<&'static str, (u64, Confidence)>| -> Value {
            let counts = causes.iter().map(|(id, (count, _))| (*id, *count));
            json!(counts.collect::<BTreeMap<_, _>>())
        };
        json!({"dropped": sum(&fate.dropped), "lost": sum(&fate.lost), "sent": fate.sent})
    };
    let mut out = String::new();
    for one in compared {
        let word = match one.verdict {
            Verdict::Different => "different",
            Verdict::Unsure => "unsure",
            Verdict::OnlyA => "only_a",
            Verdict::OnlyB => "only_b",
            Verdict::Same => "same",
        };
        let mut inner = json!({
            "family": text::family_of(one.id.family).to_lowercase(),
            "proto": one.id.proto,
        });
        if let Some(dst) = text::address(&one.id.dst, one.id.family) {
            inner["dst"] = json!(dst.to_string());
        }
        let mut tunnel = json!({"dev": one.id.device});
        if let Some(netns) = &one.id.netns {
            tunnel["netns"] = json!(netns);
        }
        let line = json!({
            "v": 1, "type": "flow", "verdict": word, "tunnel": tunnel, "inner": inner,
            "a": fate(&one.a), "b": fate(&one.b),
        });
        let _ = writeln!(out, "{line}");
    }
    let end = json!({
        "v": 1, "type": "end",
        "complete": a.report.is_complete() && b.report.is_complete(),
        "kernels": [a.kernel, b.kernel],
        "different": count(compared, Verdict::Different),
        "same": count(compared, Verdict::Same),
        "unsure": count(compared, Verdict::Unsure),
        "only_a": count(compared, Verdict::OnlyA),
        "only_b": count(compared, Verdict::OnlyB),
    });
    let _ = writeln!(out, "{end}");
    out
}

#[cfg(test)]
mod tests;
