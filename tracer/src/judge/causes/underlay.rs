//! Causes on the outer packet's way, from the driver to the other end's socket
//! or protocol; also of packets on a tunnel device before or after it.

use std::sync::Arc;

use tracer_common::{
    flow::{IPPROTO_L2TP, IPPROTO_UDP},
    tally::{outcome, seen},
};

use super::{
    super::{
        Confidence::{Inferred, Proved},
        evidence::Evidence,
        places,
    },
    Cause,
};
use crate::devices::Device;

/// So much longer than its MTU may what goes out by a device be.
const VLAN_TAG: u32 = 4;

/// Where UDP looks for the socket of a received packet.
const UDP_RECEIVE: &[&str] = &[
    "udp_rcv",
    "__udp4_lib_rcv",
    "udp_unicast_rcv_skb",
    "udp_queue_rcv_skb",
    "udp_queue_rcv_one_skb",
    "udpv6_rcv",
    "__udp6_lib_rcv",
    "udp6_unicast_rcv_skb",
    "udpv6_queue_rcv_skb",
    "udpv6_queue_rcv_one_skb",
    "__udp4_lib_mcast_deliver",
    "__udp6_lib_mcast_deliver",
];

/// Where IPsec transforms what goes out.
const XFRM_OUTPUT: &[&str] = &[
    "xfrm_output_resume",
    "xfrm_output_one",
    "xfrm_output2",
    "xfrm_output",
];

/// ICMP errors that say: too big for a link on the way.
const TOO_BIG: [(u8, u8, u8); 2] = [(4, 3, 4), (6, 2, 0)];

/// Did the kernel find the packet too big, and say so?
fn is_too_big(evidence: &Evidence) -> bool {
    evidence.reason_is("PKT_TOO_BIG") || evidence.told().is_some_and(|told| TOO_BIG.contains(&told))
}

/// By the kernel's word, a queue let go of it.
fn is_queues(evidence: &Evidence) -> bool {
    evidence.reason.as_deref().is_some_and(places::is_queues)
}

/// Is it freed where a device is asked to take a packet as if it had come by it? The
/// packet stands on the device before: a veth's own, or the one that l2tp received by.
fn is_refused_by_device(evidence: &Evidence) -> bool {
    evidence.by_kfree()
        && evidence.freed_in_any(&["__dev_forward_skb", "__dev_forward_skb2", "dev_forward_skb"])
}

