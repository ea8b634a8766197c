//! What is attached while packets go by: nothing, tracer in one of its ways, or
//! a peer.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::load::Load;
use crate::{packages, paths, process};

/// How long a peer that does not say when it is attached gets for it.
const PEER_SETTLES: Duration = Duration::from_millis(1000);
/// tracer ends by itself, should we not.
const LONGEST: &str = "300s";

/// Where peers look for events.
const TRACING: &str = "/sys/kernel/tracing";

/// Debian's packages of the peers, with a program of each.
const PACKAGES: [(&str, &str); 3] = [
    ("bpftrace", "bpftrace"),
    ("linux-perf", "perf"),
    // Knows the programs' names.
    ("bpftool", "bpftool"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    Nothing,
    /// The same programs as when counting, told to look at nothing: what
    /// running them costs.
    Idle,
    /// `tracer record`: exact counts, and the details of some, written each second.
    /// As in `tracer watch`, what only tells of tunnels waits where there is none.
    Counting,
    /// `tracer record --all-records`: the details of all.
    Recording,
    RawCount,
    ReasonCount,
    Print,
    Perf,
}

impl Variant {
    pub const OF_DROPS: [Self; 4] = [Self::Nothing, Self::Idle, Self::Counting, Self::Recording];
    pub const OF_OTHERS: [Self; 3] = [Self::Nothing, Self::Idle, Self::Counting];
    pub const PEERS: [Self; 4] = [Self::RawCount, Self::ReasonCount, Self::Print, Self::Perf];

    pub fn title(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Idle => "tracer's programs, looking at nothing",
            Self::Counting => "tracer counting",
            Self::Recording => "tracer recording every drop",
            Self::RawCount => "bpftrace rawtracepoint count",
            Self::ReasonCount => "bpftrace count by reason and location",
            Self::Print => "bpftrace printf per event",
            Self::Perf => "perf record -e skb:kfree_skb",
        }
    }

    /// The bpftrace program.
    fn script(self) -> Option<&'static str> {
        Some(match self {
            Self::RawCount => "rawtracepoint:kfree_skb { @ = count(); }",
            Self::ReasonCount => {
                "tracepoint:skb:kfree_skb { @[args->reason, args->location] = count(); }"
            }
            Self::Print => {
                r#"tracepoint:skb:kfree_skb { printf("drop %d %p\n", args->reason, args->location); }"#
            }
            _ => return None,
        })
    }
}

/// Brings the peers, and what they read the events' formats from; says why not
/// where they cannot be had.
pub fn get_peers() -> anyhow::Result<()> {
    packages::get(&PACKAGES)?;
    if Path::new(TRACING).join("events").exists() {
        return Ok(());
    }
    process::quiet(Command::new("mount").args(["-t", "tracefs", "tracefs", TRACING]))
}

/// Where what is attached writes.
fn directory() -> anyhow::Result<PathBuf> {
    let directory = paths::root().join("target/bench");
    paths::make(&directory)?;
    Ok(directory)
}

/// What was attached, as it saw it.
#[derive(Debug, Default)]
pub struct Seen {
    /// Drops of ours, where it counts or keeps them.
    pub drops: Option<u64>,
    /// Details that it kept.
    pub records: Option<u64>,
    /// Details that it had no room for.
    pub lost: u64,
    /// Is its own word that nothing was left out?
    pub complete: bool,
    /// From being told to end until it was gone.
    pub detached: Duration,
}

/// Something attached.
#[derive(Debug)]
pub struct Running {
    variant: Variant,
    load: Load,
    child: Option<Child>,
    /// What it writes beside its standard output.
    file: PathBuf,
    /// From exec to attached, where it says so.
    pub ready: Duration,
}

