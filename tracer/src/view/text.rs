//! Words for the parts of a drop, shared by the views for people. Names that
//! come from the machine are made printable here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tracer_common::{
    flow::{
        ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, ETH_P_MPLS_MC, ETH_P_MPLS_UC, Flow, IPPROTO_ICMP,
        IPPROTO_ICMPV6, IPPROTO_UDP,
    },
    record::sender,
    tally::{COUNTERS, TX_PACKETS, outcome, route, seen},
};

use super::why;
use crate::{
    devices::printable,
    flows::{Ledger, Row, until_zero},
    judge::{Confidence, Evidence, Place, names},
};

/// `IPv4`, `IPv6`, `ARP`, or the EtherType.
pub fn family(flow: &Flow) -> String {
    family_of(flow.ethertype)
}

/// The same by the EtherType alone.
pub fn family_of(ethertype: u16) -> String {
    match ethertype {
        ETH_P_IP => "IPv4".to_owned(),
        ETH_P_IPV6 => "IPv6".to_owned(),
        ETH_P_ARP => "ARP".to_owned(),
        ETH_P_MPLS_UC | ETH_P_MPLS_MC => "MPLS".to_owned(),
        other => format!("0x{other:04x}"),
    }
}

/// An address of a flow, if its family has one that was read.
pub fn address(bytes: &[u8; 16], ethertype: u16) -> Option<IpAddr> {
    match ethertype {
        ETH_P_IP | ETH_P_ARP => Some(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
        ETH_P_IPV6 => Some(Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}

/// Address of an underlay: IPv4 in the first four bytes, or IPv6.
pub fn underlay(bytes: &[u8; 16], ipv6: bool) -> Option<IpAddr> {
    if bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    address(bytes, if ipv6 { ETH_P_IPV6 } else { ETH_P_IP })
}

/// `1.2.3.4:5 > 6.7.8.9:10`.
pub fn endpoints(flow: &Flow) -> String {
    if let Some(label) = label(flow) {
        return format!("label {label}");
    }
    let side = |bytes: &[u8; 16], port: u16| match (address(bytes, flow.ethertype), port) {
        (None, _) => "?".to_owned(),
        (Some(address), 0) => address.to_string(),
        (Some(IpAddr::V6(address)), port) => format!("[{address}]:{port}"),
        (Some(address), port) => format!("{address}:{port}"),
    };
    format!(
        "{} > {}",
        side(&flow.src, flow.sport),
        side(&flow.dst, flow.dport)
    )
}

/// The topmost label of MPLS.
pub fn label(flow: &Flow) -> Option<u32> {
    let label = *flow.dst.first_chunk::<4>()?;
    matches!(flow.ethertype, ETH_P_MPLS_UC | ETH_P_MPLS_MC).then(|| u32::from_be_bytes(label))
}

/// `ICMPv6 echo request`, `TCP`.
pub fn protocol(flow: &Flow) -> String {
    let name =
        names::protocol(flow.proto).map_or(format!("protocol {}", flow.proto), str::to_owned);
    let version = match flow.proto {
        IPPROTO_ICMP => 4,
        IPPROTO_ICMPV6 => 6,
        _ => {
            return if flow.ethertype == ETH_P_ARP || label(flow).is_some() {
                String::new()
            } else {
                name
            };
        }
    };
    match names::icmp(version, flow.icmp_type) {
        Some(kind) => format!("{name} {kind}"),
        None => format!("{name} type {}", flow.icmp_type),
    }
}

/// `ping[812] uid 1000`, or what else is known of the sender.
pub fn sender(row: &Row) -> String {
    let Some(record) = &row.evidence.record else {
        return String::new();
    };
    let process = &record.process;
    if process.tgid != 0 {
        let comm = printable(until_zero(&process.comm));
        return format!("{comm}[{}] uid {}", process.tgid, process.uid);
    }
    if process.flags & sender::USER_SOCKET != 0 {
        return format!("uid {}", process.uid);
    }
    if process.flags & sender::SOCKET != 0 {
        return "kernel".to_owned();
    }
    String::new()
}

/// `sit_tunnel_xmit+0x1a5 [sit]`.
pub fn place(place: Option<&Place>) -> String {
    match place {
        None => "an unknown function".to_owned(),
        Some(place) => match &place.module {
            None => format!("{}+{:#x}", place.function, place.offset),
            Some(module) => format!("{}+{:#x} [{module}]", place.function, place.offset),
        },
    }
}

/// `fou_test (sit, fou, remote 127.0.0.1, netns A)`.
pub fn tunnel(row: &Row) -> String {
    let evidence = &row.evidence;
    if evidence.key.ifindex == 0 || evidence.key.outcome == outcome::UNRELATED {
        return "no tunnel of this host".to_owned();
    }
    let mut facts: Vec<String> = Vec::new();
    if !evidence.kind.is_empty() {
        facts.push(evidence.kind.clone());
    }
    if let Some(device) = &evidence.device {
        facts.extend(device.encap.clone());
        facts.extend(device.key.as_ref().map(|key| format!("key {key}")));
        facts.extend(device.remote.map(|remote| format!("remote {remote}")));
    }
    facts.extend(row.netns.as_ref().map(|netns| format!("netns {netns}")));
    if facts.is_empty() {
        return device_name(row);
    }
    format!("{} ({})", device_name(row), facts.join(", "))
}

/// The tunnel device's name.
pub fn device_name(row: &Row) -> String {
    match (&row.evidence.device, &row.evidence.record) {
        (Some(device), _) => device.display_name(),
        (None, Some(record)) if record.dev[0] != 0 => printable(until_zero(&record.dev)),
        _ => format!("if{}", row.evidence.key.ifindex),
    }
}

/// The outer destination: from the packet, the look-up, or the configuration.
pub fn outer_destination(row: &Row) -> Option<IpAddr> {
    let evidence = &row.evidence;
    let sent = evidence
        .record
        .as_ref()
        .and_then(|record| address(&record.outer.dst, record.outer.ethertype));
    sent.or_else(|| looked_up(row))
}

/// The destination of the look-up, or the configured one.
pub fn looked_up(row: &Row) -> Option<IpAddr> {
    let Evidence {
        key,
        record,
        device,
        ..
    } = &row.evidence;
    let device = device.as_ref();
    let asked = record
        .as_ref()
        .and_then(|record| underlay(&record.route.dst, key.route & route::IPV6 != 0));
    // The last table is asked for the source too, to see whether it is this
    // host's.
    let table_only = key.route & route::TABLE_ONLY != 0;
    let sent_by_device = (key.sender_netns, key.sender_ifindex) == (key.netns, key.ifindex);
    asked
        .filter(|asked| !table_only || device.and_then(|device| device.local) != Some(*asked))
        // What a device received, and did not send, has not gone to its remote; nor
        // has what its driver did not get.
        .or(device
            .filter(|_| key.outcome != outcome::AT_DEVICE)
            .filter(|_| sent_by_device || !row.evidence.received())
            .and_then(|device| device.remote))
}

/// `RTN_LOCAL via lo`, `EACCES`, or nothing.
pub fn route_of(row: &Row) -> Option<String> {
    let key = &row.evidence.key;
    if key.route_errno != 0 {
        return Some(names::errno(key.route_errno));
    }
    let name = names::route_type(key.route_type)?;
    let dev = row
        .evidence
        .record
        .as_ref()
        .map(|record| until_zero(&record.route.dev));
    Some(match dev {
        Some(dev) if !dev.is_empty() => format!("{name} via {}", printable(dev)),
        _ => name.to_owned(),
    })
}

/// `tx_errors +1, tx_carrier_errors +1`: counters around one packet.
pub fn counters(row: &Row) -> String {
    let moved: Vec<String> = COUNTERS
        .iter()
        .enumerate()
        .filter(|(n, _)| *n != TX_PACKETS && row.evidence.moved(*n))
        .map(|(n, name)| {
            let by = row
                .evidence
                .record
                .as_ref()
                .map_or(1, |record| record.counters[n]);
            format!("{name} +{by}")
        })
        .collect();
    moved.join(", ")
}

/// What separates families on a device: `IPv4 1 of 1 sent, IPv6 0 of 4 sent`.
pub fn families(ledger: &Ledger) -> String {
    ledger
        .families
        .iter()
        .map(|family| {
            let name = match family.value.as_str() {
                "ipv4" => "IPv4",
                "ipv6" => "IPv6",
                "arp" => "ARP",
                other => other,
            };
            format!(
                "{name} {} of {} sent",
                family.passed,
                family.passed + family.dropped
            )
        })
        .collect::<Vec<_>>()
        .join(", ")
}

/// The number a packet carries, as ip-link(8) writes that of its tunnel.
fn number(row: &Row, number: u32) -> String {
    if row.evidence.key.outer_proto == IPPROTO_UDP {
        return format!("VNI {number}");
    }
    format!("key {number} ({})", Ipv4Addr::from(number))
}

/// What the devices want that could have received the packet.
fn receivers(row: &Row) -> String {
    let evidence = &row.evidence;
    let Some(record) = &evidence.record else {
        return String::new();
    };
    let wanted: Vec<String> = evidence
        .receivers
        .iter()
        // Those that come with the module take everything, once they are up.
        .filter(|device| {
            device.up || device.external || device.local.is_some() || device.remote.is_some()
        })
        .map(|device| {
            if !device.up {
                return format!("{} is down", device.display_name());
            }
            if device.external {
                return format!(
                    "{} is external: each packet brings its own",
                    device.display_name()
                );
            }
            let number = match (device.vni, device.key.as_deref().and_then(input_key)) {
                (Some(vni), _) => format!("VNI {vni}"),
                (None, Some(key)) => format!("key {key}"),
                (None, None) => "no key".to_owned(),
            };
            // vxlan looks at the number only.
            let ends = device.kind != "vxlan";
            let from = device.remote.filter(|_| ends);
            let from = from.map_or(String::new(), |remote| format!(" from {remote}"));
            let to = device.local.filter(|_| ends);
            let to = to.map_or(String::new(), |local| format!(" to {local}"));
            format!("{} takes {number}{from}{to}", device.display_name())
        })
        .collect();
    // Its header may be gone by the time the packet is freed.
    let packet = match record.outer.ethertype {
        0 => String::new(),
        _ => format!(" ({})", endpoints(&record.outer)),
    };
    if wanted.is_empty() {
        packet
    } else {
        format!("{packet}; {}", wanted.join(", "))
    }
}

/// Devices that have the packet's port, and why they do not listen there.
fn listeners(evidence: &Evidence) -> String {
    let listeners = evidence
        .receivers
        .iter()
        .filter(|device| device.port.is_some());
    listeners
        .map(|device| match device.up {
            true => format!(
                "; {} is up and has this port: its socket is not in the VRF by which the packet came (bind it: dev VRF, or net.ipv4.udp_l3mdev_accept=1), or in another network namespace",
                device.display_name()
            ),
            false => format!("; {} is down", device.display_name()),
        })
        .collect()
}

/// Of a key as `ip` writes it, where the two directions may differ: the one
/// that packets have to bring.
fn input_key(key: &str) -> Option<&str> {
    if key.starts_with("okey ") {
        return None;
    }
    let key = key.strip_prefix("ikey ").unwrap_or(key);
    key.split(' ').next()
}

/// How large the inner packet was, and what was too small for it.
fn inner_size(row: &Row) -> String {
    match &row.evidence.record {
        Some(record) if row.evidence.key.outcome == outcome::AT_DEVICE => format!(
            ": {} bytes are more than {}, or the route through it, carries",
            record.length,
            device_name(row)
        ),
        None => String::new(),
        Some(record) if record.length > record.mtu && record.mtu != 0 => format!(
            ": {} bytes, the device's MTU is {}",
            record.length, record.mtu
        ),
        Some(record) => {
            let to = outer_destination(row).map_or(String::new(), |to| format!(" to {to}"));
            format!(
                ": {} bytes and the encapsulation are more than the path{to} carries",
                record.length
            )
        }
    }
}

/// The same for the outer packet.
fn outer_size(row: &Row) -> String {
    let evidence = &row.evidence;
    let Some(length) = evidence
        .record
        .as_ref()
        .map(|record| record.outer_length)
        .filter(|length| *length != 0)
    else {
        return String::new();
    };
    match &evidence.freed_device {
        Some(device) if device.mtu != 0 && device.mtu < length => format!(
            ": {length} bytes, the MTU of {} is {}",
            device.display_name(),
            device.mtu
        ),
        _ => format!(": {length} bytes"),
    }
}

/// What the verdict says of the packet in one sentence, with the two things
/// that differ where both are known.
pub fn verdict(row: &Row) -> String {
    let evidence = &row.evidence;
    match row.cause.id {
        "route-type-not-accepted" => {
            let route = route_of(row).unwrap_or_default();
            let to = outer_destination(row).map_or(String::new(), |to| format!(" to {to}"));
            let accepts = if evidence.key.route_type == 2 {
                "this kernel's sit accepts RTN_UNICAST only"
            } else {
                "sit accepts RTN_UNICAST, and RTN_LOCAL since ed6ae5ca437d"
            };
            format!("the underlay route{to} is {route}; {accepts}")
        }
        "kernel-reason" => {
            format!(
                "the kernel's reason: {}",
                evidence.reason.as_deref().unwrap_or("?")
            )
        }
        "no-matching-tunnel" | "vni-unknown" => {
            let carried = match (&evidence.record, evidence.saw(seen::NUMBERED)) {
                (Some(record), true) => {
                    format!(": the packet carries {}", number(row, record.number))
                }
                _ => String::new(),
            };
            format!("{}{carried}{}", row.cause.title, receivers(row))
        }
        "source-not-allowed" => {
            let from = address(&evidence.flow().src, evidence.flow().ethertype);
            let from = from.map_or(String::new(), |from| format!(": {from}"));
            format!("{}{from}", row.cause.title)
        }
        "outer-too-big" => format!("{}{}", row.cause.title, outer_size(row)),
        "netfilter-drop" if evidence.freed_in_any(&["nft_do_chain", "ipt_do_table"]) => {
            "a netfilter rule (nftables, iptables) dropped the packet".to_owned()
        }
        "forward-refused" => match evidence.told() {
            Some((4, 3, 13) | (6, 1, 1)) => {
                "where the packet arrived, a route or rule of type prohibit refuses its destination".to_owned()
            }
            Some((4, 3, 1)) => {
                "where the packet arrived, a route of type unreachable refuses its destination".to_owned()
            }
            _ => row.cause.title.to_owned(),
        },
        "ttl-expired" if evidence.is_inner() && evidence.received() => {
            "the TTL (hop limit) of the packet that came out of the tunnel ran out; its source is told".to_owned()
        }
        // IPv6 drivers count both alike.
        "lookup-policy" if evidence.key.route_errno == 0 => {
            let to = outer_destination(row).map_or(String::new(), |to| format!(" (to {to})"));
            format!("IPsec does not let the outer packet out{to}: a policy blocks it, or asks for a state (SA) that is not there")
        }
        "no-ipsec-state" if evidence.in_driver() => {
            format!(
                "{}, or a policy that blocks it, or no route to the other end",
                row.cause.title
            )
        }
        id if id.starts_with("neighbour-") && is_before_the_driver(row) => {
            format!("{} (inside the tunnel, on {})", row.cause.title, device_name(row))
        }
        id if id.starts_with("lookup-") || id == "local-address-missing" => {
            let to = outer_destination(row).map_or(String::new(), |to| format!(" (to {to})"));
            let why = why::of(row).map_or(String::new(), |why| format!(": {}", why.sentence()));
            format!("{}{to}{why}", row.cause.title)
        }
        "payload-not-carried" => format!(
            "{}: {} into {}",
            row.cause.title,
            family(evidence.flow()),
            evidence.kind
        ),
        "packet-too-big" => format!("{}{}", row.cause.title, inner_size(row)),
        // On the tunnel device itself it is the inner packet.
        "no-carrier" if evidence.key.outcome == outcome::AT_DEVICE && !evidence.received() => {
            format!("{} is down or has no carrier", device_name(row))
        }
        "bridge-port-too-small" => match (&evidence.record, &evidence.freed_device) {
            (Some(record), Some(port)) if row.confidence == Confidence::Proved => format!(
                "a packet of {} bytes is larger than the MTU {} of {}, the bridge's port that it leaves by",
                record.length,
                port.mtu,
                port.display_name()
            ),
            _ => row.cause.title.to_owned(),
        },
        "device-down" => match &evidence.freed_device {
            Some(device) if evidence.freed_in("vlan_do_receive") => format!(
                "the device of the packet's VLAN on {} is down",
                device.display_name()
            ),
            Some(device) => format!(
                "{}, by which the packet comes in, is down",
                device.display_name()
            ),
            None => row.cause.title.to_owned(),
        },
        "no-listener" => match &evidence.record {
            Some(record) if record.outer.ethertype != 0 => format!(
                "the outer packet arrived at UDP {}, where nobody listens{}",
                endpoints(&record.outer)
                    .split(" > ")
                    .nth(1)
                    .unwrap_or_default(),
                listeners(evidence)
            ),
            _ => row.cause.title.to_owned(),
        },
        _ => {
            // What came out of the tunnel is on its own way.
            let to = match evidence.is_inner() && evidence.received() {
                true => address(&evidence.flow().dst, evidence.flow().ethertype),
                false => outer_destination(row),
            };
            let to = to.map_or(String::new(), |to| format!(" (to {to})"));
            format!("{}{to}", row.cause.title)
        }
    }
}

/// Did the ICMP error go to the sender of the inner packet, as far as is
/// known? Of the outer packet, the other sender is told.
pub fn inner_is_told(row: &Row) -> bool {
    row.evidence.is_inner()
}

/// Did the packet vanish on the tunnel's device, before its driver got it?
fn is_before_the_driver(row: &Row) -> bool {
    row.evidence.key.outcome == outcome::AT_DEVICE && !row.evidence.received()
}

/// What to do, for this row.
pub fn remedy(row: &Row) -> String {
    match (row.cause.id, row.evidence.key.route_type) {
        ("neighbour-failed" | "neighbour-queue-full" | "neighbour-flushed", _)
            if is_before_the_driver(row) =>
        {
            let dev = device_name(row);
            format!(
                "ip neigh show dev {dev}: is the next hop inside the tunnel up, and does its answer come back through {dev}?"
            )
        }
        ("ttl-expired", _) if row.evidence.is_inner() && row.evidence.received() => {
            "look for a routing loop between the networks behind the tunnel; of traceroute it is what is to be expected".to_owned()
        }
        ("route-type-not-accepted", 2) => format!(
            "{} is an address of this host: run a kernel with ed6ae5ca437d, or use a remote that is not local",
            outer_destination(row).map_or("the remote".to_owned(), |to| to.to_string())
        ),
        ("route-type-not-accepted", _) => format!(
            "use a unicast remote: ip link change {} type sit remote ADDRESS",
            device_name(row)
        ),
        _ => {
            let mut remedy = row.cause.remedy.to_owned();
            if let Some(to) = outer_destination(row) {
                remedy = remedy.replace("REMOTE", &to.to_string());
            }
            if row.evidence.key.ifindex != 0 {
                remedy = remedy.replace("DEV", &device_name(row));
            }
            if row.evidence.key.outer_dport != 0 {
                remedy = remedy.replace("PORT", &row.evidence.key.outer_dport.to_string());
            }
            remedy
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_packets_have_to_bring() {
        assert_eq!(input_key("0.0.0.7"), Some("0.0.0.7"));
        assert_eq!(input_key("ikey 0.0.0.7"), Some("0.0.0.7"));
        assert_eq!(input_key("ikey 0.0.0.7 okey 0.0.0.8"), Some("0.0.0.7"));
        assert_eq!(input_key("okey 0.0.0.8"), None);
    }
}
