//! A comparison in words and in JSON.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde_json::{Value, json};

use super::{
    Compared, Comparison, Run, Verdict,
    fate::{Causes, Fate},
    sizes::{self, Of},
};
use crate::{
    devices::printable,
    flows::Ledger,
    judge::names,
    view::{json as lines_of, summary, text},
};

/// What a fate comes to, in a word or two.
fn word(fate: &Fate) -> &'static str {
    match (fate.stages(), fate.sent) {
        ((true, false), 0) => "dropped",
        ((true, _), _) => "dropped in part",
        ((false, true), 0) => "lost",
        ((false, true), _) => "sent, then lost",
        ((false, false), 0) => "not lost",
        ((false, false), _) => "sent",
    }
}

fn words(fate: &Fate) -> String {
    let list = |causes: &Causes| {
        let causes: Vec<String> = causes
            .iter()
            .map(|((id, _), (count, confidence))| format!("×{count} [{id}, {}]", confidence.word()))
            .collect();
        causes.join(", ")
    };
    let mut parts = Vec::new();
    if !fate.dropped.is_empty() {
        parts.push(format!("dropped {}", list(&fate.dropped)));
    }
    if fate.sent > 0 {
        parts.push(format!("sent ×{}", fate.sent));
    }
    if !fate.lost.is_empty() {
        parts.push(format!("lost {}", list(&fate.lost)));
    }
    if parts.is_empty() {
        parts.push("nothing vanished".to_owned());
    }
    parts.join(", ")
}

/// `IPv6 to fd09::2 (ICMPv6 echo request) over t0 (sit, netns A)`.
fn title(flow: &Compared) -> String {
    let Compared { id, a, b, .. } = flow;
    let row = a.row.as_ref().or(b.row.as_ref());
    let mut what = text::family_of(id.family);
    let dst = row.map_or(id.dst, |row| row.evidence.flow().dst);
    if let Some(dst) = text::address(&dst, id.family) {
        let _ = write!(what, " to {dst}");
    }
    let protocol = match row {
        Some(row) => text::protocol(row.evidence.flow()),
        // ARP has none.
        None if id.proto == 0 => String::new(),
        None => protocol(id.proto),
    };
    let port = match id.port {
        0 => String::new(),
        port => format!(" port {port}"),
    };
    if !protocol.is_empty() {
        let _ = write!(what, " ({protocol}{port})");
    }
    let device = row.map_or_else(|| id.device.clone(), text::tunnel);
    let way = if id.arriving { "out of" } else { "over" };
    format!("{what} {way} {device}")
}

fn protocol(number: u8) -> String {
    names::protocol(number).map_or_else(|| format!("protocol {number}"), str::to_owned)
}

pub fn render(a: &Run, b: &Run, all: &Comparison) -> String {
    let mut out = format!(
        "A: {} ({})\nB: {} ({})\n",
        a.name,
        printable(a.kernel.as_bytes()),
        b.name,
        printable(b.kernel.as_bytes())
    );
    let families = families(&all.flows);
    for flow in &all.flows {
        let said = match flow.verdict {
            Verdict::Different if flow.a.stages() == flow.b.stages() => {
                match flow.a.causes() == flow.b.causes() {
                    true => "more of it vanishes in one".to_owned(),
                    false => format!("{} in both, for other causes", word(&flow.a)),
                }
            }
            Verdict::Different => format!("{} in A, {} in B", word(&flow.a), word(&flow.b)),
            Verdict::Unsure(why) => format!("told differently, which may be no difference: {why}"),
            Verdict::OnlyA => "only A has such packets".to_owned(),
            Verdict::OnlyB => "only B has such packets".to_owned(),
            Verdict::Same => continue,
        };
        let _ = writeln!(out, "\n{}: {said}{}", title(flow), alike(flow, &families));
        for (name, fate) in [("A", &flow.a), ("B", &flow.b)] {
            let why = match &fate.row {
                Some(row) => format!(": {}", text::verdict(row)),
                None => String::new(),
            };
            let _ = writeln!(out, "  {name}: {}{why}", words(fate));
        }
    }
    for size in &all.sizes {
        let word = |(passed, _): (u64, u64)| if passed > 0 { "sent" } else { "lost" };
        let _ = writeln!(
            out,
            "\n{}, packets of {}: {} in A, {} in B",
            of_device(&size.of),
            sizes::words(size.class),
            word(size.a),
            word(size.b)
        );
        for (name, (passed, vanished)) in [("A", size.a), ("B", size.b)] {
            let _ = writeln!(out, "  {name}: passed ×{passed}, vanished ×{vanished}");
        }
    }
    for of in &all.other_sizes {
        let _ = writeln!(
            out,
            "\n{}: packets of other sizes vanish, which may be what was sent",
            of_device(of)
        );
    }
    for (name, run) in [("A", a), ("B", b)] {
        for (ledger, separations) in separations(run, all) {
            let _ = writeln!(
                out,
                "\nWhat separates packets on {} in {name}: {}",
                ledger.name,
                separations.join("; ")
            );
        }
    }
    let _ = writeln!(
        out,
        "\n{} different, {} the same, {} unsure, {} only in A, {} only in B",
        all.different(),
        all.count(|verdict| verdict == Verdict::Same),
        all.unsure(),
        all.count(|verdict| verdict == Verdict::OnlyA),
        all.count(|verdict| verdict == Verdict::OnlyB),
    );
    out + &caveats(a, b)
}