impl Running {
    /// Attaches, and waits for it.
    pub fn start(variant: Variant, load: Load) -> anyhow::Result<Self> {
        let directory = directory()?;
        let file = directory.join(match variant {
            Variant::Idle | Variant::Counting | Variant::Recording => "bench.rec",
            Variant::Perf => "perf.data",
            _ => "said",
        });
        let mut running = Self {
            variant,
            load,
            child: None,
            file,
            ready: Duration::ZERO,
        };
        let mut command = match variant {
            Variant::Nothing => return Ok(running),
            Variant::Idle | Variant::Counting | Variant::Recording => running.tracer(),
            Variant::Perf => {
                let mut command = Command::new("perf");
                let arguments = ["record", "-q", "-a", "-e", "skb:kfree_skb", "-o"];
                command.args(arguments).arg(&running.file);
                command.stderr(Stdio::piped());
                command
            }
            Variant::RawCount | Variant::ReasonCount | Variant::Print => {
                let mut command = Command::new("bpftrace");
                command.args(["-e", variant.script().unwrap_or_default()]);
                // Not a pipe: nobody reads it meanwhile.
                command.stdout(File::create(&running.file)?);
                command.stderr(Stdio::piped());
                command
            }
        };
        let began = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start `{}`", process::line(&command)))?;
        running.child = Some(child);
        running.wait_until_attached(began)?;
        Ok(running)
    }

    fn tracer(&self) -> Command {
        let mut command = Command::new(paths::tracer());
        // Flows, as what it is compared with: no bytes of packets.
        command.args(["record", "-v", "--force", "--snaplen", "0"]);
        command.args(["--duration", LONGEST, "-o"]).arg(&self.file);
        command.stderr(Stdio::piped());
        match self.variant {
            Variant::Idle => _ = command.args(["--withhold", "counting"]),
            Variant::Recording => _ = command.arg("--all-records"),
            _ => {}
        }
        if self.load.needs_all_drops() {
            command.arg("--all-drops");
        }
        command
    }

    fn wait_until_attached(&mut self, began: Instant) -> anyhow::Result<()> {
        let variant = self.variant;
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        // What follows the line is read at the end.
        match variant {
            Variant::Idle | Variant::Counting | Variant::Recording => {
                child.stderr = line_with(child.stderr.take(), "attached")?;
            }
            _ => thread::sleep(PEER_SETTLES),
        }
        self.ready = began.elapsed();
        if let Some(status) = child.try_wait()? {
            let mut why = String::new();
            if let Some(stderr) = &mut child.stderr {
                stderr.read_to_string(&mut why)?;
            }
            let why = why.lines().next_back().unwrap_or_default();
            bail!("{} ended at once ({status}): {why}", variant.title());
        }
        Ok(())
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends it, and asks what it saw.
    pub fn stop(mut self) -> anyhow::Result<Seen> {
        let Some(mut child) = self.child.take() else {
            return Ok(Seen::default());
        };
        let began = Instant::now();
        tell(&child, Signal::INT)?;
        let mut err = String::new();
        if let Some(stderr) = &mut child.stderr {
            stderr.read_to_string(&mut err)?;
        }
        child.wait()?;
        let detached = began.elapsed();
        let seen = match self.variant {
            Variant::Nothing | Variant::Idle => Seen::default(),
            Variant::Counting | Variant::Recording => {
                let mut report = Command::new(paths::tracer());
                report.args(["report", "--format", "json"]).arg(&self.file);
                // Its status says that there were drops.
                let said = report.output().context("cannot start tracer")?;
                tracers_word(&String::from_utf8_lossy(&said.stdout), self.load)?
            }
            Variant::RawCount | Variant::ReasonCount | Variant::Print => {
                bpftraces_word(&std::fs::read_to_string(&self.file)?)
            }
            Variant::Perf => perfs_word(&self.file)?,
        };
        Ok(Seen { detached, ..seen })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Something failed before it was told to end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends a signal to a child that was not waited for.
pub fn tell(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.context("a process without a number")?, signal)
        .context("cannot end what was attached")
}

/// Reads until a line has `word`; hands back what can be read on.
fn line_with<R: std::io::Read>(from: Option<R>, word: &str) -> anyhow::Result<Option<R>> {
    let Some(from) = from else { return Ok(None) };
    // One byte of buffer: what follows the line stays in the pipe.
    let mut reader = BufReader::with_capacity(1, from);
    let mut line = String::new();
    loop {
        line.clear();
        let read = reader.read_line(&mut line)?;
        ensure!(read > 0, "tracer ended before it was attached");
        if line.contains(word) {
            return Ok(Some(reader.into_inner()));
        }
    }
}

/// What tracer's JSON lines say of a load's drops.
fn tracers_word(lines: &str, load: Load) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let mut drops = 0;
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line)
            .with_context(|| format!("tracer printed what is no JSON: {line}"))?;
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        match line["type"].as_str() {
            Some("drop") if is_ours(&line, load) => drops += number(&line["count"]),
            Some("end") => {
                seen.complete = line["complete"] == true;
                seen.records = Some(number(&line["records"]));
                let lost = line["lost"].as_object();
                seen.lost = lost.into_iter().flatten().map(|(_, n)| number(n)).sum();
            }
            _ => {}
        }
    }
    ensure!(seen.records.is_some(), "tracer did not say how it ended");
    seen.drops = Some(drops);
    Ok(seen)
}