pub const CAUSES: &[Cause] = &[
    Cause {
        id: "netfilter-drop",
        title: "netfilter dropped the packet: a rule (nftables, iptables), or a module that hooks in, such as connection tracking",
        condition: "NF_DROP of a hook, in nf_hook_slow (net/netfilter/core.c)",
        counters: "those of the rule (nft list ruleset with counters), tx_dropped of the tunnel device where it was on its way out",
        told: "no, unless the rule rejects",
        remedy: "find the rule: nft list ruleset or iptables-save -c in the network namespace named; nft monitor trace shows which one. Where there is none: conntrack -S (drop, insert_failed) and the kernel log (table full)",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("NETFILTER_DROP") {
                return Some(Proved);
            }
            (evidence.named_reason().is_none()
                && evidence.by_kfree()
                && evidence.freed_in("nf_hook_slow"))
            .then_some(Proved)
        },
    },
    Cause {
        id: "netfilter-queue",
        title: "a netfilter rule hands the packet to user space (NFQUEUE), and it does not come back: nobody listens, the queue is full, or the program drops it, or a rule behind that",
        condition: "nf_queue (net/netfilter/nf_queue.c) fails, or nf_reinject has the verdict NF_DROP (net/netfilter/nfnetlink_queue.c)",
        counters: "those of the rule; queue_dropped and user_dropped in /proc/net/netfilter/nfnetlink_queue",
        told: "no",
        remedy: "see who listens: cat /proc/net/netfilter/nfnetlink_queue; have the rule let packets by when nobody does (bypass), or enlarge the queue",
        fixes: &[],
        applies: |evidence| {
            (evidence.by_kfree()
                && evidence.freed_in_any(&[
                    "nf_queue",
                    "__nf_queue",
                    "nf_reinject",
                    "nfqnl_reinject",
                    "nfqnl_flush",
                ]))
            .then_some(Proved)
        },
    },
    Cause {
        id: "ipsec-output",
        title: "IPsec did not let the packet out: its state (SA) has expired or has no sequence numbers left, encryption failed, or the packet is larger than the path carries",
        condition: "xfrm_state_check_expire, the replay counter, the type's output or the mode's (xfrm4_tunnel_check_size) failed, in xfrm_output_one (net/xfrm/xfrm_output.c)",
        counters: "the counter in /proc/net/xfrm_stat that moved tells which: XfrmOutStateExpired, XfrmOutStateSeqError, XfrmOutStateProtoError, XfrmOutStateModeError (too large)",
        told: "no",
        remedy: "compare /proc/net/xfrm_stat before and after, then ip -s xfrm state (lifetime, replay) of the sending host; does the key daemon renew in time? Where ModeError moves, lower the MTU of the tunnel device by what ESP adds",
        fixes: &[],
        applies: |evidence| {
            (evidence.by_kfree()
                && evidence.named_reason().is_none()
                && !is_too_big(evidence)
                && evidence.freed_in_any(XFRM_OUTPUT))
            .then_some(Proved)
        },
    },
    Cause {
        id: "tc-drop",
        title: "a traffic-control filter dropped the packet",
        condition: "TC_ACT_SHOT of tcf_classify, in sch_handle_egress or sch_handle_ingress (net/core/dev.c)",
        counters: "those of the filter (tc -s filter show dev DEV egress or ingress)",
        told: "no",
        remedy: "find the filter: tc -s filter show dev LINK ingress, tc -s filter show dev LINK egress, and BPF programs there (bpftool net)",
        fixes: &[],
        applies: |evidence| {
            (matches!(evidence.reason.as_deref(), Some("TC_EGRESS" | "TC_INGRESS"))
                || evidence.saw(seen::TC_SHOT))
            .then_some(Proved)
        },
    },
    Cause {
        id: "cgroup-bpf",
        title: "a BPF program of the sender's control group does not let the packet out",
        condition: "BPF_CGROUP_RUN_PROG_INET_EGRESS refuses, in ip_finish_output (net/ipv4/ip_output.c), ip6_finish_output (net/ipv6/ip6_output.c)",
        counters: "IpOutDiscards or Ip6OutDiscards (nstat)",
        told: "a local sender gets EPERM",
        remedy: "bpftool cgroup tree; systemd's IPAddressDeny= and RestrictNetworkInterfaces= are such programs",
        fixes: &[],
        applies: |evidence| evidence.reason_is("BPF_CGROUP_EGRESS").then_some(Proved),
    },
    Cause {
        id: "no-carrier",
        title: "the device below, or the tunnel device itself, is down or has no carrier",
        condition: "noop_enqueue is its queue's enqueue function (net/sched/sch_generic.c, dev_deactivate)",
        counters: "none before 6.12; tx_dropped of the device below since: the tunnel counts success",
        told: "no",
        remedy: "bring the link up: ip link show dev LINK (state DOWN, NO-CARRIER)",
        fixes: &[],
        applies: |evidence| {
            if evidence.saw(seen::NOOP_QUEUE) {
                return Some(Proved);
            }
            let has_none = |device: &Arc<Device>| !device.carrier;
            (!evidence.noop_watched
                && is_queues(evidence)
                && evidence.freed_device.as_ref().is_some_and(has_none))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "qdisc-drop",
        title: "the queueing discipline dropped the packet",
        condition: "enqueue or dequeue of the qdisc dropped it, in __dev_queue_xmit, __qdisc_run (net/core/dev.c), or the dequeue function itself (fq_codel, codel, cake, pie; net/sched)",
        counters: "those of the qdisc (tc -s qdisc show dev LINK); netem and some others let the tunnel count success",
        told: "no",
        remedy: "tc -s qdisc show dev LINK: a limit that is too small, a policer, netem",
        fixes: &[],
        applies: |evidence| {
            if is_queues(evidence) {
                // It is the queue of a device without carrier, too.
                return Some(if evidence.noop_watched {
                    Proved
                } else {
                    Inferred
                });
            }
            if !evidence.by_kfree() || evidence.named_reason().is_some() {
                return None;
            }
            if evidence.freed_by_queue() {
                return Some(Proved);
            }
            // Lists of packets are freed by few others on this path.
            (!evidence.saw(seen::DECAPSULATED)
                && evidence.freed_in_any(&[
                    "kfree_skb_list",
                    "kfree_skb_list_reason",
                    "__tcf_kfree_skb_list",
                    "tcf_kfree_skb_list",
                    // What is left in a queue that is taken away (rtnl_kfree_skbs).
                    "__rtnl_unlock",
                    "rtnl_unlock",
                    "qdisc_reset",
                    "qdisc_reset_queue",
                    "pfifo_fast_reset",
                ]))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "neighbour-failed",
        title: "the next hop did not answer, or its entry was removed before it could: its link-layer address is not known",
        condition: "neigh_invalidate after the last probe (net/core/neighbour.c; arp_error_report, ndisc_error_report)",
        counters: "none of the tunnel device: it counted success",
        told: "the outer source, which is this host, gets ICMP host unreachable; the inner one mostly does not",
        remedy: "ip neigh show to REMOTE (FAILED); is the next hop (ip route get REMOTE) up and in the same network?",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("NEIGH_FAILED")
                || evidence.freed_in_any(&[
                    "neigh_invalidate",
                    "arp_error_report",
                    "ndisc_error_report",
                ])
            {
                return Some(Proved);
            }
            // The packet itself, not one that waited: nobody is asked any more.
            (evidence.named_reason().is_none()
                && evidence.freed_in("__neigh_event_send")
                && evidence.key.outcome == outcome::DROPPED)
                .then_some(Inferred)
        },
    },
    Cause {
        id: "neighbour-queue-full",
        title: "too many packets wait for the next hop's link-layer address",
        condition: "arp_queue_len_bytes reached (unres_qlen_bytes), in __neigh_event_send (net/core/neighbour.c)",
        counters: "unres_discards (ip -s ntable); none of the tunnel device",
        told: "no",
        remedy: "see why the next hop does not answer (ip neigh show to REMOTE); raise net.ipv4.neigh.LINK.unres_qlen_bytes",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("NEIGH_QUEUEFULL") {
                return Some(Proved);
            }
            // What gives way is the oldest that waits, not the one that is sent.
            (evidence.named_reason().is_none()
                && evidence.freed_in("__neigh_event_send")
                && evidence.key.outcome != outcome::DROPPED)
                .then_some(Inferred)
        },
    },
    Cause {
        id: "neighbour-flushed",
        title: "the entry of the next hop went while packets waited for its link-layer address: the link went down, or the entry was removed",
        condition: "the queue of a neighbour that dies is purged, in neigh_flush_dev, neigh_destroy (net/core/neighbour.c)",
        counters: "none of the tunnel device: it counted success",
        told: "no",
        remedy: "see what became of the link (ip link show dev LINK) and who flushes neighbours (ip monitor neigh link)",
        fixes: &[],
        applies: |evidence| {
            (evidence.by_kfree()
                && evidence.freed_in_any(&[
                    "neigh_flush_dev",
                    "neigh_destroy",
                    "neigh_cleanup_and_release",
                ]))
            .then_some(Proved)
        },
    },
    Cause {
        id: "bridge-port-too-small",
        title: "the frame is larger than the MTU of the bridge's port that it leaves by, or that port is down",
        condition: "is_skb_forwardable is false, in br_dev_queue_push_xmit (net/bridge/br_forward.c)",
        counters: "none",
        told: "no: bridges send no ICMP errors",
        remedy: "give all ports of the bridge and all hosts behind them one MTU that fits the tunnel (ip link show master BRIDGE), or let the tunnel's outer packets be fragmented and raise its MTU",
        fixes: &[],
        applies: |evidence| {
            if !evidence.by_kfree() || !evidence.freed_in("br_dev_queue_push_xmit") {
                return None;
            }
            let length = evidence.record.as_ref().map_or(0, |record| record.length);
            let port = evidence.freed_device.as_ref();
            let is_larger = port.is_some_and(|port| port.mtu != 0 && length > port.mtu + VLAN_TAG);
            Some(if is_larger { Proved } else { Inferred })
        },
    },
    Cause {
        id: "tunnel-device-refused",
        title: "the tunnel's device does not take what comes out of the tunnel: it is down, or its MTU is smaller than the packet",
        condition: "is_skb_forwardable is false, in __dev_forward_skb (net/core/dev.c), called by l2tp_eth_dev_recv (net/l2tp/l2tp_eth.c)",
        counters: "rx_errors and rx_dropped of the tunnel device",
        told: "no",
        remedy: "on the receiving host: ip link show dev DEV; set it up, or give both ends the same MTU",
        fixes: &[],
        applies: |evidence| {
            // The outer header is off where another tunnel's packet goes on, and those
            // look their device up.
            if !is_refused_by_device(evidence)
                || !evidence.received()
                || evidence.saw(seen::DECAPSULATED | seen::IN_THE_CLEAR)
                || evidence.key.ifindex != 0
            {
                return None;
            }
            match evidence.key.outer_proto {
                IPPROTO_UDP if evidence.saw(seen::TUNNEL_RECEIVE) => Some(Proved),
                // It can be on its way to another host.
                IPPROTO_L2TP if !evidence.freed_on_kind("veth") => Some(Inferred),
                _ => None,
            }
        },
    },
    Cause {
        id: "peer-device-refused",
        title: "the device at the other end of the link (veth) does not take the packet: it is down, or its MTU is smaller than the packet",
        condition: "is_skb_forwardable is false, in __dev_forward_skb (net/core/dev.c)",
        counters: "rx_dropped of the device at the other end",
        told: "no",
        remedy: "give both ends the same MTU and set both up: ip -d link show dev LINK on both sides",
        fixes: &[],
        applies: |evidence| {
            (is_refused_by_device(evidence) && evidence.freed_on_kind("veth")).then_some(Proved)
        },
    },
    Cause {
        id: "outer-too-big",
        title: "the outer packet is larger than a link on its way, and may not be fragmented",
        condition: "skb->len > mtu with DF set or in IPv6: ip_fragment (net/ipv4/ip_output.c), ip6_fragment (net/ipv6/ip6_output.c), ip_forward, ip6_forward",
        counters: "IpFragFails or Ip6FragFails (nstat); tx_dropped or tx_aborted_errors of the tunnel device where it happens on the sending host",
        told: "the outer source gets ICMP fragmentation needed: the inner one hears of it only with the next packet, if at all",
        remedy: "lower the MTU of the tunnel device (ip link set dev DEV mtu N) below the path's less the encapsulation, or let the outer packet be fragmented (df unset, nopmtudisc); do not filter ICMP type 3 code 4 and ICMPv6 type 2",
        fixes: &[],
        applies: |evidence| {
            let place = evidence.freed_in_any(XFRM_OUTPUT)
                || evidence.freed_in_any(&[
                    "ip_fragment",
                    "ip6_fragment",
                    "ip_forward",
                    "ip6_forward",
                    "ip_finish_output",
                    "ip6_finish_output",
                    "ip6_xmit",
                ]);
            (place && !evidence.is_inner() && is_too_big(evidence)).then_some(Proved)
        },
    },
    Cause {
        id: "forward-too-big",
        title: "the packet that came out of the tunnel is larger than the next link carries, and may not be fragmented",
        condition: "skb->len > mtu with DF set or in IPv6: ip_forward (net/ipv4/ip_forward.c), ip6_forward (net/ipv6/ip6_output.c)",
        counters: "IpFragFails or Ip6FragFails, Ip6InTooBigErrors (nstat)",
        told: "yes: the inner source gets ICMP fragmentation needed, ICMPv6 packet too big",
        remedy: "let the ICMP error reach the sender (it goes back by a route to it, often the same tunnel), or give the link beyond the tunnel the MTU of those before it",
        fixes: &[],
        applies: |evidence| {
            (evidence.saw(seen::DECAPSULATED) && is_too_big(evidence)).then_some(Proved)
        },
    },
    Cause {
        id: "ttl-expired",
        title: "the packet's TTL (hop limit) ran out on its way",
        condition: "ttl <= 1 in ip_forward (net/ipv4/ip_forward.c), hop_limit <= 1 in ip6_forward (net/ipv6/ip6_output.c)",
        counters: "IpInHdrErrors or Ip6InHdrErrors (nstat) of the router",
        told: "the packet's source gets ICMP time exceeded; that of an outer packet is this tunnel, which does not pass it on",
        remedy: "give the tunnel a TTL of its own (ip link change DEV type … ttl 64) instead of inheriting the inner packet's; look for a routing loop (traceroute REMOTE)",
        fixes: &[],
        applies: |evidence| {
            (evidence.freed_in_any(&["ip_forward", "ip6_forward", "ip_error"])
                && matches!(evidence.told(), Some((4, 11, 0) | (6, 3, 0))))
            .then_some(Proved)
        },
    },
    Cause {
        id: "no-listener",
        title: "the outer packet arrived at a UDP port that nobody listens on",
        condition: "no socket for the outer destination port, in __udp4_lib_rcv or udp_rcv (net/ipv4/udp.c), __udp6_lib_rcv (net/ipv6/udp.c); of a group's, in their functions for multicast",
        counters: "UdpNoPorts (nstat), none of the tunnel device: it counted success",
        told: "the outer sender gets ICMP port unreachable, which no tunnel passes on to the inner one",
        remedy: "open the port on the receiving host (fou: ip fou add port PORT ipproto NUMBER; vxlan, geneve: a device with this port), or correct the port of the tunnel",
        fixes: &[],
        applies: |evidence| {
            if evidence.key.outer_proto != IPPROTO_UDP || !evidence.freed_in_any(UDP_RECEIVE) {
                return None;
            }
            // A firewall raises the same error, elsewhere.
            let refused = evidence.named_reason().is_none()
                && matches!(evidence.told(), Some((4, 3, 3) | (6, 1, 4)));
            // Of what is for a group nobody is told.
            let ignored = evidence.outer_to_group()
                && evidence.by_kfree()
                && evidence.named_reason().is_none()
                && evidence.told().is_none();
            if ignored {
                return Some(Inferred);
            }
            if !refused && !evidence.reason_is("NO_SOCKET") {
                return None;
            }
            // One that is up has a socket, which is somewhere else.
            let listens = |device: &Arc<Device>| device.up && device.port.is_some();
            Some(match evidence.receivers.iter().any(listens) {
                true => Inferred,
                false => Proved,
            })
        },
    },
    Cause {
        id: "no-reader",
        title: "the packet waited for a program to read it from the socket, which has no room for more: the tunnel knows no session or context with its number, or the program is slow",
        condition: "l2tp_udp_encap_recv or gtp_encap_recv passes it up, and the receive buffer is full, in __udp_enqueue_schedule_skb (net/ipv4/udp.c)",
        counters: "UdpRcvbufErrors or Udp6RcvbufErrors (nstat)",
        told: "no",
        remedy: "compare the numbers on both ends (ip l2tp show session; the contexts of gtp); ss -uanp shows the socket, and who should read it",
        fixes: &[],
        applies: |evidence| {
            (evidence.by_kfree()
                && evidence.key.outer_proto == IPPROTO_UDP
                && !evidence.saw(seen::DECAPSULATED)
                && evidence.freed_in_any(UDP_RECEIVE)
                && (evidence.reason_is("SOCKET_RCVBUFF")
                    || (evidence.named_reason().is_none()
                        && evidence.told().is_none()
                        && evidence.saw(seen::TUNNEL_RECEIVE))))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "udp-checksum",
        title: "the outer packet's UDP checksum is wrong, or missing over IPv6",
        condition: "udp_lib_checksum_complete, or a zero checksum of IPv6 on a socket that does not take it: __udp4_lib_rcv (net/ipv4/udp.c), __udp6_lib_rcv (net/ipv6/udp.c)",
        counters: "UdpInErrors, UdpInCsumErrors (Udp6…) (nstat)",
        told: "no",
        remedy: "over IPv6: udp6zerocsumrx on the receiving device or udp6zerocsumtx off on the sending one; otherwise look for a faulty offload (ethtool -K LINK tx off)",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("UDP_CSUM") {
                return Some(Proved);
            }
            // Further in it can be a policy of IPsec or a filter as well.
            (evidence.named_reason().is_none()
                && evidence.key.outer_proto == IPPROTO_UDP
                && evidence.received()
                && evidence.told().is_none()
                && evidence.freed_in_any(&["udpv6_rcv", "__udp6_lib_rcv"]))
            .then_some(Inferred)
        },
    },
];
