//! Exact counts: the keys and values of the per-CPU maps.
//!
//! A tally never depends on the ring buffer. Its key carries the evidence the
//! judge needs, so that a verdict can be given even where every record of it
//! was lost.

use crate::flow::Flow;

/// What became of a packet that did not pass.
pub mod outcome {
    /// Freed while its frame was open.
    pub const DROPPED: u8 = 2;
    /// Freed later, still encapsulated; the skb's identity and its inner
    /// header tie it to the tunnel that sent it.
    pub const LOST_LATER: u8 = 3;
    /// Freed with a tunnel's outer header, but sent by no frame seen here.
    pub const STRAY: u8 = 4;
    /// Freed with no tunnel part of it (`--all-drops`).
    pub const UNRELATED: u8 = 5;
    /// Freed while it belonged to a tunnel device but was in no frame of it:
    /// on its way to the driver, or just out of its encapsulation.
    pub const AT_DEVICE: u8 = 6;
}

/// Which function freed the packet.
pub mod freed_by {
    pub const NONE: u8 = 0;
    /// `kfree_skb` and its successors: a drop by the kernel's own word.
    pub const KFREE_SKB: u8 = 1;
    /// `consume_skb`, in a frame that sent nothing.
    pub const CONSUME_SKB: u8 = 2;
}

/// What was seen of a packet on its way; bits of [`TallyKey::seen`].
pub mod seen {
    /// The driver's own transmit function was entered (kprobe).
    pub const DRIVER: u32 = 1;
    /// The transmit tracepoints `net_dev_start_xmit` / `net_dev_xmit`.
    pub const TRACEPOINTS: u32 = 2;
    /// The outer packet was handed to IP (`iptunnel_xmit`, `ip6_local_out`).
    pub const HANDED_TO_IP: u32 = 4;
    /// The driver's inner function `ipip6_tunnel_xmit` was entered.
    pub const INNER_FUNCTION: u32 = 8;
    /// The packet was on the receive path when it was freed.
    pub const RECEIVED: u32 = 16;
    /// `skb_realloc_headroom` was asked for a roomier copy and had none.
    pub const NO_HEADROOM: u32 = 32;
    /// The flow of the key is the inner one (of [`super::outcome::STRAY`]).
    pub const INNER_DECODED: u32 = 1 << 6;
    /// A tunnel's receive function had the packet.
    pub const TUNNEL_RECEIVE: u32 = 1 << 7;
    /// The receiving driver looked for the packet's tunnel and found it.
    pub const TUNNEL_FOUND: u32 = 1 << 8;
    /// The receiving driver looked for the packet's tunnel and found none.
    pub const TUNNEL_NOT_FOUND: u32 = 1 << 9;
    /// `gre_parse_header` did not accept the GRE header.
    pub const GRE_HEADER_REFUSED: u32 = 1 << 10;
    /// `ip6_tnl_rcv_ctl` said no: an address of the tunnel is not as it was.
    pub const RECEIVE_CONTROL_REFUSED: u32 = 1 << 11;
    /// `ip6_tnl_xmit_ctl` said no: the tunnel's local address is not
    /// configured, or its remote one is.
    pub const TRANSMIT_CONTROL_REFUSED: u32 = 1 << 12;
    /// While it did, an address was looked up and not found on this host.
    pub const ADDRESS_NOT_HERE: u32 = 1 << 13;
    /// No peer's allowed-ips cover the packet (`wg_allowedips_lookup_dst`).
    pub const NO_PEER: u32 = 1 << 14;
    /// The peer with the packet's destination was found.
    pub const PEER: u32 = 1 << 15;
    /// A WireGuard peer's packet is handed to a socket (`send4`, `send6`).
    pub const PEER_SEND: u32 = 1 << 16;
    /// The source of a decrypted packet was looked up in the allowed-ips.
    pub const ALLOWED_SOURCE_CHECKED: u32 = 1 << 17;
    /// The packet came to `noop_enqueue`: its device has no working queue.
    pub const NOOP_QUEUE: u32 = 1 << 18;
    /// The route became a blackhole for want of an IPsec state
    /// (`ipv4_blackhole_route`, `ip6_blackhole_route`).
    pub const BLACKHOLE_ROUTE: u32 = 1 << 19;
    /// A traffic-control filter said TC_ACT_SHOT (`tcf_classify`).
    pub const TC_SHOT: u32 = 1 << 20;
    /// `fib_validate_source` answered -EXDEV: the reverse path leads elsewhere.
    pub const REVERSE_PATH: u32 = 1 << 21;
    /// `fib_validate_source` refused the source for another reason.
    pub const SOURCE_REFUSED: u32 = 1 << 22;
    /// The packet was out of its encapsulation when it was freed.
    pub const DECAPSULATED: u32 = 1 << 23;
    /// The packet carries a number of its tunnel (key, VNI): in the record.
    pub const NUMBERED: u32 = 1 << 24;
    /// A packet that its tunnel sent was recognized by its outermost header:
    /// not yet, or no longer, encapsulated.
    pub const IN_THE_CLEAR: u32 = 1 << 25;
    /// When it was freed, the frame had come to another host's MAC address, or to a
    /// group's or everybody's.
    pub const OTHER_HOST: u32 = 1 << 26;
    /// Received by a tunnel device, whose own MAC address is the source of the
    /// frame out of the encapsulation.
    pub const OWN_MAC: u32 = 1 << 27;
    /// Received by a tunnel: the outer header is marked congested (CE), and the
    /// inner one takes no part in ECN.
    pub const CONGESTED: u32 = 1 << 28;
    /// The packet that entered the frame is IPv4 and must not be fragmented.
    pub const DONT_FRAGMENT: u32 = 1 << 29;
    /// An address that was asked for is one of this host
    /// (`ipv6_chk_addr_and_flags`).
    pub const ADDRESS_HERE: u32 = 1 << 30;
    /// Received by a tunnel: the inner frame's source MAC address is none that a
    /// device can have.
    pub const NO_SOURCE_MAC: u32 = 1 << 31;
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

/// Device counters that are compared around a frame, by index: those of
/// transmitting first, those of receiving behind them.
pub const COUNTERS: [&str; 13] = [
    "tx_packets",
    "tx_errors",
    "tx_dropped",
    "tx_carrier_errors",
    "collisions",
    "tx_fifo_errors",
    "tx_aborted_errors",
    "rx_errors",
    "rx_dropped",
    "rx_length_errors",
    "rx_crc_errors",
    "rx_frame_errors",
    "rx_fifo_errors",
];
pub const TX_PACKETS: usize = 0;
pub const TX_ERRORS: usize = 1;
pub const TX_DROPPED: usize = 2;
pub const TX_CARRIER_ERRORS: usize = 3;
pub const COLLISIONS: usize = 4;
pub const TX_FIFO_ERRORS: usize = 5;
pub const TX_ABORTED_ERRORS: usize = 6;
pub const RX_ERRORS: usize = 7;
pub const RX_DROPPED: usize = 8;
pub const RX_LENGTH_ERRORS: usize = 9;
pub const RX_CRC_ERRORS: usize = 10;
pub const RX_FRAME_ERRORS: usize = 11;
pub const RX_FIFO_ERRORS: usize = 12;

/// How many of [`COUNTERS`] are of transmitting.
pub const TX: usize = 7;
/// How many are of receiving.
pub const RX: usize = 6;
const _: () = assert!(TX + RX == COUNTERS.len());

/// Key of an exact count.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TallyKey {
    /// The inner flow; of [`outcome::UNRELATED`], and of [`outcome::STRAY`]
    /// without [`seen::INNER_DECODED`], the outermost one.
    pub flow: Flow,
    /// Return address of the free.
    pub location: u64,
    /// The tunnel device, of what was received the receiving one where the
    /// driver found it; 0: none.
    pub ifindex: u32,
    /// Inode of the device's network namespace.
    pub netns: u32,
    /// The tunnel device that sent it, of [`outcome::LOST_LATER`].
    pub sender_ifindex: u32,
    pub sender_netns: u32,
    /// Bits of [`seen`].
    pub seen: u32,
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
    /// Bit N: counter N of [`COUNTERS`] moved while the frame was open.
    pub counters: u16,
    /// ICMP error raised towards the packet's sender: address family 4 or 6,
    /// 0: none.
    pub told: u8,
    pub told_type: u8,
    pub told_code: u8,
    /// IP protocol of the outer packet of `LOST_LATER` and `STRAY`.
    pub outer_proto: u8,
    pub reserved: [u8; 2],
}
const _: () = assert!(size_of::<TallyKey>() == 88);
crate::pod!(TallyKey);

