//! Errands of tracer's developers: `cargo xtask help`.

mod bpf_linker;
mod build;
mod check;
mod packages;
mod paths;
mod process;
mod rust_src;
mod scenario;
mod setup;
mod test;
mod vm;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

/// Errands of tracer's developers
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Errand,
}

#[derive(Debug, Subcommand)]
enum Errand {
    /// Bring what a build needs and is not there yet
    Setup {
        /// What virtual machines need too
        #[arg(long)]
        vm: bool,
    },
    /// Set up and build target/release/tracer
    Build,
    /// Build, then start tracer as root
    Run {
        /// tracer's own arguments, after `--`
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGS"
        )]
        arguments: Vec<OsString>,
    },
    /// Formatting and lints of both sides
    Check,
    /// Lints, unit tests, and scenarios here and in virtual machines
    Test(test::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Errand::Setup { vm } => setup::command(vm),
        Errand::Build => build::build(),
        Errand::Run { arguments } => build::run(&arguments),
        Errand::Check => check::command(),
        Errand::Test(options) => test::command(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            // As tracer itself does: 125 when it is the place that lacks something.
            let lacking = error.is::<packages::Missing>();
            ExitCode::from(if lacking { 125 } else { 1 })
        }
    }
}
