//! Scenarios: silent drops made on purpose, and what tracer has to say of each.
//!
//! A scenario is a file in `scenarios/`: how to set the drop up, what triggers it, and what is
//! expected on which kernel. All scenarios of a kernel run in one boot:
//!
//! `file` (TOML) → `script` (one shell job) → the guest → `marks` (its output, cut up) → `judge`.

pub mod answer;
mod fields;
mod file;
mod judge;
mod lines;
mod marks;
mod place;
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::qemu::Machine;
use file::{Expect, Scenario};
use marks::Section;

/// The name that stands for this machine where a kernel is asked for.
const NATIVE: &str = "native";

/// How one scenario ended on one kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Right,
    /// Something else was said than what happened, or nothing.
    Wrong,
    /// The drop was seen, and its cause called unknown.
    Unknown,
    /// The scenario expects nothing of this kernel.
    NotPossible,
}

/// How a run of scenarios ended.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Score {
    /// By name of the scenario.
    pub outcomes: BTreeMap<String, Outcome>,
    /// Release of the kernel, where it is known.
    pub release: String,
}

impl Score {
    pub fn count(&self, outcome: Outcome) -> usize {
        self.outcomes.values().filter(|o| **o == outcome).count()
    }

    pub fn failed(&self) -> usize {
        self.count(Outcome::Wrong) + self.count(Outcome::Unknown)
    }
}

/// Which scenarios to run.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// By name; empty: any.
    pub names: Vec<String>,
    /// Only those that run on every kernel.
    pub core: bool,
}

/// All scenarios of the repository.
pub fn names() -> Result<BTreeSet<String>> {
    let all = file::load(&place::root()?, &[])?;
    Ok(all.into_iter().map(|scenario| scenario.name).collect())
}

/// Runs the scenarios that expect something of this machine's own kernel, in namespaces only.
pub fn native(names: &[String]) -> Result<Score> {
    let root = place::root()?;
    let wanted = Wanted {
        names: names.to_vec(),
        core: false,
    };
    let (chosen, skipped) = choose(&root, NATIVE, &wanted)?;
    if chosen.is_empty() {
        return Ok(finish(NATIVE, skipped));
    }
    let tracer = root.join("target/release/tracer");
    if !tracer.is_file() {
        bail!("target/release/tracer is missing: `cargo build --release --locked -p tracer`");
    }
    for name in ["A", "B", "R"] {
        if Path::new("/run/netns").join(name).exists() {
            bail!(
                "network namespace {name} exists already: `ip netns del {name}` if no run uses it"
            );
        }
    }
    let token = marks::token();
    let job = script::job(&chosen, &place::preamble(&root)?, &token, false);
    let keep = place::keep(&root, NATIVE)?;
    let path = keep.join("job.sh");
    fs::write(&path, job).with_context(|| format!("cannot write {}", path.display()))?;

    let mut search = root.join("target/release").into_os_string();
    if let Some(rest) = std::env::var_os("PATH") {
        search.push(":");
        search.push(rest);
    }
    let output = Command::new("sh")
        .arg(&path)
        .env("PATH", search)
        .output()
        .context("cannot start sh: is it in PATH?")?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    judge_all(NATIVE, &chosen, &text, &token, &keep, skipped)
}

/// Runs the scenarios in one boot of `kernel`.
pub fn vm(kernel: &str, wanted: &Wanted) -> Result<Score> {
    let root = place::root()?;
    let (chosen, skipped) = choose(&root, kernel, wanted)?;
    if chosen.is_empty() {
        return Ok(finish(kernel, skipped));
    }
    let token = marks::token();
    let job = script::job(&chosen, &place::preamble(&root)?, &token, true);
    let keep = place::keep(&root, kernel)?;
    let path = keep.join("job.sh");
    fs::write(&path, &job).with_context(|| format!("cannot write {}", path.display()))?;

    // As it comes, for whoever cannot wait (or has to end it).
    let path = keep.join("output");
    let mut output =
        File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let machine = Machine {
        timeout: limit(&chosen),
        ..Machine::default()
    };
    let guest = crate::vm::run(kernel, &job, &[], &machine, |bytes| {
        // What counts is in memory; a full disk spoils the file only.
        let _ = output.write_all(bytes);
    })?;
    let path = keep.join("console");
    fs::write(&path, &guest.console).with_context(|| format!("cannot write {}", path.display()))?;
    if guest.status != 0 {
        eprintln!(
            "{kernel}: the job script ended with status {}, see {}",
            guest.status,
            keep.display()
        );
    }
    judge_all(kernel, &chosen, &guest.output, &token, &keep, skipped)
}

/// How long the guest may take: every step at its own limit, and the boot.
fn limit(chosen: &[(Scenario, Expect)]) -> Duration {
    let steps: u64 = chosen
        .iter()
        .map(|(scenario, expect)| {
            let passes = if expect.human.is_some() { 2 } else { 1 };
            passes * scenario.timeout + script::OTHER_STEPS
        })
        .sum();
    Duration::from_secs(300 + steps)
}

/// The scenarios that expect something of `kernel`, and how many do not.
fn choose(root: &Path, kernel: &str, wanted: &Wanted) -> Result<(Vec<(Scenario, Expect)>, Score)> {
    let mut chosen = Vec::new();
    let mut skipped = Score::default();
    for scenario in file::load(root, &wanted.names)? {
        if wanted.core && !scenario.core {
            continue;
        }
        match scenario.expect_of(kernel).cloned() {
            Some(expect) => chosen.push((scenario, expect)),
            None => {
                println!("skip {} ({kernel})", scenario.name);
                skipped.outcomes.insert(scenario.name, Outcome::NotPossible);
            }
        }
    }
    Ok((chosen, skipped))
}

fn finish(kernel: &str, skipped: Score) -> Score {
    println!(
        "{kernel}: nothing to run, {} skipped",
        skipped.outcomes.len()
    );
    skipped
}

fn judge_all(
    kernel: &str,
    chosen: &[(Scenario, Expect)],
    output: &str,
    token: &str,
    keep: &Path,
    mut score: Score,
) -> Result<Score> {
    let sections = marks::cut(output, token);
    for (scenario, expect) in chosen {
        let name = &scenario.name;
        let own: Vec<&Section> = sections.iter().filter(|s| s.name == *name).collect();
        let verdict = judge::scenario(expect, &own);
        if let Some(release) = &verdict.release {
            score.release.clone_from(release);
        }
        place::forget(keep, name)?;
        if verdict.wrong.is_empty() {
            println!("ok   {name} ({kernel}): {}", scenario.title);
            score.outcomes.insert(name.clone(), Outcome::Right);
            continue;
        }
        println!("FAIL {name} ({kernel}): {}", scenario.title);
        for wrong in &verdict.wrong {
            println!("       {wrong}");
        }
        for line in &verdict.drops {
            println!("     saw {line}");
        }
        place::store(keep, name, &own)?;
        println!("     all of it: {}/{name}.*", keep.display());
        let outcome = if verdict.unknown {
            Outcome::Unknown
        } else {
            Outcome::Wrong
        };
        score.outcomes.insert(name.clone(), outcome);
    }
    println!(
        "{kernel}: {} passed, {} failed, {} skipped",
        score.count(Outcome::Right),
        score.failed(),
        score.count(Outcome::NotPossible)
    );
    Ok(score)
}
