//! Headers to flows.

use tracer_common::{
    config::payload,
    flow::{
        ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, ETH_P_MPLS_MC, ETH_P_MPLS_UC, ETH_P_TEB, Flow, IPPROTO_AH,
        IPPROTO_ESP, IPPROTO_GRE, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IPIP, IPPROTO_IPV6,
        IPPROTO_L2TP, IPPROTO_MPLS, IPPROTO_UDP,
    },
};

use crate::{maps::PORTS, read};

/// IPv6 extension headers that are walked to find the protocol.
const MAX_EXTENSIONS: u32 = 4;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
const UDP_HEADER: u64 = 8;
/// A UDP header, SPI and sequence number.
const SHORTEST_ESP: u16 = 16;
const ETHERNET_HEADER: u64 = 14;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
const ETH_P_ERSPAN: u16 = 0x88be;
/// Bits of the first two bytes of a GRE header (RFC 2784, RFC 2890).
const GRE_CHECKSUM: u16 = 0x8000;
const GRE_KEY: u16 = 0x2000;
const GRE_SEQUENCE: u16 = 0x1000;
const GRE_VERSION: u16 = 7;

/// The beginning of a network header, read at once: each call to read something
/// costs more than what it reads. An IPv6 header and what follows, or an IPv4
/// header with options. Behind the end of a packet there is always more of its
/// buffer (`struct skb_shared_info`).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header {
    /// Where it is.
    at: u64,
    bytes: [u8; 64],
}

impl Header {
    /// Takes the header at this address in.
    #[inline(always)]
    pub fn fill(&mut self, at: u64) -> bool {
        // Where nothing can be read, the helper leaves zeros.
        read::copy(&raw mut self.bytes, read::through(&mut self.at, at))
    }

    /// EtherType by the version of the IP header, 0 if it is none.
    #[inline(always)]
    pub fn version(&self) -> u16 {
        match self.bytes[0] >> 4 {
            4 => ETH_P_IP,
            6 => ETH_P_IPV6,
            _ => 0,
        }
    }

    /// The same of a packet of this EtherType: a label of MPLS must not pass for
    /// an IP header.
    #[inline(always)]
    pub fn version_of(&self, protocol: u16) -> u16 {
        if matches!(protocol, ETH_P_MPLS_UC | ETH_P_MPLS_MC) {
            return 0;
        }
        self.version()
    }

    /// Is it an IPv4 header that says that the packet must not be fragmented?
    #[inline(always)]
    pub fn must_stay_whole(&self) -> bool {
        self.version() == ETH_P_IP && self.bytes[6] & 0x40 != 0
    }

    /// The integer at `at`, a multiple of its size: else it is loaded byte by
    /// byte.
    #[inline(always)]
    fn load<T: Copy>(&self, at: usize) -> T {
        // SAFETY: the callers' constants are within the header, and aligned: it
        // stands behind a word.
        unsafe { self.bytes.as_ptr().add(at).cast::<T>().read() }
    }

    /// A number in network byte order.
    #[inline(always)]
    fn number(&self, at: usize) -> u16 {
        u16::from_be(self.load(at))
    }
}

/// Writes an address of four bytes to one of a flow.
#[inline(always)]
fn set_ipv4(to: &mut [u8; 16], address: u32) {
    // SAFETY: the addresses of a flow are aligned as it is.
    unsafe { to.as_mut_ptr().cast::<u32>().write(address) };
}

/// Writes an address of 16 bytes to one of a flow.
#[inline(always)]
fn set_ipv6(to: &mut [u8; 16], address: [u64; 2]) {
    // SAFETY: likewise.
    unsafe { to.as_mut_ptr().cast::<[u64; 2]>().write(address) };
}

/// EtherType by the version of the IP header at `header`, 0 if it is none.
#[inline(always)]
pub fn version(header: u64) -> u16 {
    match read::at::<u8>(header, 0).unwrap_or(0) >> 4 {
        4 => ETH_P_IP,
        6 => ETH_P_IPV6,
        _ => 0,
    }
}

/// What a network header says beside the flow.
#[derive(Clone, Copy, Default)]
pub struct Parsed {
    /// Length of the packet by its own word, 0 where it has none.
    pub length: u32,
    /// Address of the header behind it, 0 in fragments but the first.
    pub transport: u64,
}

