//! The first bytes of a packet: its own where they were kept, else from what is
//! recorded of it: addresses, protocol, ports, lengths, and what a tunnel writes
//! between two headers where the lengths say that it is that and nothing else.
//!
//! What is not recorded is not made up, except for the fields of an IP header
//! that have to be something: they are zero, TTL and hop limit 64. The bytes end
//! where the record does.

use tracer_common::{
    flow::{
        ETH_P_IP, ETH_P_IPV6, ETH_P_MPLS_MC, ETH_P_MPLS_UC, ETH_P_TEB, Flow, IPPROTO_GRE,
        IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IPIP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP,
    },
    record::Record,
    tally::{outcome, seen},
};

use crate::{
    devices::Device,
    event::{self, Layer, Sample},
};

const HOPS: u8 = 64;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
/// Destination, source, type.
const ETHERNET: usize = 14;
const IPPROTO_UDPLITE: u8 = 136;
const IPPROTO_DCCP: u8 = 33;
const IPPROTO_SCTP: u8 = 132;

/// The bytes there are, and how many there were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub bytes: Vec<u8>,
    pub length: u32,
    /// With the encapsulation around it.
    pub outer: bool,
    pub layer: Layer,
    /// The headers are written anew.
    pub rebuilt: bool,
}

/// The packet as it was freed; `None` if it is no IP and none of its bytes were
/// kept that can be shown.
pub fn of(sample: &Sample, device: Option<&Device>) -> Option<Packet> {
    let record = &sample.record;
    let key = &record.key;
    let lone = matches!(key.outcome, outcome::STRAY | outcome::UNRELATED)
        && key.seen & seen::INNER_DECODED == 0;
    let bare = key.seen & (seen::DECAPSULATED | seen::IN_THE_CLEAR) != 0;
    let outer = lone || !bare && record.outer.ethertype != 0;
    let ethertype = if outer && !lone {
        record.outer.ethertype
    } else {
        key.flow.ethertype
    };
    let kept = sample.packet.as_ref();
    if let Some(kept) = kept.filter(|kept| is_shown(kept, ethertype)) {
        return Some(Packet {
            bytes: kept.bytes.clone(),
            length: kept.length,
            outer,
            layer: kept.layer,
            rebuilt: false,
        });
    }
    if lone {
        return plain(&key.flow, record.outer_length, true);
    }
    if !outer {
        return plain(&key.flow, record.length, false);
    }
    let mut packet = plain(&record.outer, record.outer_length, true)?;
    if let (Some(between), Some(inner)) = (
        between(record, device),
        plain(&key.flow, record.length, false),
    ) {
        packet.bytes.truncate(header(&record.outer));
        packet.bytes.extend(between);
        packet.bytes.extend(inner.bytes);
        packet.bytes.truncate(packet.length as usize);
    }
    Some(packet)
}

/// A link type for network headers is there for IP only, and a label of MPLS must
/// not pass for that.
fn is_shown(kept: &event::Packet, ethertype: u16) -> bool {
    let version = kept.bytes.first().map(|byte| byte >> 4);
    let labelled = matches!(ethertype, ETH_P_MPLS_UC | ETH_P_MPLS_MC);
    kept.layer == Layer::Ethernet || !labelled && matches!(version, Some(4 | 6))
}

/// One header and what is known of the one behind it.
fn plain(flow: &Flow, length: u32, outer: bool) -> Option<Packet> {
    let mut bytes = ip(flow, length)?;
    match flow.proto {
        IPPROTO_TCP | IPPROTO_UDP | IPPROTO_UDPLITE | IPPROTO_DCCP | IPPROTO_SCTP => {
            bytes.extend(flow.sport.to_be_bytes());
            bytes.extend(flow.dport.to_be_bytes());
        }
        IPPROTO_ICMP | IPPROTO_ICMPV6 => bytes.push(flow.icmp_type),
        _ => {}
    }
    let length = length.max(bytes.len() as u32);
    Some(Packet {
        bytes,
        length,
        outer,
        layer: Layer::Network,
        rebuilt: true,
    })
}

fn header(flow: &Flow) -> usize {
    if flow.ethertype == ETH_P_IPV6 {
        IPV6
    } else {
        IPV4
    }
}

