//! Compares what a run said with what its scenario expects.

use serde_json::Value;

use super::file::{AsymmetryWant, DeviceWant, DropWant, Expect, Human};
use super::lines::Lines;
use super::marks::Section;

/// The differences, and the drops seen for whoever reads them.
#[derive(Debug, Default)]
pub struct Verdict {
    pub wrong: Vec<String>,
    pub drops: Vec<String>,
    /// Drops were seen, and no cause of theirs was named.
    pub unknown: bool,
    /// Release of the kernel.
    pub release: Option<String>,
}

/// Judges a scenario by the sections of its steps.
pub fn scenario(expect: &Expect, sections: &[&Section]) -> Verdict {
    let mut verdict = Verdict::default();
    let part = |part: &str| sections.iter().find(|s| s.part == part).copied();
    match part("setup.out").map(|s| s.status) {
        Some(Some(0)) => {}
        Some(Some(status)) => {
            let why = part("setup.err").map_or("", |s| last_line(&s.text));
            verdict
                .wrong
                .push(format!("setup failed with status {status}: {why}"));
            return verdict;
        }
        Some(None) => {
            verdict.wrong.push("the job ended during setup".to_owned());
            return verdict;
        }
        None => {
            verdict
                .wrong
                .push("the job ended before this scenario".to_owned());
            return verdict;
        }
    }
    let Some(trigger) = part("trigger.out") else {
        verdict
            .wrong
            .push("the job ended before the trigger was over".to_owned());
        return verdict;
    };
    let (lines, broken) = Lines::read(&trigger.text);
    verdict.drops = lines.drops.iter().map(Value::to_string).collect();
    verdict.release.clone_from(&lines.release);
    verdict.unknown = !lines.drops.is_empty()
        && lines
            .drops
            .iter()
            .all(|line| line.get("cause").and_then(Value::as_str) == Some("unknown"));
    verdict
        .wrong
        .extend(exit(expect, trigger, part("trigger.err")));
    if expect.trigger_ok {
        verdict.wrong.extend(failed(part("trigger.err")));
    }
    verdict.wrong.extend(broken);
    verdict.wrong.extend(judge(expect, &lines));
    if let Some(human) = &expect.human {
        match part("human.out") {
            Some(section) => {
                let wrong = exit(expect, section, part("human.err"));
                let all = wrong
                    .into_iter()
                    .chain(read_by_people(human, &section.text));
                verdict
                    .wrong
                    .extend(all.map(|wrong| format!("second pass: {wrong}")));
            }
            None => verdict
                .wrong
                .push("the job ended before the second pass was over".to_owned()),
        }
    }
    verdict
}

fn exit(expect: &Expect, pass: &Section, err: Option<&Section>) -> Option<String> {
    let said = err.map_or("", |s| last_line(&s.text));
    match (pass.status, expect.exit) {
        (None, _) => Some("the job ended during this pass".to_owned()),
        (Some(got), Some(want)) if got != want => Some(format!(
            "exit: expected {want}, got {got}; last on stderr: {said}"
        )),
        _ => None,
    }
}

/// What tracer said of a trigger that did not succeed, and what that said itself.
fn failed(err: Option<&Section>) -> Option<String> {
    let mut before = "";
    for line in err?.text.lines().filter(|line| !line.trim().is_empty()) {
        if line.contains("the command ended with") {
            return Some(format!("the trigger failed: {line}; before: {before}"));
        }
        before = line;
    }
    None
}

/// Judges the JSON lines of one run.
fn judge(expect: &Expect, lines: &Lines) -> Vec<String> {
    let mut wrong = Vec::new();
    let ignored = |line: &&Value| expect.ignore.iter().any(|ignore| ignore.covers(line));
    let drops: Vec<&Value> = lines.drops.iter().filter(|line| !ignored(line)).collect();
    for want in &expect.drop {
        wrong.extend(drop(want, &drops));
    }
    if expect.only {
        let meant = |line: &&Value| expect.drop.iter().any(|want| want.fields.identifies(line));
        for line in drops.iter().filter(|line| !meant(line)) {
            wrong.push(format!("a drop nobody expected: {line}"));
        }
    }
    for want in &expect.device {
        wrong.extend(device(want, &lines.devices));
    }
    if expect.balanced {
        wrong.extend(lines.devices.iter().filter_map(unbalanced));
    }
    if expect.complete
        && let Some(end) = lines.ends.first()
        && end.get("complete") != Some(&Value::Bool(true))
    {
        wrong.push(format!("the run is not complete: {end}"));
    }
    wrong
}

fn drop(want: &DropWant, drops: &[&Value]) -> Vec<String> {
    let name = want.fields.name();
    let meant: Vec<&&Value> = drops
        .iter()
        .filter(|line| want.fields.identifies(line))
        .collect();
    let counts: Option<Vec<u64>> = meant
        .iter()
        .map(|line| line.get("count")?.as_u64())
        .collect();
    let Some(counts) = counts else {
        return vec![format!("{name}: a line has no count")];
    };
    let sum = counts.iter().sum();
    let mut wrong: Vec<String> = range("count", sum, want.count, want.count_min, want.count_max)
        .into_iter()
        .map(|why| format!("{name}: {why}"))
        .collect();
    if meant.is_empty() && want.count != Some(0) && wrong.is_empty() {
        wrong.push(format!("{name}: no such drop"));
    }
    for line in meant {
        for why in want.fields.wrong(line) {
            let why = format!("{name}: {why}");
            if !wrong.contains(&why) {
                wrong.push(why);
            }
        }
    }
    wrong
}

