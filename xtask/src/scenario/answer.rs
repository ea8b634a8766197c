//! What tracer answers to a scenario on a kernel, without a word about whether
//! that is right: what can be compared between kernels.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::file::{Expect, Ignore, Scenario};
use super::lines::Lines;
use super::{marks, place, script};
use crate::qemu::Machine;

/// One kernel's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Release of the kernel.
    pub release: String,
    /// tracer's own exit status.
    pub status: i32,
    pub complete: bool,
    /// What vanished and why: no counts, places, or times, which differ between
    /// any two runs or kernels.
    pub drops: BTreeSet<String>,
}

impl Answer {
    /// Whether it says all there is: that of a run which could not trace, or lost
    /// something, may be another one.
    pub fn is_certain(&self) -> bool {
        self.complete && self.status != 125
    }

    /// Whether the two say the same of the scenario.
    pub fn agrees(&self, other: &Self) -> bool {
        self.drops == other.drops
    }
}

/// Reads a scenario from any file; it need not expect anything.
pub fn read(file: &Path) -> Result<Scenario> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the scenario {}", file.display()))?;
    Scenario::without_expectations(&text).with_context(|| file.display().to_string())
}

/// Plays the scenario in a guest with this kernel.
pub fn of(scenario: &Scenario, kernel: &str) -> Result<Answer> {
    let root = place::root()?;
    let token = marks::token();
    let expect = Expect::nothing();
    let timeout = super::limit(&[(scenario.clone(), expect.clone())]);
    let job = script::job(
        &[(scenario.clone(), expect)],
        &place::preamble(&root)?,
        &token,
        true,
    );
    let machine = Machine {
        timeout,
        ..Machine::default()
    };
    let guest = crate::vm::run(kernel, &job, &[], &machine, |_| ())?;
    let sections = marks::cut(&guest.output, &token);
    let part = |part: &str| sections.iter().find(|section| section.part == part);
    match part("setup.out").and_then(|section| section.status) {
        Some(0) => {}
        status => bail!(
            "the setup failed with status {}: {}",
            status.map_or_else(|| "none".to_owned(), |status| status.to_string()),
            part("setup.err").map_or("", |section| section.text.trim())
        ),
    }
    let trigger = part("trigger.out").context("the guest ended before the trigger was over")?;
    let status = trigger.status.context("the guest ended while tracer ran")?;
    let (lines, wrong) = Lines::read(&trigger.text);
    if !wrong.is_empty() {
        let err = part("trigger.err").map_or("", |section| section.text.trim());
        bail!("tracer's output is not whole ({}): {err}", wrong.join("; "));
    }
    Ok(answer(&lines, status))
}

fn answer(lines: &Lines, status: i32) -> Answer {
    let noise = Ignore::kernel_noise();
    Answer {
        release: lines.release.clone().unwrap_or_default(),
        status,
        complete: lines
            .ends
            .iter()
            .all(|end| end.get("complete") == Some(&Value::Bool(true))),
        drops: lines
            .drops
            .iter()
            .filter(|line| !noise.covers(line))
            .map(describe)
            .collect(),
    }
}

/// A drop by what it is rather than where a kernel happens to free it.
fn describe(line: &Value) -> String {
    let text = |pointer: &str| line.pointer(pointer).and_then(Value::as_str);
    let mut out = text("/cause").unwrap_or("?").to_owned();
    // A cause that is not known is told by its place, for want of a better name.
    if out == "unknown" || out == "kernel-reason" {
        for pointer in ["/freed/reason", "/freed/function"] {
            // What the compiler made of a function is not the same on two kernels.
            let word = text(pointer).and_then(|word| word.split('.').next());
            if let Some(word) = word {
                out += &format!(" {word}");
            }
        }
    }
    for (pointer, before) in [
        ("/route/type", " route type "),
        ("/route/errno", " "),
        ("/tunnel/dev", " on "),
        ("/inner/family", ": "),
        ("/inner/dst", " to "),
    ] {
        if let Some(word) = text(pointer) {
            out += &format!("{before}{word}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_is_the_cause_and_what_vanished() {
        let line = json!({
            "cause": "route-type-not-accepted", "count": 3,
            "freed": {"function": "sit_tunnel_xmit", "reason": null},
            "route": {"type": "RTN_LOCAL", "errno": null},
            "tunnel": {"dev": "t0"}, "inner": {"family": "ipv6", "dst": "fd09::2"},
        });
        assert_eq!(
            describe(&line),
            "route-type-not-accepted route type RTN_LOCAL on t0: ipv6 to fd09::2"
        );
        let other = json!({"cause": "unknown", "freed": {"function": "f", "reason": "R"}});
        assert_eq!(describe(&other), "unknown R f");
    }

    #[test]
    fn counts_do_not_matter_and_what_the_kernel_sends_itself_neither() {
        let drop =
            |count: u64, dst: &str| json!({"cause": "x", "count": count, "inner": {"dst": dst}});
        let lines = |drops: Vec<Value>| Lines {
            drops,
            ..Lines::default()
        };
        let one = answer(&lines(vec![drop(1, "a"), drop(1, "ff02::2")]), 1);
        let two = answer(&lines(vec![drop(7, "a")]), 1);
        assert!(one.agrees(&two));
        assert!(!one.agrees(&answer(&lines(vec![]), 0)));
    }
}
