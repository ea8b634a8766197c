//! From the programs' maps to typed data: records as they come, tallies when
//! asked.

mod decode;

use std::{collections::BTreeMap, os::fd::AsRawFd, time::Duration};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, PerCpuHashMap, RingBuf, StackTraceMap},
};
use bytes::Bytes;
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};
use tracer_common::{
    record::{QUIET_NS, Record},
    tally::{DeviceKey, DeviceTally, LikeKey, LikeTally, PassedKey, Tally, TallyKey, lost},
};

use crate::{event::Packet, probes::Missed};

use decode::notice;

pub use decode::decode;

/// The ring buffer, waited on with tokio.
struct Ring(RingBuf<MapData>);

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// Everything that comes out of the kernel.
pub struct Stream {
    ring: AsyncFd<Ring>,
    tallies: PerCpuHashMap<MapData, TallyKey, Tally>,
    coarse: PerCpuHashMap<MapData, TallyKey, Tally>,
    passed: PerCpuHashMap<MapData, PassedKey, u64>,
    passed_coarse: PerCpuHashMap<MapData, PassedKey, u64>,
    likes: PerCpuHashMap<MapData, LikeKey, LikeTally>,
    devices: PerCpuHashMap<MapData, DeviceKey, DeviceTally>,
    lost: PerCpuArray<MapData, u64>,
    stacks: StackTraceMap<MapData>,
    /// Records that could not be read.
    unreadable: u64,
    /// There are records that the last look left.
    unfinished: bool,
    /// When to look again, where there were records the last time.
    again: Option<Instant>,
    /// What was told beside them, `record::notice`.
    noticed: Vec<u32>,
}

/// What could not be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Lost {
    /// Details of drops whose count is kept.
    pub ring: u64,
    /// Packets that could not be counted.
    pub tally: u64,
    /// Calls of a tunnel's transmit function that could not be followed.
    pub frames: u64,
    /// Events the kernel did not run our programs for, being in one of them
    /// already; kernels before 5.12 do not tell.
    pub missed: u64,
}