/// Fills a zeroed `flow` from the network header at `header`; returns the
/// length of the packet by its own word, 0 where it has none. `room` is for the
/// header.
#[inline(always)]
pub fn parse(header: u64, ethertype: u16, room: &mut Header, flow: &mut Flow) -> u32 {
    if !room.fill(header) {
        return 0;
    }
    walk(room, ethertype, flow).length
}

/// The same of a header that is IP by its own word.
#[inline(always)]
pub fn parse_ip(header: u64, room: &mut Header, flow: &mut Flow) -> u32 {
    if !room.fill(header) {
        return 0;
    }
    walk(room, room.version(), flow).length
}

/// The same of the header that stands in `room`, with the address of what follows.
#[inline(always)]
pub fn walk(room: &Header, ethertype: u16, flow: &mut Flow) -> Parsed {
    flow.ethertype = ethertype;
    match ethertype {
        ETH_P_IP => ipv4(room, flow),
        ETH_P_IPV6 => ipv6(room, flow),
        ETH_P_ARP => {
            // RFC 826 over Ethernet: the addresses of sender and target.
            let [a, b]: [u16; 2] = room.load(14);
            set_ipv4(&mut flow.src, u32::from(b) << 16 | u32::from(a));
            set_ipv4(&mut flow.dst, room.load(24));
            Parsed::default()
        }
        ETH_P_MPLS_UC | ETH_P_MPLS_MC => {
            // RFC 3032: 20 bits of label, then what concerns the hop.
            let label = u32::from_be(room.load(0)) >> 12;
            set_ipv4(&mut flow.dst, label.to_be());
            Parsed::default()
        }
        _ => Parsed::default(),
    }
}

#[inline(always)]
fn ipv4(room: &Header, flow: &mut Flow) -> Parsed {
    const LENGTH: usize = 20;
    if room.version() != ETH_P_IP {
        return Parsed::default();
    }
    set_ipv4(&mut flow.src, room.load(12));
    set_ipv4(&mut flow.dst, room.load(16));
    flow.proto = room.bytes[9];
    let fragment_offset = room.number(6) & 0x1fff;
    let mut behind = 0;
    if fragment_offset == 0 {
        let length = u64::from(room.bytes[0] & 0xf) * 4;
        behind = room.at + length;
        if length == LENGTH as u64 {
            transport(room.load(LENGTH), flow);
        } else {
            transport_at(behind, flow);
        }
    }
    Parsed {
        length: u32::from(room.number(2)),
        transport: behind,
    }
}

