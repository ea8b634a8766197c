//! Exact counts: the keys and values of the per-CPU maps.
//!
//! A tally never depends on the ring buffer. Its key carries the evidence the
//! judge needs, so that a verdict can be given even where every record of it
//! was lost.

use crate::flow::Flow;

/// What became of a packet.
pub mod outcome {
    /// Handed to the underlay by the tunnel's driver.
    pub const SENT: u8 = 1;
    /// Freed while its frame was open.
    pub const DROPPED: u8 = 2;
    /// Freed later, still encapsulated; the skb's identity and its inner
    /// header tie it to the tunnel that sent it.
    pub const LOST_LATER: u8 = 3;
    /// Freed with a tunnel's outer header, but sent by no frame seen here.
    pub const STRAY: u8 = 4;
    /// Freed with no tunnel part of it (`--all-drops`).
    pub const UNRELATED: u8 = 5;
}

/// Which function freed the packet.
pub mod freed_by {
    pub const NONE: u8 = 0;
    /// `kfree_skb` and its successors: a drop by the kernel's own word.
    pub const KFREE_SKB: u8 = 1;
    /// `consume_skb`, in a frame that sent nothing.
    pub const CONSUME_SKB: u8 = 2;
}

/// What was seen of a frame; bits of [`TallyKey::seen`].
pub mod seen {
    /// The driver's own transmit function was entered (kprobe).
    pub const DRIVER: u8 = 1;
    /// The transmit tracepoints `net_dev_start_xmit` / `net_dev_xmit`.
    pub const TRACEPOINTS: u8 = 2;
    /// The outer packet was handed to IP (`iptunnel_xmit`, `ip6_local_out`).
    pub const HANDED_TO_IP: u8 = 4;
    /// The driver's inner function `ipip6_tunnel_xmit` was entered.
    pub const INNER_FUNCTION: u8 = 8;
    /// The packet was on the receive path when it was freed.
    pub const RECEIVED: u8 = 16;
    /// `skb_realloc_headroom` was asked for a roomier copy and had none.
    pub const NO_HEADROOM: u8 = 32;
}

/// What was seen of the route; bits of [`TallyKey::route`].
pub mod route {
    /// A route hook returned while the frame was open.
    pub const SEEN: u8 = 1;
    /// The last answer came from the tunnel's dst_cache.
    pub const FROM_CACHE: u8 = 2;
    /// The route leads out of the tunnel device itself.
    pub const TO_ITSELF: u8 = 4;
    /// The underlay is IPv6.
    pub const IPV6: u8 = 8;
    /// The errno is that of a table look-up (tracepoint), not of the whole
    /// route look-up.
    pub const TABLE_ONLY: u8 = 16;
}

/// Device counters that are compared around a frame, by index.
pub const COUNTERS: [&str; 7] = [
    "tx_packets",
    "tx_errors",
    "tx_dropped",
    "tx_carrier_errors",
    "collisions",
    "tx_fifo_errors",
    "tx_aborted_errors",
];
pub const TX_PACKETS: usize = 0;
pub const TX_ERRORS: usize = 1;
pub const TX_DROPPED: usize = 2;
pub const TX_CARRIER_ERRORS: usize = 3;
pub const COLLISIONS: usize = 4;
pub const TX_FIFO_ERRORS: usize = 5;
pub const TX_ABORTED_ERRORS: usize = 6;

/// Key of an exact count.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TallyKey {
    /// The inner flow; of [`outcome::STRAY`] and [`outcome::UNRELATED`] the
    /// outermost one.
    pub flow: Flow,
    /// Return address of the free, 0 for [`outcome::SENT`].
    pub location: u64,
    /// The tunnel device (of `UNRELATED`: the device of the packet), 0: none.
    pub ifindex: u32,
    /// Inode of the device's network namespace.
    pub netns: u32,
    /// `enum skb_drop_reason` of this kernel.
    pub reason: u32,
    /// UDP destination port of the outer packet of `LOST_LATER`.
    pub outer_dport: u16,
    /// Positive errno of the route look-up, 0: none.
    pub route_errno: u16,
    /// RTN_* of the route, 0: unknown.
    pub route_type: u8,
    /// Bits of [`route`].
    pub route: u8,
    /// One of [`outcome`].
    pub outcome: u8,
    /// One of [`freed_by`].
    pub freed_by: u8,
    /// Bits of [`seen`].
    pub seen: u8,
    /// Bit N: counter N of [`COUNTERS`] moved while the frame was open.
    pub counters: u8,
    /// ICMP error raised towards the packet's sender: address family 4 or 6,
    /// 0: none.
    pub told: u8,
    pub told_type: u8,
    pub told_code: u8,
    /// IP protocol of the outer packet of `LOST_LATER` and `STRAY`.
    pub outer_proto: u8,
    pub reserved: [u8; 6],
}
const _: () = assert!(size_of::<TallyKey>() == 80);
crate::pod!(TallyKey);

/// Value of an exact count, one per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub packets: u64,
    pub bytes: u64,
    /// `bpf_ktime_get_ns()` of the newest packet.
    pub last_ns: u64,
}
crate::pod!(Tally);

/// Key of a device's own counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceKey {
    pub netns: u32,
    pub ifindex: u32,
}
crate::pod!(DeviceKey);

/// What went into a device's frames and what came of it, one per CPU. The
/// three ends are counted where they are seen, not derived from one another.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceTally {
    pub packets_in: u64,
    pub sent: u64,
    pub dropped: u64,
    /// Not freed and not handed over either: the driver refused the packet
    /// (NETDEV_TX_BUSY), or its end could not be seen.
    pub unexplained: u64,
}
crate::pod!(DeviceTally);

/// What could not be kept; indices of the per-CPU array `LOST`.
pub mod lost {
    pub const RING: u32 = 0;
    pub const TALLY: u32 = 1;
    pub const FRAMES: u32 = 2;
    pub const COUNT: u32 = 3;
}
