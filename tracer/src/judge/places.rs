//! Which frees are drops on a packet's way, and which only its end.
//!
//! What arrives is freed too: a ping's answer by `icmp_rcv`, with a drop reason
//! even. A packet out of its encapsulation has vanished only where the network
//! layer freed it; one still encapsulated, unless it was a copy for a tap. And
//! where everybody gets everything (bridges, overlays that flood), most get
//! what is for others.

use tracer_common::{
    flow::{ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, is_networks},
    tally::{freed_by, outcome, seen},
};

use super::evidence::Evidence;
use crate::probes::kinds::KINDS;

/// Functions of the network layer and below that free what they drop; what the
/// compiler makes of them (`.isra.0` …) counts as well.
const ON_THE_WAY: &[&str] = &[
    // Receiving: net/core/dev.c, net/core/gro_cells.c.
    "do_xdp_generic",
    "netif_receive_generic_xdp",
    "bpf_prog_run_generic_xdp",
    "__netif_receive_skb_core",
    "enqueue_to_backlog",
    "gro_cells_receive",
    "netif_rx_internal",
    // net/8021q/vlan_core.c.
    "vlan_do_receive",
    // net/ipv4/ip_input.c, route.c, ip_forward.c.
    "ip_rcv_core",
    "ip_rcv_finish_core",
    "ip_rcv_finish",
    "ip_rcv",
    "ip_error",
    "ip_forward",
    "ip_protocol_deliver_rcu",
    // net/ipv6/ip6_input.c, route.c, ip6_output.c.
    "ip6_rcv_core",
    "ip6_rcv_finish_core",
    "ipv6_rcv",
    "ip6_forward",
    "ip6_pkt_drop",
    "ip6_pkt_discard",
    "ip6_protocol_deliver_rcu",
    "ip6_input",
    // Fragments: net/ipv4/ip_fragment.c, net/ipv6/reassembly.c.
    "ip_expire",
    "ip6_frag_expire",
    "ip6frag_expire_frag_queue",
    "nf_ct_frag6_expire",
    // Extension headers: net/ipv6/exthdrs.c.
    "ipv6_rthdr_rcv",
    "ipv6_srh_rcv",
    "ipv6_destopt_rcv",
    "ip6_parse_tlv",
    "ip6_tlvopt_unknown",
    // net/mpls/af_mpls.c.
    "mpls_forward",
    // A bridge's port: net/bridge/br_input.c, br_vlan.c. What it floods to no other
    // port is left out before (`for_others`).
    "br_handle_frame",
    "br_handle_frame_finish",
    "br_allowed_ingress",
    "__allowed_ingress",
    // Its way out by another port: net/bridge/br_forward.c.
    "br_dev_queue_push_xmit",
    // Netfilter, IPsec.
    "nf_hook_slow",
    "nf_queue",
    "nf_reinject",
    "nfqnl_reinject",
    "nfqnl_flush",
    "xfrm_input",
    "xfrm_output_resume",
    // Sending: neighbours, queues, devices.
    "neigh_invalidate",
    "arp_error_report",
    "ndisc_error_report",
    "__neigh_event_send",
    "neigh_resolve_output",
    "neigh_connected_output",
    "neigh_flush_dev",
    "neigh_destroy",
    "ip_finish_output2",
    "ip6_finish_output2",
    "ip_fragment",
    "ip_do_fragment",
    "ip6_fragment",
    "dst_discard",
    "dst_discard_out",
    "__dev_queue_xmit",
    "sch_direct_xmit",
    "__dev_forward_skb",
    "__dev_forward_skb2",
    "dev_forward_skb",
    "kfree_skb_list",
    "kfree_skb_list_reason",
    "__tcf_kfree_skb_list",
    "qdisc_reset_queue",
    "qdisc_reset",
    "pfifo_fast_reset",
    "__rtnl_unlock",
    "rtnl_unlock",
    // The receive side of tunnels.
    "tunnel4_rcv",
    "tunnel64_rcv",
    "tunnel6_rcv",
    "tunnel46_rcv",
    "gre_rcv",
    "ip_tunnel_rcv",
    "__ip6_tnl_rcv",
    "ip6_tnl_rcv",
    "ipip6_rcv",
    "sit_tunnel_rcv",
    "ipip_tunnel_rcv",
    "ipxip6_rcv",
    "vxlan_rcv",
    "vxlan_xmit_one",
    "geneve_udp_encap_recv",
    "l2tp_recv_common",
    "l2tp_ip_recv",
    "l2tp_ip6_recv",
    "l2tp_udp_encap_recv",
    "bareudp_udp_encap_recv",
    "amt_rcv",
    "wg_packet_rx_poll",
    "wg_packet_purge_staged_packets",
];

