//! `test`: everything that must hold, from lints to scenarios on every kernel.

use std::{
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use anyhow::bail;
use clap::Args;

use crate::{
    bisect, build, check, process,
    scenario::{self, Outcome, Score, Wanted},
    setup, vm,
};

/// Guests that run at a time.
const GUESTS: usize = 2;

/// What the project promises to run on, and 6.1 with the seed's bug put back.
pub const KERNELS: [&str; 5] = ["5.10", "6.1", "6.1-reverted", "6.12", "newest"];

/// Without `--unit`, `--native`, `--vm` or `--bisect`: all but the last, which `--all`
/// runs too. `--kernel` alone means
/// that kernel's scenarios, `--scenario` alone that scenario everywhere.
#[derive(Debug, Args)]
pub struct Options {
    /// Lints and unit tests
    #[arg(long)]
    unit: bool,
    /// Scenarios on the running kernel
    #[arg(long)]
    native: bool,
    /// Scenarios in virtual machines
    #[arg(long)]
    vm: bool,
    /// A kernel for the virtual machines, may be repeated
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<String>,
    /// A scenario by name, may be repeated
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// `git bisect run` by tracer's exit status, over a series that breaks sit
    #[arg(long)]
    bisect: bool,
    /// All scenarios, not only the core ones; takes hours on two processors
    #[arg(long)]
    all: bool,
}

/// The parts to run.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    unit: bool,
    native: bool,
    bisect: bool,
    kernels: Vec<String>,
}

impl Options {
    fn plan(&self) -> Plan {
        let chosen = self.unit || self.native || self.vm || self.bisect;
        let vm = self.vm || !self.kernel.is_empty() || !chosen;
        let kernels = match (vm, self.kernel.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => KERNELS.map(str::to_owned).to_vec(),
            (true, false) => self.kernel.clone(),
        };
        Plan {
            unit: self.unit || (!chosen && self.kernel.is_empty() && self.scenario.is_empty()),
            native: self.native || (!chosen && self.kernel.is_empty()),
            bisect: self.bisect || (self.all && !chosen),
            kernels,
        }
    }
}

pub fn command(options: &Options) -> anyhow::Result<()> {
    let plan = options.plan();
    setup::build()?;
    if plan.native {
        setup::native()?;
    }
    if plan.bisect || !plan.kernels.is_empty() {
        setup::vm()?;
    }
    if plan.unit {
        check::command()?;
    }
    build::build()?;
    if plan.unit {
        setup::readers();
        let mut unit = process::cargo(["test", "--locked", "--workspace"]);
        process::run(unit.args(["--exclude", "tracer-ebpf"]))?;
    }
    if plan.bisect {
        bisect::test()?;
    }
    if !plan.native && plan.kernels.is_empty() {
        return Ok(());
    }

    let mut total = Total::default();
    if plan.native {
        total.add("this kernel", &scenario::native(&options.scenario));
    }
    let wanted = Wanted {
        names: options.scenario.clone(),
        core: options.scenario.is_empty() && !options.all,
    };
    guests(&plan.kernels, &wanted, |kernel, score| {
        total.add(kernel, &score);
    });
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        bail!("{} scenarios failed", total.failed);
    }
    Ok(())
}

/// Emulation now and then lets a processor run into a breakpoint that another
/// has just taken away (seen: `Oops: int3` under three guests at a time). A
/// guest whose kernel died gets a second boot; that it did is said.
fn in_guest(kernel: &str, wanted: &Wanted) -> anyhow::Result<Score> {
    match scenario::vm(kernel, wanted) {
        Err(error) if format!("{error:#}").contains("the kernel died: ") => {
            eprintln!("{kernel}: once more, since: {error:#}");
            scenario::vm(kernel, wanted)
        }
        result => result,
    }
}

#[derive(Default)]
struct Total {
    passed: usize,
    failed: usize,
}

impl Total {
    /// A kernel that cannot be had or does not boot is a failure, not the end.
    fn add(&mut self, place: &str, score: &anyhow::Result<Score>) {
        match score {
            Ok(score) => {
                self.passed += score.count(Outcome::Right);
                self.failed += score.failed();
            }
            Err(error) => {
                eprintln!("{place}: {error:#}");
                self.failed += 1;
            }
        }
    }
}

/// Runs the scenarios on each kernel, a few guests at a time: they wait more
/// than they compute. `done` is told of each when it has ended.
pub fn guests(
    kernels: &[String],
    wanted: &Wanted,
    done: impl FnMut(&str, anyhow::Result<Score>) + Send,
) {
    // What is fetched and built for a kernel is shared by its variants: one
    // after the other, while guests that are ready run.
    let (sender, ready) = mpsc::sync_channel::<(String, anyhow::Result<()>)>(GUESTS);
    let ready = Mutex::new(ready);
    let done = Mutex::new(done);
    thread::scope(|scope| {
        for _ in 0..GUESTS {
            scope.spawn(|| {
                loop {
                    let next = ready.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((kernel, prepared)) = next else { return };
                    let score = prepared.and_then(|()| in_guest(&kernel, wanted));
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done(&kernel, score);
                }
            });
        }
        for kernel in kernels {
            let prepared = vm::prepare(kernel);
            if sender.send((kernel.clone(), prepared)).is_err() {
                break;
            }
        }
        drop(sender);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            unit: false,
            native: false,
            vm: false,
            kernel: vec![],
            scenario: vec![],
            bisect: false,
            all: false,
        }
    }

    #[test]
    fn without_a_choice_everything_runs() {
        let plan = options().plan();
        assert!(plan.unit && plan.native);
        assert_eq!(plan.kernels, KERNELS);
    }

    #[test]
    fn one_part_runs_alone() {
        let plan = Options {
            unit: true,
            ..options()
        }
        .plan();
        assert_eq!(
            plan,
            Plan {
                unit: true,
                native: false,
                bisect: false,
                kernels: vec![]
            }
        );
        let plan = Options {
            native: true,
            ..options()
        }
        .plan();
        assert_eq!(
            plan,
            Plan {
                unit: false,
                native: true,
                bisect: false,
                kernels: vec![]
            }
        );
        let plan = Options {
            vm: true,
            ..options()
        }
        .plan();
        assert_eq!(plan.kernels, KERNELS);
        assert!(!plan.unit && !plan.native);
    }

    #[test]
    fn the_bisect_runs_where_all_is_asked_for() {
        let alone = Options {
            bisect: true,
            ..options()
        };
        assert!(alone.plan().bisect && !alone.plan().unit && alone.plan().kernels.is_empty());
        let all = Options {
            all: true,
            ..options()
        };
        assert!(all.plan().bisect && all.plan().unit);
    }

    #[test]
    fn naming_a_kernel_means_that_kernel_only() {
        let plan = Options {
            kernel: vec!["6.1".into()],
            ..options()
        }
        .plan();
        assert_eq!(
            plan,
            Plan {
                unit: false,
                native: false,
                bisect: false,
                kernels: vec!["6.1".into()]
            }
        );
    }

    #[test]
    fn naming_a_scenario_leaves_out_the_unit_tests() {
        let plan = Options {
            scenario: vec!["seed".into()],
            ..options()
        }
        .plan();
        assert!(!plan.unit && plan.native);
        assert_eq!(plan.kernels, KERNELS);
    }
}
