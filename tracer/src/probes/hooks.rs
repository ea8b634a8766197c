//! Functions of the tunnels' modules that are watched while the module is
//! there: drivers, receive functions, and what these ask.

use super::kinds::{KINDS, SIT_INNER};

/// A function to watch.
#[derive(Debug)]
pub struct Hook {
    /// What it is called in `--withhold`, `doctor` and the JSON.
    pub point: &'static str,
    pub function: &'static str,
    /// The module it lives in; of a function of vmlinux, the one without which
    /// nobody asks for it.
    pub module: &'static str,
    /// Program at its entry.
    pub entry: Option<&'static str>,
    /// Program at its return.
    pub exit: Option<&'static str>,
    /// What is not known without it.
    pub lost: &'static str,
}

/// The point of the drivers' transmit functions.
pub const DRIVER: &str = "driver";
const RECEIVE: &str = "receive";
const CONTROL: &str = "control";
const PEER: &str = "wireguard";

const DRIVER_LOST: &str = "that the driver's own function ran is concluded from the device's kind: its causes are inferred, not proved";
const RECEIVE_LOST: &str = "which tunnel a received packet was for, and whether there was one";
const CONTROL_LOST: &str = "that an IPv6 tunnel refused its own addresses";
const PEER_LOST: &str = "what WireGuard does with a packet after it took it";

/// Whether the point's functions come and go with modules.
pub fn is_hook(point: &str) -> bool {
    [DRIVER, RECEIVE, CONTROL, PEER].contains(&point)
}

/// All hooks; kinds that share a driver's function give one.
pub fn all() -> Vec<Hook> {
    let mut hooks: Vec<Hook> = Vec::new();
    for kind in KINDS {
        if hooks.iter().all(|hook| hook.function != kind.xmit) {
            hooks.push(Hook {
                point: DRIVER,
                function: kind.xmit,
                module: kind.module,
                entry: Some("driver_xmit"),
                exit: Some("driver_xmit_return"),
                lost: DRIVER_LOST,
            });
        }
    }
    hooks.push(Hook {
        point: DRIVER,
        function: SIT_INNER,
        module: "sit",
        entry: Some("inner_xmit"),
        exit: None,
        lost: DRIVER_LOST,
    });
    // Function, module, position of the packet among its arguments.
    for (function, module, skb) in [
        ("ipip6_rcv", "sit", 0),
        ("sit_tunnel_rcv", "sit", 0),
        ("ipip_tunnel_rcv", "ipip", 0),
        ("ipxip6_rcv", "ip6_tunnel", 0),
        ("vxlan_rcv", "vxlan", 1),
        ("geneve_udp_encap_recv", "geneve", 1),
        ("bareudp_udp_encap_recv", "bareudp", 1),
        ("gtp_encap_recv", "gtp", 1),
        ("fou_udp_recv", "fou", 1),
        ("gue_udp_recv", "fou", 1),
        ("l2tp_udp_encap_recv", "l2tp_core", 1),
        // The session is known.
        ("l2tp_recv_common", "l2tp_core", 1),
    ] {
        hooks.push(Hook {
            point: RECEIVE,
            function,
            module,
            entry: Some(["receive_skb0", "receive_skb1"][skb]),
            exit: None,
            lost: RECEIVE_LOST,
        });
    }
    for (function, module, entry, exit) in [
        (
            "gre_parse_header",
            "gre",
            Some("receive_skb0"),
            "gre_header_parsed",
        ),
        ("ip_tunnel_lookup", "ip_tunnel", None, "ip_tunnel_found"),
        ("ipip6_tunnel_lookup", "sit", None, "ip_tunnel_found"),
        ("ip6_tnl_lookup", "ip6_tunnel", None, "ip6_tnl_found"),
        ("ip6gre_tunnel_lookup", "ip6_gre", None, "ip6_tnl_found"),
        ("vxlan_vs_find_vni", "vxlan", None, "tunnel_found"),
        ("geneve_lookup", "geneve", None, "tunnel_found"),
        ("geneve6_lookup", "geneve", None, "tunnel_found"),
    ] {
        hooks.push(Hook {
            point: RECEIVE,
            function,
            module,
            entry,
            exit: Some(exit),
            lost: RECEIVE_LOST,
        });
    }
    for (function, exit) in [
        ("ip6_tnl_rcv_ctl", "receive_control"),
        ("ip6_tnl_xmit_ctl", "transmit_control"),
        ("ipv6_chk_addr_and_flags", "address_checked"),
    ] {
        hooks.push(Hook {
            point: CONTROL,
            function,
            module: "ip6_tunnel",
            entry: None,
            exit: Some(exit),
            lost: CONTROL_LOST,
        });
    }
    for (function, entry, exit) in [
        ("wg_allowedips_lookup_dst", None, Some("peer_for")),
        ("wg_allowedips_lookup_src", Some("allowed_source"), None),
        ("send4", Some("peer_send"), Some("peer_sent")),
        ("send6", Some("peer_send"), Some("peer_sent")),
    ] {
        hooks.push(Hook {
            point: PEER,
            function,
            module: "wireguard",
            entry,
            exit,
            lost: PEER_LOST,
        });
    }
    hooks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_there_once() {
        let hooks = all();
        for hook in &hooks {
            assert!(is_hook(hook.point));
            assert!(hook.entry.is_some() || hook.exit.is_some());
            let same = hooks
                .iter()
                .filter(|other| other.function == hook.function)
                .count();
            assert_eq!(same, 1, "{}", hook.function);
        }
    }
}
