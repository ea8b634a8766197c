//! Causes where the outer packet arrives, is taken out of its encapsulation,
//! and goes on.

use std::{net::Ipv6Addr, sync::Arc};

use tracer_common::{
    flow::{ETH_P_IP, ETH_P_IPV6, Flow, IPPROTO_AH, IPPROTO_ESP, IPPROTO_UDP},
    tally::{
        RX_CRC_ERRORS, RX_DROPPED, RX_ERRORS, RX_FIFO_ERRORS, RX_FRAME_ERRORS, RX_LENGTH_ERRORS,
        freed_by, seen,
    },
};

use super::{
    super::{
        Confidence::{Inferred, Proved},
        evidence::Evidence,
    },
    Cause,
};
use crate::devices::Device;

/// Did a receive function find the tunnel and drop the packet, without a count or a
/// reason? It does for another mode, and where an IPsec policy does not let it in.
fn refused_in_silence(evidence: &Evidence) -> bool {
    evidence.saw(seen::TUNNEL_FOUND)
        && evidence.by_kfree()
        && evidence.named_reason().is_none()
        && !evidence.moved(RX_ERRORS)
        && !evidence.moved(RX_DROPPED)
        && evidence.freed_in_any(&[
            "ipip6_rcv",
            "sit_tunnel_rcv",
            "ipip_tunnel_rcv",
            "ipip_rcv",
            "mplsip_rcv",
            "ipxip6_rcv",
            "ip4ip6_rcv",
            "ip6ip6_rcv",
        ])
}

/// Does the receiving tunnel carry another protocol than the packet's, by its
/// configuration?
fn is_other_mode(evidence: &Evidence) -> bool {
    let device = evidence.device.as_ref();
    let proto = device.and_then(|device| device.proto);
    proto.is_some_and(|proto| proto != evidence.key.outer_proto)
}

/// Where received packets are put in a queue of the CPU's or the device's.
const BACKLOGS: &[&str] = &[
    "enqueue_to_backlog",
    "gro_cells_receive",
    "netif_rx_internal",
];

/// Where what IPsec in transport mode has decrypted is put in a queue.
const TRANSPORT_QUEUES: &[&str] = &[
    "xfrm4_transport_finish",
    "xfrm4_rcv_encap_finish",
    "xfrm4_rcv_encap_finish2",
    "xfrm6_transport_finish",
    "xfrm6_transport_finish2",
];

/// Where L2TP over IP looks its session up.
const L2TP_OVER_IP: &[&str] = &["l2tp_ip_recv", "l2tp_ip6_recv"];

/// Functions that look at what a tunnel's packet has to have: its counters tell of
/// other packets, too, that another CPU receives meanwhile.
const CHECKS: &[&str] = &[
    "ip_tunnel_rcv",
    "__ip6_tnl_rcv",
    "ip6_tnl_rcv",
    "gre_rcv",
    "ipgre_rcv",
    "__ipgre_rcv",
    "erspan_rcv",
    "ip6gre_rcv",
    "ip6erspan_rcv",
    "ipip_tunnel_rcv",
    "ipip_rcv",
    "mplsip_rcv",
    "ipip6_rcv",
    "sit_tunnel_rcv",
    "ipxip6_rcv",
    "ip4ip6_rcv",
    "ip6ip6_rcv",
    "vxlan_rcv",
    "geneve_udp_encap_recv",
    "geneve_rx",
    "bareudp_udp_encap_recv",
];

/// Was it freed where such a check failed?
fn in_check(evidence: &Evidence) -> bool {
    evidence.by_kfree() && evidence.freed_in_any(CHECKS)
}

/// Has the IPv6 packet addresses that no packet may have on a link? (`ip6_rcv_core`)
fn may_not_arrive(flow: &Flow) -> bool {
    let (src, dst) = (Ipv6Addr::from(flow.src), Ipv6Addr::from(flow.dst));
    src.is_loopback() || src.is_multicast() || dst.is_loopback() || dst.is_unspecified()
}

/// IPv6 is taken from a device with less (RFC 8200, `IPV6_MIN_MTU`).
const IPV6_MIN_MTU: u32 = 1280;

/// Where a packet that was not put together is given up.
const GIVEN_UP: &[&str] = &[
    "inet_frag_rbtree_purge",
    "ip_expire",
    "ip6_frag_expire",
    "ip6frag_expire_frag_queue",
    "nf_ct_frag6_expire",
];

/// ICMP errors of routes and rules that refuse: prohibit, and IPv4's unreachable.
const REFUSALS: [(u8, u8, u8); 3] = [(4, 3, 13), (4, 3, 1), (6, 1, 1)];

/// May an IPv6 packet with this source be forwarded at all? (`ip6_forward`)
fn is_forwardable(src: &[u8; 16]) -> bool {
    let src = Ipv6Addr::from(*src);
    !src.is_unspecified()
        && !src.is_loopback()
        && !src.is_multicast()
        && !src.is_unicast_link_local()
}

/// The last handler of a tunnel protocol, which frees what nobody wanted.
const LAST_HANDLER: &[&str] = &[
    "tunnel4_rcv",
    "tunnel64_rcv",
    "tunnelmpls4_rcv",
    "tunnel6_rcv",
    "tunnel46_rcv",
    "tunnelmpls6_rcv",
    "gre_rcv",
];

