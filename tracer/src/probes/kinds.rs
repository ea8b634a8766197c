//! The kinds of tunnel: one entry each.
//!
//! A kind is what `ip -d link` prints. Kinds that are not here are still
//! followed where their device type says that they carry IP in IP.

use crate::kernel::symbols;

/// What is known of a kind of tunnel device.
#[derive(Debug)]
pub struct Kind {
    /// `rtnl_link_ops.kind`.
    pub name: &'static str,
    /// The module its driver lives in.
    pub module: &'static str,
    /// The driver's `ndo_start_xmit`, by symbol.
    pub xmit: &'static str,
    /// The source file of that function.
    pub file: &'static str,
    /// Its driver frees what it drops with `consume_skb` too.
    pub consumes: bool,
}

/// The transmit function of l2tp's devices, which do not say that they are tunnels.
pub const UNNAMED: &str = "l2tp_eth_dev_xmit";
/// Modules that several drivers need, and come right before the first of them.
const SHARED: &[&str] = &[
    "tunnel4",
    "tunnel6",
    "ip_tunnel",
    "udp_tunnel",
    "gre",
    "l2tp_core",
];

/// Was a module of a tunnel's driver loaded? A device usually comes next, and its
/// first packet with it.
pub fn are_expected() -> bool {
    symbols::modules()
        .iter()
        .any(|module| SHARED.contains(&&**module) || KINDS.iter().any(|kind| kind.module == module))
}

/// All kinds of tunnel device in the kernel's source.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "sit",
        module: "sit",
        xmit: "sit_tunnel_xmit",
        file: "net/ipv6/sit.c",
        consumes: false,
    },
    Kind {
        name: "ipip",
        module: "ipip",
        xmit: "ipip_tunnel_xmit",
        file: "net/ipv4/ipip.c",
        consumes: false,
    },
    Kind {
        name: "gre",
        module: "ip_gre",
        xmit: "ipgre_xmit",
        file: "net/ipv4/ip_gre.c",
        consumes: false,
    },
    Kind {
        name: "gretap",
        module: "ip_gre",
        xmit: "gre_tap_xmit",
        file: "net/ipv4/ip_gre.c",
        consumes: false,
    },
    Kind {
        name: "erspan",
        module: "ip_gre",
        xmit: "erspan_xmit",
        file: "net/ipv4/ip_gre.c",
        consumes: false,
    },
    Kind {
        name: "ip6tnl",
        module: "ip6_tunnel",
        xmit: "ip6_tnl_start_xmit",
        file: "net/ipv6/ip6_tunnel.c",
        consumes: false,
    },
    Kind {
        name: "ip6gre",
        module: "ip6_gre",
        xmit: "ip6gre_tunnel_xmit",
        file: "net/ipv6/ip6_gre.c",
        consumes: false,
    },
    Kind {
        name: "ip6gretap",
        module: "ip6_gre",
        xmit: "ip6gre_tunnel_xmit",
        file: "net/ipv6/ip6_gre.c",
        consumes: false,
    },
    Kind {
        name: "ip6erspan",
        module: "ip6_gre",
        xmit: "ip6erspan_tunnel_xmit",
        file: "net/ipv6/ip6_gre.c",
        consumes: false,
    },
    Kind {
        name: "vti",
        module: "ip_vti",
        xmit: "vti_tunnel_xmit",
        file: "net/ipv4/ip_vti.c",
        consumes: false,
    },
    Kind {
        name: "vti6",
        module: "ip6_vti",
        xmit: "vti6_tnl_xmit",
        file: "net/ipv6/ip6_vti.c",
        consumes: false,
    },
    Kind {
        name: "xfrm",
        module: "xfrm_interface",
        xmit: "xfrmi_xmit",
        file: "net/xfrm/xfrm_interface_core.c",
        consumes: false,
    },
    Kind {
        name: "vxlan",
        module: "vxlan",
        xmit: "vxlan_xmit",
        file: "drivers/net/vxlan/vxlan_core.c",
        consumes: true,
    },
    Kind {
        name: "geneve",
        module: "geneve",
        xmit: "geneve_xmit",
        file: "drivers/net/geneve.c",
        consumes: true,
    },
    Kind {
        name: "gtp",
        module: "gtp",
        xmit: "gtp_dev_xmit",
        file: "drivers/net/gtp.c",
        consumes: true,
    },
    Kind {
        name: "bareudp",
        module: "bareudp",
        xmit: "bareudp_xmit",
        file: "drivers/net/bareudp.c",
        consumes: true,
    },
    Kind {
        name: "wireguard",
        module: "wireguard",
        xmit: "wg_xmit",
        file: "drivers/net/wireguard/device.c",
        consumes: true,
    },
    Kind {
        name: "ovpn",
        module: "ovpn",
        xmit: "ovpn_net_xmit",
        file: "drivers/net/ovpn/io.c",
        consumes: false,
    },
    Kind {
        // Its devices have no kind.
        name: "l2tp",
        module: "l2tp_eth",
        xmit: "l2tp_eth_dev_xmit",
        file: "net/l2tp/l2tp_eth.c",
        consumes: false,
    },
    Kind {
        name: "amt",
        module: "amt",
        xmit: "amt_dev_xmit",
        file: "drivers/net/amt.c",
        consumes: true,
    },
];

/// `ipip6_tunnel_xmit`, which carries IPv6 in sit, is inlined into
/// `sit_tunnel_xmit` by most builds; where it is a symbol, it is watched too.
pub const SIT_INNER: &str = "ipip6_tunnel_xmit";

/// The entry for a kind.
pub fn find(kind: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|known| known.name == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_side() {
        for kind in KINDS {
            assert!(
                kind.name.len() < tracer_common::config::KIND_LEN,
                "{}",
                kind.name
            );
        }
    }
}
