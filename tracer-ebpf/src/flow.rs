//! Headers to flows.

use tracer_common::flow::{ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Flow, IPPROTO_ICMP, IPPROTO_ICMPV6};

use crate::read;

/// IPv6 extension headers that are walked to find the protocol.
const MAX_EXTENSIONS: u32 = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// EtherType by the version of the IP header at `header`, 0 if it is none.
#[inline(always)]
pub fn version(header: u64) -> u16 {
    match read::at::<u8>(header, 0).unwrap_or(0) >> 4 {
        4 => ETH_P_IP,
        6 => ETH_P_IPV6,
        _ => 0,
    }
}

/// Fills a zeroed `flow` from the network header at `header`; returns the
/// length of the packet by its own word, 0 where it has none.
#[inline(always)]
pub fn parse(header: u64, ethertype: u16, flow: &mut Flow) -> u32 {
    flow.ethertype = ethertype;
    match ethertype {
        ETH_P_IP => ipv4(header, flow),
        ETH_P_IPV6 => ipv6(header, flow),
        ETH_P_ARP => {
            if let Some(arp) = read::at::<[u8; 28]>(header, 0) {
                flow.src[..4].copy_from_slice(&arp[14..18]);
                flow.dst[..4].copy_from_slice(&arp[24..28]);
            }
            0
        }
        _ => 0,
    }
}

#[inline(always)]
fn ipv4(header: u64, flow: &mut Flow) -> u32 {
    let Some(ip) = read::at::<[u8; 20]>(header, 0) else {
        return 0;
    };
    if ip[0] >> 4 != 4 {
        return 0;
    }
    flow.src[..4].copy_from_slice(&ip[12..16]);
    flow.dst[..4].copy_from_slice(&ip[16..20]);
    flow.proto = ip[9];
    let fragment_offset = u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff;
    if fragment_offset == 0 {
        transport(header + u64::from(ip[0] & 0xf) * 4, flow);
    }
    u32::from(u16::from_be_bytes([ip[2], ip[3]]))
}

#[inline(always)]
fn ipv6(header: u64, flow: &mut Flow) -> u32 {
    let Some(ip) = read::at::<[u8; 40]>(header, 0) else {
        return 0;
    };
    if ip[0] >> 4 != 6 {
        return 0;
    }
    flow.src.copy_from_slice(&ip[8..24]);
    flow.dst.copy_from_slice(&ip[24..40]);
    let mut next = ip[6];
    let mut at = header + 40;
    let mut first = true;
    for _ in 0..MAX_EXTENSIONS {
        let Some(extension) = (match next {
            HOP_BY_HOP | ROUTING | DESTINATION | FRAGMENT | AUTHENTICATION => {
                read::at::<[u8; 4]>(at, 0)
            }
            _ => break,
        }) else {
            break;
        };
        at += match next {
            FRAGMENT => {
                first &= u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 == 0;
                8
            }
            // RFC 4302: in units of four bytes, minus two.
            AUTHENTICATION => (u64::from(extension[1]) + 2) * 4,
            // RFC 8200: in units of eight bytes, without the first eight.
            _ => (u64::from(extension[1]) + 1) * 8,
        };
        next = extension[0];
    }
    flow.proto = next;
    if first {
        transport(at, flow);
    }
    40 + u32::from(u16::from_be_bytes([ip[4], ip[5]]))
}

#[inline(always)]
fn transport(header: u64, flow: &mut Flow) {
    let Some(l4) = read::at::<[u8; 4]>(header, 0) else {
        return;
    };
    match flow.proto {
        IPPROTO_ICMP | IPPROTO_ICMPV6 => flow.icmp_type = l4[0],
        // TCP, UDP, DCCP, SCTP, UDP-Lite: ports first.
        6 | 17 | 33 | 132 | 136 => {
            flow.sport = u16::from_be_bytes([l4[0], l4[1]]);
            flow.dport = u16::from_be_bytes([l4[2], l4[3]]);
        }
        _ => {}
    }
}
