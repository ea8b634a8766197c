//! `scenarios`: the table of scenarios and kernels, right or wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use anyhow::Context as _;
use clap::Args;

use crate::{
    build, paths, process,
    scenario::{self, Outcome, Score, Wanted},
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
    /// Write what was run into docs/accuracy.md, and leave the rest as it is
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
    let date = process::read(std::process::Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let mut table = Table::default();
    let mut failed = false;
    let wanted = Wanted {
        names: options.scenario.clone(),
        core: false,
    };
    let mut unwritten = Ok(());
    test::guests(&kernels, &wanted, |kernel, score| match score {
        Ok(score) => {
            failed |= score.failed() > 0;
            let mut own = Table::default();
            own.enter(kernel, &score, date.trim());
            // What the others say takes hours.
            if options.write && unwritten.is_ok() {
                unwritten = write(&own);
            }
            table.update(own);
        }
        Err(error) => {
            eprintln!("{kernel}: {error:#}");
            failed = true;
        }
    });
    unwritten?;
    print!("{}", table.render());
    Ok(i32::from(failed))
}

/// Puts what was run into the file.
fn write(newer: &Table) -> anyhow::Result<()> {
    let file = paths::root().join(FILE);
    let mut table = match fs::read_to_string(&file) {
        Ok(text) => {
            Table::parse(&text).with_context(|| format!("cannot read the table in {FILE}"))?
        }
        Err(_) => Table::default(),
    };
    table.update(newer.clone());
    table.keep(&scenario::names()?);
    paths::write(&file, table.render().as_bytes())
}

/// Cells by kernel and scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Table {
    columns: BTreeMap<String, Column>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Column {
    release: String,
    /// When the last cell of it was written.
    date: String,
    cells: BTreeMap<String, Outcome>,
}

/// How a cell says it.
const WORDS: [(Outcome, &str); 4] = [
    (Outcome::Right, "right"),
    (Outcome::Wrong, "**wrong**"),
    (Outcome::Unknown, "unknown"),
    (Outcome::NotPossible, "–"),
];
/// Not run.
const BLANK: &str = "";

fn word(outcome: Option<&Outcome>) -> &'static str {
    WORDS
        .iter()
        .find(|(known, _)| Some(known) == outcome)
        .map_or(BLANK, |(_, word)| word)
}

impl Table {
    fn enter(&mut self, kernel: &str, score: &Score, date: &str) {
        let column = self.columns.entry(kernel.to_owned()).or_default();
        column.release.clone_from(&score.release);
        date.clone_into(&mut column.date);
        column.cells.extend(score.outcomes.clone());
    }

    /// What is newer counts; a column of another release of the kernel is over.
    fn update(&mut self, newer: Self) {
        for (kernel, column) in newer.columns {
            match self.columns.get_mut(&kernel) {
                Some(old) if old.release == column.release => {
                    old.date = column.date;
                    old.cells.extend(column.cells);
                }
                _ => {
                    self.columns.insert(kernel, column);
                }
            }
        }
    }

    /// Forgets scenarios that are no more.
    fn keep(&mut self, names: &BTreeSet<String>) {
        for column in self.columns.values_mut() {
            column.cells.retain(|name, _| names.contains(name));
        }
    }

    /// The columns, oldest kernel first.
    fn ordered(&self) -> Vec<(&String, &Column)> {
        let mut columns: Vec<_> = self.columns.iter().collect();
        let place = |kernel: &str| {
            KERNELS
                .iter()
                .position(|known| kernel == *known)
                .unwrap_or(KERNELS.len())
        };
        columns.sort_by_key(|(kernel, _)| place(kernel));
        columns
    }