/// Reasons that say the same without a place.
const ON_THE_WAY_BY_REASON: &[&str] = &[
    "NETFILTER_DROP",
    "IP_RPFILTER",
    "IP_LOCAL_SOURCE",
    "IP_INVALID_SOURCE",
    "IP_LOCALNET",
    "IP_INADDRERRORS",
    "IP_INNOROUTES",
    "IP_INHDR",
    "IPV6DISABLED",
    "XFRM_POLICY",
    "IP_LOCALNET",
    "TC_INGRESS",
    "TC_EGRESS",
    "QDISC_DROP",
    "CPU_BACKLOG",
    "NEIGH_FAILED",
    "NEIGH_QUEUEFULL",
    "NEIGH_DEAD",
    "NEIGH_HH_FILLFAIL",
    "DEV_READY",
    "BPF_CGROUP_EGRESS",
    "XDP",
    "FRAG_REASM_TIMEOUT",
    "FRAG_TOO_FAR",
];

/// Where drivers of network cards free what they have sent, too, without another
/// reason (`dev_kfree_skb_any` of vmxnet3, e100): a drop there cannot be told.
const COMPLETIONS: &[&str] = &[
    "__dev_kfree_skb_any",
    "dev_kfree_skb_any_reason",
    "net_tx_action",
];

/// Copies for taps and raw sockets end here, when nobody has room for them.
const COPIES: &[&str] = &[
    "packet_rcv",
    "tpacket_rcv",
    "packet_rcv_spkt",
    "packet_rcv_fanout",
    "raw_rcv",
    "raw_rcv_skb",
    "rawv6_rcv",
    "rawv6_rcv_skb",
    "skb_release_data",
    "kfree_skb_partial",
];

/// Where fragments are put in order: one that is there already is freed, and one of a
/// packet that is complete. If a packet comes to nothing by it, its queue is given up
/// (`inet_frag_rbtree_purge`).
/// The first of each is mostly inlined into the second.
const SORTING: &[&str] = &[
    "ip_frag_queue",
    "ip_defrag",
    "ip6_frag_queue",
    "ipv6_frag_rcv",
    "nf_ct_frag6_queue",
    "nf_ct_frag6_gather",
];

/// Where a host passes over what is for another MAC address, and where it would route
/// what came to all of them.
const FOR_OTHER_HOSTS: &[&str] = &["ip_rcv_core", "ip_rcv", "ip6_rcv_core", "ipv6_rcv"];

const TO_ALL_HOSTS: &[&str] = &["ip_error", "ip_forward", "ip6_forward"];

/// Where a switch within the host finds nobody to give a copy to.
const FLOODING: &[&str] = &[
    "br_forward",
    "br_flood",
    "br_flood_finish",
    "br_multicast_flood",
    // Which calls these last, and they kfree_skb, so that it seems to do so. It frees
    // what a locked port gets, too.
    "br_handle_frame_finish",
    "ipvlan_process_multicast",
];

