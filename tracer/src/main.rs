//! tracer finds silent tunnel drops and says why.

mod cli;
mod command;
mod compare;
mod devices;
mod diff;
mod doctor;
mod event;
mod explain;
mod filter;
mod flows;
mod judge;
mod kernel;
mod memory;
mod pcapng;
mod probes;
mod record;
mod report;
mod routing;
mod session;
mod story;
mod stream;
mod terminal;
mod view;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use cli::{Cli, Command};

/// Could not trace, or traced incompletely and found nothing. `git bisect run`
/// skips on it.
const COULD_NOT_TRACE: u8 = 125;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log(cli.options.verbose);
    let result = match cli.command {
        None | Some(Command::Watch) => session::watch(&cli.options),
        Some(Command::Run { command }) => session::run(&cli.options, &command),
        Some(Command::Record {
            output,
            max_size,
            keep,
            force,
            snaplen,
            command,
        }) => {
            let limits = record::Limits {
                size: max_size,
                files: keep,
            };
            session::record(&cli.options, &output, limits, force, snaplen, &command)
        }
        Some(Command::Report {
            file,
            pcapng,
            snaplen,
        }) => {
            let packets = pcapng.map(|path| (path, snaplen));
            report::run(&cli.options, &file, packets.as_ref())
        }
        Some(Command::Diff { a, b }) => diff::run(&cli.options, &a, &b),
        Some(Command::Compare {
            a,
            b,
            file,
            command,
        }) => {
            let asked = compare::Asked { a, b };
            compare::run(&cli.options, &asked, file.as_deref(), &command)
        }
        Some(Command::Explain { cause }) => explain::run(&cli.options, cause.as_deref()),
        Some(Command::Doctor) => doctor::run(&cli.options),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Not eprintln, which panics where stderr is a closed pipe.
            let _ = writeln!(
                io::stderr(),
                "tracer: {}",
                devices::printable(format!("{error:#}").as_bytes())
            );
            let misfit = error.downcast_ref::<filter::Error>();
            if let Some(misfit) = misfit {
                let _ = writeln!(io::stderr(), "{}", misfit.marked());
            }
            let usage = misfit.is_some() || error.downcast_ref::<session::Usage>().is_some();
            ExitCode::from(if usage { 2 } else { COULD_NOT_TRACE })
        }
    }
}

/// Whoever read our output has left.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Logs go to stderr, results to stdout.
fn log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "tracer=info,warn",
        2 => "tracer=debug,info",
        _ => "debug",
    };
    tracing_subscriber::fmt()
        .with_env_filter(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // They would go to stderr, and panic where that is a closed pipe.
        .log_internal_errors(false)
        .without_time()
        .init();
}
