//! What the user side asks of the programs, placed in `.rodata`.

/// Longest interface name, with its terminating zero (IFNAMSIZ).
pub const IFNAMSIZ: usize = 16;
/// Most bytes of a link kind that are compared (`rtnl_link_ops.kind`).
pub const KIND_LEN: usize = 16;

/// Fixed for the life of the programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Only frames of the device with this name; all zero: any.
    pub dev: [u8; IFNAMSIZ],
    /// Only devices of the network namespace with this inode; 0: any.
    pub netns: u32,
    /// 1: report every `kfree_skb`, also where no tunnel is part of it.
    pub all_drops: u32,
    /// 1: keep a kernel stack of every drop.
    pub stack: u32,
    /// Number of arguments of the tracepoint `skb:kfree_skb` on this kernel.
    pub kfree_skb_args: u32,
    /// Number of arguments of the tracepoint `skb:consume_skb`.
    pub consume_skb_args: u32,
    /// Size of a kernel stack in bytes, to tell process context.
    pub stack_size: u32,
    /// 1: the kernel is PREEMPT_RT, so frames are kept by task, not by CPU.
    pub realtime: u32,
    /// 1: send the record of every drop, 0: of the first of each sort and then
    /// of ever fewer.
    pub all_records: u32,
    /// 1: the kernel gives the running task with its type
    /// (`bpf_get_current_task_btf`, since 5.11).
    pub typed_task: u32,
    /// So many bytes of each packet whose record is sent are sent with it; 0:
    /// none. At most `record::SNAP_LEN`.
    pub snaplen: u32,
    /// 1: a second program follows the first at some tracepoints, and does what the
    /// kernel left out of it.
    pub twice: u32,
    pub reserved: u32,
}
const _: () = assert!(size_of::<Config>() == 64);
crate::pod!(Config);

/// Indices of the array `SWITCHES`: known only after the programs are attached.
pub mod switch {
    /// 1: `skb_realloc_headroom` is watched, so a frame follows its packet to
    /// the copy, and a consumed original means the packet is gone.
    pub const REALLOC_WATCHED: u32 = 0;
    /// 1: the transmit tracepoints open and close frames, so a driver's own
    /// function is only noted.
    pub const BRACKETED: u32 = 1;
    /// 1: all points are attached. What passes before is not looked at: half of
    /// its evidence would be missing.
    pub const READY: u32 = 2;
    /// 1: the points of frames are not attached, for want of tunnels: the first
    /// that comes up is to be told.
    pub const RESTING: u32 = 3;
    pub const COUNT: u32 = 4;
}

/// Values of the map `KINDS`: bits of what is known of a kind of tunnel.
pub mod kind {
    /// Its driver frees dropped packets with `consume_skb` too.
    pub const CONSUMES_DROPS: u32 = 1;
}

/// Values of the map `PORTS`: what follows the UDP header.
pub mod payload {
    /// Unknown, or encrypted.
    pub const OPAQUE: u32 = 0;
    /// VXLAN header, Ethernet frame.
    pub const VXLAN: u32 = 1;
    /// Geneve header with options, then what its type says.
    pub const GENEVE: u32 = 2;
    /// FOU: an IP packet, by its version.
    pub const FOU_IP: u32 = 3;
    /// FOU: a GRE header.
    pub const FOU_GRE: u32 = 4;
    /// GUE header, then what its protocol says.
    pub const GUE: u32 = 5;
    /// A WireGuard message, encrypted. Its first word says which, and can be checked:
    /// the port can be anybody's else.
    pub const WIREGUARD: u32 = 6;
    /// L2TP, by its version likewise.
    pub const L2TP: u32 = 7;
    /// ESP, unless it is IKE or keeps an address translation alive (RFC 3948).
    pub const ESP: u32 = 8;
}