    /// The table as Markdown.
    fn render(&self) -> String {
        let columns = self.ordered();
        let mut out = "# Accuracy\n\nWritten by `cargo xtask scenarios --write`. Each scenario makes a drop on\n\
             purpose, or none, and says what tracer has to answer: cause, place, counters,\n\
             count. *right*: all of it. *unknown*: seen, and no cause named. –: the scenario\n\
             is not possible on that kernel; its file in `scenarios/` says why. Blank:\n\
             not run there. Each column says on which release it was run, and when last.\n\n"
            .to_owned();
        let line = |first: &str, rest: Vec<String>| format!("| {first} | {} |\n", rest.join(" | "));
        out += &line(
            "scenario",
            columns
                .iter()
                .map(|(kernel, column)| {
                    format!("{kernel}<br>{}<br>{}", column.release, column.date)
                })
                .collect(),
        );
        out += &line("---", columns.iter().map(|_| "---".to_owned()).collect());
        let names: BTreeSet<&String> = columns
            .iter()
            .flat_map(|(_, column)| column.cells.keys())
            .collect();
        for name in names {
            let cells = columns
                .iter()
                .map(|(_, column)| word(column.cells.get(name)).to_owned());
            out += &line(name, cells.collect());
        }
        let count = |column: &Column, outcome: Outcome| {
            column
                .cells
                .values()
                .filter(|cell| **cell == outcome)
                .count()
        };
        for (outcome, word) in WORDS {
            let title = if outcome == Outcome::NotPossible {
                "not possible"
            } else {
                word.trim_matches('*')
            };
            let counts = columns
                .iter()
                .map(|(_, column)| count(column, outcome).to_string());
            out += &line(&format!("**{title}**"), counts.collect());
        }
        let sum = |outcome| -> usize {
            columns
                .iter()
                .map(|(_, column)| count(column, outcome))
                .sum()
        };
        let total: usize = columns.iter().map(|(_, column)| column.cells.len()).sum();
        let _ = writeln!(
            out,
            "\n{total} cells: {} right, {} wrong, {} unknown, {} not possible.",
            sum(Outcome::Right),
            sum(Outcome::Wrong),
            sum(Outcome::Unknown),
            sum(Outcome::NotPossible),
        );
        out
    }

    /// Reads what [`Self::render`] wrote.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut rows = text.lines().filter_map(|line| {
            let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
            Some(line.split(" | ").map(str::trim).collect::<Vec<_>>())
        });
        let heads: Vec<Vec<&str>> = rows
            .next()
            .context("there is none")?
            .into_iter()
            .skip(1)
            .map(|head| head.split("<br>").collect())
            .collect();
        let mut table = Self::default();
        for row in rows {
            let [name, cells @ ..] = row.as_slice() else {
                continue;
            };
            if name.starts_with('*') || *name == "---" {
                continue;
            }
            for (head, cell) in heads.iter().zip(cells) {
                let &[kernel, release, date] = head.as_slice() else {
                    anyhow::bail!("a column is called {}", head.join(" "));
                };
                let column = table.columns.entry(kernel.to_owned()).or_default();
                release.clone_into(&mut column.release);
                date.clone_into(&mut column.date);
                if let Some((outcome, _)) = WORDS.iter().find(|(_, word)| word == cell) {
                    column.cells.insert((*name).to_owned(), *outcome);
                }
            }
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(release: &str, outcomes: &[(&str, Outcome)]) -> Score {
        Score {
            outcomes: outcomes
                .iter()
                .map(|(name, outcome)| ((*name).to_owned(), *outcome))
                .collect(),
            release: release.to_owned(),
        }
    }

    fn table() -> Table {
        let mut table = Table::default();
        table.enter(
            "6.1",
            &score(
                "6.1.2",
                &[("x", Outcome::NotPossible), ("z", Outcome::Unknown)],
            ),
            "2026-01-02",
        );
        table.enter(
            "5.10",
            &score("5.10.1", &[("x", Outcome::Right), ("y", Outcome::Wrong)]),
            "2026-01-01",
        );
        table
    }

    #[test]
    fn the_table_counts_what_it_shows() {
        let text = table().render();
        assert!(
            text.contains(
                "| scenario | 5.10<br>5.10.1<br>2026-01-01 | 6.1<br>6.1.2<br>2026-01-02 |"
            ),
            "{text}"
        );
        assert!(text.contains("| x | right | – |"), "{text}");
        assert!(text.contains("| y | **wrong** |  |"), "{text}");
        assert!(text.contains("| **wrong** | 1 | 0 |"), "{text}");
        assert!(text.contains("4 cells: 1 right, 1 wrong, 1 unknown, 1 not possible."));
    }

    #[test]
    fn it_reads_what_it_wrote() {
        assert_eq!(Table::parse(&table().render()).unwrap(), table());
        assert!(Table::parse("# Accuracy").is_err());
    }

    #[test]
    fn what_was_run_again_replaces_what_was_there() {
        let mut old = table();
        let mut newer = Table::default();
        newer.enter(
            "5.10",
            &score("5.10.1", &[("y", Outcome::Right)]),
            "2026-01-03",
        );
        newer.enter(
            "6.1",
            &score("6.1.9", &[("z", Outcome::Right)]),
            "2026-01-03",
        );
        old.update(newer);
        let text = old.render();
        assert!(text.contains("5.10.1<br>2026-01-03"), "{text}");
        assert!(
            text.contains("| x | right |  |"),
            "another release, another column: {text}"
        );
        assert!(text.contains("| y | right |  |"), "{text}");
        assert!(text.contains("| z |  | right |"), "{text}");
        old.keep(&BTreeSet::from(["x".to_owned()]));
        assert!(!old.render().contains("| z |"));
    }
}
