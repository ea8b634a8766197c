//! Where the running kernel keeps the fields that the programs read.
//!
//! Filled by the user side from the running kernel's BTF and placed in
//! `.rodata` before the programs are loaded, so that the verifier knows every
//! offset as a constant and prunes branches on absent fields.

/// The value of an offset that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Declares [`Offsets`] and the list of BTF paths its fields come from: one
/// line per field, each with the alternatives to try in order.
macro_rules! offsets {
    ($( $(#[$doc:meta])* $field:ident = $($strukt:literal . $path:literal)|+ ; )+) => {
        /// Byte offsets of members, or [`ABSENT`].
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Offsets { $( $(#[$doc])* pub $field: u32, )+ }

        impl Offsets {
            /// Nothing known. Programs loaded with this read nothing.
            pub const ABSENT: Self = Self { $( $field: ABSENT, )+ };

            /// Every field: its name, and the `(struct, member path)` pairs
            /// to look up, first found wins.
            pub const PATHS: &'static [(&'static str, &'static [(&'static str, &'static str)])] =
                &[ $( (stringify!($field), &[ $( ($strukt, $path) ),+ ]), )+ ];

            /// Builds from a look-up function called with each field's name and paths.
            #[cfg(feature = "user")]
            pub fn resolve(mut find: impl FnMut(&'static str, &'static [(&'static str, &'static str)]) -> u32) -> Self {
                Self { $( $field: find(stringify!($field), &[ $( ($strukt, $path) ),+ ]), )+ }
            }
        }
    };
}

offsets! {
    skb_dev = "sk_buff"."dev";
    skb_sk = "sk_buff"."sk";
    skb_len = "sk_buff"."len";
    skb_mark = "sk_buff"."mark";
    skb_iif = "sk_buff"."skb_iif";
    skb_head = "sk_buff"."head";
    skb_data = "sk_buff"."data";
    skb_data_len = "sk_buff"."data_len";
    skb_protocol = "sk_buff"."protocol";
    /// The byte whose lowest three bits are `pkt_type`.
    skb_pkt_type = "sk_buff"."__pkt_type_offset";
    skb_network_header = "sk_buff"."network_header";
    skb_transport_header = "sk_buff"."transport_header";
    skb_mac_header = "sk_buff"."mac_header";
    skb_inner_network_header = "sk_buff"."inner_network_header";

    dev_name = "net_device"."name";
    dev_ifindex = "net_device"."ifindex";
    dev_mtu = "net_device"."mtu";
    dev_type = "net_device"."type";
    dev_addr = "net_device"."dev_addr";
    dev_net = "net_device"."nd_net.net";
    dev_link_ops = "net_device"."rtnl_link_ops";
    link_ops_kind = "rtnl_link_ops"."kind";
    link_ops_priv_size = "rtnl_link_ops"."priv_size";
    net_inum = "net"."ns.inum";

    // Counters of the device. Since 6.1 each member of net_device_stats is a
    // union of `X` and `__X`; both have the same offset.
    stats_tx_packets = "net_device"."stats.tx_packets";
    stats_tx_errors = "net_device"."stats.tx_errors";
    stats_tx_dropped = "net_device"."stats.tx_dropped";
    stats_tx_carrier_errors = "net_device"."stats.tx_carrier_errors";
    stats_collisions = "net_device"."stats.collisions";
    stats_tx_fifo_errors = "net_device"."stats.tx_fifo_errors";
    stats_tx_aborted_errors = "net_device"."stats.tx_aborted_errors";
    stats_rx_errors = "net_device"."stats.rx_errors";
    stats_rx_dropped = "net_device"."stats.rx_dropped";
    stats_rx_length_errors = "net_device"."stats.rx_length_errors";
    stats_rx_crc_errors = "net_device"."stats.rx_crc_errors";
    stats_rx_frame_errors = "net_device"."stats.rx_frame_errors";
    stats_rx_fifo_errors = "net_device"."stats.rx_fifo_errors";
    /// Core drops, an atomic in the device until 5.17.
    dev_core_tx_dropped = "net_device"."tx_dropped";
    dev_core_rx_dropped = "net_device"."rx_dropped";
    /// Core drops, per CPU since 5.18.
    dev_core_stats = "net_device"."core_stats";
    core_stats_tx_dropped = "net_device_core_stats"."tx_dropped";
    core_stats_rx_dropped = "net_device_core_stats"."rx_dropped";
    /// Per-CPU packet counters (`tstats`, `dstats` share the pointer).
    dev_tstats = "net_device"."tstats";
    /// Which of them, where the kernel says (enum netdev_stat_type).
    dev_pcpu_stat_type = "net_device"."pcpu_stat_type";
    tstats_tx_packets = "pcpu_sw_netstats"."tx_packets";
    dstats_tx_packets = "pcpu_dstats"."tx_packets";
    dstats_tx_drops = "pcpu_dstats"."tx_drops";
    dstats_rx_drops = "pcpu_dstats"."rx_drops";
    /// Base of a per-CPU array map's memory, to learn this CPU's offset.
    array_pptrs = "bpf_array"."pptrs";

    rt_type = "rtable"."rt_type";
    rt_dev = "rtable"."dst.dev" | "rtable"."dst.dev_rcu";
    rt_gw_family = "rtable"."rt_gw_family";
    rt_gw4 = "rtable"."rt_gw4";
    rt6_from = "rt6_info"."from";
    rt6_gateway = "rt6_info"."rt6i_gateway";
    rt6_flags = "rt6_info"."rt6i_flags";
    fib6_type = "fib6_info"."fib6_type";
    fib6_result_entry = "fib6_result"."f6i";
    fib6_result_type = "fib6_result"."fib6_type";
    fib6_table_id = "fib6_table"."tb6_id";
    /// The entry that stands for no route at all.
    net_fib6_null_entry = "net"."ipv6.fib6_null_entry";
    dst_dev = "dst_entry"."dev" | "dst_entry"."dev_rcu";
    dst_error = "dst_entry"."error";
    fl4_daddr = "flowi4"."daddr";
    fl4_saddr = "flowi4"."saddr";
    fl4_mark = "flowi4"."__fl_common.flowic_mark";
    fl4_oif = "flowi4"."__fl_common.flowic_oif";
    fl6_daddr = "flowi6"."daddr";
    fl6_saddr = "flowi6"."saddr";
    fl6_mark = "flowi6"."__fl_common.flowic_mark";
    fl6_oif = "flowi6"."__fl_common.flowic_oif";

    ip_tunnel_dev = "ip_tunnel"."dev";
    ip6_tnl_dev = "ip6_tnl"."dev";

    sk_net = "sock"."__sk_common.skc_net.net";
    sk_state = "sock"."__sk_common.skc_state";
    sk_uid = "sock"."sk_uid";
    sk_socket = "sock"."sk_socket";
    socket_file = "socket"."file";
    task_stack = "task_struct"."stack";
    task_flags = "task_struct"."flags";
    task_tgid = "task_struct"."tgid";
    task_comm = "task_struct"."comm";
    task_cred = "task_struct"."cred";
    cred_uid = "cred"."uid";
    task_cgroups = "task_struct"."cgroups";
    /// The cgroup of the unified hierarchy.
    css_set_cgroup = "css_set"."dfl_cgrp";
    cgroup_node = "cgroup"."kn";
    cgroup_id = "kernfs_node"."id";
}
crate::pod!(Offsets);