fn is_ours(drop: &Value, load: Load) -> bool {
    let outer = &drop["outer"];
    match load {
        // Where no tunnel is part of it, the only header is the outer one.
        Load::ClosedPort => {
            outer["dst"] == load.to().ip().to_string()
                && outer["dport"] == load.to().port()
                && outer["proto"] == "udp"
        }
        // Where there is no room for each flow, its addresses are not known.
        _ => drop["tunnel"]["dev"] == "t0" && drop["cause"] == "no-fdb-entry",
    }
}

fn bpftraces_word(said: &str) -> Seen {
    let printed = said
        .lines()
        .filter(|line| line.starts_with("drop "))
        .count() as u64;
    let counted: u64 = said
        .lines()
        .filter(|line| line.starts_with('@'))
        .filter_map(|line| line.rsplit_once(": ")?.1.trim().parse::<u64>().ok())
        .sum();
    Seen {
        drops: Some(printed + counted),
        ..Seen::default()
    }
}

fn perfs_word(file: &Path) -> anyhow::Result<Seen> {
    let mut stats = Command::new("perf");
    stats.args(["report", "--stats", "-i"]).arg(file);
    let said = process::read(&mut stats)?;
    let events = |name: &str| {
        said.lines()
            .filter_map(|line| line.trim().strip_prefix(name))
            .filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .next()
    };
    Ok(Seen {
        drops: events("SAMPLE events:"),
        lost: events("LOST events:").unwrap_or_default(),
        ..Seen::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_drops_are_counted() {
        let lines = concat!(
            r#"{"type":"start"}"#,
            "\n",
            r#"{"type":"drop","cause":"no-fdb-entry","tunnel":{"dev":"t0"},"inner":{"dst":"192.168.9.2"},"count":7}"#,
            "\n",
            r#"{"type":"drop","cause":"no-fdb-entry","tunnel":{"dev":"t0"},"count":3}"#,
            "\n",
            r#"{"type":"drop","cause":"other","tunnel":{"dev":"t1"},"outer":{"proto":"udp","dst":"127.0.0.1","dport":9},"count":5}"#,
            "\n",
            r#"{"type":"end","complete":true,"records":4,"lost":{"ring":1,"tally":0,"frames":0}}"#,
        );
        let seen = tracers_word(lines, Load::NoFdb).unwrap();
        assert_eq!(
            (seen.drops, seen.records, seen.lost),
            (Some(10), Some(4), 1)
        );
        let seen = tracers_word(lines, Load::ClosedPort).unwrap();
        assert_eq!(seen.drops, Some(5));
        assert!(tracers_word(r#"{"type":"start"}"#, Load::NoFdb).is_err());
        assert!(tracers_word("x", Load::NoFdb).is_err());
    }

    #[test]
    fn bpftrace_counts_and_prints() {
        let said = "Attaching 1 probe...\n\n@[2, 18446744071586423072]: 12\n@[3, 5]: 30\n";
        assert_eq!(bpftraces_word(said).drops, Some(42));
        assert_eq!(bpftraces_word("Attaching\n@: 9\n").drops, Some(9));
        assert_eq!(bpftraces_word("drop 2 0x1\ndrop 2 0x1\n").drops, Some(2));
    }

    #[test]
    fn what_follows_the_line_stays() {
        let text: &[u8] = b"one\ntwo attached\nthree\n";
        let mut rest = line_with(Some(text), "attached").unwrap().unwrap();
        let mut left = String::new();
        rest.read_to_string(&mut left).unwrap();
        assert_eq!(left, "three\n");
        assert!(line_with(Some(text), "nowhere").is_err());
    }
}
