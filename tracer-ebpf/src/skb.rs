//! `struct sk_buff` of the running kernel.

use core::ffi::c_void;

use aya_ebpf::helpers::generated;
use tracer_common::{
    flow::{ETH_P_IP, ETH_P_IPV6},
    offsets::ABSENT,
    record::{Head, SNAP_LEN, start},
};

use crate::{
    device::NetDevice,
    flow,
    globals::{config, offset},
    read::{self, PROBED},
};

/// An Ethernet header, and one with a VLAN tag (IEEE 802.1Q).
const ETHERNET: u16 = 14;
const ETHERNET_TAGGED: u16 = 18;
const IPV4_HEADER: u16 = 20;
const IPV6_HEADER: u16 = 40;

/// Codepoints of the ECN field (RFC 3168).
const NOT_ECT: u8 = 0;
const CE: u8 = 3;

/// Address of a `struct sk_buff`; for `TYPED` see [`read::field`].
#[derive(Clone, Copy)]
pub struct SkBuff<const TYPED: bool>(pub u64);

/// A whole `struct sk_buff`, read at once: each call to read something costs
/// more than what it reads. It is shorter than that on all kernels, but what is
/// behind it in its cache can be read as well.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Copied([u64; 32]);

impl Copied {
    /// Takes the packet in; false where it is not readable.
    #[inline(always)]
    pub fn fill<const TYPED: bool>(&mut self, skb: SkBuff<TYPED>) -> bool {
        read::copy(&raw mut *self, skb.0)
    }
}

impl<const TYPED: bool> Fields<TYPED> for SkBuff<TYPED> {
    #[inline(always)]
    fn field<T: Copy>(&self, offset: u32) -> Option<T> {
        read::field::<TYPED, T>(self.0, offset)
    }
}

/// The same with what it points to read already. Whenever the verifier comes to
/// a load of a pointer in a packet, it looks through all of the kernel's types
/// for what the pointer may be trusted with (`btf_nested_type_is_trusted`, up to
/// four times), and it comes to each on every way that leads there.
#[derive(Clone, Copy)]
pub struct Followed<const TYPED: bool> {
    pub skb: SkBuff<TYPED>,
    dev: u64,
    sock: u64,
}

impl<const TYPED: bool> From<SkBuff<TYPED>> for Followed<TYPED> {
    #[inline(always)]
    fn from(skb: SkBuff<TYPED>) -> Self {
        let read = |offset| match TYPED {
            true => skb.field(offset).unwrap_or(0),
            // A call for each, which may not be needed.
            false => 0,
        };
        Self {
            skb,
            dev: read(offset!(skb_dev)),
            sock: read(offset!(skb_sk)),
        }
    }
}

impl<const TYPED: bool> Fields<TYPED> for Followed<TYPED> {
    #[inline(always)]
    fn field<T: Copy>(&self, offset: u32) -> Option<T> {
        self.skb.field(offset)
    }

    #[inline(always)]
    fn device(&self) -> Option<NetDevice<TYPED>> {
        if TYPED {
            Some(NetDevice(self.dev))
        } else {
            self.skb.device()
        }
    }

    #[inline(always)]
    fn sock(&self) -> u64 {
        if TYPED { self.sock } else { self.skb.sock() }
    }
}

impl Fields<PROBED> for Copied {
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

/// What has the fields of a `struct sk_buff`; `TYPED`: and what it points to has
/// a type, too.
pub trait Fields<const TYPED: bool> {
    fn field<T: Copy>(&self, offset: u32) -> Option<T>;

