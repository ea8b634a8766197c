//! The detail of one drop, as it travels through the ring buffer.

use crate::{
    config::{IFNAMSIZ, KIND_LEN},
    flow::Flow,
    tally::{COUNTERS, DeviceKey, TallyKey},
};

/// Longest chain of nested tunnel devices that is named in a record.
pub const PATH_LEN: usize = 8;

/// Which function gave the route; values of [`Route::seen_at`].
pub mod route_hook {
    pub const NONE: u8 = 0;
    pub const IP_ROUTE_OUTPUT_FLOW: u8 = 1;
    pub const DST_CACHE_GET_IP4: u8 = 2;
    pub const IP6_ROUTE_OUTPUT_FLAGS: u8 = 3;
    pub const DST_CACHE_GET: u8 = 4;
    pub const DST_CACHE_GET_IP6: u8 = 5;
    pub const FIB_TABLE_LOOKUP: u8 = 6;
    pub const FIB6_TABLE_LOOKUP: u8 = 7;
}

/// The underlay route as the hooks saw it. Type and errno are in the key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub dst: [u8; 16],
    pub src: [u8; 16],
    pub gateway: [u8; 16],
    /// Name of the device the route leaves by.
    pub dev: [u8; IFNAMSIZ],
    pub dev_ifindex: u32,
    pub mark: u32,
    /// The device that the look-up was bound to, 0: none.
    pub oif: u32,
    /// Inode of the network namespace it was made in, 0: not seen.
    pub netns: u32,
    /// The last routing table that was asked, 0: none.
    pub table: u32,
    /// Its answer: a positive errno, 0: a route. EAGAIN: it has none.
    pub table_errno: u16,
    /// One of [`route_hook`].
    pub seen_at: u8,
    /// 4 or 6, 0: no gateway known.
    pub gateway_family: u8,
}

/// The process that sent the packet, where it was running when the frame was
/// opened.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub comm: [u8; 16],
    pub cgroup: u64,
    /// 0: not a process (the kernel itself, a forwarded packet, a timer).
    pub tgid: u32,
    /// Owner of the sending socket, or of the process.
    pub uid: u32,
    /// Bits of [`sender`].
    pub flags: u32,
    /// Interface that the packet had come in by when it left its frame, 0: none, or
    /// it is not known any more.
    pub iif: u32,
}

/// What is known of the sender; bits of [`Process::flags`].
pub mod sender {
    /// The packet has a socket.
    pub const SOCKET: u32 = 1;
    /// The socket belongs to a file, thus to a user's process.
    pub const USER_SOCKET: u32 = 2;
    /// The frame was opened on the stack of a user's process.
    pub const PROCESS_CONTEXT: u32 = 4;
}

/// One drop.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub version: u16,
    pub size: u16,
    pub cpu: u32,
    /// `bpf_ktime_get_ns()` when the frame was closed or the packet freed.
    pub time_ns: u64,
    pub key: TallyKey,
    pub dev: [u8; IFNAMSIZ],
    pub kind: [u8; KIND_LEN],
    pub mtu: u32,
    /// Length of the inner packet in bytes, from its IP header on where known.
    pub length: u32,
    pub mark: u32,
    /// Length of the outer packet by its own header, 0 where there is none.
    pub outer_length: u32,
    /// The outer packet, where it was built; `ethertype` 0: it was not. While
    /// the packet lives: what its inner header said when it left its frame.
    pub outer: Flow,
    /// The packet that entered the outermost frame of the path, where tunnels
    /// are nested; otherwise `ethertype` 0.
    pub origin: Flow,
    /// Device the freed packet was on, and its namespace.
    pub freed_dev: [u8; IFNAMSIZ],
    pub freed_ifindex: u32,
    pub freed_netns: u32,
    pub route: Route,
    pub process: Process,
    /// How far each of `COUNTERS` moved while the frame was open.
    pub counters: [u32; COUNTERS.len()],
    /// Key of the stack map, -1: none.
    pub stack: i32,
    /// Devices of the open frames, outermost first; this frame's device is the
    /// last of them.
    pub path: [DeviceKey; PATH_LEN],
    pub path_len: u16,
    /// 1: the first packet to its destination (`PassedKey`) that this device had
    /// to send since tracing began.
    pub first: u16,
    /// The number of its tunnel that the packet carries (GRE key, VNI), with
    /// `seen::NUMBERED`.
    pub number: u32,
}
const _: () = assert!(size_of::<Record>() == 512);
crate::pod!(Record);

/// Most bytes of a packet that are kept.
pub const SNAP_LEN: usize = 192;

/// What the bytes of a packet begin with; values of [`Head::start`].
pub mod start {
    /// There are none.
    pub const NONE: u16 = 0;
    /// The network header, that of the outer packet where there is one.
    pub const NETWORK: u16 = 1;
    /// An Ethernet header.
    pub const ETHERNET: u16 = 2;
}

/// The first bytes of a packet as they were when it was freed. They travel behind
/// its record where they were asked for (`Config::snaplen`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How long the packet was from there on.
    pub length: u32,
    /// How many of `bytes` are its.
    pub kept: u16,
    /// One of [`start`].
    pub start: u16,
    pub bytes: [u8; SNAP_LEN],
}
const _: () = assert!(size_of::<Head>() == 200);
crate::pod!(Head);

/// So long after a record a CPU wakes nobody for others: waking costs the packet
/// more than all else. Who reads looks again after that time until there is
/// nothing more.
pub const QUIET_NS: u64 = 10_000_000;

/// What [`Notice::what`] tells of, while the hooks of frames were not attached.
pub mod notice {
    /// A tunnel device came up.
    pub const TUNNEL: u32 = 0;
    /// A module was loaded.
    pub const MODULE: u32 = 1;
}

/// What the ring buffer carries beside records: told apart by its size.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    pub version: u16,
    pub size: u16,
    /// One of [`notice`].
    pub what: u32,
}
const _: () = assert!(size_of::<Notice>() == 8);
crate::pod!(Notice);
