//! What tracer keeps under a storm, and what it takes of the machine: lost
//! records, exactness, memory, processor time, start and end.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::Signal;

use super::{
    CHUNK, Places,
    load::{Amount, Load, Ready},
    measure::{processor, resident},
    variant::{Running, Variant, tell},
};
use crate::{paths, traffic};

/// The rates of the bars, packets per second.
pub const STORM: u32 = 200_000;
pub const BUSY: u32 = 50_000;
/// How many flows at most.
pub const FLOWS: u32 = 100_000;
/// How often it is started to see how long that takes.
const STARTS: u32 = 9;
/// How often it is given the time that what is shown takes to settle.
const SETTLE: Duration = Duration::from_millis(2500);

/// One storm.
#[derive(Debug, Clone)]
pub struct Storm {
    pub title: &'static str,
    pub rate: f64,
    pub sent: u64,
    pub counted: u64,
    pub records: u64,
    pub lost: u64,
    pub complete: bool,
}

/// What a process takes.
#[derive(Debug, Clone, Copy)]
pub struct Takes {
    pub resident: u64,
    /// Share of one processor.
    pub processor: f64,
}

/// Everything measured here.
#[derive(Debug)]
pub struct Kept {
    pub storms: Vec<Storm>,
    /// Seconds from exec to attached, and from SIGTERM to gone.
    pub ready: Vec<f64>,
    pub detached: Vec<f64>,
    pub at_rest: Takes,
    pub at_rest_without_tunnels: Takes,
    pub busy: Takes,
    pub busy_recording: Takes,
    pub many_flows: Takes,
}

pub fn measure(seconds: u32, places: Places, notes: &mut Vec<String>) -> anyhow::Result<Kept> {
    eprintln!("bench: start and end");
    let load = Load::NoFdb;
    let ready = load.set_up()?;
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    // Nothing is sent: it starts as it would for anybody, on all processors.
    traffic::storm::pin(&[places.tools, places.sender])?;
    for _ in 0..STARTS {
        let running = Running::start(Variant::Counting, load)?;
        starts.push(running.ready.as_secs_f64());
        ends.push(running.stop()?.detached.as_secs_f64());
    }
    traffic::storm::pin(&[places.tools])?;
    eprintln!("bench: at rest");
    let at_rest = rest(seconds, &[], || Ok(()))?;
    eprintln!("bench: storms");
    let mut storms = Vec::new();
    for (title, variant, rate) in [
        ("counting, as fast as it goes", Variant::Counting, None),
        ("counting, 200,000 drops/s", Variant::Counting, Some(STORM)),
        (
            "recording every drop, 50,000 drops/s",
            Variant::Recording,
            Some(BUSY),
        ),
        (
            "recording every drop, 200,000 drops/s",
            Variant::Recording,
            Some(STORM),
        ),
    ] {
        storms.push(storm(title, variant, rate, seconds, &ready, load, places)?);
    }
    let amount = paced(BUSY, seconds);
    let busy = rest(0, &[], || ready.send(amount, places.sender).map(drop))?;
    let record = paths::root().join("target/bench/busy.rec");
    let record = record.to_string_lossy();
    let busy_recording = rest(0, &["record", "--force", "-o", &*record], || {
        ready.send(amount, places.sender).map(drop)
    })?;
    eprintln!("bench: {FLOWS} flows");
    let amount = Amount {
        flows: FLOWS,
        // Each twice.
        chunks: 2 * FLOWS / CHUNK,
        ..paced(BUSY, seconds)
    };
    let many_flows = rest(0, &[], || {
        ready.send(amount, places.sender)?;
        thread::sleep(SETTLE);
        Ok(())
    })?;
    drop(ready);
    let ready = Load::NoTunnel.set_up()?;
    let at_rest_without_tunnels = rest(seconds, &[], || Ok(()))?;
    drop(ready);
    if storms.iter().any(|storm| storm.sent != storm.counted) {
        notes.push("counts are not exact: see the storms".to_owned());
    }
    Ok(Kept {
        storms,
        ready: starts,
        detached: ends,
        at_rest,
        at_rest_without_tunnels,
        busy,
        busy_recording,
        many_flows,
    })
}

/// So many chunks as fill the time at this rate.
fn paced(rate: u32, seconds: u32) -> Amount {
    Amount {
        chunk: CHUNK,
        chunks: (rate / CHUNK * seconds).max(1),
        rate: Some(rate),
        flows: 1,
    }
}

fn storm(
    title: &'static str,
    variant: Variant,
    rate: Option<u32>,
    seconds: u32,
    ready: &Ready,
    load: Load,
    places: Places,
) -> anyhow::Result<Storm> {
    let running = Running::start(variant, load)?;
    let amount = Amount {
        rate,
        ..paced(rate.unwrap_or(STORM), seconds)
    };
    let sent = ready.send(amount, places.sender)?;
    let seen = running.stop()?;
    Ok(Storm {
        title,
        rate: sent.packets as f64 / sent.seconds.max(f64::EPSILON),
        sent: sent.packets,
        counted: seen.drops.unwrap_or_default(),
        records: seen.records.unwrap_or_default(),
        lost: seen.lost,
        complete: seen.complete,
    })
}

/// tracer as somebody would leave it running.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        if tell(&self.0, Signal::INT).is_err() {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

/// What tracer takes while `busy` goes on, and for so many seconds after.
fn rest(
    seconds: u32,
    arguments: &[&str],
    busy: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Takes> {
    let child = Command::new(paths::tracer())
        .args(["--format", "lines", "--duration", "300s"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start tracer")?;
    let pid = child.id();
    let watching = Watching(child);
    // Its start is measured elsewhere.
    thread::sleep(SETTLE);
    let before = processor(pid)?;
    let began = Instant::now();
    busy()?;
    thread::sleep(Duration::from_secs(seconds.into()));
    let took = processor(pid)?.saturating_sub(before);
    let takes = Takes {
        resident: resident(pid)?,
        processor: took.as_secs_f64() / began.elapsed().as_secs_f64(),
    };
    drop(watching);
    Ok(takes)
}
