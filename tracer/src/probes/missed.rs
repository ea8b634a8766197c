//! Runs of programs that the kernel left out.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::programs::Program;
use tracing::debug;

use super::{
    attach::{AGAIN, Probes},
    points::{CONSUME, FRAME_END, FRAME_START, FREE, POINTS},
};

/// Runs of programs that the kernel left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Missed {
    /// Of those that count: frees, and the two ends of frames.
    pub counts: u64,
    /// Of those at `consume_skb`, which decide what became of few packets
    /// (`tracer_common::tally::lost::UNCERTAIN`).
    pub consume: u64,
    /// Of those that only tell why something vanished.
    pub evidence: u64,
}

impl Probes {
    /// How many events the kernel did not run our programs for while they counted.
    pub fn missed(&self) -> Missed {
        let until = self.missed_until.unwrap_or_else(|| self.left_out());
        let before = self.missed_before;
        Missed {
            counts: until.counts.saturating_sub(before.counts),
            consume: until.consume.saturating_sub(before.consume),
            evidence: until.evidence.saturating_sub(before.evidence),
        }
    }

    /// How many events the kernel did not run our programs for until now, because they
    /// came while one of them was running on that CPU (`recursion_misses`).
    pub(super) fn left_out(&self) -> Missed {
        let missed_by = |program: &Program| {
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let count = info
                .lines()
                .find_map(|line| line.strip_prefix("recursion_misses:"))?;
            count.trim().parse::<u64>().ok()
        };
        let mut all = Missed::default();
        for (name, program) in self.ebpf.programs() {
            let missed = missed_by(program).unwrap_or(0);
            if missed != 0 {
                debug!("the kernel left {missed} runs of {name} out");
            }
            if name.ends_with(AGAIN) {
                // What it was left out of, the first one did.
            } else if name.starts_with(CONSUME) {
                all.consume += missed;
            } else if self.counts(name) {
                all.counts += missed;
            } else {
                all.evidence += missed;
            }
        }
        all
    }

    /// Is anything counted by this program, rather than told of what is?
    fn counts(&self, program: &str) -> bool {
        let is_drivers = program.starts_with("driver_xmit");
        let counting = POINTS
            .iter()
            .filter(|point| [FREE, FRAME_START, FRAME_END].contains(&point.name));
        (is_drivers && !self.is_bracketed())
            || counting
                .flat_map(|point| point.ways)
                .any(|way| way.program() == program)
    }
}
