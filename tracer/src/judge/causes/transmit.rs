//! Causes in the tunnel's driver, before the outer packet is handed to IP.

use tracer_common::tally::{
    COLLISIONS, TX_CARRIER_ERRORS, TX_DROPPED, TX_ERRORS, TX_FIFO_ERRORS, outcome, route, seen,
};

use super::{
    super::{
        Confidence,
        Confidence::{Inferred, Proved},
        evidence::Evidence,
    },
    Cause,
};

const RTN_UNICAST: u8 = 1;
const ICMPV6_PARAMPROB: u8 = 4;
const EPERM: u16 = 1;
const EACCES: u16 = 13;
const EINVAL: u16 = 22;
const ENETUNREACH: u16 = 101;
const EHOSTUNREACH: u16 = 113;

pub const CAUSES: &[Cause] = &[
    Cause {
        id: "recursion-limit",
        title: "tunnels are routed into one another, until the kernel stops it",
        condition: "dev_recursion_level() > IP_TUNNEL_RECURSION_LIMIT in iptunnel_xmit (net/ipv4/ip_tunnel_core.c), or XMIT_RECURSION_LIMIT in __dev_queue_xmit (net/core/dev.c)",
        counters: "tx_errors, or tx_dropped on older kernels, of one of the devices; 'Dead loop on virtual device' in the kernel log",
        told: "no",
        remedy: "route each tunnel's remote by the underlay (see: ip route get REMOTE), not by another tunnel whose remote is behind this one",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("RECURSION_LIMIT") {
                return Some(Proved);
            }
            (evidence.repeats()
                && evidence.by_kfree()
                && evidence.named_reason().is_none()
                && evidence.key.route_errno == 0
                && evidence.told().is_none()
                && !evidence.routed_to_itself())
            .then_some(Inferred)
        },
    },
    Cause {
        id: "loop-to-itself",
        title: "the route to the tunnel's remote leads back into the tunnel",
        condition: "rt->dst.dev == dev, in ipip6_tunnel_xmit (net/ipv6/sit.c), ip_tunnel_xmit (net/ipv4/ip_tunnel.c), ip6_tnl_xmit (net/ipv6/ip6_tunnel.c)",
        counters: "collisions, tx_errors of the tunnel device",
        told: "no",
        remedy: "route the remote by the underlay: ip route add REMOTE via GATEWAY dev UNDERLAY (see: ip route get REMOTE)",
        fixes: &[],
        applies: |evidence| {
            (evidence.in_driver() && evidence.routed_to_itself() && evidence.key.route_errno == 0)
                .then(|| grade(evidence, evidence.moved(COLLISIONS)))
        },
    },
    Cause {
        id: "packet-too-big",
        title: "the packet is larger than the path through the tunnel carries",
        condition: "skb->len > mtu with DF wanted, in ipip6_tunnel_xmit (net/ipv6/sit.c), tnl_update_pmtu (net/ipv4/ip_tunnel.c), ip6_tnl_xmit (net/ipv6/ip6_tunnel.c); or, of the device's own MTU, ip6_forward, ip_fragment on the way to it",
        counters: "tx_errors of the tunnel device",
        told: "yes: ICMPv6 packet too big, or ICMP fragmentation needed",
        remedy: "let the ICMP error reach the sender, or lower the MTU of the tunnel or the MSS (ip link set DEV mtu N)",
        fixes: &[],
        applies: |evidence| {
            let too_big = matches!(evidence.told(), Some((6, 2, _) | (4, 3, 4)));
            if evidence.in_driver() && too_big {
                return Some(grade(evidence, true));
            }
            // Before the driver has it: it is larger than the device's MTU.
            (evidence.key.outcome == outcome::AT_DEVICE
                && !evidence.received()
                && (too_big || evidence.reason_is("PKT_TOO_BIG")))
            .then_some(Proved)
        },
    },
    Cause {
        id: "route-type-not-accepted",
        title: "the underlay route has a type that this tunnel's driver does not accept",
        condition: "rt->rt_type is neither RTN_UNICAST nor, since ed6ae5ca437d, RTN_LOCAL, in ipip6_tunnel_xmit (net/ipv6/sit.c; inlined into sit_tunnel_xmit by most builds)",
        counters: "tx_carrier_errors, tx_errors of the tunnel device",
        told: "the kernel raises ICMPv6 address unreachable towards the inner source",
        remedy: "for RTN_LOCAL (the remote is an address of this host): run a kernel with ed6ae5ca437d, or use a remote that is not local; for RTN_BROADCAST and RTN_MULTICAST: use a unicast remote (ip link change DEV type sit remote ADDRESS)",
        fixes: &["ed6ae5ca437d"],
        applies: |evidence| {
            let rejected = evidence.key.route_type != RTN_UNICAST && evidence.key.route_type != 0;
            (evidence.in_driver()
                && evidence.kind == "sit"
                && !evidence.is_ipv4()
                && evidence.route_found()
                && rejected
                && evidence.moved(TX_CARRIER_ERRORS))
            .then(|| {
                grade(
                    evidence,
                    evidence.by_kfree() && evidence.freed_in_module("sit"),
                )
            })
        },
    },
    Cause {
        id: "local-address-missing",
        title: "the tunnel's local address cannot be used: it is not on this host, still tentative, or on a device of another VRF",
        condition: "ip6_tnl_xmit_ctl found no usable local address (net/ipv6/ip6_tunnel.c)",
        counters: "tx_carrier_errors, tx_errors, tx_dropped of the tunnel device; 'Local address not yet configured!' in the kernel log",
        told: "the kernel raises ICMP address unreachable towards the inner source",
        remedy: "configure the address that ip -d link show DEV gives as local (not tentative: ip -6 addr), or change the tunnel's local address",
        fixes: &[],
        applies: |evidence| {
            (evidence.in_driver()
                && evidence.saw(seen::TRANSMIT_CONTROL_REFUSED)
                && evidence.saw(seen::ADDRESS_NOT_HERE))
            .then_some(Proved)
        },
    },
    Cause {
        id: "encapsulation-limit",
        title: "the packet comes out of a tunnel that allows no further encapsulation",
        condition: "the Tunnel Encapsulation Limit option of the inner IPv6 packet is 0 (RFC 2473): ip6_tnl_xmit_ctl's callers ipxip6_tnl_xmit (net/ipv6/ip6_tunnel.c), ip6gre_xmit_ipv6 (net/ipv6/ip6_gre.c)",
        counters: "tx_errors, tx_dropped of the tunnel device",
        told: "the source of the inner tunnel gets ICMPv6 parameter problem",
        remedy: "raise or leave out the limit of the tunnel inside: ip link change DEV type ip6tnl encaplimit none",
        fixes: &[],
        applies: |evidence| {
            (evidence.in_driver() && matches!(evidence.told(), Some((6, ICMPV6_PARAMPROB, _))))
                .then_some(Proved)
        },
    },
    Cause {
        id: "remote-is-local",
        title: "the tunnel's remote address is an address of this host",
        condition: "ip6_tnl_xmit_ctl found the remote address on this host, and the tunnel has no allow-localremote (net/ipv6/ip6_tunnel.c)",
        counters: "tx_carrier_errors, tx_errors, tx_dropped of the tunnel device; 'Routing loop! Remote address found on this node!' in the kernel log",
        told: "the kernel raises ICMP address unreachable towards the inner source",
        remedy: "use a remote that is another host's, or allow it: ip link change DEV type ip6tnl allow-localremote",
        fixes: &[],
        applies: |evidence| {
            (evidence.in_driver()
                && evidence.saw(seen::TRANSMIT_CONTROL_REFUSED)
                && evidence.saw(seen::ADDRESS_HERE))
            .then_some(Proved)
        },
    },
    Cause {
        id: "tunnel-cannot-send",
        title: "local and remote of the tunnel are such that it may not send: link-local ends need a device",
        condition: "ip6_tnl_xmit_ctl refused before it looked for the addresses: the tunnel has not IP6_TNL_F_CAP_XMIT, by ip6_tnl_get_cap (net/ipv6/ip6_tunnel.c)",
        counters: "tx_errors, tx_dropped of the tunnel device",
        told: "the kernel raises ICMP address unreachable towards the inner source",
        remedy: "bind a tunnel between link-local addresses to the link (ip link change DEV type ip6tnl dev LINK); local must be a unicast address",
        fixes: &[],
        applies: |evidence| {
            let device = evidence.device.as_ref();
            (evidence.in_driver()
                && evidence.saw(seen::TRANSMIT_CONTROL_REFUSED)
                && device.is_none_or(|device| device.remote.is_some()))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "no-peer",
        title: "no WireGuard peer's allowed-ips cover the destination",
        condition: "wg_allowedips_lookup_dst found no peer, in wg_xmit (drivers/net/wireguard/device.c)",
        counters: "tx_errors of the tunnel device",
        told: "yes: ICMP host unreachable, and -ENOKEY to a local sender",
        remedy: "add the destination to the allowed-ips of the peer that shall get it (wg set DEV peer KEY allowed-ips …), or do not route it to DEV",
        fixes: &[],
        applies: |evidence| (evidence.in_driver() && evidence.saw(seen::NO_PEER)).then_some(Proved),
    },
    Cause {
        id: "no-endpoint",
        title: "the WireGuard peer has no endpoint yet",
        condition: "peer->endpoint.addr is neither IPv4 nor IPv6, in wg_xmit (drivers/net/wireguard/device.c)",
        counters: "tx_errors of the tunnel device",
        told: "yes: ICMP host unreachable, and -EDESTADDRREQ to a local sender",
        remedy: "set one (wg set DEV peer KEY endpoint ADDRESS:PORT), or wait until the peer has sent something",
        fixes: &[],
        applies: |evidence| {
            (evidence.in_driver()
                && evidence.saw(seen::PEER)
                && evidence.freed_in("wg_xmit")
                && evidence.told().is_some())
            .then_some(Inferred)
        },
    },
    Cause {
        id: "handshake-pending",
        title: "the packet waited for a WireGuard handshake that did not come about",
        condition: "the staged queue was purged (wg_packet_purge_staged_packets) or overflowed (wg_xmit, MAX_STAGED_PACKETS), drivers/net/wireguard/device.c",
        counters: "tx_dropped of the tunnel device",
        told: "no",
        remedy: "see why the peer does not answer: wg show DEV (latest handshake, endpoint), the route to its endpoint, its port, its keys",
        fixes: &[],
        applies: |evidence| {
            if evidence.kind != "wireguard"
                || evidence.key.outcome != outcome::LOST_LATER
                || evidence.saw(seen::HANDED_TO_IP | seen::PEER_SEND | seen::RECEIVED)
            {
                return None;
            }
            Some(
                if evidence.reason_is("QUEUE_PURGE")
                    || evidence.freed_in_any(&["wg_packet_purge_staged_packets", "wg_xmit"])
                {
                    Proved
                } else {
                    Inferred
                },
            )
        },
    },
    lookup(
        "lookup-policy",
        "an IPsec policy blocks the outer packet",
        "xfrm_lookup_route returns -EPERM for a policy with action block (net/xfrm/xfrm_policy.c)",
        "look for a policy that covers the outer addresses (ip xfrm policy), and for XfrmOutPolBlock and XfrmOutNoStates (/proc/net/xfrm_stat)",
        |evidence| errno(evidence, EPERM).or_else(|| policy_after_route(evidence)),
    ),
    lookup(
        "lookup-prohibited",
        "the route look-up for the outer destination is prohibited",
        "a prohibit route or rule: -EACCES from fib_table_lookup or fib_rules (net/ipv4/fib_trie.c, net/core/fib_rules.c)",
        "find it with ip route get REMOTE, ip rule, ip route show table all type prohibit; remove it or exempt the remote",
        |evidence| errno(evidence, EACCES),
    ),
    lookup(
        "lookup-unreachable",
        "the route to the outer destination is of type unreachable",
        "an unreachable route: -EHOSTUNREACH (net/ipv4/fib_semantics.c fib_props; ip6_route_output_flags)",
        "find it with ip route get REMOTE, ip route show table all type unreachable; remove it or add a more specific route",
        |evidence| errno(evidence, EHOSTUNREACH),
    ),
    lookup(
        "lookup-blackhole",
        "the route look-up for the outer destination answers EINVAL: a blackhole, or addresses that cannot be routed",
        "-EINVAL: a blackhole route or rule (net/ipv4/fib_semantics.c fib_props), or a local or remote address that no packet may carry out (ip_route_output_key_hash_rcu, __mkroute_output)",
        "find it with ip route get REMOTE, ip rule, ip route show table all type blackhole; check local and remote of the tunnel",
        |evidence| errno(evidence, EINVAL),
    ),
    lookup(
        "lookup-no-route",
        "there is no route to the outer destination that the tunnel's local address and link may use",
        "-ENETUNREACH: no route, an unreachable rule, or the tunnel's local address is not on this host (ip_route_output_key_hash_rcu, net/ipv4/route.c; ip6_route_output_flags, net/ipv6/route.c)",
        "add a route (ip route get REMOTE shows what is missing); check ip rule and that the tunnel's local address is configured",
        |evidence| {
            errno(evidence, ENETUNREACH).or_else(|| {
                (evidence.in_driver() && evidence.ended_at_source()).then_some(Inferred)
            })
        },
    ),
    lookup(
        "lookup-failed",
        "the route look-up for the outer destination failed",
        "ip_route_output_flow (net/ipv4/route.c) or ip6_route_output_flags (net/ipv6/route.c) returned an error",
        "ask the kernel the same: ip route get REMOTE",
        |evidence| {
            (evidence.before_the_underlay() && evidence.key.route_errno != 0)
                .then(|| look_up(evidence, !table_only(evidence)))
        },
    ),
    Cause {
        id: "path-mtu-too-small",
        title: "the path to the remote carries less, beside the encapsulation, than every IPv4 packet may need (68 bytes)",
        condition: "mtu < IPV4_MIN_MTU, in ipip6_tunnel_xmit (net/ipv6/sit.c)",
        counters: "collisions, tx_errors of the tunnel device: like a loop",
        told: "no",
        remedy: "find what made the MTU so small: ip route get REMOTE (mtu, expires), ip link show dev LINK; ip route flush cache forgets what an ICMP error claimed",
        fixes: &[],
        applies: |evidence| {
            // sit counts collisions for two things; the other is a route to itself.
            (evidence.in_driver()
                && evidence.kind == "sit"
                && evidence.by_kfree()
                && evidence.route_found()
                && !evidence.routed_to_itself()
                && evidence.moved_only(&[COLLISIONS, TX_ERRORS]))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "no-headroom",
        title: "no memory for the headroom of the outer header",
        condition: "skb_realloc_headroom returned NULL, in ipip6_tunnel_xmit (net/ipv6/sit.c)",
        counters: "tx_dropped of the tunnel device",
        told: "no",
        remedy: "the host is short of atomic memory: see the kernel log and vm.min_free_kbytes",
        fixes: &[],
        applies: |evidence| {
            (evidence.in_driver() && evidence.saw(seen::NO_HEADROOM)).then_some(Proved)
        },
    },
    Cause {
        id: "no-fdb-entry",
        title: "vxlan knows no remote for the destination's MAC address",
        condition: "no forwarding entry and no default one, in vxlan_xmit (drivers/net/vxlan/vxlan_core.c)",
        counters: "tx_dropped of the tunnel device",
        told: "no",
        remedy: "bridge fdb append MAC dev DEV dst REMOTE, or a default: bridge fdb append 00:00:00:00:00:00 dev DEV dst REMOTE",
        fixes: &[],
        applies: |evidence| {
            if !(evidence.in_driver() && evidence.kind == "vxlan") {
                return None;
            }
            if evidence.reason_is("NO_TX_TARGET") {
                return Some(Proved);
            }
            (evidence
                .reason
                .as_deref()
                .is_none_or(|reason| reason == "NOT_SPECIFIED")
                && evidence.by_kfree()
                && evidence.freed_in("vxlan_xmit")
                && evidence.moved_only(&[TX_DROPPED]))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "no-tunnel-info",
        title: "the device takes each packet's tunnel from the packet, and this one brought none that it can use",
        condition: "skb_tunnel_info() is NULL or not for transmitting, and the device is external (collect_md): vxlan_xmit (drivers/net/vxlan), geneve_xmit (drivers/net/geneve.c), ip_md_tunnel_xmit (net/ipv4/ip_tunnel.c), gre_fb_xmit (net/ipv4/ip_gre.c), ip6_tnl_start_xmit (net/ipv6/ip6_tunnel.c)",
        counters: "tx_dropped or tx_errors of the tunnel device; none for vxlan",
        told: "no",
        remedy: "route with encapsulation (ip route add PREFIX encap ip id N dst REMOTE dev DEV), or set it by tc (tunnel_key) or a bridge's VLAN map; or make the device without external",
        fixes: &[],
        applies: |evidence| {
            if evidence.reason_is("TUNNEL_TXINFO") {
                return Some(Proved);
            }
            let device = evidence.device.as_ref()?;
            (evidence.in_driver()
                && device.external
                && (carries(evidence) || !(evidence.is_ipv4() || evidence.is_ipv6()))
                && evidence.routes_watched
                && !evidence.route_seen()
                && evidence.told().is_none())
            .then_some(Inferred)
        },
    },
    Cause {
        id: "no-pdp-context",
        title: "no GTP tunnel (PDP context) covers the destination",
        condition: "ipv4_pdp_find or ipv6_pdp_find gives none: -ENOENT in gtp_build_skb_ip4 or gtp_build_skb_ip6 (drivers/net/gtp.c)",
        counters: "tx_errors of the tunnel device",
        told: "no",
        remedy: "have the GTP control plane add a context for the address, or do not route it to DEV",
        fixes: &[],
        applies: |evidence| {
            (evidence.in_driver()
                && evidence.kind == "gtp"
                && evidence.routes_watched
                && !evidence.route_seen()
                && evidence.told().is_none()
                && evidence.moved_only(&[TX_ERRORS]))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "no-ipsec-state",
        title: "IPsec has no policy or no state (SA) for the packet",
        condition: "the route has no xfrm state for this interface, or xfrm_lookup gives none (without one, by a policy that blocks, for want of a route to its other end), in xfrmi_xmit2 (net/xfrm/xfrm_interface_core.c), vti_xmit (net/ipv4/ip_vti.c), vti6_xmit (net/ipv6/ip6_vti.c); or xfrm_lookup_route made it a blackhole for want of one (net/xfrm/xfrm_policy.c)",
        counters: "tx_carrier_errors, tx_errors of an xfrm or vti device; XfrmOutNoStates (/proc/net/xfrm_stat) where a policy asks for a state: the tunnel then counts success",
        told: "xfrm and vti raise ICMP host unreachable towards the inner source; nobody is told behind another tunnel",
        remedy: "compare ip xfrm policy and ip xfrm state with the packet's outer addresses (and if_id or mark), and ip route get of the state's other end; is the key daemon up?",
        fixes: &[],
        applies: |evidence| {
            let discarded = evidence.freed_in_any(&["dst_discard_out", "dst_discard"]);
            if discarded && evidence.saw(seen::BLACKHOLE_ROUTE) {
                return Some(Proved);
            }
            // A device that goes away has its routes discard, too.
            let unseen = evidence.key.outcome == outcome::DROPPED && evidence.blackholes_watched;
            if discarded && !evidence.received() && !unseen {
                return Some(Inferred);
            }
            (evidence.in_driver()
                && matches!(evidence.kind.as_str(), "xfrm" | "vti" | "vti6")
                && evidence.by_kfree()
                && evidence.named_reason().is_none()
                && evidence.key.route_errno == 0
                && !evidence.moved(COLLISIONS)
                && (evidence.moved(TX_CARRIER_ERRORS) || evidence.told().is_some()))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "payload-not-carried",
        title: "the tunnel does not carry packets of this protocol",
        condition: "skb->protocol is none that the tunnel's mode carries, in ipip_tunnel_xmit (net/ipv4/ipip.c), sit_tunnel_xmit (net/ipv6/sit.c), ip6_tnl_start_xmit (net/ipv6/ip6_tunnel.c), vti_tunnel_xmit (net/ipv4/ip_vti.c)",
        counters: "tx_errors of the tunnel device",
        told: "no",
        remedy: "use a tunnel or a mode that carries both (ip link change DEV type … mode any, or gre), or do not route this family to DEV",
        fixes: &[],
        applies: |evidence| {
            (evidence.in_driver()
                && evidence.by_kfree()
                && evidence.routes_watched
                && !evidence.route_seen()
                && evidence.told().is_none()
                && evidence.moved(TX_ERRORS)
                && !evidence.moved(TX_CARRIER_ERRORS)
                && !carries(evidence))
            .then_some(Inferred)
        },
    },
    Cause {
        id: "no-remote",
        title: "the tunnel has no remote, and none can be derived from the packet",
        condition: "no configured remote, and neither next hop nor destination is an IPv4-compatible, 6to4, 6rd or ISATAP address, in ipip6_tunnel_xmit (net/ipv6/sit.c); no configured remote, and no route or IPv4 next hop, in ip_tunnel_xmit (net/ipv4/ip_tunnel.c); no remote, in ip6_tnl_xmit_ctl (net/ipv6/ip6_tunnel.c), in ipgre_header before the driver (net/ipv4/ip_gre.c)",
        counters: "tx_errors of the tunnel device; for gre and its like tx_fifo_errors, for ip6tnl tx_carrier_errors and tx_dropped too",
        told: "no",
        remedy: "set a remote (ip link change DEV type … remote ADDRESS), or have the next hop say it (sit: via ::REMOTE; gre: ip neigh add … lladdr REMOTE)",
        fixes: &[],
        applies: |evidence| {
            let device = evidence.device.as_ref()?;
            if device.remote.is_some() || device.external {
                return None;
            }
            // Its link-layer header has the remote in it, which the neighbour lacks.
            if matches!(evidence.kind.as_str(), "gre" | "ip6gre")
                && evidence.key.outcome == outcome::AT_DEVICE
                && evidence.freed_in("neigh_connected_output")
            {
                return Some(Inferred);
            }
            if !evidence.in_driver() {
                return None;
            }
            // Those with IPv6 outside refuse it before they look for a route.
            if evidence.saw(seen::TRANSMIT_CONTROL_REFUSED) {
                return Some(Inferred);
            }
            let counted = match evidence.kind.as_str() {
                "sit" => evidence.is_ipv6() && evidence.moved_only(&[TX_ERRORS]),
                "gre" | "gretap" | "erspan" | "ipip" | "vti" => {
                    evidence.moved_only(&[TX_ERRORS, TX_FIFO_ERRORS])
                        || (!evidence.is_ipv4() && evidence.moved_only(&[TX_ERRORS]))
                }
                _ => false,
            };
            (counted
                && evidence.by_kfree()
                && evidence.routes_watched
                && !evidence.route_seen()
                && evidence.told().is_none())
            .then_some(Inferred)
        },
    },
    Cause {
        id: "encap-failed",
        title: "the encapsulation (fou, gue) could not build its header",
        condition: "ip_tunnel_encap returned an error, in ipip6_tunnel_xmit (net/ipv6/sit.c), ip_tunnel_xmit (net/ipv4/ip_tunnel.c)",
        counters: "tx_errors of the tunnel device",
        told: "no",
        remedy: "the encapsulation is not registered: modprobe fou (fou6 for IPv6 underlays)",
        fixes: &[],
        applies: |evidence| {
            let device = evidence.device.as_ref()?;
            (evidence.in_driver()
                && device.encap.is_some()
                && evidence.encap_module == Some(false)
                && evidence.by_kfree()
                && evidence.told().is_none()
                && evidence.key.route_errno == 0
                && evidence.moved_only(&[TX_ERRORS]))
            .then_some(Inferred)
        },
    },
];

/// Does the tunnel's mode carry packets of this family?
fn carries(evidence: &Evidence) -> bool {
    const IPIP: u8 = 4;
    const IPV6: u8 = 41;
    let mode = evidence.device.as_ref().and_then(|device| device.proto);
    let (ipv4, ipv6) = match (evidence.kind.as_str(), mode) {
        ("ipip", Some(IPIP) | None) => (true, false),
        ("ipip", _) => (false, false),
        ("sit" | "ip6tnl", Some(IPIP)) => (true, false),
        ("sit" | "ip6tnl", Some(IPV6)) => (false, true),
        // Those with Ethernet frames in them carry everything.
        ("gretap" | "erspan" | "ip6gretap" | "ip6erspan" | "vxlan" | "geneve" | "l2tp" | "", _) => {
            return true;
        }
        _ => (true, true),
    };
    (evidence.is_ipv4() && ipv4) || (evidence.is_ipv6() && ipv6)
}

/// A cause where the route look-up gave an errno: all have the same shape.
const fn lookup(
    id: &'static str,
    title: &'static str,
    condition: &'static str,
    remedy: &'static str,
    applies: fn(&Evidence) -> Option<Confidence>,
) -> Cause {
    Cause {
        id,
        title,
        condition,
        counters: "tx_carrier_errors, tx_errors of the tunnel device",
        told: "sit, ip6tnl, vti and xfrm raise an ICMP error towards the inner source; ipip, gre, vxlan and geneve do not",
        remedy,
        fixes: &[],
        applies,
    }
}

/// The look-up for this packet ended with this errno, and the packet was freed
/// before anything was sent.
fn errno(evidence: &Evidence, number: u16) -> Option<Confidence> {
    (evidence.before_the_underlay() && evidence.key.route_errno == number).then(|| {
        // The errno of one table is the look-up's only if it is a verdict: a
        // table without a route hands over to the next.
        look_up(evidence, !table_only(evidence) || number != ENETUNREACH)
    })
}

fn table_only(evidence: &Evidence) -> bool {
    evidence.key.route & route::TABLE_ONLY != 0
}

/// A failed look-up is the cause for certain where the driver counted it:
/// bound to a device, a tunnel sends all the same. WireGuard has no counter
/// for it.
fn look_up(evidence: &Evidence, observed: bool) -> Confidence {
    if observed && (evidence.moved(TX_CARRIER_ERRORS) || evidence.saw(seen::PEER_SEND)) {
        Proved
    } else {
        Inferred
    }
}

/// Over IPv6, policies are asked after the look-up, which had found a route: what
/// else the drivers count as a failed one has its own cause.
fn policy_after_route(evidence: &Evidence) -> Option<Confidence> {
    (evidence.in_driver()
        && evidence.key.route & route::IPV6 != 0
        && evidence.route_found()
        && !evidence.routed_to_itself()
        && evidence.moved(TX_CARRIER_ERRORS)
        && !evidence.saw(seen::TRANSMIT_CONTROL_REFUSED)
        && !matches!(evidence.kind.as_str(), "sit" | "vti6" | "xfrm")
        // Without, choosing one can have failed.
        && evidence.device.as_ref().is_some_and(|device| device.local.is_some())
        && evidence
            .device
            .as_ref()
            .is_some_and(|device| !device.external))
    .then_some(Inferred)
}

/// Proved where the rest was observed and the driver's own function was seen
/// to run.
fn grade(evidence: &Evidence, observed: bool) -> Confidence {
    if observed && evidence.driver_seen() {
        Proved
    } else {
        Inferred
    }
}
