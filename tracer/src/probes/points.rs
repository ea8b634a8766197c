//! The ladder: each point of interest, with its ways in order of cost.
//!
//! A way is taken when this kernel has what it names; the next is tried when
//! attaching fails all the same. Two ways are never taken at once.

/// How to get to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Raw tracepoint with BTF; `args` of it are read.
    TpBtf {
        program: &'static str,
        tracepoint: &'static str,
        args: usize,
    },
    /// Raw tracepoint.
    RawTp {
        program: &'static str,
        tracepoint: &'static str,
    },
    /// Entry of a function of vmlinux.
    Fentry {
        program: &'static str,
        function: &'static str,
    },
    /// Return of a function of vmlinux that has exactly `params` parameters:
    /// the program finds the return value behind them.
    Fexit {
        program: &'static str,
        function: &'static str,
        params: usize,
    },
    /// Entry of a function.
    Kprobe {
        program: &'static str,
        function: &'static str,
    },
    /// Return of a function, and its entry where that is needed too.
    Kretprobe {
        entry: Option<&'static str>,
        program: &'static str,
        function: &'static str,
    },
}

/// A place in the kernel where something is learned.
#[derive(Debug)]
pub struct Point {
    pub name: &'static str,
    /// What is not known without it.
    pub lost: &'static str,
    /// Only where the kernel names no drop reasons, which tell the same.
    pub without_reasons: bool,
    /// Tells nothing but of packets that a tunnel device of this host has.
    pub of_tunnels: bool,
    pub ways: &'static [Way],
}

use Way::{Fentry, Fexit, Kprobe, Kretprobe, RawTp, TpBtf};

