//! Figures: nanoseconds of a packet, and what a process takes.

use std::{fs, time::Duration};

use anyhow::Context as _;

/// Times of a packet in nanoseconds, one a chunk.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<f64>);

impl Times {
    /// Takes in chunks of so many packets each; the first warms the caches.
    pub fn add(&mut self, chunks_ns: &[u64], packets: u32) {
        let times = chunks_ns.iter().skip(1);
        self.0
            .extend(times.map(|time| *time as f64 / f64::from(packets.max(1))));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn minimum(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn median(&self) -> f64 {
        median(&self.0)
    }
}

/// The middle of them; NaN of none.
pub fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle)) {
        (_, None) => f64::NAN,
        (1, Some(here)) => *here,
        (_, Some(here)) => {
            let before = sorted.get(middle - 1).unwrap_or(here);
            f64::midpoint(*before, *here)
        }
    }
}

/// Resident memory of a process in bytes.
pub fn resident(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    resident_of(&text).with_context(|| format!("{path} has no VmRSS"))
}

fn resident_of(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes << 10)
}

/// Processor time that a process has taken, all its threads.
pub fn processor(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = ticks_of(&text).with_context(|| format!("{path} is not what it was"))?;
    let second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_secs_f64(ticks as f64 / second as f64))
}

/// utime and stime; the name before them can hold anything.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_chunk_does_not_count() {
        let mut times = Times::default();
        assert!(times.is_empty());
        times.add(&[1, 4000, 2000, 3000], 10);
        times.add(&[9_000_000, 1000], 10);
        assert_eq!(times.minimum(), 100.0);
        assert_eq!(times.median(), 250.0);
    }

    #[test]
    fn medians() {
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn proc_is_read() {
        assert_eq!(resident_of("Name:\tx\nVmRSS:\t  20 kB\n"), Some(20 << 10));
        assert_eq!(resident_of("Name:\tx\n"), None);
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0";
        assert_eq!(ticks_of(stat), Some(42));
        assert_eq!(ticks_of("12"), None);
        let us = std::process::id();
        assert!(resident(us).unwrap() > 0);
        processor(us).unwrap();
    }
}
