//! `struct sk_buff` of the running kernel.

use crate::{device::NetDevice, globals::offset, read};

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

    /// The same as it is marked, also before the outer header is put in front.
    #[inline(always)]
    pub fn marked_inner_header(self) -> Option<u64> {
        let head: u64 = read::at(self.0, offset!(skb_head))?;
        let inner: u16 = read::at(self.0, offset!(skb_inner_network_header))?;
        (inner != 0).then_some(head + u64::from(inner))
    }
}