/// The point whose loss makes tracing pointless.
pub const FREE: &str = "kfree_skb";
/// The point that tells of packets freed as if all were well.
pub const CONSUME: &str = "consume_skb";
/// The points that together bracket any device's transmit function.
pub const FRAME_START: &str = "net_dev_start_xmit";
pub const FRAME_END: &str = "net_dev_xmit";
pub const REALLOC: &str = "skb_realloc_headroom";
pub const MODULE_LOAD: &str = "module_load";
/// What tells that a tunnel comes, where points wait for the first: its driver is
/// loaded, or, where the driver is built in, the device comes up.
pub static WAKERS: &[Way] = &[
    TpBtf {
        program: "module_load_btf",
        tracepoint: MODULE_LOAD,
        args: 1,
    },
    TpBtf {
        program: "device_up_btf",
        tracepoint: "qdisc_create",
        args: 2,
    },
];
/// All points but those of the drivers (`hooks`), which depend on the modules
/// present.
pub const POINTS: &[Point] = &[
    Point {
        name: FREE,
        lost: "drops",
        without_reasons: false,
        of_tunnels: false,
        ways: &[
            TpBtf {
                program: "kfree_skb_btf",
                tracepoint: "kfree_skb",
                args: 2,
            },
            RawTp {
                program: "kfree_skb_raw",
                tracepoint: "kfree_skb",
            },
            Kprobe {
                program: "sk_skb_reason_drop_kprobe",
                function: "sk_skb_reason_drop",
            },
            Kprobe {
                program: "kfree_skb_reason_kprobe",
                function: "kfree_skb_reason",
            },
            Kprobe {
                program: "kfree_skb_kprobe",
                function: "kfree_skb",
            },
        ],
    },
    // The end first: an end without a frame is nothing, a frame without an end
    // stays open.
    Point {
        name: FRAME_END,
        lost: "the end of frames of tunnel devices whose driver is not probed",
        without_reasons: false,
        of_tunnels: true,
        ways: &[
            TpBtf {
                program: "frame_end_btf",
                tracepoint: "net_dev_xmit",
                args: 4,
            },
            RawTp {
                program: "frame_end_raw",
                tracepoint: "net_dev_xmit",
            },
        ],
    },
    Point {
        name: FRAME_START,
        lost: "frames of tunnel devices whose driver is not probed",
        without_reasons: false,
        of_tunnels: true,
        ways: &[
            TpBtf {
                program: "frame_start_btf",
                tracepoint: "net_dev_start_xmit",
                args: 2,
            },
            RawTp {
                program: "frame_start_raw",
                tracepoint: "net_dev_start_xmit",
            },
        ],
    },
    Point {
        name: CONSUME,
        lost: "drops that a tunnel frees as if all were well (geneve, gtp, bareudp, wireguard)",
        without_reasons: false,
        of_tunnels: true,
        ways: &[
            TpBtf {
                program: "consume_skb_btf",
                tracepoint: "consume_skb",
                args: 1,
            },
            RawTp {
                program: "consume_skb_raw",
                tracepoint: "consume_skb",
            },
        ],
    },
    Point {
        name: REALLOC,
        lost: "packets that a driver copies for more headroom (sit): their later drop is not tied to the tunnel",
        without_reasons: false,
        of_tunnels: true,
        ways: &[
            Fexit {
                program: "skb_realloc_headroom_fexit",
                function: "skb_realloc_headroom",
                params: 2,
            },
            Kretprobe {
                entry: Some("skb_realloc_headroom_kprobe"),
                program: "skb_realloc_headroom_kretprobe",
                function: "skb_realloc_headroom",
            },
        ],
    },
    Point {
        name: "gso_segment",
        lost: "that a packet was split into segments: the end of the whole is taken for a drop (wireguard, IPsec)",
        without_reasons: false,
        of_tunnels: true,
        ways: &[
            Fexit {
                program: "gso_segment_fexit",
                function: "__skb_gso_segment",
                params: 3,
            },
            Kretprobe {
                entry: Some("asked_skb0"),
                program: "gso_segment_kretprobe",
                function: "__skb_gso_segment",
            },
        ],
    },
    Point {
        name: "noop_enqueue",
        lost: "that a device without carrier swallowed the packet",
        without_reasons: false,
        of_tunnels: false,
        ways: &[
            Fentry {
                program: "noop_enqueue_fentry",
                function: "noop_enqueue",
            },
            Kprobe {
                program: "noop_enqueue_kprobe",
                function: "noop_enqueue",
            },
        ],
    },
    Point {
        name: "ipv4_blackhole_route",
        lost: "that an IPsec state is missing for an IPv4 outer packet",
        without_reasons: false,
        of_tunnels: true,
        ways: &[
            Fentry {
                program: "ipv4_blackhole_route_fentry",
                function: "ipv4_blackhole_route",
            },
            Kprobe {
                program: "blackhole_route_kprobe",
                function: "ipv4_blackhole_route",
            },
        ],
    },
    Point {
        name: "ip6_blackhole_route",
        lost: "that an IPsec state is missing for an IPv6 outer packet",
        without_reasons: false,
        of_tunnels: true,
        ways: &[
            Fentry {
                program: "ip6_blackhole_route_fentry",
                function: "ip6_blackhole_route",
            },
            Kprobe {
                program: "blackhole_route_kprobe",
                function: "ip6_blackhole_route",
            },
        ],
    },
    Point {
        name: "tcf_classify",
        lost: "that a traffic-control filter dropped the packet",
        without_reasons: true,
        of_tunnels: false,
        ways: &[Kretprobe {
            entry: Some("asked_skb0"),
            program: "classified",
            function: "tcf_classify",
        }],
    },
    Point {
        name: "tcf_classify_ingress",
        lost: "that an ingress filter of traffic control dropped the packet",
        without_reasons: true,
        of_tunnels: false,
        ways: &[Kretprobe {
            entry: Some("asked_skb0"),
            program: "classified",
            function: "tcf_classify_ingress",
        }],
    },
    Point {
        name: "fib_validate_source",
        lost: "why the source address of a received packet was refused",
        without_reasons: true,
        of_tunnels: false,
        ways: &[Kretprobe {
            entry: Some("asked_skb0"),
            program: "source_validated",
            function: "fib_validate_source",
        }],
    },
    Point {
        name: "ip_route_output_flow",
        lost: "route type and errno of IPv4 underlays",
        without_reasons: false,
        of_tunnels: true,
        ways: &[
            Fexit {
                program: "ip_route_output_flow_fexit",
                function: "ip_route_output_flow",
                params: 3,
            },
            Kretprobe {
                entry: Some("ip_route_output_flow_kprobe"),
                program: "ip_route_output_flow_kretprobe",
                function: "ip_route_output_flow",
            },
            TpBtf {
                program: "fib_table_lookup_btf",
                tracepoint: "fib_table_lookup",
                args: 4,
            },
            RawTp {
                program: "fib_table_lookup_raw",
                tracepoint: "fib_table_lookup",
            },
        ],
    },
    Point {
        name: "fib_table_lookup",
        lost: "which routing table, or which rule, made an IPv4 look-up fail",
        without_reasons: false,
        of_tunnels: true,
        ways: &[TpBtf {
            program: "table_asked_btf",
            tracepoint: "fib_table_lookup",
            args: 4,
        }],
    },
    Point {
        name: "dst_cache_get_ip4",
        lost: "routes that come from a tunnel's cache (IPv4 underlay)",
        without_reasons: false,
        of_tunnels: true,
        ways: &[
            Fexit {
                program: "dst_cache_get_ip4_fexit",
                function: "dst_cache_get_ip4",
                params: 2,
            },
            Kretprobe {
                entry: None,
                program: "dst_cache_get_ip4_kretprobe",
                function: "dst_cache_get_ip4",
            },
        ],
    },
    Point {
        name: "ip6_route_output_flags",
        lost: "route type and errno of IPv6 underlays",
        without_reasons: false,
        of_tunnels: true,
        ways: &[
            Fexit {
                program: "ip6_route_output_flags_fexit",
                function: "ip6_route_output_flags",
                params: 4,
            },
            Kretprobe {
                entry: Some("ip6_route_output_flags_kprobe"),
                program: "ip6_route_output_flags_kretprobe",
                function: "ip6_route_output_flags",
            },
            TpBtf {
                program: "fib6_table_lookup_btf",
                tracepoint: "fib6_table_lookup",
                args: 4,
            },
            RawTp {
                program: "fib6_table_lookup_raw",
                tracepoint: "fib6_table_lookup",
            },
        ],
    },
    Point {
        name: "fib6_table_lookup",
        lost: "which routing table, or which rule, made an IPv6 look-up fail",
        without_reasons: false,
        of_tunnels: true,
        ways: &[TpBtf {
            program: "table6_asked_btf",
            tracepoint: "fib6_table_lookup",
            args: 4,
        }],
    },
    Point {
        name: "dst_cache_get",
        lost: "routes that come from a tunnel's cache (ip6tnl, ip6gre)",
        without_reasons: false,
        of_tunnels: true,
        ways: &[
            Fexit {
                program: "dst_cache_get_fexit",
                function: "dst_cache_get",
                params: 1,
            },
            Kretprobe {
                entry: None,
                program: "dst_cache_get_kretprobe",
                function: "dst_cache_get",
            },
        ],
    },
    Point {
        name: "dst_cache_get_ip6",
        lost: "routes that come from a tunnel's cache (IPv6 underlay)",
        without_reasons: false,
        of_tunnels: true,
        ways: &[
            Fexit {
                program: "dst_cache_get_ip6_fexit",
                function: "dst_cache_get_ip6",
                params: 2,
            },
            Kretprobe {
                entry: None,
                program: "dst_cache_get_ip6_kretprobe",
                function: "dst_cache_get_ip6",
            },
        ],
    },
    Point {
        name: "iptunnel_xmit",
        lost: "the moment the outer packet is handed to IPv4: sending is concluded from the driver's return code",
        without_reasons: false,
        of_tunnels: true,
        ways: &[
            Fentry {
                program: "iptunnel_xmit_fentry",
                function: "iptunnel_xmit",
            },
            Kprobe {
                program: "iptunnel_xmit_kprobe",
                function: "iptunnel_xmit",
            },
        ],
    },
    Point {
        name: "ip6_local_out",
        lost: "the moment the outer packet is handed to IPv6: sending is concluded from the driver's return code",
        without_reasons: false,
        of_tunnels: true,
        ways: &[
            Fentry {
                program: "ip6_local_out_fentry",
                function: "ip6_local_out",
            },
            Kprobe {
                program: "ip6_local_out_kprobe",
                function: "ip6_local_out",
            },
        ],
    },
    Point {
        name: "icmp_send",
        lost: "whether the sender of an IPv4 packet was told",
        without_reasons: false,
        of_tunnels: false,
        ways: &[
            Fentry {
                program: "icmp_send_fentry",
                function: "__icmp_send",
            },
            Kprobe {
                program: "icmp_send_kprobe",
                function: "__icmp_send",
            },
            TpBtf {
                program: "icmp_send_btf",
                tracepoint: "icmp_send",
                args: 3,
            },
        ],
    },
    Point {
        name: "icmp6_send",
        lost: "whether the sender of an IPv6 packet was told",
        without_reasons: false,
        of_tunnels: false,
        ways: &[
            Fentry {
                program: "icmp6_send_fentry",
                function: "icmp6_send",
            },
            Kprobe {
                program: "icmp6_send_kprobe",
                function: "icmp6_send",
            },
        ],
    },
];

impl Way {
    /// The function or tracepoint in the kernel.
    pub fn target(&self) -> &'static str {
        match self {
            TpBtf { tracepoint, .. } | RawTp { tracepoint, .. } => tracepoint,
            Fentry { function, .. }
            | Fexit { function, .. }
            | Kprobe { function, .. }
            | Kretprobe { function, .. } => function,
        }
    }

    /// Our program that is attached there.
    pub fn program(&self) -> &'static str {
        match self {
            TpBtf { program, .. }
            | RawTp { program, .. }
            | Fentry { program, .. }
            | Fexit { program, .. }
            | Kprobe { program, .. }
            | Kretprobe { program, .. } => program,
        }
    }

    /// What the contract calls it.
    pub fn name(&self) -> &'static str {
        match self {
            TpBtf { .. } => "tp_btf",
            RawTp { .. } => "tracepoint",
            Fentry { .. } => "fentry",
            Fexit { .. } => "fexit",
            Kprobe { .. } => "kprobe",
            Kretprobe { .. } => "kretprobe",
        }
    }
}
