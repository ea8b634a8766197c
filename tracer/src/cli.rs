//! What was typed.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracer_common::{filter::Filter, record::SNAP_LEN};

use crate::filter;

/// Finds silent tunnel drops and says why
///
/// Exit status: 0 nothing vanished, 1 drops were found, 2 wrong usage, 125 could
/// not trace, or traced incompletely and found nothing.
#[derive(Debug, Parser)]
#[command(name = "tracer", version, args_conflicts_with_subcommands = false)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub options: Options,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a live table of flows that vanish (the default)
    Watch,
    /// Trace while a command runs, then report
    Run {
        /// The command and its arguments
        #[arg(required = true, last = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Keep everything in a file, while a command runs or until Ctrl-C
    Record {
        /// The file; only its owner may read it
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Begin another file at this size, such as 500K, 20M, 1G; the one before
        /// is kept as FILE.1
        #[arg(long, value_name = "SIZE", value_parser = size)]
        max_size: Option<u64>,
        /// How many files to keep: FILE, FILE.1 and so on
        #[arg(long, value_name = "N", requires = "max_size", default_value_t = 2,
              value_parser = clap::value_parser!(u32).range(1..=1000))]
        keep: u32,
        /// Write over a recording that is there
        #[arg(long)]
        force: bool,
        /// Most bytes to keep of each packet whose details are kept, from its first
        /// header on; 0: none
        #[arg(long, value_name = "BYTES", default_value_t = SNAP_LEN as u32,
              value_parser = clap::value_parser!(u32).range(..=SNAP_LEN as i64))]
        snaplen: u32,
        /// The command and its arguments
        #[arg(last = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Show a recording; with --interval line by line, as it happened
    Report {
        /// What `record` wrote, on this host or another
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Write the packets that vanished to this file too, in pcapng, with their
        /// verdicts as comments
        #[arg(long, value_name = "OUT")]
        pcapng: Option<PathBuf>,
        /// Most bytes of each packet there
        #[arg(long, value_name = "BYTES", requires = "pcapng", default_value_t = 262_144,
              value_parser = clap::value_parser!(u32).range(1..=262_144))]
        snaplen: u32,
    },
    /// Compare two recordings: what vanishes in one and not in the other
    ///
    /// Exit status: 0 the same, 1 different, 125 not comparable.
    Diff {
        /// A recording
        #[arg(value_name = "A")]
        a: PathBuf,
        /// The one to compare it with
        #[arg(value_name = "B")]
        b: PathBuf,
    },
    /// Put two selections of packets side by side: where their ways part
    ///
    /// Exit status: 0 they do not part as far as is known, 1 they part, 125 it
    /// cannot be said.
    Compare {
        /// The packets of one side, in the words of --filter
        #[arg(long, value_name = "EXPR")]
        a: String,
        /// Those of the other
        #[arg(long, value_name = "EXPR")]
        b: String,
        /// A recording of both
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Or a command that sends both, and its arguments
        #[arg(last = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Show the catalogue of causes, or one of them in full
    Explain {
        /// Id of a cause, as verdicts name it
        cause: Option<String>,
    },
    /// Show what this kernel offers and what is lost
    Doctor,
}

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How to print: a table for people, lines for logs, JSON for programs,
    /// Markdown to paste, a page for a browser
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Only tunnel devices with this name
    #[arg(short = 'i', long = "dev", global = true, value_name = "NAME")]
    pub dev: Option<OsString>,
    /// Only this network namespace; of a recording, by the name it had then or by
    /// inode
    #[arg(long, global = true, value_name = "NAME|PID|PATH")]
    pub netns: Option<String>,
    /// Only packets that match, in the words of pcap filters with inner, outer, dev,
    /// kind, netns, mark, uid, pid and comm; see the man page
    #[arg(long, global = true, value_name = "EXPR")]
    pub filter: Option<String>,
    /// Stop after this time, such as 30, 30s, 5m, 1h
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Refresh the view this often; JSON gets device lines each time
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub interval: Option<Duration>,
    /// Also drops that no tunnel is part of
    #[arg(long, global = true)]
    pub all_drops: bool,
    /// Keep the details of every drop, not only of the first of each sort and then of
    /// ever fewer; counts are exact in any case
    #[arg(long, global = true)]
    pub all_records: bool,
    /// Show the kernel's stack of each drop
    #[arg(long, global = true)]
    pub stack: bool,
    /// Leave a point of interest out, or a way to attach (such as tp_btf), to see
    /// what is lost without it
    #[arg(long, global = true, value_name = "POINT", hide = true)]
    pub withhold: Vec<String>,
    /// Say more on stderr; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Options {
    /// The program of the filter.
    pub fn program(&self) -> Result<Filter, filter::Error> {
        match &self.filter {
            Some(text) => filter::program(text, &filter::Host),
            None => Ok(Filter::NONE),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Lines,
    Json,
    /// A report to paste into an issue
    Markdown,
    /// A report as a page for a browser
    Html,
}

/// A number with an optional unit.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number
        .parse()
        .map_err(|_| "expected a time such as 30s or 5m".to_owned())?;
    let seconds = match unit {
        "" | "s" => number,
        "ms" => number / 1000.0,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        other => return Err(format!("unknown unit '{other}': use ms, s, m or h")),
    };
    // What is longer than can be counted does not come.
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    match duration.is_zero() || seconds < 0.0 {
        false => Ok(duration),
        true => Err("expected a time above zero".to_owned()),
    }
}

/// A number of bytes with an optional unit.
fn size(text: &str) -> Result<u64, String> {
    /// What is repeated at the beginning of each file has to have room.
    const LEAST: u64 = 64 << 10;
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text.get(digits.len()..).unwrap_or_default() {
        "" => 0,
        "k" | "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        other => return Err(format!("unknown unit '{other}': use K, M, G or T")),
    };
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or("expected a size such as 500K, 20M or 1G")?;
    match bytes >= LEAST {
        true => Ok(bytes),
        false => Err("expected at least 64K".to_owned()),
    }
}

#[cfg(test)]
mod manual;

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "x", "5 parsecs", "-1", "0", "1e999", "."] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("65536"), Ok(65536));
        assert_eq!(size("64k"), Ok(65536));
        assert_eq!(size("20M"), Ok(20 << 20));
        assert_eq!(size("1G"), Ok(1 << 30));
        for wrong in [
            "",
            "x",
            "M",
            "1",
            "63K",
            "1.5M",
            "5 M",
            "-1G",
            "99999999999T",
            "64µ",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        let cli = Cli::try_parse_from([
            "tracer", "run", "--format", "json", "--", "ping", "-c1", "x",
        ])
        .expect("valid");
        assert_eq!(cli.options.format, Format::Json);
        let Some(Command::Run { command }) = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(command, ["ping", "-c1", "x"]);
    }
}
