//! `struct sk_buff` of the running kernel.

use tracer_common::flow::{ETH_P_IP, ETH_P_IPV6};

use crate::{device::NetDevice, flow, globals::offset, read};

const IPV4_HEADER: u16 = 20;
const IPV6_HEADER: u16 = 40;

/// Codepoints of the ECN field (RFC 3168).
const NOT_ECT: u8 = 0;
const CE: u8 = 3;

/// Address of a `struct sk_buff`.
#[derive(Clone, Copy)]
pub struct SkBuff(pub u64);

impl SkBuff {
    #[inline(always)]
    pub fn device(self) -> Option<NetDevice> {
        read::at::<u64>(self.0, offset!(skb_dev)).map(NetDevice)
    }

    #[inline(always)]
    pub fn length(self) -> u32 {
        read::at(self.0, offset!(skb_len)).unwrap_or(0)
    }

    #[inline(always)]
    pub fn mark(self) -> u32 {
        read::at(self.0, offset!(skb_mark)).unwrap_or(0)
    }

    /// Interface the packet came in by, 0 if it was made here.
    #[inline(always)]
    pub fn iif(self) -> u32 {
        read::at(self.0, offset!(skb_iif)).unwrap_or(0)
    }

    /// The frame came for another host's MAC address (`PACKET_OTHERHOST`).
    #[inline(always)]
    pub fn for_other_host(self) -> bool {
        read::at::<u8>(self.0, offset!(skb_pkt_type)).is_some_and(|byte| byte & 7 == 3)
    }

    /// EtherType of the packet.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        u16::from_be(read::at(self.0, offset!(skb_protocol)).unwrap_or(0))
    }

    /// `struct sock *`, 0 if there is none.
    #[inline(always)]
    pub fn sock(self) -> u64 {
        read::at(self.0, offset!(skb_sk)).unwrap_or(0)
    }

    /// Address of the network header.
    #[inline(always)]
    pub fn network_header(self) -> Option<u64> {
        let head: u64 = read::at(self.0, offset!(skb_head))?;
        let at: u16 = read::at(self.0, offset!(skb_network_header))?;
        Some(head + u64::from(at))
    }

    /// Address of the network header inside the encapsulation; `None` where
    /// none was marked (`skb_reset_inner_headers`) or the packet is out of its
    /// encapsulation again.
    #[inline(always)]
    pub fn inner_network_header(self) -> Option<u64> {
        let head: u64 = read::at(self.0, offset!(skb_head))?;
        let outer: u16 = read::at(self.0, offset!(skb_network_header))?;
        let inner: u16 = read::at(self.0, offset!(skb_inner_network_header))?;
        if inner == 0 || inner <= outer {
            return None;
        }
        Some(head + u64::from(inner))
    }

    /// Is the source of the Ethernet header the address of the device?
    #[inline(always)]
    pub fn is_from(self, dev: NetDevice) -> bool {
        let (Some(head), Some(mac), Some(own)) = (
            read::at::<u64>(self.0, offset!(skb_head)),
            read::at::<u16>(self.0, offset!(skb_mac_header)),
            read::at::<u64>(dev.0, offset!(dev_addr)),
        ) else {
            return false;
        };
        // The destination comes first.
        let source = read::at::<[u8; 6]>(head + u64::from(mac), 6);
        let own = read::at::<[u8; 6]>(own, 0);
        mac != u16::MAX && source.is_some() && source == own
    }

    /// Of a packet that was taken out of its encapsulation: did the outer
    /// header say that it met congestion, while the inner one does not take
    /// part in ECN? The transport header is the outer one's still.
    #[inline(always)]
    pub fn is_congested(self) -> bool {
        let (Some(head), Some(network), Some(transport)) = (
            read::at::<u64>(self.0, offset!(skb_head)),
            read::at::<u16>(self.0, offset!(skb_network_header)),
            read::at::<u16>(self.0, offset!(skb_transport_header)),
        ) else {
            return false;
        };
        if transport == u16::MAX || transport > network || transport < IPV4_HEADER {
            return false;
        }
        if ecn(head + u64::from(network)) != Some(NOT_ECT) {
            return false;
        }
        let transport = head + u64::from(transport);
        // Options and extension headers are rare on what carries a tunnel, and
        // hide the beginning of the header.
        let v6 = transport - u64::from(IPV6_HEADER);
        let v4 = transport - u64::from(IPV4_HEADER);
        (flow::version(v6) == ETH_P_IPV6 && ecn(v6) == Some(CE))
            || (flow::version(v4) == ETH_P_IP && ecn(v4) == Some(CE))
    }

    /// The same as it is marked, also before the outer header is put in front.
    #[inline(always)]
    pub fn marked_inner_header(self) -> Option<u64> {
        let head: u64 = read::at(self.0, offset!(skb_head))?;
        let inner: u16 = read::at(self.0, offset!(skb_inner_network_header))?;
        (inner != 0).then_some(head + u64::from(inner))
    }
}

/// The ECN field of the IP header at this address.
#[inline(always)]
fn ecn(header: u64) -> Option<u8> {
    let [first, second] = read::at::<[u8; 2]>(header, 0)?;
    match first >> 4 {
        4 => Some(second & 3),
        6 => Some(second >> 4 & 3),
        _ => None,
    }
}