/// Lines of the same device are added up: one that went and came again has two.
fn device(want: &DeviceWant, devices: &[Value]) -> Vec<String> {
    let name = match &want.netns {
        Some(netns) => format!("device {} in {netns}", want.dev),
        None => format!("device {}", want.dev),
    };
    let is =
        |line: &Value, key: &str, text: &str| line.get(key).and_then(Value::as_str) == Some(text);
    let own: Vec<&Value> = devices
        .iter()
        .filter(|line| is(line, "dev", &want.dev))
        .filter(|line| {
            want.netns
                .as_ref()
                .is_none_or(|netns| is(line, "netns", netns))
        })
        .collect();
    if own.is_empty() {
        return vec![format!("{name}: no such line of type device")];
    }
    let sum = |pointer: &str| -> u64 {
        let numbers = own
            .iter()
            .filter_map(|line| line.pointer(pointer)?.as_u64());
        numbers.sum()
    };
    let w = want;
    let numbers = [
        (
            "packets_in",
            w.packets_in,
            w.packets_in_min,
            w.packets_in_max,
        ),
        ("sent", w.sent, w.sent_min, w.sent_max),
        ("dropped", w.dropped, w.dropped_min, w.dropped_max),
        (
            "unexplained",
            w.unexplained,
            w.unexplained_min,
            w.unexplained_max,
        ),
    ];
    let mut wrong = Vec::new();
    for (key, exact, min, max) in numbers {
        let asked = exact.is_some() || min.is_some() || max.is_some();
        if asked
            && own
                .iter()
                .any(|line| line.get(key).and_then(Value::as_u64).is_none())
        {
            wrong.push(format!("{name}: {key} is absent"));
            continue;
        }
        wrong.extend(
            range(key, sum(&format!("/{key}")), exact, min, max)
                .map(|why| format!("{name}: {why}")),
        );
    }
    for (cause, n) in &want.by_cause {
        let got = sum(&format!("/by_cause/{cause}"));
        if got != *n {
            wrong.push(format!("{name}: by_cause {cause}: expected {n}, got {got}"));
        }
    }
    for entry in &want.asymmetry {
        let all: Vec<&Value> = own
            .iter()
            .filter_map(|line| line.get("asymmetry")?.as_array())
            .flatten()
            .collect();
        if !all.iter().any(|seen| asymmetry(entry, seen)) {
            let seen: Vec<String> = all.iter().map(|seen| seen.to_string()).collect();
            wrong.push(format!(
                "{name}: expected {entry:?}, got [{}]",
                seen.join(", ")
            ));
        }
    }
    wrong
}

fn asymmetry(want: &AsymmetryWant, seen: &Value) -> bool {
    let text = |key: &str| match seen.get(key) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
        None => None,
    };
    let number = |key: &str, want: Option<u64>| {
        want.is_none() || seen.get(key).and_then(Value::as_u64) == want
    };
    text("attribute").as_deref() == Some(want.attribute.as_str())
        && text("value").as_deref() == Some(want.value.as_str())
        && number("passed", want.passed)
        && number("dropped", want.dropped)
}

fn unbalanced(line: &Value) -> Option<String> {
    let number = |key: &str| line.get(key).and_then(Value::as_u64);
    let balance = || {
        let unexplained = number("unexplained")?;
        let out = number("sent")?.checked_add(number("dropped")?)?;
        Some(number("packets_in")? == out.checked_add(unexplained)? && unexplained == 0)
    };
    (balance() != Some(true)).then(|| format!("the ledger does not balance: {line}"))
}

fn range(
    what: &str,
    got: u64,
    exact: Option<u64>,
    min: Option<u64>,
    max: Option<u64>,
) -> Option<String> {
    let good = exact.is_none_or(|n| got == n)
        && min.is_none_or(|n| got >= n)
        && max.is_none_or(|n| got <= n);
    let asked = [(exact, ""), (min, "at least "), (max, "at most ")];
    let asked: Vec<String> = asked
        .iter()
        .filter_map(|(n, how)| n.map(|n| format!("{how}{n}")))
        .collect();
    (!good).then(|| format!("{what}: expected {}, got {got}", asked.join(" and ")))
}

fn read_by_people(want: &Human, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for part in &want.contains {
        if !text.contains(part.as_str()) {
            wrong.push(format!("{part:?} is missing in {text:?}"));
        }
    }
    for part in &want.lacks {
        if text.contains(part.as_str()) {
            wrong.push(format!("{part:?} should not be in {text:?}"));
        }
    }
    let lines = text.lines().count();
    if let Some(most) = want.max_lines.filter(|most| lines > *most) {
        wrong.push(format!("{lines} lines, at most {most} expected"));
    }
    wrong
}

fn last_line(text: &str) -> &str {
    text.lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("")
}

#[cfg(test)]
mod tests;