impl Lost {
    /// Was nothing lost?
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl Stream {
    /// Takes the maps over.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self> {
        let mut take = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("the object has no map {name}"))
        };
        let ring = Ring(RingBuf::try_from(take("RECORDS")?)?);
        // SAFETY: the ring buffer owns its map's file descriptor and keeps it
        // open and the same until it is dropped with the AsyncFd.
        let ring = unsafe { AsyncFd::register(ring) }
            .map_err(std::io::Error::from)
            .context("cannot wait on the ring buffer")?;
        Ok(Self {
            ring,
            tallies: PerCpuHashMap::try_from(take("TALLIES")?)?,
            coarse: PerCpuHashMap::try_from(take("COARSE")?)?,
            passed: PerCpuHashMap::try_from(take("PASSED")?)?,
            passed_coarse: PerCpuHashMap::try_from(take("PASSED_COARSE")?)?,
            likes: PerCpuHashMap::try_from(take("LIKES")?)?,
            devices: PerCpuHashMap::try_from(take("DEVICES")?)?,
            lost: PerCpuArray::try_from(take("LOST")?)?,
            stacks: StackTraceMap::try_from(take("STACKS")?)?,
            unreadable: 0,
            unfinished: false,
            again: None,
            noticed: Vec::new(),
        })
    }

    /// Waits until there are records.
    pub async fn ready(&mut self) -> Result<()> {
        if std::mem::take(&mut self.unfinished) {
            return Ok(());
        }
        if let Some(again) = self.again {
            tokio::select! {
                () = sleep_until(again) => {}
                // Much has come.
                guard = self.ring.readable_mut() => guard?.clear_ready(),
            }
            self.again = None;
            return Ok(());
        }
        let mut guard = self.ring.readable_mut().await?;
        guard.clear_ready();
        Ok(())
    }

    /// Not all records were taken: the next wait is none.
    pub fn more(&mut self) {
        self.unfinished = true;
    }

    /// Takes the records that are there now, at most `limit`.
    pub fn records(&mut self, limit: usize) -> Vec<(Record, Option<Packet>)> {
        let mut records = Vec::new();
        while records.len() < limit {
            let Some(item) = self.ring.get_mut().0.next() else {
                break;
            };
            if let Some(what) = notice(&item) {
                self.noticed.push(what);
                continue;
            }
            // The kernel does not tell of those that come soon after.
            self.again = Some(Instant::now() + 2 * Duration::from_nanos(QUIET_NS));
            match decode(&Bytes::copy_from_slice(&item)) {
                Ok(record) => records.push(record),
                Err(error) => {
                    if self.unreadable == 0 {
                        tracing::warn!("a record could not be read: {error}");
                    }
                    self.unreadable += 1;
                }
            }
        }
        records
    }

    /// What was told beside the records since this was asked last: `record::notice`.
    pub fn noticed(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.noticed)
    }

    /// All counts of what vanished, summed over CPUs. Those of `COARSE` have no
    /// addresses.
    pub fn tallies(&self) -> Result<BTreeMap<TallyKey, Tally>> {
        let mut all: BTreeMap<TallyKey, Tally> = BTreeMap::new();
        for map in [&self.tallies, &self.coarse] {
            for entry in map.iter() {
                let (key, per_cpu) = entry.context("cannot read the counts")?;
                // What is no IP has no addresses in either map.
                let sum = all.entry(key).or_default();
                for tally in per_cpu.iter() {
                    sum.packets += tally.packets;
                    sum.bytes += tally.bytes;
                    sum.last_ns = sum.last_ns.max(tally.last_ns);
                }
            }
        }
        all.retain(|_, tally| tally.packets > 0);
        Ok(all)
    }

    /// How many packets passed, by device and destination.
    pub fn passed(&self) -> Result<BTreeMap<PassedKey, u64>> {
        self.passed
            .iter()
            .chain(self.passed_coarse.iter())
            .map(|entry| {
                let (key, per_cpu) = entry.context("cannot read the counts of what passed")?;
                Ok((key, per_cpu.iter().sum()))
            })
            .collect()
    }

    /// What became of packets that are alike, each CPU's by itself. None where some
    /// had no room: a part would tell what is not so.
    pub fn likes(&self) -> Result<BTreeMap<LikeKey, LikeTally>> {
        let mut all = BTreeMap::new();
        if self.sum_of_lost(lost::LIKES)? > 0 {
            return Ok(all);
        }
        for entry in self.likes.iter() {
            let (key, per_cpu) = entry.context("cannot read the counts of what is alike")?;
            for (cpu, tally) in (0..).zip(per_cpu.iter()) {
                if *tally != LikeTally::default() {
                    all.insert(LikeKey { cpu, ..key }, *tally);
                }
            }
        }
        Ok(all)
    }

    fn sum_of_lost(&self, index: u32) -> Result<u64> {
        let per_cpu = self.lost.get(&index, 0);
        let per_cpu = per_cpu.context("cannot read what was lost")?;
        Ok(per_cpu.iter().sum())
    }

    /// What went into each device's frames and what came of it.
    pub fn devices(&self) -> Result<BTreeMap<DeviceKey, DeviceTally>> {
        self.devices
            .iter()
            .map(|entry| {
                let (key, per_cpu) = entry.context("cannot read the devices' counts")?;
                let sum = per_cpu
                    .iter()
                    .fold(DeviceTally::default(), |sum, tally| DeviceTally {
                        packets_in: sum.packets_in + tally.packets_in,
                        sent: sum.sent + tally.sent,
                        dropped: sum.dropped + tally.dropped,
                        unexplained: sum.unexplained + tally.unexplained,
                    });
                Ok((key, sum))
            })
            .collect()
    }

    /// What was lost so far; `missed` is the kernel's count. `vanished`: has
    /// anything, that evidence could be missing of?
    pub fn lost(&self, missed: Missed, vanished: bool) -> Result<Lost> {
        let sum = |index| self.sum_of_lost(index);
        let mut runs = missed.counts.saturating_sub(sum(lost::TAKEN)?);
        if sum(lost::UNCERTAIN)? > 0 {
            runs += missed.consume;
        }
        if vanished {
            runs += missed.evidence;
        }
        Ok(Lost {
            ring: sum(lost::RING)? + self.unreadable,
            tally: sum(lost::TALLY)?,
            frames: sum(lost::FRAMES)?,
            missed: runs,
        })
    }

    /// The addresses of a kernel stack, innermost first.
    pub fn stack(&self, id: i32) -> Vec<u64> {
        let Ok(id) = u32::try_from(id) else {
            return Vec::new();
        };
        self.stacks
            .get(&id, 0)
            .map(|stack| stack.frames().iter().map(|frame| frame.ip).collect())
            .unwrap_or_default()
    }
}
