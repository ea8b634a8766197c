//! Exact counts, as the programs keep them.

use std::collections::BTreeMap;

use tracer_common::tally::{
    DeviceKey, DeviceTally, LikeKey, LikeTally, PassedKey, Tally, TallyKey,
};

use crate::stream::Lost;

/// Most counts of a sort that are kept: several times what the programs' maps
/// have room for.
const MAX_COUNTS: usize = 65536;

/// All counts at one time, or those of them that moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// `CLOCK_MONOTONIC` when they were read.
    pub time_ns: u64,
    /// Could frames be opened and closed at that time?
    pub frames: bool,
    /// Were all devices looked at, and their counters, at that time?
    pub surveyed: bool,
    pub lost: Lost,
    /// What vanished.
    pub tallies: BTreeMap<TallyKey, Tally>,
    /// What passed.
    pub passed: BTreeMap<PassedKey, u64>,
    /// What became of packets that are alike; empty where not all are in it.
    pub likes: BTreeMap<LikeKey, LikeTally>,
    pub devices: BTreeMap<DeviceKey, DeviceTally>,
}

impl Counts {
    /// What passed this device.
    pub fn passed_by(&self, device: DeviceKey) -> impl Iterator<Item = (&PassedKey, &u64)> {
        let DeviceKey { netns, ifindex } = device;
        let first = PassedKey {
            netns,
            ifindex,
            ..PassedKey::default()
        };
        let of_it =
            move |(key, _): &(&PassedKey, &u64)| (key.netns, key.ifindex) == (netns, ifindex);
        // Namespace and index come first in their order.
        self.passed.range(first..).take_while(of_it)
    }

    /// What became of packets of this device that are alike.
    pub fn likes_of(&self, device: DeviceKey) -> impl Iterator<Item = (&LikeKey, &LikeTally)> {
        let DeviceKey { netns, ifindex } = device;
        let first = LikeKey {
            netns,
            ifindex,
            ..LikeKey::default()
        };
        let of_it =
            move |(key, _): &(&LikeKey, &LikeTally)| (key.netns, key.ifindex) == (netns, ifindex);
        self.likes.range(first..).take_while(of_it)
    }

    /// Of newer counts, leaves those that moved.
    pub fn only_news(&self, newer: &mut Self) {
        fn moved<K: Ord, V: PartialEq>(old: &BTreeMap<K, V>, new: &mut BTreeMap<K, V>) {
            new.retain(|key, value| old.get(key) != Some(value));
        }
        moved(&self.tallies, &mut newer.tallies);
        moved(&self.passed, &mut newer.passed);
        moved(&self.likes, &mut newer.likes);
        moved(&self.devices, &mut newer.devices);
    }

    /// Takes newer ones in. Gives how many had no room.
    pub fn update(&mut self, newer: &Self) -> u64 {
        fn take<K: Ord + Copy, V: Copy>(
            known: &mut BTreeMap<K, V>,
            newer: &BTreeMap<K, V>,
            left_out: &mut u64,
        ) {
            for (key, value) in newer {
                if known.len() < MAX_COUNTS || known.contains_key(key) {
                    known.insert(*key, *value);
                } else {
                    *left_out += 1;
                }
            }
        }
        let Self {
            time_ns,
            frames,
            surveyed,
            lost,
            tallies,
            passed,
            likes,
            devices,
        } = newer;
        (self.time_ns, self.frames, self.lost) = (*time_ns, *frames, *lost);
        self.surveyed = *surveyed;
        let mut left_out = 0;
        take(&mut self.tallies, tallies, &mut left_out);
        take(&mut self.passed, passed, &mut left_out);
        // Nothing is counted by these alone.
        take(&mut self.likes, likes, &mut 0);
        take(&mut self.devices, devices, &mut left_out);
        left_out
    }

    /// By how much more these are than earlier ones.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.clone();
        for (key, tally) in &mut counts.tallies {
            if let Some(before) = earlier.tallies.get(key) {
                tally.packets = tally.packets.saturating_sub(before.packets);
                tally.bytes = tally.bytes.saturating_sub(before.bytes);
            }
        }
        for (key, packets) in &mut counts.passed {
            let before = earlier.passed.get(key).copied().unwrap_or_default();
            *packets = packets.saturating_sub(before);
        }
        for (key, tally) in &mut counts.likes {
            if let Some(before) = earlier.likes.get(key) {
                tally.sent = tally.sent.saturating_sub(before.sent);
                tally.dropped = tally.dropped.saturating_sub(before.dropped);
                tally.lost = tally.lost.saturating_sub(before.lost);
            }
        }
        for (key, tally) in &mut counts.devices {
            if let Some(before) = earlier.devices.get(key) {
                tally.packets_in = tally.packets_in.saturating_sub(before.packets_in);
                tally.sent = tally.sent.saturating_sub(before.sent);
                tally.dropped = tally.dropped.saturating_sub(before.dropped);
                tally.unexplained = tally.unexplained.saturating_sub(before.unexplained);
            }
        }
        let Lost {
            ring,
            tally,
            frames,
            missed,
        } = &mut counts.lost;
        *ring = ring.saturating_sub(earlier.lost.ring);
        *tally = tally.saturating_sub(earlier.lost.tally);
        *frames = frames.saturating_sub(earlier.lost.frames);
        *missed = missed.saturating_sub(earlier.lost.missed);
        counts
    }
}
