//! `struct sk_buff` of the running kernel.

use tracer_common::offsets::ABSENT;

use crate::{device::NetDevice, globals::offset, read};

/// Address of a `struct sk_buff`.
#[derive(Clone, Copy)]
pub struct SkBuff(pub u64);

/// A whole `struct sk_buff`, read at once: each call to read something costs
/// more than what it reads. It is shorter than that on all kernels, but what is
/// behind it in its cache can be read as well.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Copied([u64; 32]);

impl Copied {
    /// Takes the packet in; false where it is not readable.
    #[inline(always)]
    pub fn fill(&mut self, skb: SkBuff) -> bool {
        read::copy(&raw mut *self, skb.0)
    }
}

impl Fields for SkBuff {
    #[inline(always)]
    fn field<T: Copy>(&self, offset: u32) -> Option<T> {
        read::at(self.0, offset)
    }
}

impl Fields for Copied {
    #[inline(always)]
    fn field<T: Copy>(&self, offset: u32) -> Option<T> {
        let at = offset as usize;
        if offset == ABSENT || at + size_of::<T>() > size_of::<Self>() {
            return None;
        }
        // SAFETY: within the copy, and aligned as in the kernel's structure; `T`
        // is an integer.
        Some(unsafe { (&raw const self.0).cast::<u8>().add(at).cast::<T>().read() })
    }
}

/// What has the fields of a `struct sk_buff`.
pub trait Fields {
    fn field<T: Copy>(&self, offset: u32) -> Option<T>;

    #[inline(always)]
    fn device(&self) -> Option<NetDevice> {
        self.field::<u64>(offset!(skb_dev)).map(NetDevice)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.field(offset!(skb_len)).unwrap_or(0)
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        self.field(offset!(skb_mark)).unwrap_or(0)
    }

    /// Interface the packet came in by, 0 if it was made here.
    #[inline(always)]
    fn iif(&self) -> u32 {
        self.field(offset!(skb_iif)).unwrap_or(0)
    }

    /// The frame came for another host's MAC address (`PACKET_OTHERHOST`).
    #[inline(always)]
    fn for_other_host(&self) -> bool {
        self.field::<u8>(offset!(skb_pkt_type))
            .is_some_and(|byte| byte & 7 == 3)
    }

    /// EtherType of the packet.
    #[inline(always)]
    fn protocol(&self) -> u16 {
        u16::from_be(self.field(offset!(skb_protocol)).unwrap_or(0))
    }

    /// `struct sock *`, 0 if there is none.
    #[inline(always)]
    fn sock(&self) -> u64 {
        self.field(offset!(skb_sk)).unwrap_or(0)
    }

    /// Address of the network header.
    #[inline(always)]
    fn network_header(&self) -> Option<u64> {
        let head: u64 = self.field(offset!(skb_head))?;
        let at: u16 = self.field(offset!(skb_network_header))?;
        Some(head + u64::from(at))
    }

    /// Address of the network header inside the encapsulation; `None` where
    /// none was marked (`skb_reset_inner_headers`) or the packet is out of its
    /// encapsulation again.
    #[inline(always)]
    fn inner_network_header(&self) -> Option<u64> {
        let head: u64 = self.field(offset!(skb_head))?;
        let outer: u16 = self.field(offset!(skb_network_header))?;
        let inner: u16 = self.field(offset!(skb_inner_network_header))?;
        if inner == 0 || inner <= outer {
            return None;
        }
        Some(head + u64::from(inner))
    }

    /// The same as it is marked, also before the outer header is put in front.
    #[inline(always)]
    fn marked_inner_header(&self) -> Option<u64> {
        let head: u64 = self.field(offset!(skb_head))?;
        let inner: u16 = self.field(offset!(skb_inner_network_header))?;
        (inner != 0).then_some(head + u64::from(inner))
    }
}