/// What one recording may not show.
fn caveats(a: &Run, b: &Run) -> String {
    let mut out = String::new();
    if a.scope != b.scope {
        out += "They were made with other options: what one does not show may have been.\n";
    }
    for (name, run, other) in [("A", a, b), ("B", b, a)] {
        if !run.report.is_certain() {
            let _ = writeln!(
                out,
                "{name} is incomplete: what it does not show may have been."
            );
        }
        let without: Vec<String> = run
            .without(other)
            .iter()
            .map(|point| printable(point.as_bytes()))
            .collect();
        if !without.is_empty() {
            let _ = writeln!(out, "{name} was traced without {}.", without.join(", "));
        }
    }
    out
}

/// `IPv4 over t0 (netns A)`.
fn of_device(of: &Of) -> String {
    let netns = of.netns.as_ref();
    let netns = netns.map_or_else(String::new, |netns| format!(" (netns {netns})"));
    format!("{} over {}{netns}", text::family_of(of.family), of.device)
}

/// Of each device, the families whose flows all are the same, and the others.
type Families = BTreeMap<(String, Option<String>), (BTreeSet<u16>, BTreeSet<u16>)>;

fn families(flows: &[Compared]) -> Families {
    let mut all = Families::new();
    for flow in flows {
        let device = (flow.id.device.clone(), flow.id.netns.clone());
        let (same, other) = all.entry(device).or_default();
        match flow.verdict {
            Verdict::Same => same.insert(flow.id.family),
            _ => other.insert(flow.id.family),
        };
    }
    all
}

/// The other families of the device that fare alike in both.
fn alike(flow: &Compared, families: &Families) -> String {
    let device = (flow.id.device.clone(), flow.id.netns.clone());
    let Some((same, other)) = families.get(&device) else {
        return String::new();
    };
    same.difference(other)
        .map(|family| format!("; {} the same in both", text::family_of(*family)))
        .collect()
}

/// What separates packets on the devices whose flows differ.
fn separations<'a>(run: &'a Run, all: &Comparison) -> Vec<(&'a Ledger, Vec<String>)> {
    let differs = |ledger: &Ledger| {
        let netns = super::fate::namespace(ledger.netns.as_deref());
        all.flows.iter().any(|flow| {
            flow.verdict == Verdict::Different
                && (&flow.id.device, &flow.id.netns) == (&ledger.name, &netns)
        }) || all
            .sizes
            .iter()
            .any(|size| (&size.of.device, &size.of.netns) == (&ledger.name, &netns))
    };
    run.report
        .ledgers
        .iter()
        .filter(|ledger| differs(ledger))
        .map(|ledger| (ledger, summary::separations(ledger)))
        .filter(|(_, separations)| !separations.is_empty())
        .collect()
}

