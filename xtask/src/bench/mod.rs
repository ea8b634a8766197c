//! `bench`: what tracer costs, and what it keeps under a storm, beside its
//! peers and on the machine it is run on.
//!
//! Variants alternate, so that a machine that changes its mind changes it for
//! all of them; a figure is what a variant adds to the same load with nothing
//! attached, in the same run. The sender has a processor of its own.

mod load;
mod measure;
mod profile;
mod report;
mod storm;
mod variant;

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;

use self::{
    load::{Amount, Load},
    measure::Times,
    profile::Profile,
    report::Report,
    variant::{Running, Variant},
};
use crate::{build, packages, paths, setup, traffic};

/// Packets that are timed together.
const CHUNK: u32 = 2000;
/// No more rounds are begun after this.
const LONGEST: Duration = Duration::from_secs(7 * 60);
/// The report in the repository.
const FILE: &str = "docs/performance.md";

#[derive(Debug, Args)]
pub struct Options {
    /// Also bpftrace and perf, installed where they are missing
    #[arg(long)]
    peers: bool,
    /// Write docs/performance.md
    #[arg(long)]
    write: bool,
    /// How often each variant has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Chunks of 2,000 packets in a turn
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(2..=1000))]
    chunks: u32,
    /// Seconds of each storm and of each rest
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Do not build first
    #[arg(long)]
    as_is: bool,
}

/// Which processor does what.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// Everything that watches.
    pub tools: usize,
    pub sender: usize,
}

/// What one variant costs under one load.
#[derive(Debug, Default)]
pub struct Cost {
    pub times: Times,
    pub sent: u64,
    /// What it saw of that, where it counts.
    pub seen: Option<u64>,
    pub lost: u64,
    pub incomplete: u32,
}

/// Costs by load and variant, in order.
pub type Costs = Vec<(Load, Vec<(Variant, Cost)>)>;

pub fn command(options: &Options) -> anyhow::Result<i32> {
    ensure!(
        packages::is_root(),
        "the benchmark makes network namespaces and attaches to the kernel: run it as root"
    );
    let processors = thread::available_parallelism()?.get();
    ensure!(
        processors >= 2,
        "the sender needs a processor of its own, and there is only one"
    );
    let places = Places {
        tools: 0,
        sender: processors - 1,
    };
    setup::native()?;
    if !options.as_is {
        build::build()?;
    }
    let mut notes = Vec::new();
    let peers = options.peers && {
        let got = variant::get_peers();
        if let Err(error) = &got {
            notes.push(format!("no peers: {error:#}"));
        }
        got.is_ok()
    };
    // Whatever we start runs there too, but the sender.
    traffic::storm::pin(&[places.tools])?;
    let began = Instant::now();
    let (costs, profiles) = costs(options, peers, places, began, &mut notes)?;
    let kept = storm::measure(options.seconds, places, &mut notes)?;
    let report = Report {
        costs: &costs,
        profiles: &profiles,
        kept: &kept,
        notes: &notes,
        took: began.elapsed(),
    };
    let text = report.render()?;
    print!("{text}");
    if options.write {
        paths::write(&paths::root().join(FILE), text.as_bytes())?;
    }
    Ok(0)
}

/// Every load with every variant in turn.
fn costs(
    options: &Options,
    peers: bool,
    places: Places,
    began: Instant,
    notes: &mut Vec<String>,
) -> anyhow::Result<(Costs, Vec<Profile>)> {
    let amount = Amount {
        chunk: CHUNK,
        chunks: options.chunks,
        rate: None,
        flows: 1,
    };
    let mut all = Costs::new();
    let mut profiles = Vec::new();
    for load in Load::ALL {
        eprintln!("bench: {}", load.title());
        let ready = load.set_up()?;
        // What nothing is dropped by, there is nothing to record of, and no peer sees.
        let mut variants = match load.drops() {
            true => Variant::OF_DROPS.to_vec(),
            false => Variant::OF_OTHERS.to_vec(),
        };
        if peers && load.drops() {
            variants.extend(Variant::PEERS);
        }
        let mut costs: Vec<(Variant, Cost)> = Vec::new();
        let mut out: BTreeMap<&str, String> = BTreeMap::new();
        for round in 0..options.rounds {
            if began.elapsed() > LONGEST {
                notes.push(format!(
                    "{}: only {round} rounds, the time was up",
                    load.title()
                ));
                break;
            }
            for variant in &variants {
                if out.contains_key(variant.title()) {
                    continue;
                }
                let running = match Running::start(*variant, load) {
                    Ok(running) => running,
                    // A peer's failure is its own.
                    Err(error) if Variant::PEERS.contains(variant) => {
                        out.insert(variant.title(), format!("{error:#}"));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let sent = ready.send(amount, places.sender)?;
                let seen = running
                    .stop()
                    .with_context(|| format!("{} under {load:?}", variant.title()))?;
                if !load.drops() && sent.arrived != sent.packets {
                    notes.push(format!(
                        "{}, {}: {} of {} packets arrived",
                        load.title(),
                        variant.title(),
                        sent.arrived,
                        sent.packets
                    ));
                }
                let cost = match costs.iter().position(|(known, _)| known == variant) {
                    Some(at) => &mut costs[at].1,
                    None => {
                        costs.push((*variant, Cost::default()));
                        let Some((_, cost)) = costs.last_mut() else {
                            continue;
                        };
                        cost
                    }
                };
                cost.times.add(&sent.chunks_ns, CHUNK);
                cost.sent += sent.packets;
                if let Some(drops) = seen.drops {
                    cost.seen = Some(cost.seen.unwrap_or_default() + drops);
                }
                cost.lost += seen.lost;
                cost.incomplete += u32::from(seen.records.is_some() && !seen.complete);
            }
        }
        for (title, why) in out {
            notes.push(format!("{title}: skipped, {why}"));
        }
        all.push((load, costs));
        match profile::of(load, &ready, amount, places) {
            Ok(profile) => profiles.push(profile),
            Err(error) => notes.push(format!("{}: no profile, {error:#}", load.title())),
        }
    }
    notes.dedup();
    Ok((all, profiles))
}