fn ip(flow: &Flow, length: u32) -> Option<Vec<u8>> {
    // One that is longer than the field has zero there.
    let length = length.max(header(flow) as u32 + 4);
    match flow.ethertype {
        ETH_P_IP => {
            let total = u16::try_from(length).unwrap_or(0).to_be_bytes();
            let mut bytes = vec![
                0x45, 0, total[0], total[1], 0, 0, 0, 0, HOPS, flow.proto, 0, 0,
            ];
            bytes.extend(&flow.src[..4]);
            bytes.extend(&flow.dst[..4]);
            let sum = checksum(&bytes).to_be_bytes();
            bytes[10..12].copy_from_slice(&sum);
            Some(bytes)
        }
        ETH_P_IPV6 => {
            let payload = length - IPV6 as u32;
            let payload = u16::try_from(payload).unwrap_or(0).to_be_bytes();
            let mut bytes = vec![0x60, 0, 0, 0, payload[0], payload[1], flow.proto, HOPS];
            bytes.extend(flow.src);
            bytes.extend(flow.dst);
            Some(bytes)
        }
        _ => None,
    }
}

/// Of a header of IPv4 that has zero in its place.
fn checksum(bytes: &[u8]) -> u16 {
    let (words, _) = bytes.as_chunks::<2>();
    let mut sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What is between the outer and the inner header, if nothing else has the
/// length that it had.
fn between(record: &Record, device: Option<&Device>) -> Option<Vec<u8>> {
    let around = record.outer_length.checked_sub(record.length)? as usize;
    let rest = around.checked_sub(header(&record.outer))?;
    let inner = record.key.flow.ethertype;
    if record.length == 0 || !matches!(inner, ETH_P_IP | ETH_P_IPV6) {
        return None;
    }
    match record.outer.proto {
        IPPROTO_IPIP if inner == ETH_P_IP => (rest == 0).then(Vec::new),
        IPPROTO_IPV6 if inner == ETH_P_IPV6 => (rest == 0).then(Vec::new),
        IPPROTO_GRE => gre(record, rest),
        // Without its checksum, one in IPv6 would be a wrong one.
        IPPROTO_UDP if record.outer.ethertype == ETH_P_IP => {
            let behind = udp_payload(record, device, rest.checked_sub(UDP)?)?;
            let length = u16::try_from(rest + record.length as usize).ok()?;
            let mut bytes = Vec::new();
            bytes.extend(record.outer.sport.to_be_bytes());
            bytes.extend(record.outer.dport.to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(behind);
            Some(bytes)
        }
        _ => None,
    }
}

fn kind_of(record: &Record) -> &[u8] {
    crate::flows::until_zero(&record.kind)
}

/// What a packet carries as the number of its tunnel.
fn number(record: &Record) -> Option<u32> {
    (record.key.seen & seen::NUMBERED != 0).then_some(record.number)
}

fn ethernet(inner: u16) -> Vec<u8> {
    let mut bytes = vec![0; ETHERNET - 2];
    bytes.extend(inner.to_be_bytes());
    bytes
}

fn gre(record: &Record, rest: usize) -> Option<Vec<u8>> {
    let inner = record.key.flow.ethertype;
    let bridged = matches!(kind_of(record), b"gretap" | b"ip6gretap");
    let tail = if bridged { ethernet(inner) } else { Vec::new() };
    let proto = if bridged { ETH_P_TEB } else { inner };
    let key = number(record);
    let length = 4 + if key.is_some() { 4 } else { 0 } + tail.len();
    if rest != length {
        return None;
    }
    let flags: u16 = if key.is_some() { 0x2000 } else { 0 };
    let mut bytes = Vec::from(flags.to_be_bytes());
    bytes.extend(proto.to_be_bytes());
    bytes.extend(key.iter().flat_map(|key| key.to_be_bytes()));
    bytes.extend(tail);
    Some(bytes)
}

fn udp_payload(record: &Record, device: Option<&Device>, rest: usize) -> Option<Vec<u8>> {
    let vni = || number(record).or(device?.vni);
    let inner = record.key.flow.ethertype;
    let is_fou = device.is_some_and(|device| device.encap.as_deref() == Some("fou"));
    match kind_of(record) {
        b"vxlan" if rest == 8 + ETHERNET => {
            let mut bytes = vec![0x08, 0, 0, 0];
            bytes.extend((vni()? << 8).to_be_bytes());
            bytes.extend(ethernet(inner));
            Some(bytes)
        }
        b"geneve" if rest == 8 + ETHERNET => {
            let mut bytes = vec![0, 0];
            bytes.extend(ETH_P_TEB.to_be_bytes());
            bytes.extend((vni()? << 8).to_be_bytes());
            bytes.extend(ethernet(inner));
            Some(bytes)
        }
        b"sit" | b"ipip" | b"ip6tnl" if is_fou && rest == 0 => Some(Vec::new()),
        b"gre" | b"gretap" | b"ip6gre" | b"ip6gretap" if is_fou => gre(record, rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
