//! `scenarios`: the table of scenarios and kernels, right or wrong.

use std::{collections::BTreeSet, fmt::Write as _};

use clap::Args;

use crate::{
    build, paths, process,
    scenario::{Outcome, Score, Wanted},
    setup, test,
};

/// The table in the repository.
const FILE: &str = "docs/accuracy.md";

/// Stock kernels: those of `test`, and one that nothing was written on.
const KERNELS: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "newest"];

#[derive(Debug, Args)]
pub struct Options {
    /// A kernel, may be repeated; without: 5.10, 6.1, 6.12, 6.18 and the newest
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<String>,
    /// A scenario by name, may be repeated
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Write the table to docs/accuracy.md
    #[arg(long)]
    write: bool,
}

/// Runs the scenarios and prints the table.
pub fn command(options: &Options) -> anyhow::Result<i32> {
    setup::vm()?;
    build::build()?;
    let kernels = if options.kernel.is_empty() {
        KERNELS.map(str::to_owned).to_vec()
    } else {
        options.kernel.clone()
    };
    let mut columns = Vec::new();
    let mut failed = false;
    for (kernel, score) in test::guests(&kernels, |_| Wanted {
        names: options.scenario.clone(),
        core: false,
    }) {
        match score {
            Ok(score) => columns.push((kernel, score)),
            // What the others said took hours.
            Err(error) => {
                eprintln!("{kernel}: {error:#}");
                failed = true;
            }
        }
    }
    // As they were asked for, not as they were ready.
    columns.sort_by_key(|(kernel, _)| kernels.iter().position(|wanted| wanted == kernel));
    let date = process::read(std::process::Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let text = render(&columns, date.trim());
    print!("{text}");
    if options.write && !failed {
        paths::write(&paths::root().join(FILE), text.as_bytes())?;
    }
    let wrong: usize = columns.iter().map(|(_, score)| score.failed()).sum();
    Ok(i32::from(failed || wrong > 0))
}

fn word(outcome: Option<&Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Right) => "right",
        Some(Outcome::Wrong) => "**wrong**",
        Some(Outcome::Unknown) => "unknown",
        Some(Outcome::NotPossible) | None => "–",
    }
}

/// The table as Markdown.
fn render(columns: &[(String, Score)], date: &str) -> String {
    let mut out = format!(
        "# Accuracy\n\nWritten by `cargo xtask scenarios --write` on {date}. Each scenario makes a drop on\n\
         purpose, or none, and says what tracer has to answer: cause, place, counters,\n\
         count. *right*: all of it. *unknown*: seen, and no cause named. –: the scenario\n\
         is not possible on that kernel; its file in `scenarios/` says why.\n\n"
    );
    let cells = |first: &str, rest: &mut dyn Iterator<Item = String>| {
        let rest: Vec<String> = rest.collect();
        format!("| {first} | {} |\n", rest.join(" | "))
    };
    out += &cells(
        "scenario",
        &mut columns
            .iter()
            .map(|(kernel, score)| format!("{kernel}<br>{}", score.release)),
    );
    out += &cells("---", &mut columns.iter().map(|_| "---".to_owned()));
    let names: BTreeSet<&String> = columns
        .iter()
        .flat_map(|(_, score)| score.outcomes.keys())
        .collect();
    for name in names {
        out += &cells(
            name,
            &mut columns
                .iter()
                .map(|(_, score)| word(score.outcomes.get(name)).to_owned()),
        );
    }
    for (title, outcome) in [
        ("**right**", Outcome::Right),
        ("**wrong**", Outcome::Wrong),
        ("**unknown**", Outcome::Unknown),
        ("**not possible**", Outcome::NotPossible),
    ] {
        out += &cells(
            title,
            &mut columns
                .iter()
                .map(|(_, score)| score.count(outcome).to_string()),
        );
    }
    let total: usize = columns.iter().map(|(_, score)| score.outcomes.len()).sum();
    let _ = writeln!(
        out,
        "\n{total} cells: {} right, {} wrong, {} unknown, {} not possible.",
        sum(columns, Outcome::Right),
        sum(columns, Outcome::Wrong),
        sum(columns, Outcome::Unknown),
        sum(columns, Outcome::NotPossible),
    );
    out
}

fn sum(columns: &[(String, Score)], outcome: Outcome) -> usize {
    columns.iter().map(|(_, score)| score.count(outcome)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_counts_what_it_shows() {
        let score = |outcomes: &[(&str, Outcome)]| Score {
            outcomes: outcomes
                .iter()
                .map(|(name, outcome)| ((*name).to_owned(), *outcome))
                .collect(),
            release: "1.2.3".to_owned(),
        };
        let text = render(
            &[
                (
                    "a".to_owned(),
                    score(&[("x", Outcome::Right), ("y", Outcome::Wrong)]),
                ),
                ("b".to_owned(), score(&[("x", Outcome::NotPossible)])),
            ],
            "2026-01-01",
        );
        assert!(text.contains("| x | right | – |"), "{text}");
        assert!(text.contains("| y | **wrong** | – |"), "{text}");
        assert!(text.contains("3 cells: 1 right, 1 wrong, 0 unknown, 1 not possible."));
    }
}
