//! All maps.
//!
//! Their sizes are a bargain: the kernel makes every element when the map is
//! made (programs in any context may not allocate), which is much of the time
//! that the start takes.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf, StackTrace},
};
use tracer_common::{
    config::{KIND_LEN, switch},
    filter::Named,
    flow::Flow,
    tally::{DeviceKey, DeviceTally, LikeKey, LikeTally, PassedKey, Tally, TallyKey, lost},
};

use crate::{
    device::{KNOWN_LEN, Known},
    frame::Context,
    sent::{SENT_LEN, SETS_LEN, Sent, Set},
    tally::Clock,
};

/// Details of drops, to the user side.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(4 * 1024 * 1024, 0);

/// When a record last woke who reads them.
#[map]
pub static WOKEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The time as it was read last.
#[map]
pub static CLOCK: PerCpuArray<Clock> = PerCpuArray::with_max_entries(1, 0);

/// Exact counts per inner flow and evidence.
#[map]
pub static TALLIES: PerCpuHashMap<TallyKey, Tally> = PerCpuHashMap::with_max_entries(16384, 0);

/// Exact counts of what passed.
#[map]
pub static PASSED: PerCpuHashMap<PassedKey, u64> = PerCpuHashMap::with_max_entries(8192, 0);

/// The same of what did not fit, without destinations.
#[map]
pub static PASSED_COARSE: PerCpuHashMap<PassedKey, u64> = PerCpuHashMap::with_max_entries(512, 0);

/// Destinations of packets that were dropped before any to them passed.
#[map]
pub static DESTINATIONS: LruHashMap<PassedKey, u8> = LruHashMap::with_max_entries(4096, 0);

/// Exact counts of what did not fit `TALLIES`, by device and evidence only.
#[map]
pub static COARSE: PerCpuHashMap<TallyKey, Tally> = PerCpuHashMap::with_max_entries(2048, 0);

/// Packets in and out of each device's frames.
#[map]
pub static DEVICES: PerCpuHashMap<DeviceKey, DeviceTally> =
    PerCpuHashMap::with_max_entries(4096, 0);

/// What became of packets that are alike.
#[map]
pub static LIKES: PerCpuHashMap<LikeKey, LikeTally> = PerCpuHashMap::with_max_entries(2048, 0);

/// What the user side found out after the programs were loaded; indices are
/// the constants of `tracer_common::config::switch`.
#[map]
pub static SWITCHES: Array<u32> = Array::with_max_entries(switch::COUNT, 0);

/// What could not be kept; indices in `tracer_common::tally::lost`.
#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(lost::COUNT, 0);

/// The kinds of device that are tunnels (`rtnl_link_ops.kind`), with bits of
/// `tracer_common::config::kind`.
#[map]
pub static KINDS: HashMap<[u8; KIND_LEN], u32> = HashMap::with_max_entries(64, 0);

/// What is known of kinds by the address of their name; see `device`.
#[map]
pub static KNOWN_KINDS: PerCpuArray<Known> = PerCpuArray::with_max_entries(KNOWN_LEN, 0);

/// UDP destination ports of the tunnels of this host, with one of
/// `tracer_common::config::payload`.
#[map]
pub static PORTS: HashMap<u16, u32> = HashMap::with_max_entries(1024, 0);

/// Packets that left a frame alive, by skb address; see `sent`.
#[map]
pub static SENT: Array<Sent> = Array::with_max_entries(SENT_LEN, 0);

/// Which of them are where.
#[map]
pub static SETS: Array<Set> = Array::with_max_entries(SETS_LEN, 0);

/// Outer headers of such packets, where the filter asks for them: those that
/// are out of their encapsulation when they are freed have them no more. The
/// user side sizes it.
#[map]
pub static OUTERS: LruHashMap<u64, Flow> = LruHashMap::with_max_entries(1, 0);

/// Names of the tunnel devices, where the filter asks for them; sized likewise.
#[map]
pub static NAMES: HashMap<DeviceKey, Named> = HashMap::with_max_entries(1, 0);

/// What is under way on each CPU.
#[map]
pub static CPU: PerCpuArray<Context> = PerCpuArray::with_max_entries(1, 0);

/// The same by task, where the kernel is PREEMPT_RT; the user side sizes it.
#[map]
pub static TASKS: LruHashMap<u64, Context> = LruHashMap::with_max_entries(1, 0);

/// An empty context to copy from; never written.
#[map]
pub static EMPTY: PerCpuArray<Context> = PerCpuArray::with_max_entries(1, 0);

/// See `device::percpu_offset`.
#[map]
pub static PERCPU: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// What a second program needs not do, see `again`; the user side sizes it.
#[map]
pub static RAN: HashMap<[u64; 2], u32> = HashMap::with_max_entries(1, 0);

#[map]
pub static STACKS: StackTrace = StackTrace::with_max_entries(4096, 0);
