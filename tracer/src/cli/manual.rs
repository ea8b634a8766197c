//! The man page and the help, kept in `docs/` as a package wants them.
//!
//! What the definition knows is rendered from it; the rest of the man page is
//! written by hand in `docs/tracer.1.in`. The tests compare with what is
//! committed; with `TRACER_BLESS=1` they write it anew.

use std::{env, fs, io, path::PathBuf};

use clap::{Arg, Command, CommandFactory as _};
use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, roman},
};

use super::Cli;
use crate::probes::kinds::KINDS;

/// As wide as a terminal is at least.
const WIDTH: usize = 80;

#[test]
fn the_man_page_is_that_of_this_definition() -> io::Result<()> {
    let template = fs::read_to_string(docs("tracer.1.in"))?;
    check("tracer.1", &page(&template)?)
}

#[test]
fn the_help_is_that_of_this_definition() -> io::Result<()> {
    check("help.txt", &help())
}

fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name)
}

/// Compares with the committed file, or writes it.
fn check(name: &str, text: &str) -> io::Result<()> {
    let file = docs(name);
    if env::var_os("TRACER_BLESS").is_some_and(|value| value == "1") {
        return fs::write(file, text);
    }
    let committed = fs::read_to_string(file)?;
    let differs = (1..)
        .zip(text.lines().zip(committed.lines()))
        .find(|(_, (now, then))| now != then);
    assert!(
        text == committed,
        "docs/{name} is out of date, first at {differs:?}: TRACER_BLESS=1 cargo test -p tracer manual"
    );
    Ok(())
}

fn command() -> Command {
    let mut command = Cli::command().term_width(WIDTH);
    command.build();
    command
}

/// The sub-commands, without `help` itself.
fn subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    let visible = |sub: &&Command| !sub.is_hide_set() && sub.get_name() != "help";
    command.get_subcommands().filter(visible)
}

/// What `--help` prints, of tracer and of each sub-command.
fn help() -> String {
    let command = command();
    let mut text = String::new();
    for mut each in std::iter::once(&command)
        .chain(subcommands(&command))
        .cloned()
    {
        let name = each.get_bin_name().unwrap_or(each.get_name()).to_owned();
        text.push_str(&format!("$ {name} --help\n"));
        for line in each.render_long_help().to_string().trim().lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// The template with its lines of the form `@what@` filled in.
fn page(template: &str) -> io::Result<String> {
    let command = command();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    for line in template.lines() {
        match line {
            "@title@" => man.render_title(&mut page)?,
            "@name@" => man.render_name_section(&mut page)?,
            "@synopsis@" => synopsis(&command).to_writer(&mut page)?,
            "@commands@" => commands(&command).to_writer(&mut page)?,
            "@kinds@" => kinds().to_writer(&mut page)?,
            "@options@" => man.render_options_section(&mut page)?,
            _ => page.extend_from_slice(format!("{line}\n").as_bytes()),
        }
    }
    String::from_utf8(page).map_err(io::Error::other)
}

/// `tracer run [OPTIONS] -- <CMD>...`, its first words in bold.
fn usage(command: &Command) -> Vec<Inline> {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let usage = command.clone().render_usage().to_string();
    let rest = usage
        .strip_prefix("Usage: ")
        .and_then(|usage| usage.strip_prefix(name))
        .unwrap_or_default();
    vec![bold(name), roman(rest)]
}

fn synopsis(command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text(usage(command));
    for sub in subcommands(command) {
        roff.control("br", []);
        roff.text(usage(sub));
    }
    roff
}

/// Each sub-command with the arguments that are its own.
fn commands(command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    for sub in subcommands(command) {
        roff.control("TP", []);
        roff.text(usage(sub));
        let about = sub.get_long_about().or(sub.get_about());
        roff.text([roman(about.map(ToString::to_string).unwrap_or_default())]);
        for argument in sub.get_arguments().filter(|argument| is_own(argument)) {
            let help = argument.get_long_help().or(argument.get_help());
            roff.control("RS", []);
            roff.control("TP", []);
            let short = argument.get_short();
            let short = short.map_or_else(String::new, |short| format!("-{short}, "));
            roff.text([bold(format!("{short}{argument}"))]);
            let mut help = help.map(ToString::to_string).unwrap_or_default();
            if let [default] = argument.get_default_values() {
                help.push_str(&format!(" [default: {}]", default.display()));
            }
            roff.text([roman(help)]);
            roff.control("RE", []);
        }
    }
    roff
}

fn kinds() -> Roff {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let mut roff = Roff::new();
    roff.text([roman(format!("{}.", names.join(", ")))]);
    roff
}

fn is_own(argument: &Arg) -> bool {
    !argument.is_global_set() && !argument.is_hide_set() && argument.get_id() != "help"
}