#[inline(always)]
fn ipv6(room: &Header, flow: &mut Flow) -> Parsed {
    const LENGTH: usize = 40;
    if room.version() != ETH_P_IPV6 {
        return Parsed::default();
    }
    set_ipv6(&mut flow.src, room.load(8));
    set_ipv6(&mut flow.dst, room.load(24));
    let mut next = room.bytes[6];
    let mut at = room.at + LENGTH as u64;
    let mut first = true;
    for _ in 0..MAX_EXTENSIONS {
        let Some(extension) = (match next {
            HOP_BY_HOP | ROUTING | DESTINATION | FRAGMENT | IPPROTO_AH => {
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
            IPPROTO_AH => (u64::from(extension[1]) + 2) * 4,
            // RFC 8200: in units of eight bytes, without the first eight.
            _ => (u64::from(extension[1]) + 1) * 8,
        };
        next = extension[0];
    }
    flow.proto = next;
    if first {
        if at == room.at + LENGTH as u64 {
            transport(room.load(LENGTH), flow);
        } else {
            transport_at(at, flow);
        }
    }
    Parsed {
        length: LENGTH as u32 + u32::from(room.number(4)),
        transport: if first { at } else { 0 },
    }
}

#[inline(always)]
fn transport_at(header: u64, flow: &mut Flow) {
    if let Some(l4) = read::at(header, 0) {
        transport(l4, flow);
    }
}

#[inline(always)]
fn transport(l4: [u16; 2], flow: &mut Flow) {
    match flow.proto {
        IPPROTO_ICMP | IPPROTO_ICMPV6 => flow.icmp_type = l4[0].to_ne_bytes()[0],
        // TCP, UDP, DCCP, SCTP, UDP-Lite: ports first.
        6 | 17 | 33 | 132 | 136 => {
            flow.sport = u16::from_be(l4[0]);
            flow.dport = u16::from_be(l4[1]);
        }
        _ => {}
    }
}

#[inline(always)]
fn ipv4_of(address: &[u8; 16]) -> u32 {
    // SAFETY: the addresses of a flow are aligned as it is.
    unsafe { address.as_ptr().cast::<u32>().read() }
}

#[inline(always)]
fn ipv6_of(address: &[u8; 16]) -> [u64; 2] {
    // SAFETY: likewise.
    unsafe { address.as_ptr().cast::<[u64; 2]>().read() }
}

/// Compares two addresses of flows, or names that are aligned as words, without a call: a loop over bytes would be a function of its own,
/// with stack of its own.
#[inline(always)]
pub fn same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    let ([a, b], [c, d]) = (ipv6_of(a), ipv6_of(b));
    a == c && b == d
}

/// Has the network header at `header` the addresses of this flow?
#[inline(always)]
pub fn has_addresses(header: u64, flow: &Flow) -> bool {
    match flow.ethertype {
        ETH_P_IP => read::at::<[u32; 2]>(header, 12)
            .is_some_and(|[src, dst]| src == ipv4_of(&flow.src) && dst == ipv4_of(&flow.dst)),
        ETH_P_IPV6 => read::at::<[[u64; 2]; 2]>(header, 8).is_some_and(|[src, dst]| {
            let [a, b] = ipv6_of(&flow.src);
            let [c, d] = ipv6_of(&flow.dst);
            src[0] == a && src[1] == b && dst[0] == c && dst[1] == d
        }),
        _ => false,
    }
}

/// Does an outer packet of this flow belong to a tunnel? Its transport header is at
/// `transport`.
#[inline(always)]
pub fn is_tunnels(outer: &Flow, transport: u64) -> bool {
    match outer.proto {
        IPPROTO_IPIP | IPPROTO_IPV6 | IPPROTO_GRE | IPPROTO_ESP | IPPROTO_AH | IPPROTO_L2TP
        | IPPROTO_MPLS => true,
        IPPROTO_UDP => match PORTS.get_ptr(&outer.dport) {
            // SAFETY: an element of a map without deletions.
            Some(payload) => fits(unsafe { *payload }, transport),
            None => false,
        },
        _ => false,
    }
}

/// Does what follows the UDP header at `transport` look like this payload? Where
/// anybody's packets can have the port, it has to.
#[inline(always)]
fn fits(payload: u32, transport: u64) -> bool {
    if !matches!(payload, payload::WIREGUARD | payload::L2TP | payload::ESP) {
        return true;
    }
    if transport == 0 {
        return false;
    }
    // The UDP header's second word, with its length, and the first word behind it.
    let Some([length, word]) = read::at::<[[u8; 4]; 2]>(transport, 4) else {
        return false;
    };
    match payload {
        // Four types of message, and three bytes of zeros
        // (drivers/net/wireguard/messages.h).
        payload::WIREGUARD => word[0].wrapping_sub(1) < 4 && word[1] | word[2] | word[3] == 0,
        // Versions 2 and 3 (RFC 2661, RFC 3931).
        payload::L2TP => word[1] & 0xe == 2,
        // An SPI; IKE has zeros there, and a keepalive is one byte.
        _ => {
            u16::from_be_bytes([length[0], length[1]]) > SHORTEST_ESP
                && word[0] | word[1] | word[2] | word[3] != 0
        }
    }
}

/// What is inside an outer packet.
#[derive(Clone, Copy, Default)]
pub struct Inner {
    /// Length of the inner packet, 0 where it could not be decoded.
    pub length: u32,
    /// The tunnel's number in the packet (GRE key, VNI).
    pub number: u32,
    pub numbered: bool,
}

/// Where the next header is, and what it is; `ethertype` 0: an IP packet of
/// the version it says.
#[derive(Clone, Copy)]
struct Next {
    header: u64,
    ethertype: u16,
}

/// Fills a zeroed `flow` from the packet inside the outer one, whose transport
/// header is at `transport`. `room` is for its header.
#[inline(always)]
pub fn inner(outer: &Flow, transport: u64, room: &mut Header, flow: &mut Flow) -> Inner {
    let mut found = Inner::default();
    if transport == 0 {
        return found;
    }
    let next = match outer.proto {
        IPPROTO_IPIP | IPPROTO_IPV6 => Some(Next {
            header: transport,
            ethertype: 0,
        }),
        IPPROTO_GRE => gre(transport, &mut found),
        IPPROTO_UDP => udp(outer.dport, transport + UDP_HEADER, &mut found),
        _ => None,
    };
    let Some(mut next) = next else { return found };
    if next.ethertype == ETH_P_TEB {
        let Some(frame) = ethernet(next.header) else {
            return found;
        };
        next = frame;
    }
    if !room.fill(next.header) {
        return found;
    }
    if next.ethertype == 0 {
        next.ethertype = room.version();
    }
    if next.ethertype != 0 {
        found.length = walk(room, next.ethertype, flow).length;
    }
    found
}

#[inline(always)]
fn gre(header: u64, found: &mut Inner) -> Option<Next> {
    let [a, b, c, d] = read::at::<[u8; 4]>(header, 0)?;
    let flags = u16::from_be_bytes([a, b]);
    let ethertype = u16::from_be_bytes([c, d]);
    if flags & GRE_VERSION != 0 {
        return None;
    }
    let mut at = header + 4;
    if flags & GRE_CHECKSUM != 0 {
        at += 4;
    }
    if flags & GRE_KEY != 0 {
        found.number = u32::from_be(read::at(at, 0)?);
        found.numbered = true;
        at += 4;
    }
    if flags & GRE_SEQUENCE != 0 {
        at += 4;
    }
    if ethertype == ETH_P_ERSPAN {
        // ERSPAN type II has eight bytes of its own, type I none.
        if flags & GRE_SEQUENCE != 0 {
            at += 8;
        }
        return Some(Next {
            header: at,
            ethertype: ETH_P_TEB,
        });
    }
    Some(Next {
        header: at,
        ethertype,
    })
}

#[inline(always)]
fn udp(port: u16, header: u64, found: &mut Inner) -> Option<Next> {
    let payload = PORTS.get_ptr(&port)?;
    // SAFETY: an element of a map without deletions.
    match unsafe { *payload } {
        payload::VXLAN => {
            let [.., a, b, c, _] = read::at::<[u8; 8]>(header, 0)?;
            found.number = u32::from_be_bytes([0, a, b, c]);
            found.numbered = true;
            Some(Next {
                header: header + 8,
                ethertype: ETH_P_TEB,
            })
        }
        payload::GENEVE => {
            let geneve = read::at::<[u8; 8]>(header, 0)?;
            found.number = u32::from_be_bytes([0, geneve[4], geneve[5], geneve[6]]);
            found.numbered = true;
            Some(Next {
                // RFC 8926: length of the options in units of four bytes.
                header: header + 8 + u64::from(geneve[0] & 0x3f) * 4,
                ethertype: u16::from_be_bytes([geneve[2], geneve[3]]),
            })
        }
        payload::FOU_IP => Some(Next {
            header,
            ethertype: 0,
        }),
        payload::FOU_GRE => gre(header, found),
        payload::GUE => {
            let gue = read::at::<[u8; 4]>(header, 0)?;
            if gue[0] >> 6 != 0 {
                // Version 1: an IP packet, whose version begins with 01.
                return Some(Next {
                    header,
                    ethertype: 0,
                });
            }
            let behind = header + 4 + u64::from(gue[0] & 0x1f) * 4;
            match gue[1] {
                IPPROTO_IPIP | IPPROTO_IPV6 => Some(Next {
                    header: behind,
                    ethertype: 0,
                }),
                IPPROTO_GRE => gre(behind, found),
                _ => None,
            }
        }
        _ => None,
    }
}

#[inline(always)]
fn ethernet(frame: u64) -> Option<Next> {
    let tag = u16::from_be(read::at(frame, 12)?);
    if tag == ETH_P_8021Q || tag == ETH_P_8021AD {
        return Some(Next {
            header: frame + ETHERNET_HEADER + 4,
            ethertype: u16::from_be(read::at(frame, 16)?),
        });
    }
    Some(Next {
        header: frame + ETHERNET_HEADER,
        ethertype: tag,
    })
}
