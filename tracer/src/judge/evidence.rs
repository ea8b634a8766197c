//! What is known of one kind of drop, in numbers and facts: what the judge
//! decides on.

use std::sync::Arc;

use tracer_common::{
    flow::{ETH_P_IP, ETH_P_IPV6, Flow},
    record::Record,
    tally::{TX_PACKETS, TallyKey, freed_by, outcome, route, seen},
};

use crate::{devices::Device, routing::Finding, view::text};

const RT_TABLE_LOCAL: u32 = 255;

/// Functions that have received packets only.
const RECEIVING: &[&str] = &[
    "__netif_receive_skb_core",
    "enqueue_to_backlog",
    "gro_cells_receive",
    "vxlan_rcv",
    "geneve_udp_encap_recv",
    "bareudp_udp_encap_recv",
    "gtp_encap_recv",
    "l2tp_recv_common",
    "l2tp_udp_encap_recv",
    "gre_rcv",
    "ip_tunnel_rcv",
    "ipip6_rcv",
    "sit_tunnel_rcv",
    "ipip_tunnel_rcv",
    "ipxip6_rcv",
    "__ip6_tnl_rcv",
    "tunnel4_rcv",
    "tunnel64_rcv",
    "tunnel6_rcv",
    "tunnel46_rcv",
    "fou_udp_recv",
    "gue_udp_recv",
    "udp_rcv",
    "__udp4_lib_rcv",
    "udpv6_rcv",
    "__udp6_lib_rcv",
];

/// Functions that have the outer packet only: what is freed there is behind the
/// driver, whether or not it was seen to hand the packet on (vti, xfrm and l2tp call
/// `dst_output`).
const BEHIND_THE_DRIVER: &[&str] = &[
    "nf_hook_slow",
    "nft_do_chain",
    "nf_queue",
    "ip_fragment",
    "ip_do_fragment",
    "ip6_fragment",
    "ip_finish_output",
    "ip_finish_output2",
    "ip6_finish_output",
    "ip6_finish_output2",
    "ip_output",
    "ip6_output",
    "__ip_local_out",
    "__ip6_local_out",
    "xfrm_output_resume",
    "xfrm_output_one",
    "xfrm_output2",
    "xfrm_output",
    "__neigh_event_send",
    "neigh_resolve_output",
    "__dev_queue_xmit",
    "sch_direct_xmit",
    "kfree_skb_list",
    "kfree_skb_list_reason",
    "__tcf_kfree_skb_list",
    "tcf_kfree_skb_list",
    "dst_discard",
    "dst_discard_out",
];

/// A place in the kernel's code, by the running kernel's symbols.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Place {
    pub function: String,
    pub offset: u64,
    pub module: Option<String>,
}

/// Everything known of a drop.
#[derive(Clone, Debug)]
pub struct Evidence {
    pub key: TallyKey,
    /// The newest record of it, if one came through.
    pub record: Option<Arc<Record>>,
    /// Where it was freed, if the address has a symbol.
    pub place: Option<Place>,
    /// The drop reason's name on this kernel.
    pub reason: Option<String>,
    /// The tunnel device by netlink's word.
    pub device: Option<Arc<Device>>,
    /// The device the freed packet stood on, by netlink's word.
    pub freed_device: Option<Arc<Device>>,
    /// The tunnel's kind, by the kernel's or netlink's word.
    pub kind: String,
    /// Was the queue of devices without carrier watched?
    pub noop_watched: bool,
    /// Were ICMP errors to the sender watched?
    pub errors_watched: bool,
    /// Were routes watched that IPsec makes blackholes of?
    pub blackholes_watched: bool,
    /// Does this kernel name what the reverse-path filter drops?
    pub names_reverse_path: bool,
    /// Does it name the sources that may not be on a link?
    pub names_local_source: bool,
    /// Does it name the fragments that are there already?
    pub names_duplicates: bool,
    /// Does it name the packets that a full queue of the CPU refused?
    pub names_backlog: bool,
    /// Were functions watched that look for routes?
    pub routes_watched: bool,
    /// Were the answers of single routing tables of the underlay watched?
    pub tables_watched: bool,
    /// The devices that receive packets like the outer one, in the namespace
    /// where it was freed.
    pub receivers: Vec<Arc<Device>>,
    /// Why the look-up failed, by netlink's word afterwards.
    pub finding: Option<Finding>,
    /// Is the module of the tunnel's encapsulation (fou) there? Unknown where
    /// there is none.
    pub encap_module: Option<bool>,
}