fn in_json(fate: &Fate) -> Value {
    let sum = |causes: &Causes| -> Value {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for ((id, _), (count, _)) in causes {
            *counts.entry(*id).or_default() += count;
        }
        json!(counts)
    };
    let mut value =
        json!({"dropped": sum(&fate.dropped), "lost": sum(&fate.lost), "sent": fate.sent});
    let all = fate.dropped.values().chain(fate.lost.values());
    if let Some(weakest) = all.map(|(_, confidence)| *confidence).max() {
        value["confidence"] = json!(weakest.word());
    }
    value
}

pub fn lines(a: &Run, b: &Run, all: &Comparison) -> String {
    let mut out = String::new();
    for flow in &all.flows {
        let (word, why) = match flow.verdict {
            Verdict::Different => ("different", None),
            Verdict::Unsure(why) => ("unsure", Some(why)),
            Verdict::OnlyA => ("only_a", None),
            Verdict::OnlyB => ("only_b", None),
            Verdict::Same => ("same", None),
        };
        let id = &flow.id;
        let mut inner = json!({
            "family": text::family_of(id.family).to_lowercase(),
            "proto": lines_of::protocol(id.proto),
        });
        let row = flow.a.row.as_ref().or(flow.b.row.as_ref());
        let dst = row.map_or(id.dst, |row| row.evidence.flow().dst);
        if let Some(dst) = text::address(&dst, id.family) {
            inner["dst"] = json!(dst.to_string());
        }
        if id.port != 0 {
            inner["port"] = json!(id.port);
        }
        if id.icmp_type != 0 {
            inner["icmp_type"] = json!(id.icmp_type);
        }
        let direction = if id.arriving { "rx" } else { "tx" };
        let mut line = json!({
            "v": 1, "type": "flow", "verdict": word, "direction": direction,
            "tunnel": tunnel(&id.device, id.netns.as_ref()), "inner": inner,
            "a": in_json(&flow.a), "b": in_json(&flow.b),
        });
        if let Some(why) = why {
            line["why"] = json!(why);
        }
        let _ = writeln!(out, "{line}");
    }
    for size in &all.sizes {
        let counts =
            |(passed, vanished): (u64, u64)| json!({"passed": passed, "vanished": vanished});
        let line = json!({
            "v": 1, "type": "size", "verdict": "different",
            "tunnel": tunnel(&size.of.device, size.of.netns.as_ref()),
            "inner": {"family": text::family_of(size.of.family).to_lowercase()},
            "size": sizes::words(size.class), "a": counts(size.a), "b": counts(size.b),
        });
        let _ = writeln!(out, "{line}");
    }
    for of in &all.other_sizes {
        let line = json!({
            "v": 1, "type": "size", "verdict": "unsure", "tunnel": tunnel(&of.device, of.netns.as_ref()),
            "inner": {"family": text::family_of(of.family).to_lowercase()},
            "why": "packets of other sizes vanish",
        });
        let _ = writeln!(out, "{line}");
    }
    for (name, run) in [("a", a), ("b", b)] {
        for (ledger, _) in separations(run, all) {
            let line = json!({
                "v": 1, "type": "asymmetry", "recording": name,
                "tunnel": tunnel(&ledger.name, ledger.netns.as_ref()),
                "asymmetry": ledger.asymmetry,
                "asymmetry_after_sending": ledger.asymmetry_after_sending,
            });
            let _ = writeln!(out, "{line}");
        }
    }
    let end = json!({
        "v": 1, "type": "end",
        "complete": a.report.is_certain() && b.report.is_certain(),
        "kernels": [a.kernel, b.kernel],
        "same_options": a.scope == b.scope,
        "missing": {"a": a.without(b), "b": b.without(a)},
        "different": all.different(),
        "same": all.count(|verdict| verdict == Verdict::Same),
        "unsure": all.unsure(),
        "only_a": all.count(|verdict| verdict == Verdict::OnlyA),
        "only_b": all.count(|verdict| verdict == Verdict::OnlyB),
    });
    let _ = writeln!(out, "{end}");
    out
}

fn tunnel(device: &str, netns: Option<&String>) -> Value {
    let mut tunnel = json!({"dev": device});
    if let Some(netns) = netns {
        tunnel["netns"] = json!(netns);
    }
    tunnel
}
