//! The table of causes: one entry each, first match wins.
//!
//! `applies` looks at evidence only. `Proved` means that each part of the
//! condition was observed; `Inferred` that a part was concluded, from the
//! device's configuration or from what did not happen.

use tracer_common::{
    flow::IPPROTO_UDP,
    tally::{COLLISIONS, TX_CARRIER_ERRORS, TX_DROPPED, TX_ERRORS, outcome, route, seen},
};

use super::{
    Confidence,
    Confidence::{Inferred, Proved},
    evidence::Evidence,
};

const RTN_UNICAST: u8 = 1;
const EPERM: u16 = 1;
const EACCES: u16 = 13;
const EINVAL: u16 = 22;
const ENETUNREACH: u16 = 101;
const EHOSTUNREACH: u16 = 113;

/// Why packets vanish.
#[derive(Debug)]
pub struct Cause {
    /// Stable.
    pub id: &'static str,
    pub title: &'static str,
    /// The condition in the kernel's words, with its file and function.
    pub condition: &'static str,
    /// Which counters move.
    pub counters: &'static str,
    /// Is the sender told?
    pub told: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// Upstream commits that change it.
    pub fixes: &'static [&'static str],
    pub applies: fn(&Evidence) -> Option<Confidence>,
}

/// All causes; the last one always applies.
pub const CAUSES: &[Cause] = &[
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
        condition: "skb->len > mtu with DF wanted, in ipip6_tunnel_xmit (net/ipv6/sit.c), tnl_update_pmtu (net/ipv4/ip_tunnel.c), ip6_tnl_xmit (net/ipv6/ip6_tunnel.c)",
        counters: "tx_errors of the tunnel device",
        told: "yes: ICMPv6 packet too big, or ICMP fragmentation needed",
        remedy: "let the ICMP error reach the sender, or lower the MTU of the tunnel or the MSS (ip link set DEV mtu N)",
        fixes: &[],
        applies: |evidence| {
            (evidence.in_driver() && matches!(evidence.told(), Some((6, 2, _) | (4, 3, 4))))
                .then(|| grade(evidence, true))
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
    lookup(
        "lookup-policy",
        "an IPsec policy blocks the outer packet",
        "xfrm_lookup_route returns -EPERM for a policy with action block (net/xfrm/xfrm_policy.c)",
        "look for a policy that covers the outer addresses (ip xfrm policy) and for XfrmOutPolBlock (/proc/net/xfrm_stat)",
        |evidence| errno(evidence, EPERM),
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
        "the route look-up for the outer destination ends in a blackhole",
        "-EINVAL: a blackhole route or rule, or an address that no route can have (net/ipv4/fib_semantics.c fib_props, ip_route_output_key_hash_rcu)",
        "find it with ip route get REMOTE, ip rule, ip route show table all type blackhole; check local and remote of the tunnel",
        |evidence| errno(evidence, EINVAL),
    ),
    lookup(
        "lookup-no-route",
        "there is no route to the outer destination",
        "-ENETUNREACH: no route, an unreachable rule, or the tunnel's local address is not on this host (ip_route_output_key_hash_rcu, net/ipv4/route.c; ip6_route_output_flags, net/ipv6/route.c)",
        "add a route (ip route get REMOTE shows what is missing); check ip rule and that the tunnel's local address is configured",
        |evidence| errno(evidence, ENETUNREACH),
    ),
    lookup(
        "lookup-failed",
        "the route look-up for the outer destination failed",
        "ip_route_output_flow or ip6_route_output_flags returned an error",
        "ask the kernel the same: ip route get REMOTE",
        |evidence| (evidence.key.route_errno != 0).then(|| grade(evidence, !table_only(evidence))),
    ),
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
        id: "no-remote",
        title: "the tunnel has no remote, and none can be derived from the packet",
        condition: "no configured remote, and neither next hop nor destination is an IPv4-compatible, 6to4 or 6rd address, in ipip6_tunnel_xmit (net/ipv6/sit.c)",
        counters: "tx_errors of the tunnel device",
        told: "no",
        remedy: "set a remote (ip link change DEV type sit remote ADDRESS) or route by an IPv4-compatible next hop (via ::REMOTE)",
        fixes: &[],
        applies: |evidence| {
            let device = evidence.device.as_ref()?;
            (evidence.in_driver()
                && evidence.kind == "sit"
                && evidence.is_ipv6()
                && evidence.by_kfree()
                && evidence.routes_watched
                && !evidence.route_seen()
                && evidence.told().is_none()
                && device.remote.is_none()
                && evidence.moved_only(&[TX_ERRORS]))
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
    Cause {
        id: "no-listener",
        title: "the outer packet arrived at a UDP port that nobody listens on",
        condition: "no socket for the outer destination port, in __udp4_lib_rcv or udp_rcv (net/ipv4/udp.c), __udp6_lib_rcv (net/ipv6/udp.c)",
        counters: "UdpNoPorts (nstat), none of the tunnel device: it counted success",
        told: "the outer sender gets ICMP port unreachable, which no tunnel passes on to the inner one",
        remedy: "open the port on the receiving host (fou: ip fou add port PORT ipproto NUMBER; vxlan, geneve: a device with this port), or correct the port of the tunnel",
        fixes: &[],
        applies: |evidence| {
            let outer_udp = matches!(evidence.key.outcome, outcome::LOST_LATER | outcome::STRAY)
                && evidence.key.outer_proto == IPPROTO_UDP;
            let refused = matches!(evidence.told(), Some((4, 3, 3) | (6, 1, 4)));
            (outer_udp && (evidence.reason_is("NO_SOCKET") || refused)).then_some(Proved)
        },
    },
    Cause {
        id: "kernel-reason",
        title: "dropped for the reason the kernel names",
        condition: "the running kernel's own drop reason (enum skb_drop_reason, include/net/dropreason-core.h)",
        counters: "depends on the reason",
        told: "depends on the reason",
        remedy: "the reason is described beside its name in include/net/dropreason-core.h",
        fixes: &[],
        applies: |evidence| {
            evidence
                .reason
                .as_deref()
                .is_some_and(|name| {
                    !matches!(name, "NOT_SPECIFIED" | "NOT_DROPPED_YET" | "CONSUMED")
                })
                .then_some(Proved)
        },
    },
    Cause {
        id: "unknown",
        title: "the cause is not known; the evidence is all there is",
        condition: "",
        counters: "",
        told: "",
        remedy: "look at the function and offset in the source of this kernel; --stack shows how it got there",
        fixes: &[],
        applies: |_| Some(Confidence::Unknown),
    },
];

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

/// The look-up in this frame ended with this errno, and the packet was freed
/// before anything was sent.
fn errno(evidence: &Evidence, number: u16) -> Option<Confidence> {
    (evidence.in_driver() && evidence.key.route_errno == number).then(|| {
        // The errno of one table is the look-up's only if it is a verdict: a
        // table without a route hands over to the next.
        grade(evidence, !table_only(evidence) || number != ENETUNREACH)
    })
}

fn table_only(evidence: &Evidence) -> bool {
    evidence.key.route & route::TABLE_ONLY != 0
}

/// Proved where the rest was observed and the driver's own function was seen
/// to run, or an errno leaves nothing to conclude.
fn grade(evidence: &Evidence, observed: bool) -> Confidence {
    if observed && (evidence.driver_seen() || evidence.key.route_errno != 0) {
        Proved
    } else {
        Inferred
    }
}