impl Evidence {
    pub fn flow(&self) -> &Flow {
        &self.key.flow
    }

    pub fn is_ipv6(&self) -> bool {
        self.key.flow.ethertype == ETH_P_IPV6
    }

    pub fn is_ipv4(&self) -> bool {
        self.key.flow.ethertype == ETH_P_IP
    }

    /// Was the freed packet, as it was then, for an IPv4 multicast group?
    pub fn to_ipv4_group(&self) -> bool {
        let flow = if self.saw(seen::DECAPSULATED | seen::IN_THE_CLEAR) {
            Some(self.flow())
        } else {
            self.record.as_ref().map(|record| &record.outer)
        };
        flow.is_some_and(|flow| flow.ethertype == ETH_P_IP && flow.dst[0] >> 4 == 0xe)
    }

    /// Was the outer packet for a multicast group?
    pub fn outer_to_group(&self) -> bool {
        let Some(record) = &self.record else {
            return false;
        };
        match record.outer.ethertype {
            ETH_P_IP => record.outer.dst[0] >> 4 == 0xe,
            ETH_P_IPV6 => record.outer.dst[0] == 0xff,
            _ => false,
        }
    }

    /// Freed inside the tunnel's transmit function, before the outer packet
    /// was handed to IP.
    pub fn in_driver(&self) -> bool {
        self.key.outcome == outcome::DROPPED
            && !self.saw(seen::HANDED_TO_IP)
            && !self.freed_in_any(BEHIND_THE_DRIVER)
    }

    /// Was it the packet inside, not one that wraps it? On a tunnel's device it is,
    /// before the driver has it or after it came out; behind a receive function, too.
    pub fn is_inner(&self) -> bool {
        match self.key.outcome {
            outcome::DROPPED => self.in_driver(),
            outcome::AT_DEVICE => true,
            _ => self.saw(seen::DECAPSULATED),
        }
    }

    /// The same, or in WireGuard's thread before it sent.
    pub fn before_the_underlay(&self) -> bool {
        self.in_driver()
            || (self.key.outcome == outcome::LOST_LATER
                && self.saw(seen::PEER_SEND)
                && !self.saw(seen::HANDED_TO_IP))
    }

    /// Any of these.
    pub fn saw(&self, what: u32) -> bool {
        self.key.seen & what != 0
    }

    /// The driver's own function was seen to run.
    pub fn driver_seen(&self) -> bool {
        self.saw(seen::DRIVER)
    }

    /// Was the packet being received when it was freed? The interface it came
    /// by is forgotten on its way out of the encapsulation: the place tells too.
    pub fn received(&self) -> bool {
        // What is to be sent by a tunnel's device can have come in by another one.
        let by_device = match self.key.outcome {
            outcome::AT_DEVICE => seen::DECAPSULATED,
            _ => seen::RECEIVED,
        };
        self.saw(by_device | seen::TUNNEL_RECEIVE) || self.freed_in_any(RECEIVING)
    }

    /// Does the device on which the packet was freed forward what comes in?
    pub fn forwards(&self, ipv6: bool) -> Option<bool> {
        let device = self.freed_device.as_ref()?;
        match ipv6 {
            true => device.forwards6,
            false => device.forwards4,
        }
    }

    pub fn by_kfree(&self) -> bool {
        self.key.freed_by == freed_by::KFREE_SKB
    }

    /// Was it freed in this function, or in a part the compiler split off?
    pub fn freed_in(&self, function: &str) -> bool {
        self.place.as_ref().is_some_and(|place| {
            place.function == function
                || place
                    .function
                    .strip_prefix(function)
                    .is_some_and(|rest| rest.starts_with('.'))
        })
    }