    #[inline(always)]
    fn device(&self) -> Option<NetDevice<TYPED>> {
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

    /// The frame came not to this host's MAC address alone (`PACKET_BROADCAST`,
    /// `PACKET_MULTICAST`, `PACKET_OTHERHOST`).
    #[inline(always)]
    fn for_other_hosts(&self) -> bool {
        self.field::<u8>(offset!(skb_pkt_type))
            .is_some_and(|byte| (byte & 7).wrapping_sub(1) < 3)
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

    /// Inode of the network namespace of its socket, 0 if it has none.
    #[inline(always)]
    fn sock_netns(&self) -> u32 {
        let sock = self.sock();
        if sock == 0 {
            return 0;
        }
        match read::field::<TYPED, u64>(sock, offset!(sk_net)) {
            // The verifier may want to see that it is one.
            Some(net) if net != 0 => read::field::<TYPED, u32>(net, offset!(net_inum)).unwrap_or(0),
            _ => 0,
        }
    }

    /// Address of the network header.
    #[inline(always)]
    fn network_header(&self) -> Option<u64> {
        let head: u64 = self.field(offset!(skb_head))?;
        let at: u16 = self.field(offset!(skb_network_header))?;
        Some(head + u64::from(at))
    }

    /// Is its network header off the data already?
    #[inline(always)]
    fn is_pulled(&self) -> bool {
        let (Some(data), Some(header)) =
            (self.field::<u64>(offset!(skb_data)), self.network_header())
        else {
            return false;
        };
        data > header
    }

    /// Takes the packet's first bytes in, as far as they are in the linear part
    /// of its buffer. `room` is for `read::through`.
    #[inline(always)]
    fn copy_to(&self, head: &mut Head, room: &mut u64) {
        head.start = start::NONE;
        head.kept = 0;
        let (Some(buffer), Some(data), Some(network), Some(paged)) = (
            self.field::<u64>(offset!(skb_head)),
            self.field::<u64>(offset!(skb_data)),
            self.field::<u16>(offset!(skb_network_header)),
            self.field::<u32>(offset!(skb_data_len)),
        ) else {
            return;
        };
        // Not set: a message of a socket, or a packet that has not come so far.
        // What is there is the buffer's room.
        if network == 0 {
            return;
        }
        let mac = self
            .field::<u16>(offset!(skb_mac_header))
            .unwrap_or(u16::MAX);
        // What it was before an encapsulation is behind the network header; that
        // of another device can still be before it.
        let is_ethernet = mac != u16::MAX
            && matches!(network.wrapping_sub(mac), ETHERNET | ETHERNET_TAGGED)
            && self.device().is_some_and(NetDevice::has_ethernet);
        let at = if is_ethernet { mac } else { network };
        // What was pulled off is before `data`, what is still to be, behind.
        let before = data.wrapping_sub(buffer).wrapping_sub(u64::from(at)) as i64;
        let length = i64::from(self.length()) + before;
        let linear = length - i64::from(paged);
        let kept = linear.min(i64::from(config!(snaplen))).max(0) as u64;
        // A plain number to the verifier, whose bounds it sees next.
        let kept = read::through(room, kept);
        if kept == 0 || kept > SNAP_LEN as u64 {
            return;
        }
        let from = buffer + u64::from(at);
        // SAFETY: at most the buffer's length.
        let failed = unsafe {
            generated::bpf_probe_read_kernel(
                head.bytes.as_mut_ptr().cast(),
                kept as u32,
                from as *const c_void,
            )
        };
        if failed == 0 {
            head.length = length as u32;
            head.kept = kept as u16;
            head.start = if is_ethernet {
                start::ETHERNET
            } else {
                start::NETWORK
            };
        }
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

    /// Is the source of the Ethernet header the address of the device?
    #[inline(always)]
    fn is_from(&self, dev: NetDevice<TYPED>) -> bool {
        let (Some(head), Some(mac), Some(own)) = (
            self.field::<u64>(offset!(skb_head)),
            self.field::<u16>(offset!(skb_mac_header)),
            read::field::<TYPED, u64>(dev.0, offset!(dev_addr)),
        ) else {
            return false;
        };
        // The destination comes first.
        let source = read::at::<[u8; 6]>(head + u64::from(mac), 6);
        let own = read::at::<[u8; 6]>(own, 0);
        mac != u16::MAX && source.is_some() && source == own
    }

    /// Is the source of the Ethernet header none that a device can have: zero, or a
    /// group's?
    #[inline(always)]
    fn has_no_source(&self) -> bool {
        let (Some(head), Some(mac)) = (
            self.field::<u64>(offset!(skb_head)),
            self.field::<u16>(offset!(skb_mac_header)),
        ) else {
            return false;
        };
        let source = read::at::<[u8; 6]>(head + u64::from(mac), 6);
        mac != u16::MAX && source.is_some_and(|source| source[0] & 1 != 0 || source == [0; 6])
    }

    /// Of a packet that was taken out of its encapsulation: did the outer
    /// header say that it met congestion, while the inner one does not take
    /// part in ECN? The transport header is the outer one's still.
    #[inline(always)]
    fn is_congested(&self) -> bool {
        let (Some(head), Some(network), Some(transport)) = (
            self.field::<u64>(offset!(skb_head)),
            self.field::<u16>(offset!(skb_network_header)),
            self.field::<u16>(offset!(skb_transport_header)),
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
    fn marked_inner_header(&self) -> Option<u64> {
        let head: u64 = self.field(offset!(skb_head))?;
        let inner: u16 = self.field(offset!(skb_inner_network_header))?;
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