pub const CAUSES: &[Cause] = &[
    Cause {
        id: "source-not-allowed",
        title: "the sender's WireGuard peer may not send from this source address",
        condition: "wg_allowedips_lookup_src gave another peer or none, in wg_packet_consume_data_done (drivers/net/wireguard/receive.c)",
        counters: "rx_errors, rx_frame_errors of the tunnel device",
        told: "no",
        remedy: "add the source to the allowed-ips of that peer on the receiving host (wg set DEV peer KEY allowed-ips …), or send from an address that is there",
        fixes: &[],
        applies: |evidence| {
            (evidence.saw(seen::ALLOWED_SOURCE_CHECKED)
                && evidence.key.freed_by == freed_by::CONSUME_SKB
                && evidence.moved(RX_FRAME_ERRORS))
            .then_some(Proved)
        },
    },
    Cause {
        id: "bad-header",
        title: "the tunnel's header in the packet is not accepted",
        condition: "gre_parse_header refused it (version, flags, checksum; net/ipv4/gre_demux.c), or bits are set that the device is not configured for (vxlan_rcv, drivers/net/vxlan/vxlan_core.c), or the inner protocol or a critical option is not the device's (geneve_rx, geneve_udp_encap_recv, drivers/net/geneve.c)",
        counters: "rx_errors or rx_dropped of geneve; of the others none before 7.2; rx_frame_errors, rx_errors or rx_dropped since",
        told: "no",
        remedy: "the two ends differ in options (gre: csum, key, seq; vxlan: gbp, gpe, remcsum; geneve: innerprotoinherit, options), or the packet was damaged: ip -d link show dev DEV on both",
        fixes: &[],
        applies: |evidence| {
            if evidence.saw(seen::GRE_HEADER_REFUSED) || evidence.reason_is("VXLAN_INVALID_HDR") {
                return Some(Proved);
            }
            // Before the inner frame is looked at, the packet still stands on
            // the underlay's device.
            let in_driver = (evidence.freed_in("vxlan_rcv") && !evidence.freed_on_kind("vxlan"))
                || (evidence.freed_in("geneve_udp_encap_recv")
                    && !evidence.freed_on_kind("geneve"));
            (evidence.named_reason().is_none()
                && evidence.by_kfree()
                && evidence.saw(seen::TUNNEL_FOUND)
                && in_driver)
                .then_some(Inferred)
        },
    },
    Cause {
        id: "vni-unknown",
        title: "the receiving host has no device that is up and takes the packet's VNI (Geneve: from its source)",
        condition: "vxlan_vs_find_vni or geneve_lookup found none for this network, port and source: vxlan_rcv (drivers/net/vxlan/vxlan_core.c), geneve_udp_encap_recv (drivers/net/geneve.c)",
        counters: "none of a device (UdpInDatagrams counts it as delivered); tx_errors of the sending device where both are on this host",
        told: "no",
        remedy: "compare id (VNI), port and, of Geneve, remote of both ends, and that the receiving device is up: ip -d link show type vxlan, ip -d link show type geneve",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("VXLAN_VNI_NOT_FOUND") {
                return Some(Proved);
            }
            (evidence.key.outer_proto == IPPROTO_UDP
                && evidence.saw(seen::TUNNEL_NOT_FOUND)
                && !evidence.saw(seen::TUNNEL_FOUND)
                && evidence.freed_in_any(&["vxlan_rcv", "geneve_udp_encap_recv", "geneve_rx"]))
            .then_some(Proved)
        },
    },
    Cause {
        id: "receive-address-missing",
        title: "the receiving tunnel may not receive: its local address is not configured any more, its remote is this host, or its ends are link-local and it has no device",
        condition: "ip6_tnl_rcv_ctl said no, in ipxip6_rcv (net/ipv6/ip6_tunnel.c)",
        counters: "none",
        told: "no",
        remedy: "configure the address that ip -d link show dev DEV gives as local on the receiving host (not tentative: ip -6 addr)",
        fixes: &[],
        applies: |evidence| {
            evidence
                .saw(seen::RECEIVE_CONTROL_REFUSED)
                .then_some(Proved)
        },
    },
    Cause {
        id: "checksum-missing",
        title: "the receiving tunnel wants checksums, or none, and the packet is otherwise",
        condition: "the packet's checksum flag differs from the tunnel's icsum, in ip_tunnel_rcv (net/ipv4/ip_tunnel.c), __ip6_tnl_rcv (net/ipv6/ip6_tunnel.c)",
        counters: "rx_crc_errors, rx_errors of the receiving device",
        told: "no",
        remedy: "set csum (icsum, ocsum) alike on both ends: ip link change DEV type gre …",
        fixes: &[],
        applies: |evidence| {
            (in_check(evidence) && evidence.moved(RX_CRC_ERRORS) && evidence.moved(RX_ERRORS))
                .then_some(Proved)
        },
    },
    Cause {
        id: "out-of-sequence",
        title: "the receiving tunnel wants sequence numbers, and the packet's is missing or older than one before",
        condition: "iseq is set and the number is behind i_seqno, in ip_tunnel_rcv (net/ipv4/ip_tunnel.c), __ip6_tnl_rcv (net/ipv6/ip6_tunnel.c)",
        counters: "rx_fifo_errors, rx_errors of the receiving device",
        told: "no",
        remedy: "make the tunnel anew on the receiving end after the sender restarted, or set seq (iseq, oseq) alike on both ends; without order on the way it is better off",
        fixes: &[],
        applies: |evidence| {
            (in_check(evidence) && evidence.moved(RX_FIFO_ERRORS) && evidence.moved(RX_ERRORS))
                .then_some(Proved)
        },
    },
    Cause {
        id: "ecn-mismatch",
        title: "the outer packet is marked congested, and the inner one does not take part in ECN",
        condition: "INET_ECN_decapsulate (include/net/inet_ecn.h) is greater than 1: outer CE, inner not-ECT (RFC 6040)",
        counters: "rx_frame_errors, rx_errors of the receiving device",
        told: "no",
        remedy: "a router marks packets that say they take part: look at what sets ECN bits on the outer packet (tos inherit, DSCP rewriting)",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("IP_TUNNEL_ECN") {
                return Some(Proved);
            }
            if evidence.saw(seen::CONGESTED)
                && !evidence.saw(seen::OWN_MAC)
                && evidence.named_reason().is_none()
                && evidence.by_kfree()
                && (evidence.moved(RX_FRAME_ERRORS) || evidence.freed_in_overlay())
            {
                return Some(Proved);
            }
            (evidence.saw(seen::TUNNEL_RECEIVE)
                && in_check(evidence)
                && evidence.moved(RX_FRAME_ERRORS)
                && evidence.moved(RX_ERRORS))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "inner-too-short",
        title: "the packet inside the encapsulation is too short for its header",
        condition: "pskb_may_pull of the inner header failed, in ip_tunnel_rcv (net/ipv4/ip_tunnel.c), __ip6_tnl_rcv (net/ipv6/ip6_tunnel.c), vxlan_rcv",
        counters: "rx_length_errors, rx_errors of the receiving device",
        told: "no",
        remedy: "the packet was cut or damaged, or the two ends differ in what they carry (gre against gretap)",
        fixes: &[],
        applies: |evidence| {
            (evidence.saw(seen::TUNNEL_RECEIVE)
                && in_check(evidence)
                && evidence.moved(RX_LENGTH_ERRORS))
            .then_some(Proved)
        },
    },
    Cause {
        id: "no-matching-tunnel",
        title: "the receiving host has no tunnel that is up for the packet's protocol, addresses and key",
        condition: "the look-up by remote, local, link and key found no tunnel that is up: ip_tunnel_lookup (net/ipv4/ip_tunnel.c), ipip6_tunnel_lookup (net/ipv6/sit.c), ip6_tnl_lookup (net/ipv6/ip6_tunnel.c), ip6gre_tunnel_lookup (net/ipv6/ip6_gre.c)",
        counters: "none of a tunnel device; of the device below rx_dropped since 7.2",
        told: "the outer source gets ICMP port unreachable, which it does not pass on",
        remedy: "compare kind, local, remote and key of both ends, and that the receiving device is up: ip -d link show; of FOU also ipproto: ip fou show",
        fixes: &[],
        applies: |evidence| {
            if evidence.saw(seen::TUNNEL_FOUND) {
                return None;
            }
            let refused = matches!(evidence.told(), Some((4, 3, 3) | (6, 1, 4)));
            if evidence.saw(seen::TUNNEL_NOT_FOUND) && evidence.by_kfree() {
                return Some(Proved);
            }
            (refused && evidence.freed_in_any(LAST_HANDLER)).then_some(Proved)
        },
    },
    Cause {
        id: "mode-mismatch",
        title: "the receiving tunnel is there, but its mode does not carry such packets",
        condition: "the tunnel's proto is another one, in sit_rcv functions (net/ipv6/sit.c ipip6_rcv, sit_tunnel_rcv), ipip_tunnel_rcv (net/ipv4/ipip.c), ipxip6_rcv (net/ipv6/ip6_tunnel.c)",
        counters: "none",
        told: "no",
        remedy: "set the same mode on both ends: ip link change DEV type … mode …",
        fixes: &[],
        applies: |evidence| {
            (refused_in_silence(evidence) && is_other_mode(evidence)).then_some(Inferred)
        },
    },
    Cause {
        id: "spoofed-source",
        title: "an inner address stands for another outer one than the packet's (6to4, ISATAP, 6rd): the source, or where the tunnel has no remote, the destination",
        condition: "packet_is_spoofed, in ipip6_rcv (net/ipv6/sit.c)",
        counters: "rx_errors of the receiving device; 'Src spoofed' or 'Dst spoofed' in the kernel log",
        told: "no",
        remedy: "an inner address of 2002::/16 (or of the 6rd prefix, or of ISATAP) carries the IPv4 address it was made from: compare source with outer source, destination with outer destination; an address translation in between breaks such tunnels",
        fixes: &[],
        applies: |evidence| {
            (evidence.saw(seen::TUNNEL_FOUND)
                && evidence.by_kfree()
                && evidence.freed_in("ipip6_rcv")
                && evidence.moved(RX_ERRORS)
                && !evidence.moved(RX_FRAME_ERRORS)
                && !evidence.saw(seen::CONGESTED))
            .then_some(Proved)
        },
    },
    Cause {
        id: "own-mac",
        title: "the inner frame comes from the MAC address of the receiving device itself",
        condition: "the source of the Ethernet header is dev->dev_addr: vxlan_set_mac (drivers/net/vxlan/vxlan_core.c), geneve_rx (drivers/net/geneve.c)",
        counters: "none for vxlan; rx_errors for geneve",
        told: "no",
        remedy: "give the two ends different MAC addresses (ip link set dev DEV address …): cloned machines and fixed configurations share them",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("LOCAL_MAC") {
                return Some(Proved);
            }
            (evidence.saw(seen::OWN_MAC)
                && evidence.named_reason().is_none()
                && evidence.by_kfree()
                && evidence.freed_in_overlay())
            .then_some(Proved)
        },
    },
    Cause {
        id: "handed-back",
        title: "vxlan's remote is this host: the frame was handed back at once, with the route of its way out, which discards what comes in",
        condition: "encap_bypass_if_local (drivers/net/vxlan/vxlan_core.c) gives the frame to the receiving device without encapsulation; ip_rcv_finish (net/ipv4/ip_input.c) takes the route that it still has, whose input is dst_discard (net/core/dst.c)",
        counters: "none: the sending device counts success",
        told: "no",
        remedy: "use a remote that is another host's (bridge fdb show dev DEV, ip -d link show dev DEV), or separate the two devices by network namespaces",
        fixes: &[],
        applies: |evidence| {
            (evidence.by_kfree()
                && evidence.named_reason().is_none()
                && evidence.received()
                && evidence.freed_on_kind("vxlan")
                && evidence.freed_in("dst_discard"))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "fdb-entry-static",
        title: "the receiving vxlan device has the inner frame's source MAC address as an entry with another remote that must not change",
        condition: "an entry of the forwarding database that is permanent, static or a next-hop group, in vxlan_snoop (drivers/net/vxlan/vxlan_core.c)",
        counters: "none",
        told: "no",
        remedy: "correct or remove the entry on the receiving host (bridge fdb show dev DEV); it names the remote that the address may come from",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("VXLAN_ENTRY_EXISTS") {
                return Some(Proved);
            }
            // Before the reasons had names (6.12): what vxlan_rcv drops without
            // counting it, once the frame is out of its encapsulation, and is not
            // the device's own address.
            (evidence.named_reason().is_none()
                && evidence.by_kfree()
                && evidence.freed_in("vxlan_rcv")
                && evidence.freed_on_kind("vxlan")
                && !evidence.saw(seen::OWN_MAC | seen::CONGESTED | seen::NO_SOURCE_MAC))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "bad-source-mac",
        title: "the inner frame's source MAC address is none that a device can have: zero, or a group's",
        condition: "is_valid_ether_addr is false of the source, in vxlan_set_mac (drivers/net/vxlan/vxlan_core.c), br_handle_frame (net/bridge/br_input.c)",
        counters: "none",
        told: "no",
        remedy: "see what sends such frames into the tunnel on the other end (tracer record, tracer report --pcapng)",
        fixes: &[],
        applies: |evidence| {
            (evidence.reason_is("MAC_INVALID_SOURCE")
                || (evidence.saw(seen::NO_SOURCE_MAC)
                    && evidence.named_reason().is_none()
                    && evidence.by_kfree()
                    && (evidence.freed_in_overlay() || evidence.freed_in("br_handle_frame"))))
            .then_some(Proved)
        },
    },
    Cause {
        id: "cookie-mismatch",
        title: "L2TP did not accept the packet: another cookie than the session's, or out of sequence",
        condition: "the peer cookie differs (rx_cookie_discards), or the sequence number does, in l2tp_recv_common (net/l2tp/l2tp_core.c)",
        counters: "rx_cookie_discards or rx_seq_discards, rx_errors of the session (ip l2tp show session)",
        told: "no",
        remedy: "cookie and peer_cookie have to be crossed on the two ends: ip l2tp show session on both",
        fixes: &[],
        applies: |evidence| {
            // kfree_skb is the last that it calls, so that its caller seems to do it.
            (evidence.freed_in_any(&["l2tp_recv_common", "l2tp_udp_encap_recv"])
                || (evidence.by_kfree()
                    && evidence.saw(seen::TUNNEL_RECEIVE)
                    && evidence.freed_in_any(L2TP_OVER_IP)))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "ipsec-input",
        title: "IPsec did not accept the packet: no state for it, a wrong key, a replay or a policy",
        condition: "an error in xfrm_input (net/xfrm/xfrm_input.c); or xfrm4_policy_check, xfrm6_policy_check are false in the receive function of a tunnel or a socket",
        counters: "the counter in /proc/net/xfrm_stat that moved tells which: XfrmInNoStates, XfrmInStateProtoError (wrong key), XfrmInStateSeqError (replay), XfrmInStateMismatch",
        told: "no",
        remedy: "compare /proc/net/xfrm_stat before and after, then ip xfrm state (SPI, keys, addresses) of both ends",
        fixes: &[],
        applies: |evidence| {
            // Where the tunnel's mode is the packet's, the policy check is what is
            // left.
            if refused_in_silence(evidence) && !is_other_mode(evidence) {
                // Which sit's own does not have.
                let asked = evidence.device.is_some() && !evidence.freed_in("ipip6_rcv");
                return asked.then_some(Inferred);
            }
            ((evidence.reason_is("XFRM_POLICY")
                && !evidence.freed_in_any(&["ip_forward", "ip6_forward"]))
                || evidence.freed_in_any(&["xfrm_input", "xfrm_rcv_spi", "xfrm4_rcv_encap"])
                || (evidence.received()
                    && matches!(evidence.key.outer_proto, IPPROTO_ESP | IPPROTO_AH)
                    && evidence.freed_in_any(&[
                        "xfrm4_esp_rcv",
                        "xfrm6_esp_rcv",
                        "xfrm4_ah_rcv",
                        "xfrm6_ah_rcv",
                        "xfrm6_rcv_spi",
                        "xfrm6_rcv_tnl",
                    ])))
            .then_some(Proved)
        },
    },
    Cause {
        id: "ipsec-forward",
        title: "an IPsec policy of the host that forwards the packet does not let it by: not in (direction fwd), or not out (direction out: blocked, or no state for it)",
        condition: "xfrm4_policy_check(XFRM_POLICY_FWD) or xfrm4_route_forward is false, in ip_forward (net/ipv4/ip_forward.c); likewise ip6_forward (net/ipv6/ip6_output.c)",
        counters: "the counter in /proc/net/xfrm_stat that moved tells which: XfrmIn… or XfrmFwdHdrError of the way in, XfrmOutNoStates, XfrmOutPolBlock of the way out",
        told: "no",
        remedy: "on the host that forwards: compare /proc/net/xfrm_stat before and after; ip xfrm policy (dir fwd, dir out), ip xfrm state",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("XFRM_POLICY")
                && evidence.freed_in_any(&["ip_forward", "ip6_forward"])
            {
                return Some(Proved);
            }
            // Before the reasons (5.17) what is left of those that nobody is told of.
            (evidence.reason.is_none()
                && evidence.by_kfree()
                && evidence.errors_watched
                && evidence.told().is_none()
                && evidence.freed_in("ip_forward"))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "reverse-path-filter",
        title: "the reverse path to the packet's source leads elsewhere (rp_filter)",
        condition: "fib_validate_source answers -EXDEV, in ip_rcv_finish_core (net/ipv4/ip_input.c)",
        counters: "TcpExtIPReversePathFilter (nstat)",
        told: "no",
        remedy: "add a route to the source by the device the packet came from, or loosen it: sysctl net.ipv4.conf.DEV.rp_filter=2 (the larger of all and DEV counts)",
        fixes: &[],
        applies: |evidence| {
            (evidence.reason_is("IP_RPFILTER")
                || (evidence.saw(seen::REVERSE_PATH)
                    && evidence.freed_in_any(&["ip_rcv_finish_core", "ip_rcv_finish"])))
            .then_some(Proved)
        },
    },
    Cause {
        id: "martian-source",
        title: "the packet's source is an address of the receiving host, or none that may arrive by this device (martian)",
        condition: "ip_mc_validate_source or fib_validate_source refused the source, in ip_route_input_slow (net/ipv4/route.c); a loopback address on a link, or a group as source, in ip6_rcv_core (net/ipv6/ip6_input.c)",
        counters: "in_martian_src (/proc/net/stat/rt_cache); the kernel log with net.ipv4.conf.all.log_martians=1",
        told: "no",
        remedy: "the sender uses an address that the receiver has itself: find it with ip addr on both; net.ipv4.conf.DEV.accept_local=1 lets it in",
        fixes: &[],
        applies: |evidence| {
            let there = evidence.freed_in_any(&["ip_rcv_finish_core", "ip_rcv_finish"]);
            if matches!(
                evidence.reason.as_deref(),
                Some("IP_LOCAL_SOURCE" | "IP_INVALID_SOURCE")
            ) || (evidence.reason_is("IP_LOCALNET") && evidence.flow().src[0] == 127)
                || (there && evidence.saw(seen::SOURCE_REFUSED))
            {
                return Some(Proved);
            }
            let flow = evidence.flow();
            // IPv6 looks at addresses together with the header, and has one reason.
            if evidence.freed_in_any(&["ip6_rcv_core", "ipv6_rcv"])
                && evidence.by_kfree()
                && evidence.saw(seen::TUNNEL_RECEIVE | seen::DECAPSULATED)
                && flow.ethertype == ETH_P_IPV6
                && evidence
                    .named_reason()
                    .is_none_or(|reason| reason == "IP_INHDR")
                && may_not_arrive(flow)
            {
                return Some(Inferred);
            }
            if there
                && evidence.named_reason().is_none()
                && flow.ethertype == ETH_P_IP
                && matches!(flow.src[0], 0 | 127 | 224..)
            {
                return Some(Inferred);
            }
            // Where the other refusals have names, this is what is left, beside
            // a group that nobody has joined.
            (there
                && evidence.reason_is("NOT_SPECIFIED")
                && evidence.names_reverse_path
                && !evidence.names_local_source
                && !evidence.to_ipv4_group()
                && !matches!(flow.dst[0], 0 | 127))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "ip-options",
        title: "the packet has IP options that the receiving host does not accept: source routing is off there, or they are malformed",
        condition: "ip_rcv_options refuses, in ip_rcv_finish_core (net/ipv4/ip_input.c)",
        counters: "IpInHdrErrors of malformed ones; otherwise none (nstat)",
        told: "of malformed ones: ICMP parameter problem",
        remedy: "do not send it with options (ping with hops on its command line does), or sysctl -w net.ipv4.conf.all.accept_source_route=1 and that of the device",
        fixes: &[],
        applies: |evidence| {
            // Where the other refusals have names, this is what is left.
            (evidence.reason_is("NOT_SPECIFIED")
                && evidence.names_local_source
                && !evidence.to_ipv4_group()
                && evidence.freed_in_any(&["ip_rcv_finish_core", "ip_rcv_finish"]))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "forwarding-off",
        title: "the packet is for another host, and this one does not forward",
        condition: "no local address and net.ipv4.ip_forward (net.ipv6.conf.all.forwarding) is 0: ip_error (net/ipv4/route.c), ip6_forward (net/ipv6/ip6_output.c)",
        counters: "IpInAddrErrors (nstat)",
        told: "no",
        remedy: "sysctl -w net.ipv4.ip_forward=1 (net.ipv6.conf.all.forwarding=1) on the receiving host, or correct the destination",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("IP_INADDRERRORS") && evidence.told().is_none() {
                // IPv6 has this reason for sources that are not forwarded, too.
                let forwarded = is_forwardable(&evidence.flow().src);
                if evidence.freed_in("ip_error") || (evidence.freed_in("ip6_forward") && forwarded)
                {
                    return Some(Proved);
                }
            }
            (evidence.named_reason().is_none()
                && evidence.told().is_none()
                && ((evidence.freed_in("ip_error") && evidence.forwards(false) == Some(false))
                    || (evidence.freed_in("ip6_forward")
                        && evidence.forwards(true) == Some(false))))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "forward-refused",
        title: "routing where the packet arrived refuses its destination: a route or rule of type blackhole, prohibit or unreachable; or, where too many ICMP errors were sent already, there is no route",
        condition: "the look-up on input answers EINVAL (blackhole), EACCES (prohibit) or EHOSTUNREACH (unreachable): ip_error (net/ipv4/route.c), ip6_pkt_prohibit (net/ipv6/route.c); IPv6's blackhole has dst_discard (net/core/dst.c) as input",
        counters: "Ip6InNoRoutes (nstat) of IPv6's prohibit; otherwise none",
        told: "of a blackhole no; of prohibit and unreachable yes, as far as the rate of ICMP errors is not exceeded: administratively prohibited, host unreachable",
        remedy: "find it on the receiving host: ip route get DESTINATION from SOURCE iif DEV; ip rule, ip route show table all type blackhole (unreachable, prohibit)",
        fixes: &[],
        applies: |evidence| {
            let there = evidence.freed_in_any(&["ip_error", "ip6_pkt_drop", "ip6_pkt_prohibit"]);
            if there && evidence.told().is_some_and(|told| REFUSALS.contains(&told)) {
                return Some(Proved);
            }
            if evidence.named_reason().is_some() || evidence.told().is_some() {
                return None;
            }
            let blackhole6 = evidence.is_ipv6()
                && evidence.saw(seen::DECAPSULATED)
                && evidence.freed_in_any(&["dst_discard", "dst_discard_out"]);
            (blackhole6
                || (evidence.errors_watched
                    && evidence.freed_in("ip_error")
                    && evidence.forwards(false) == Some(true)))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "ipv6-disabled",
        title: "the device that receives the packet has no IPv6",
        condition: "disable_ipv6 of the device, or an MTU below 1280, in ip6_rcv_core (net/ipv6/ip6_input.c)",
        counters: "Ip6InDiscards (nstat)",
        told: "no",
        remedy: "on the receiving host: sysctl -w net.ipv6.conf.DEV.disable_ipv6=0; an MTU of at least 1280 (ip link show dev DEV)",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("IPV6DISABLED") {
                return Some(Proved);
            }
            let has_none = |device: &Arc<Device>| {
                device.ipv6_disabled == Some(true)
                    || (device.ipv6_disabled.is_none() && (1..IPV6_MIN_MTU).contains(&device.mtu))
            };
            (evidence.named_reason().is_none()
                && evidence.by_kfree()
                && evidence.freed_in_any(&["ip6_rcv_core", "ipv6_rcv"])
                && evidence.freed_device.as_ref().is_some_and(has_none))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "bad-inner-header",
        title: "what came out of the encapsulation has no valid IP header: the two ends differ in what they put into it, or it was damaged",
        condition: "version, length or checksum of the header, in ip_rcv_core (net/ipv4/ip_input.c), ip6_rcv_core (net/ipv6/ip6_input.c)",
        counters: "IpInHdrErrors, IpExtInCsumErrors, Ip6InHdrErrors (nstat)",
        told: "no",
        remedy: "compare the encapsulation of both ends (ip -d link show; ip fou show): fou against gue, another protocol at the port; see the bytes: tracer record, tracer report --pcapng",
        fixes: &[],
        applies: |evidence| {
            let header = ["IP_INHDR", "IP_CSUM", "PKT_TOO_SMALL"];
            if !evidence.by_kfree()
                || !evidence.saw(seen::TUNNEL_RECEIVE | seen::DECAPSULATED)
                || !evidence.freed_in_any(&["ip_rcv_core", "ip_rcv", "ip6_rcv_core", "ipv6_rcv"])
            {
                return None;
            }
            if header.iter().any(|name| evidence.reason_is(name)) {
                // IPv6 has them for addresses that may not be there, too.
                let ipv4 = evidence.freed_in_any(&["ip_rcv_core", "ip_rcv"]);
                return Some(if ipv4 { Proved } else { Inferred });
            }
            // Before the reasons (5.17) what is left, beside what is for others.
            (evidence.reason.is_none() && evidence.freed_in("ip_rcv_core")).then_some(Inferred)
        },
    },
    Cause {
        id: "routing-header-refused",
        title: "the inner packet has a routing header that the receiving host does not accept: segment routing or source routing is off, or it is malformed",
        condition: "ipv6_srh_rcv, ipv6_rthdr_rcv (net/ipv6/exthdrs.c)",
        counters: "Ip6InHdrErrors, Ip6InDiscards, by what is wrong (nstat)",
        told: "no; of a malformed one ICMPv6 parameter problem",
        remedy: "sysctl -w net.ipv6.conf.DEV.seg6_enabled=1 (and all), or accept_source_route; or do not send it there",
        fixes: &[],
        applies: |evidence| {
            (evidence.by_kfree() && evidence.freed_in_any(&["ipv6_rthdr_rcv", "ipv6_srh_rcv"]))
                .then_some(Inferred)
        },
    },
    Cause {
        id: "no-session",
        title: "the receiving host has no L2TP session with the packet's number",
        condition: "no session, or no socket for the tunnel, in l2tp_ip_recv (net/l2tp/l2tp_ip.c), l2tp_ip6_recv (net/l2tp/l2tp_ip6.c)",
        counters: "none",
        told: "no",
        remedy: "session_id and peer_session_id have to be crossed on the two ends: ip l2tp show session on both",
        fixes: &[],
        applies: |evidence| {
            (evidence.by_kfree() && evidence.freed_in_any(L2TP_OVER_IP)).then_some(Inferred)
        },
    },
    Cause {
        id: "forward-no-route",
        title: "where the packet arrived there is no route to its destination, or a rule of type unreachable (for IPv6: or such a route)",
        condition: "fib_lookup failed on input with ENETUNREACH, which rules of type unreachable answer, too: ip_error (net/ipv4/route.c), ip6_pkt_discard (net/ipv6/route.c)",
        counters: "IpExtInNoRoutes, Ip6InNoRoutes (nstat)",
        told: "yes: ICMP destination unreachable",
        remedy: "on the receiving host: ip route get DESTINATION from SOURCE iif DEV; ip rule; add a route to the destination",
        fixes: &[],
        applies: |evidence| {
            let there = evidence.freed_in_any(&["ip_error", "ip6_pkt_drop", "ip6_pkt_discard"]);
            if there && matches!(evidence.told(), Some((4, 3, 0) | (6, 1, 0))) {
                return Some(Proved);
            }
            // IPv6 has this reason for a prohibit, too, which is told apart by the
            // ICMP error only.
            evidence.reason_is("IP_INNOROUTES").then(|| {
                if evidence.freed_in("ip_error") {
                    Proved
                } else {
                    Inferred
                }
            })
        },
    },
    Cause {
        id: "mpls-not-forwarded",
        title: "MPLS does not take the packet: not enabled on the tunnel device, no route for its label, its TTL ran out, or the next link is too small for it or down",
        condition: "net.mpls.conf.DEV.input is 0, or the label has no route or one that goes nowhere, or mpls_pkt_too_big or mpls_output_possible says no of the next device, in mpls_forward (net/mpls/af_mpls.c)",
        counters: "rx_dropped, rx_errors or rx_noroute of MPLS on the device, tx_errors of MPLS on the next one (ip -s -f mpls link)",
        told: "no",
        remedy: "on the receiving host: sysctl net.mpls.conf.DEV.input, net.mpls.platform_labels, ip -f mpls route; ip link show dev of the next device (MTU, state)",
        fixes: &[],
        applies: |evidence| {
            (evidence.by_kfree() && evidence.freed_in("mpls_forward")).then_some(Inferred)
        },
    },
    Cause {
        id: "bridge-port",
        title: "the bridge does not take the packet: its port's state, lock or VLANs, or a rule (nft bridge, ebtables)",
        condition: "the port is not in the state forwarding or learning, is locked, or does not have the packet's VLAN, or a rule of the family bridge drops it (nf_hook_bridge_pre): br_handle_frame, br_handle_frame_finish (net/bridge/br_input.c), br_allowed_ingress (net/bridge/br_vlan.c)",
        counters: "none; for VLANs those of ip -s link xstats type bridge, with vlan_stats_enabled",
        told: "no",
        remedy: "on the receiving host: bridge -d link show dev DEV (state, locked), bridge vlan show dev DEV, nft list ruleset bridge",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("BRIDGE_INGRESS_STP_STATE") {
                return Some(Proved);
            }
            (evidence.by_kfree()
                && evidence.freed_in_any(&[
                    "br_handle_frame",
                    "br_handle_frame_finish",
                    "br_allowed_ingress",
                    "__allowed_ingress",
                ]))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "reassembly-failed",
        title: "fragments could not be put together: others are missing, came too late or too many at a time, or there was no room for them",
        condition: "the queue of the fragments was given up: time is up (ipfrag_time), fragments overlap, too many packets of the source in between (ipfrag_max_dist), or no memory (ipfrag_high_thresh): inet_frag_rbtree_purge (net/ipv4/inet_fragment.c), ip_expire (net/ipv4/ip_fragment.c), ip6_frag_expire (net/ipv6/reassembly.c)",
        counters: "ReasmFails, ReasmTimeout of IP (nstat)",
        told: "at the end of the time, the source of the fragments gets ICMP time exceeded, if the first fragment is there",
        remedy: "let tunnels not fragment: a smaller MTU of the tunnel device; where fragments are lost on their way, tracer there shows it; sysctl net.ipv4.ipfrag_max_dist, net.ipv4.ipfrag_high_thresh",
        fixes: &[],
        applies: |evidence| {
            let named = ["FRAG_REASM_TIMEOUT", "FRAG_TOO_FAR"]
                .iter()
                .any(|name| evidence.reason_is(name));
            if named || (evidence.by_kfree() && evidence.freed_in_any(GIVEN_UP)) {
                return Some(Proved);
            }
            // There was no room for its queue.
            (evidence.by_kfree()
                && evidence.named_reason().is_none()
                && evidence.names_duplicates
                && evidence.freed_in_any(&["ip_defrag", "ipv6_frag_rcv"]))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "xdp-drop",
        title: "an XDP program on the device dropped the packet",
        condition: "XDP_DROP, in do_xdp_generic (net/core/dev.c), veth_xdp_rcv_skb (drivers/net/veth.c); or another action that failed",
        counters: "those of the program",
        told: "no",
        remedy: "see what is attached: ip -d link show dev DEV, bpftool net show dev DEV",
        fixes: &[],
        applies: |evidence| {
            (evidence.by_kfree()
                && (evidence.reason_is("XDP")
                    || (evidence.named_reason().is_none()
                        && evidence.freed_in_any(&[
                            "do_xdp_generic",
                            "netif_receive_generic_xdp",
                            "bpf_prog_run_generic_xdp",
                            "veth_xdp_rcv_skb",
                        ]))))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "device-down",
        title: "the device by which the packet comes in is down",
        condition: "the device is not running, in enqueue_to_backlog (net/core/dev.c), or not up, in gro_cells_receive (net/core/gro_cells.c); the VLAN's device is not up, in vlan_do_receive (net/8021q/vlan_core.c)",
        counters: "rx_dropped of the device",
        told: "no",
        remedy: "set it up on the receiving host: ip link set dev DEV up",
        fixes: &[],
        applies: |evidence| {
            if evidence.by_kfree() && evidence.freed_in("vlan_do_receive") {
                return Some(Proved);
            }
            if !evidence.by_kfree() || !evidence.freed_in_any(BACKLOGS) {
                return None;
            }
            if evidence.reason_is("DEV_READY") {
                return Some(Proved);
            }
            if evidence.named_reason().is_some() {
                return None;
            }
            // What a full queue refuses is freed in the same place, by its own reason.
            if evidence.names_backlog && evidence.freed_in("enqueue_to_backlog") {
                return Some(Proved);
            }
            let is_down = |device: &Arc<Device>| !device.up;
            evidence
                .freed_device
                .as_ref()
                .is_some_and(is_down)
                .then_some(Inferred)
        },
    },
    Cause {
        id: "backlog-full",
        title: "too many received packets wait to be processed",
        condition: "a queue longer than net.core.netdev_max_backlog, in enqueue_to_backlog (net/core/dev.c), gro_cells_receive (net/core/gro_cells.c); for what IPsec in transport mode has decrypted, xfrm_trans_queue, called by xfrm4_transport_finish (net/ipv4/xfrm4_input.c), xfrm6_transport_finish (net/ipv6/xfrm6_input.c)",
        counters: "rx_dropped of the tunnel device; dropped in /proc/net/softnet_stat; of IPsec's queue none",
        told: "no",
        remedy: "raise net.core.netdev_max_backlog, spread the load over CPUs (RPS), or find what keeps the softirq busy",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("CPU_BACKLOG") {
                return Some(Proved);
            }
            (evidence.by_kfree()
                && evidence.named_reason().is_none()
                && (evidence.freed_in_any(BACKLOGS) || evidence.freed_in_any(TRANSPORT_QUEUES)))
            .then_some(Inferred)
        },
    },
];
