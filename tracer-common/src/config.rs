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
}
const _: () = assert!(size_of::<Config>() == 40);
crate::pod!(Config);

/// Indices of the array `SWITCHES`: known only after the programs are attached.
pub mod switch {
    /// 1: `skb_realloc_headroom` is watched, so a frame follows its packet to
    /// the copy, and a consumed original means the packet is gone.
    pub const REALLOC_WATCHED: u32 = 0;
    pub const COUNT: u32 = 1;
}