/// Value of an exact count, one per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub packets: u64,
    pub bytes: u64,
    /// `bpf_ktime_get_ns()` of the newest packet, to within a jiffy.
    pub last_ns: u64,
}
crate::pod!(Tally);

/// Key of the packets that passed a device's frames. Coarser than that of a drop: a
/// gateway passes more flows than could be kept.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PassedKey {
    pub netns: u32,
    pub ifindex: u32,
    /// Inner destination; all zero, as the port and the ICMP type, where there was
    /// no room for each.
    pub dst: [u8; 16],
    pub ethertype: u16,
    pub proto: u8,
    /// ICMP or ICMPv6 type, where `proto` is one of them.
    pub icmp_type: u8,
    /// [`Flow::service`].
    pub port: u16,
    pub reserved: u16,
}
const _: () = assert!(size_of::<PassedKey>() == 32);
crate::pod!(PassedKey);

/// What a packet of a device is like, whatever its flow: key of the counts that
/// tell what separates those that pass from those that vanish.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LikeKey {
    pub netns: u32,
    pub ifindex: u32,
    pub mark: u32,
    /// Of the sender, with [`like::SENDER`].
    pub uid: u32,
    /// The CPU that counted; the programs leave it 0, since each has its own.
    pub cpu: u32,
    /// Length in units of [`like::UNIT`] bytes, rounded down; the last value is
    /// for all that are longer.
    pub size: u16,
    /// Bits of [`like`].
    pub flags: u16,
}
const _: () = assert!(size_of::<LikeKey>() == 24);
crate::pod!(LikeKey);

/// Bits of [`LikeKey::flags`], and the unit of its size.
pub mod like {
    /// The sender's user is known.
    pub const SENDER: u16 = 1;
    /// An IPv4 packet that must not be fragmented (RFC 791).
    pub const DONT_FRAGMENT: u16 = 2;
    pub const IPV4: u16 = 4;
    pub const IPV6: u16 = 8;
    /// The first packet to its destination ([`super::PassedKey`]).
    pub const FIRST: u16 = 16;
    pub const UNIT: u32 = 64;
    pub const LARGEST: u32 = 64;
}

/// What became of packets that are alike, one per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LikeTally {
    pub sent: u64,
    pub dropped: u64,
    /// Of those that were sent, how many were lost later.
    pub lost: u64,
}
crate::pod!(LikeTally);

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
    /// A device counted drops that only `consume_skb` could have told of, and did
    /// not. If the kernel left runs of that program out, those are lost.
    pub const UNCERTAIN: u32 = 3;
    /// Packets that had no room among those that are alike.
    pub const LIKES: u32 = 4;
    /// Nothing: what the kernel left out of the first program at a tracepoint, and
    /// the second one did.
    pub const TAKEN: u32 = 5;
    pub const COUNT: u32 = 6;
}
