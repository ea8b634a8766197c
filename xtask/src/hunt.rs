//! `hunt`: one scenario on several kernels, and the first that answers
//! otherwise.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::ensure;
use clap::Args;

use crate::{
    build, kernels, paths,
    scenario::answer::{self, Answer},
    setup, vm,
};

#[derive(Debug, Args)]
pub struct Options {
    /// A scenario's file, or the name of one in scenarios/
    #[arg(long, value_name = "FILE")]
    scenario: PathBuf,
    /// In the order of the hunt: names as for `vm`, ranges of the
    /// distribution's packages (6.1..6.12), directories of built kernels (with
    /// boot/ and lib/modules/), separated by commas
    #[arg(long, value_name = "KERNELS", value_delimiter = ',', required = true)]
    kernels: Vec<String>,
}

/// Prints the matrix. 0: all answer the same; 1: some do not; 125: a kernel
/// could not be asked, and those that could agree.
pub fn command(options: &Options) -> anyhow::Result<i32> {
    let in_repository = paths::root()
        .join("scenarios")
        .join(&options.scenario)
        .with_extension("toml");
    let file = if !options.scenario.exists() && in_repository.is_file() {
        &in_repository
    } else {
        &options.scenario
    };
    let scenario = answer::read(file)?;
    setup::vm()?;
    build::build()?;
    let mut kernels = Vec::new();
    for word in &options.kernels {
        kernels.extend(kernels::named(word)?);
    }
    ensure!(kernels.len() > 1, "a hunt takes two kernels or more");

    println!("{}: {}", scenario.name, scenario.title);
    let mut answers = Vec::new();
    for kernel in kernels {
        let answer = vm::prepare(&kernel).and_then(|()| answer::of(&scenario, &kernel));
        print!("{}", row(&kernel, &answer));
        answers.push((kernel, answer));
    }
    println!("\n{}", changes(&answers));
    Ok(status(&answers))
}

type Asked = anyhow::Result<Answer>;

fn row(kernel: &str, answer: &Asked) -> String {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let first = format!("{error:#}");
            let first = first.lines().next().unwrap_or_default();
            return format!("{kernel}: not asked: {first}\n");
        }
    };
    let mut out = kernel.to_owned();
    if answer.release != kernel {
        let _ = write!(out, " ({})", answer.release);
    }
    if !answer.is_certain() {
        out += ", incomplete, so not compared";
    }
    if answer.drops.is_empty() {
        return format!("{out}: nothing vanished\n");
    }
    out += ":\n";
    for drop in &answer.drops {
        let _ = writeln!(out, "    {drop}");
    }
    out
}

/// The answer, if it is one that others can be compared with.
fn certain(answer: &Asked) -> Option<&Answer> {
    answer.as_ref().ok().filter(|answer| answer.is_certain())
}

/// Where the answer changes, in the order that was asked for.
fn changes(answers: &[(String, Asked)]) -> String {
    let known: Vec<(&String, &Answer)> = answers
        .iter()
        .filter_map(|(kernel, answer)| Some((kernel, certain(answer)?)))
        .collect();
    let changed = known
        .windows(2)
        .filter(|pair| !pair[0].1.agrees(pair[1].1))
        .map(|pair| format!("{} answers otherwise than {}", pair[1].0, pair[0].0));
    let mut changed = changed.peekable();
    let Some(first) = changed.next() else {
        return match known.len() {
            0 => "no kernel could be asked".to_owned(),
            1 => "one kernel could be asked: nothing to compare with".to_owned(),
            count => format!("{count} kernels give the same answer"),
        };
    };
    let mut out = format!("first change: {first}");
    for next in changed {
        let _ = write!(out, "\nthen: {next}");
    }
    out
}

fn status(answers: &[(String, Asked)]) -> i32 {
    let known: Vec<&Answer> = answers
        .iter()
        .filter_map(|(_, answer)| certain(answer))
        .collect();
    if known.windows(2).any(|pair| !pair[0].agrees(pair[1])) {
        return 1;
    }
    if known.len() < answers.len() { 125 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(kernel: &str, drops: &[&str]) -> (String, Asked) {
        let answer = Answer {
            release: format!("{kernel}.1"),
            status: 1,
            complete: true,
            drops: drops.iter().map(|drop| (*drop).to_owned()).collect(),
        };
        (kernel.to_owned(), Ok(answer))
    }

    fn lacking(kernel: &str) -> (String, Asked) {
        (
            kernel.to_owned(),
            Err(anyhow::anyhow!("no such package\nmore")),
        )
    }

    #[test]
    fn the_first_change_comes_first_and_all_are_told() {
        let answers = [
            asked("a", &["x"]),
            asked("b", &["x"]),
            asked("c", &["y"]),
            asked("d", &[]),
        ];
        assert_eq!(
            changes(&answers),
            "first change: c answers otherwise than b\nthen: d answers otherwise than c"
        );
        assert_eq!(status(&answers), 1);
    }

    #[test]
    fn a_kernel_that_cannot_be_asked_is_no_change() {
        let answers = [asked("a", &["x"]), lacking("b"), asked("c", &["x"])];
        assert_eq!(changes(&answers), "2 kernels give the same answer");
        assert_eq!(status(&answers), 125);
        let answers = [asked("a", &["x"]), lacking("b"), asked("c", &["y"])];
        assert_eq!(
            changes(&answers),
            "first change: c answers otherwise than a"
        );
        assert_eq!(status(&answers), 1);
        assert_eq!(row("b", &answers[1].1), "b: not asked: no such package\n");
    }

    #[test]
    fn what_was_not_seen_whole_is_no_change() {
        let mut answers = [asked("a", &["x"]), asked("b", &[]), asked("c", &["x"])];
        if let Ok(answer) = &mut answers[1].1 {
            answer.complete = false;
        }
        assert_eq!(changes(&answers), "2 kernels give the same answer");
        assert_eq!(status(&answers), 125);
        assert_eq!(
            row("b", &answers[1].1),
            "b (b.1), incomplete, so not compared: nothing vanished\n"
        );
    }

    #[test]
    fn rows_name_the_release_and_each_drop() {
        let (kernel, answer) = asked("6.1", &["x on t0", "y"]);
        assert_eq!(row(&kernel, &answer), "6.1 (6.1.1):\n    x on t0\n    y\n");
        let (kernel, answer) = asked("6.1", &[]);
        assert_eq!(row(&kernel, &answer), "6.1 (6.1.1): nothing vanished\n");
    }
}
