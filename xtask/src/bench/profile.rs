//! Where the time goes: what each of tracer's programs takes, by the kernel's own
//! count (`kernel.bpf_stats_enabled`). Counting costs time itself, so this is a
//! run of its own.

use std::{collections::HashMap, fs, path::Path, process::Command};

use anyhow::Context as _;
use serde_json::Value;

use super::{
    Places,
    load::{Amount, Load, Ready},
    variant::{Running, Variant},
};
use crate::process;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// What one program took.
#[derive(Debug, Clone, PartialEq)]
pub struct Spent {
    pub name: String,
    pub runs: u64,
    pub nanoseconds: u64,
}

/// The programs of a load, dearest first, and how many packets that was for.
#[derive(Debug)]
pub struct Profile {
    pub load: Load,
    pub packets: u64,
    pub spent: Vec<Spent>,
}

/// The kernel counts as long as this lives.
struct Counting(String);

impl Counting {
    fn start() -> anyhow::Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("cannot write {SWITCH}"))?;
        Ok(Self(before))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // It costs every program a little; there is nobody left to tell.
        let _ = fs::write(SWITCH, &self.0);
    }
}

/// Sends once more, with tracer counting.
pub fn of(load: Load, ready: &Ready, amount: Amount, places: Places) -> anyhow::Result<Profile> {
    let _counting = Counting::start()?;
    let running = Running::start(Variant::Counting, load)?;
    let sent = ready.send(amount, places.sender)?;
    let pid = running.pid().context("nothing is attached")?;
    let spent = programs(pid)?;
    running.stop()?;
    Ok(Profile {
        load,
        packets: sent.packets,
        spent,
    })
}

/// The programs that a process holds, and what they took.
fn programs(pid: u32) -> anyhow::Result<Vec<Spent>> {
    let names = names();
    let mut spent = HashMap::new();
    let directory = Path::new("/proc").join(pid.to_string()).join("fdinfo");
    let entries =
        fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        // One that was closed meanwhile is none of its programs.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        if let Some((id, runs, nanoseconds)) = of_fdinfo(&text)
            && runs > 0
        {
            let name = names.get(&id).cloned();
            let name = name.unwrap_or_else(|| format!("program {id}"));
            spent.insert(
                id,
                Spent {
                    name,
                    runs,
                    nanoseconds,
                },
            );
        }
    }
    let mut spent: Vec<Spent> = spent.into_values().collect();
    spent.sort_by_key(|spent| std::cmp::Reverse(spent.nanoseconds));
    Ok(spent)
}

/// Number, runs and nanoseconds of the program that a file descriptor is; a link
/// to one has no runs.
fn of_fdinfo(text: &str) -> Option<(u64, u64, u64)> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    Some((
        field("prog_id:")?,
        field("run_cnt:")?,
        field("run_time_ns:")?,
    ))
}

/// Names by number, where bpftool is there to tell them.
fn names() -> HashMap<u64, String> {
    let Some(bpftool) = process::find("bpftool") else {
        return HashMap::new();
    };
    let said = process::read(Command::new(bpftool).args(["-j", "prog", "show"]));
    let programs: Vec<Value> = said
        .ok()
        .and_then(|said| serde_json::from_str(&said).ok())
        .unwrap_or_default();
    programs
        .iter()
        .filter_map(|program| {
            let name = program["name"].as_str()?;
            Some((program["id"].as_u64()?, name.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_have_runs() {
        let program = "pos:\t0\nprog_type:\t26\nprog_id:\t7\nrun_time_ns:\t900\nrun_cnt:\t3\n";
        assert_eq!(of_fdinfo(program), Some((7, 3, 900)));
        assert_eq!(of_fdinfo("link_type:\ttracing\nprog_id:\t7\n"), None);
        assert_eq!(of_fdinfo("pos:\t0\n"), None);
    }
}