/// Was it a copy that this host has no part in, whoever else may have got it?
fn for_others(evidence: &Evidence) -> bool {
    if evidence.reason_is("OTHERHOST")
        || (evidence.saw(seen::OTHER_HOST)
            && evidence.named_reason().is_none()
            && evidence.freed_in_any(FOR_OTHER_HOSTS))
        || (evidence.saw(seen::OTHER_HOST) && evidence.freed_in_any(TO_ALL_HOSTS))
    {
        return true;
    }
    let group6 = evidence.is_ipv6() && evidence.flow().dst[0] == 0xff;
    // What is announced to all, or asked of all (neighbours, duplicate addresses, MLD),
    // where IPv6 is off.
    if evidence.reason_is("IPV6DISABLED") && group6 {
        return true;
    }
    if evidence.saw(seen::OTHER_HOST) {
        let unnamed = evidence.named_reason().is_none();
        // The port that has learned its address is the one by which the copy came, or
        // no other takes it.
        if evidence.reason_is("NO_TX_TARGET") || (unnamed && evidence.freed_in_any(FLOODING)) {
            return true;
        }
        // IP and ARP always have somebody who takes them, but not from the inactive
        // port of a bond or team (RX_HANDLER_EXACT).
        if evidence.reason_is("UNHANDLED_PROTO")
            && matches!(evidence.flow().ethertype, ETH_P_IP | ETH_P_IPV6 | ETH_P_ARP)
        {
            return true;
        }
    }
    // A protocol that nobody here speaks (LLDP).
    if evidence.saw(seen::DECAPSULATED)
        && evidence.flow().ethertype != 0
        && !is_networks(evidence.flow().ethertype)
        && evidence.freed_in("__netif_receive_skb_core")
    {
        return true;
    }
    // A group that is joined, but not for this source.
    if evidence.freed_in("ip6_protocol_deliver_rcu")
        && evidence
            .named_reason()
            .is_none_or(|reason| reason == "IP_INADDRERRORS")
        && group6
    {
        return true;
    }
    // A group that nobody here has joined.
    evidence.named_reason().is_none()
        && !evidence.saw(seen::REVERSE_PATH | seen::SOURCE_REFUSED)
        && (evidence.freed_in("ip6_mc_input")
            || (evidence.to_ipv4_group()
                && evidence.freed_in_any(&["ip_rcv_finish_core", "ip_rcv_finish"])))
}

/// Did a tunnel's transmit function free it, although no frame was open? So it is
/// with the first packets of the first tunnel, before its frames are watched.
fn in_a_driver(evidence: &Evidence) -> bool {
    evidence.by_kfree() && KINDS.iter().any(|kind| evidence.freed_in(kind.xmit))
}

/// Is it a reason of a queueing discipline?
pub fn is_queues(reason: &str) -> bool {
    ["QDISC_", "FQ_", "CAKE_", "DUALPI2_"]
        .iter()
        .any(|queue| reason.starts_with(queue))
}

/// Is a packet of this outcome one that vanished, wherever it was freed? Frames
/// are sure of what they say, and all drops are asked for.
pub fn is_drop_anywhere(of: u8) -> bool {
    !matches!(
        of,
        outcome::AT_DEVICE | outcome::LOST_LATER | outcome::STRAY
    )
}

/// Did the packet vanish here?
pub fn is_drop(evidence: &Evidence) -> bool {
    if is_drop_anywhere(evidence.key.outcome) {
        return true;
    }
    // What came out of one tunnel can be another's packet, which has still to come
    // out of that.
    let wrapped = evidence.key.outcome == outcome::STRAY && evidence.saw(seen::INNER_DECODED);
    let arrived = evidence.key.outcome == outcome::AT_DEVICE
        || (evidence.saw(seen::DECAPSULATED) && !wrapped);
    let sorted = evidence.named_reason().is_none()
        && !evidence.names_duplicates
        && evidence.freed_in_any(SORTING);
    let sent = evidence.named_reason().is_none() && evidence.freed_in_any(COMPLETIONS);
    if evidence.freed_in_any(COPIES)
        || sent
        || for_others(evidence)
        || sorted
        || evidence.reason_is("DUP_FRAG")
    {
        return false;
    }
    !arrived
        || evidence.key.freed_by == freed_by::CONSUME_SKB
        || evidence.freed_in_any(ON_THE_WAY)
        || (evidence.by_kfree() && evidence.freed_by_queue())
        || (evidence.key.outcome == outcome::AT_DEVICE && in_a_driver(evidence))
        || evidence
            .reason
            .as_deref()
            .is_some_and(|reason| ON_THE_WAY_BY_REASON.contains(&reason) || is_queues(reason))
}