    /// Was it freed in one of these?
    pub fn freed_in_any(&self, functions: &[&str]) -> bool {
        functions.iter().any(|function| self.freed_in(function))
    }

    /// Did the freed packet stand on a device of this kind?
    pub fn freed_on_kind(&self, kind: &str) -> bool {
        self.freed_device
            .as_ref()
            .is_some_and(|device| device.kind == kind)
    }

    /// Was it freed where vxlan or geneve look at the frame that they took out
    /// of its encapsulation?
    pub fn freed_in_overlay(&self) -> bool {
        (self.freed_in("vxlan_rcv") && self.freed_on_kind("vxlan"))
            || (self.freed_in_any(&["geneve_udp_encap_recv", "geneve_rx"])
                && self.freed_on_kind("geneve"))
    }

    /// Was it freed by a queueing discipline itself (net/sched), as by those that drop
    /// what they would give out: fq_codel, codel, cake, pie?
    pub fn freed_by_queue(&self) -> bool {
        let Some(place) = &self.place else {
            return false;
        };
        let module = place.module.as_deref();
        let function = place.function.split('.').next().unwrap_or_default();
        module.is_some_and(|module| module.starts_with("sch_"))
            || function.ends_with("_dequeue")
            || function == "drop_func"
    }

    /// The kernel's reason, unless it says nothing.
    pub fn named_reason(&self) -> Option<&str> {
        self.reason.as_deref().filter(|name| {
            !matches!(
                *name,
                "NOT_SPECIFIED" | "NOT_DROPPED_YET" | "CONSUMED" | "SKB_CONSUMED"
            )
        })
    }

    /// Is a device of the path in it twice?
    pub fn repeats(&self) -> bool {
        let Some(record) = &self.record else {
            return false;
        };
        let length = (record.path_len as usize).min(record.path.len());
        let path = &record.path[..length];
        path.iter()
            .enumerate()
            .any(|(n, device)| path[n + 1..].contains(device))
    }

    /// Was it freed in this module?
    pub fn freed_in_module(&self, module: &str) -> bool {
        self.place
            .as_ref()
            .is_some_and(|place| place.module.as_deref() == Some(module))
    }

    pub fn moved(&self, counter: usize) -> bool {
        self.key.counters & (1 << counter) != 0
    }

    /// Did exactly these counters move?
    pub fn moved_only(&self, counters: &[usize]) -> bool {
        let wanted = counters
            .iter()
            .fold(0u16, |mask, counter| mask | 1 << counter);
        self.key.counters & !(1 << TX_PACKETS) == wanted
    }

    pub fn route_seen(&self) -> bool {
        self.key.route & route::SEEN != 0
    }

    /// A route was found (no errno).
    pub fn route_found(&self) -> bool {
        self.route_seen() && self.key.route_errno == 0 && self.key.route & route::TABLE_ONLY == 0
    }

    /// The last that was asked of the routing tables is the source, to see whether it
    /// is an address of this host: had it been, the destination would have come
    /// next. (Where the tables local and main are one, a default route answers.)
    pub fn ended_at_source(&self) -> bool {
        let Some(record) = &self.record else {
            return false;
        };
        let ipv6 = self.key.route & route::IPV6 != 0;
        let local = self.device.as_ref().and_then(|device| device.local);
        let remote = self.device.as_ref().and_then(|device| device.remote);
        self.key.route & route::TABLE_ONLY != 0
            && record.route.table == RT_TABLE_LOCAL
            && local.is_some()
            && local != remote
            && text::underlay(&record.route.dst, ipv6) == local
    }

    pub fn routed_to_itself(&self) -> bool {
        self.key.route & route::TO_ITSELF != 0
    }

    pub fn told(&self) -> Option<(u8, u8, u8)> {
        (self.key.told != 0).then_some((self.key.told, self.key.told_type, self.key.told_code))
    }

    pub fn reason_is(&self, name: &str) -> bool {
        self.reason.as_deref() == Some(name)
    }
}
