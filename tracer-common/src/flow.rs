//! The flow of one packet: the 5-tuple of one of its IP headers.

/// EtherType of IPv4.
pub const ETH_P_IP: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETH_P_IPV6: u16 = 0x86dd;
/// EtherType of ARP.
pub const ETH_P_ARP: u16 = 0x0806;
/// Transparent Ethernet bridging: an Ethernet frame in GRE or Geneve.
pub const ETH_P_TEB: u16 = 0x6558;
/// MPLS (RFC 3032), unicast and multicast.
pub const ETH_P_MPLS_UC: u16 = 0x8847;
pub const ETH_P_MPLS_MC: u16 = 0x8848;

pub const IPPROTO_ICMP: u8 = 1;
pub const IPPROTO_IPIP: u8 = 4;
pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;
pub const IPPROTO_IPV6: u8 = 41;
pub const IPPROTO_GRE: u8 = 47;
pub const IPPROTO_ESP: u8 = 50;
pub const IPPROTO_AH: u8 = 51;
pub const IPPROTO_ICMPV6: u8 = 58;
pub const IPPROTO_L2TP: u8 = 115;
pub const IPPROTO_MPLS: u8 = 137;

/// Addresses, protocol and ports of one IP header.
///
/// IPv4 and ARP addresses stand in the first four bytes of `src` and `dst`; of
/// MPLS, the topmost label stands in those of `dst`, as a big-endian number.
/// What is not there (ports of ICMP, everything of a packet that is neither
/// IP nor ARP) is zero.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub sport: u16,
    pub dport: u16,
    /// `ETH_P_IP`, `ETH_P_IPV6`, or another EtherType; 0 when nothing is known.
    pub ethertype: u16,
    /// IP protocol number, after IPv6 extension headers.
    pub proto: u8,
    /// ICMP or ICMPv6 type, where `proto` is one of them.
    pub icmp_type: u8,
}
const _: () = assert!(size_of::<Flow>() == 40);
crate::pod!(Flow);

/// Ports from here on are chosen by the sender's kernel, unless it is told otherwise
/// (net.ipv4.ip_local_port_range).
const EPHEMERAL: u16 = 32768;
/// Below, ports are services' (RFC 6335, system ports).
const SYSTEM_PORTS: u16 = 1024;

impl Flow {
    /// The port that says what a flow is for, 0: none does, or it cannot be told
    /// which of the two.
    #[inline(always)]
    pub fn service(&self) -> u16 {
        let (low, high) = if self.sport < self.dport {
            (self.sport, self.dport)
        } else {
            (self.dport, self.sport)
        };
        if low == 0 && high < EPHEMERAL {
            high
        } else if low < SYSTEM_PORTS || (low < EPHEMERAL && high >= EPHEMERAL) {
            low
        } else {
            0
        }
    }
}

/// Does a packet with this EtherType belong to a network, rather than to sockets that
/// only use the same structure, or to a protocol that hardly anybody speaks?
#[inline(always)]
pub fn is_networks(ethertype: u16) -> bool {
    matches!(
        ethertype,
        ETH_P_IP | ETH_P_IPV6 | ETH_P_ARP | ETH_P_MPLS_UC | ETH_P_MPLS_MC | ETH_P_TEB
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_senders_choose_do_not_count() {
        let service = |sport, dport| {
            Flow {
                sport,
                dport,
                ..Flow::default()
            }
            .service()
        };
        assert_eq!(service(40000, 53), 53);
        assert_eq!(service(53, 40000), 53);
        assert_eq!(service(0, 4789), 4789);
        assert_eq!(service(40000, 50000), 0);
        assert_eq!(service(1030, 8080), 0, "either may be the sender's choice");
        assert_eq!(service(1030, 80), 80);
        assert_eq!(service(0, 0), 0);
    }
}
