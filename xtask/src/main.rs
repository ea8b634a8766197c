//! Errands of tracer's developers: `cargo xtask help`.

mod accuracy;
mod apt;
mod bench;
mod bisect;
mod bpf_linker;
mod build;
mod check;
mod demo;
mod hunt;
mod initramfs;
mod kernels;
mod libraries;
mod modules;
mod packages;
mod paths;
mod process;
mod qemu;
mod rust_src;
mod scenario;
mod setup;
mod sit;
mod test;
mod traffic;
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
    /// The table of scenarios and kernels: right, wrong, unknown
    Scenarios(accuracy::Options),
    /// One scenario on several kernels: which one answers otherwise
    Hunt(hunt::Options),
    /// Run a command in a virtual machine with a distribution's kernel
    Vm(vm::Options),
    /// Build a distribution kernel's sit.ko from another source, for `vm --module`
    Sit(sit::Options),
    /// What tracer costs and keeps, on this machine, beside its peers
    Bench(bench::Options),
    /// Play the bug that started it all, live
    Demo,
    /// Send what a scenario needs; for guests
    #[command(hide = true)]
    Traffic(traffic::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Errand::Setup { vm } => setup::command(vm),
        Errand::Build => build::build(),
        Errand::Run { arguments } => build::run(&arguments),
        Errand::Check => check::command(),
        Errand::Test(options) => test::command(&options),
        Errand::Scenarios(options) => return end(accuracy::command(&options)),
        Errand::Hunt(options) => return end(hunt::command(&options)),
        Errand::Sit(options) => sit::command(&options),
        Errand::Bench(options) => return end(bench::command(&options)),
        Errand::Demo => return end(demo::command()),
        Errand::Traffic(options) => return end(traffic::command(&options)),
        Errand::Vm(options) => return end(vm::command(&options)),
    };
    end(done.map(|()| 0))
}

fn end(done: anyhow::Result<i32>) -> ExitCode {
    match done {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: {error:#}");
            // As tracer itself does: 125 when it is the place that lacks something.
            let lacking = error.is::<packages::Missing>();
            ExitCode::from(if lacking { 125 } else { 1 })
        }
    }
}
