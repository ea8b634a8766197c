//! What a tunnel's receive path does with the packet it has.
//!
//! Receiving does not nest: what comes out of a tunnel is queued again
//! (`netif_rx`, `gro_cells_receive`) before the next tunnel gets it. So the
//! newest packet per context is enough; a free ends it. Some frees nobody hears
//! of (TCP's, and those the kernel did not run our program for): what comes to
//! the same address later is told apart by its header.

use tracer_common::{
    flow::ETH_P_IPV6,
    tally::{RX, TX, lost, seen},
};

use crate::{
    device::NetDevice,
    flow,
    frame::{self, Context},
    globals::offset,
    read::{self, PROBED},
    skb::{Fields, SkBuff},
    tally,
};

/// Words that tell packets apart: of IPv4 all of the header, of IPv6 the destination;
/// and what follows. No more: what is inside is written anew where it is forwarded.
const HEADER_WORDS: usize = 4;
/// Where they begin in an IPv6 header.
const IPV6_DESTINATION: u64 = 24;

/// The packet that was received last.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Receive {
    pub skb: u64,
    /// The tunnel device it belongs to, 0: not found yet.
    pub dev: u64,
    /// Counters of the device when it was found.
    pub before: [u64; RX],
    /// Bits of `seen`.
    pub seen: u32,
    /// Interface it had come in by.
    iif: u32,
    /// Its buffer, where in it its network header was, and what that said.
    head: u64,
    at: u64,
    header: [u64; HEADER_WORDS],
}

impl Receive {
    /// Begins anew with this packet.
    #[inline(always)]
    fn take<const OF: bool>(&mut self, skb: u64, fields: &impl Fields<OF>) {
        self.end();
        self.skb = skb;
        self.dev = 0;
        self.iif = fields.iif();
        // Through the map: the number behind the pointer.
        let head = fields.field::<u64>(offset!(skb_head)).unwrap_or(0);
        let head = read::through(&mut self.head, head);
        let network = fields.field::<u16>(offset!(skb_network_header));
        let mut at: u64 = network.unwrap_or(0).into();
        if flow::version(head + at) == ETH_P_IPV6 {
            at += IPV6_DESTINATION;
        }
        self.at = at;
        self.header = [0; HEADER_WORDS];
        read::copy(&raw mut self.header, head + at);
    }

    /// What is at the packet's address: the packet still? It is if it has come in by
    /// the tunnel's device, or if what it said is where it was. In a buffer that was
    /// made anew that is elsewhere: then, if it has come in by another device since,
    /// and stands on a tunnel.
    #[inline(always)]
    pub fn is_still<const OF: bool>(&mut self, fields: &impl Fields<OF>) -> bool {
        let iif = fields.iif();
        if self.dev != 0 && iif != 0 && iif == NetDevice::<PROBED>(self.dev).ifindex() {
            return true;
        }
        let before = self.head;
        let head = fields.field::<u64>(offset!(skb_head)).unwrap_or(0);
        let head = read::through(&mut self.head, head);
        if head != before {
            self.head = before;
            return iif != 0
                && iif != self.iif
                && fields
                    .device()
                    .is_some_and(|dev| dev.0 != 0 && dev.tunnel().is_some());
        }
        let mut header = [0u64; HEADER_WORDS];
        read::copy(&raw mut header, head + self.at) && header == self.header
    }

    /// It is over. WireGuard lets what it does not take look like a success: if
    /// the device has counted something and nothing told of a drop, there was one.
    #[inline(always)]
    pub fn end(&mut self) {
        if self.seen & seen::ALLOWED_SOURCE_CHECKED != 0 && self.moved(&mut []) != 0 {
            tally::lose(lost::UNCERTAIN);
        }
        self.forget();
    }

    /// It is over if it was this packet.
    #[inline(always)]
    pub fn forget_if(&mut self, skb: u64) {
        if self.skb == skb {
            self.forget();
        }
    }

    /// It is over, and told.
    #[inline(always)]
    pub fn forget(&mut self) {
        self.skb = 0;
        self.seen = 0;
    }

    /// Which counters of the device moved since it was found, as bits of the
    /// key and amounts of the record.
    #[inline(always)]
    pub fn moved(&self, amounts: &mut [u32]) -> u16 {
        if self.dev == 0 {
            return 0;
        }
        let mut after = [0u64; RX];
        NetDevice::<PROBED>(self.dev).receive_counters(&mut after);
        let mut bits = 0;
        for (n, (after, before)) in after.iter().zip(&self.before).enumerate() {
            let by = after.wrapping_sub(*before) as u32;
            if by != 0 {
                bits |= 1 << (TX + n);
            }
            if let Some(amount) = amounts.get_mut(TX + n) {
                *amount = by;
            }
        }
        bits
    }
}

/// Is this the newest received packet?
#[inline(always)]
pub fn is<const OF: bool>(context: &mut Context, skb: u64, fields: &impl Fields<OF>) -> bool {
    context.receive.skb == skb && context.receive.is_still(fields)
}

/// Something was seen of a packet.
#[inline(always)]
pub fn note<const TYPED: bool>(skb: SkBuff<TYPED>, what: u32) {
    let Some(context) = frame::enter() else {
        return;
    };
    if !is(context, skb.0, &skb) {
        context.receive.take(skb.0, &skb);
    }
    context.receive.seen |= what;
}

/// A tunnel's receive function has the packet. What an earlier one saw of it,
/// or of another packet at the same address, is over.
#[inline(always)]
pub fn entered(skb: SkBuff<PROBED>) {
    let Some(context) = frame::enter() else {
        return;
    };
    let copied = &raw mut context.room.skb;
    // SAFETY: a field of this CPU's or task's own context, beside the packet's.
    let copied = unsafe { &mut *copied };
    if copied.fill(skb) {
        context.receive.take(skb.0, copied);
        context.receive.seen = seen::TUNNEL_RECEIVE;
    }
}

/// The driver looked for the tunnel of the packet it has: the structure it
/// found, or 0, and where in it the device is.
#[inline(always)]
pub fn looked_up(tunnel: u64, dev: u32) {
    let Some(context) = frame::context() else {
        return;
    };
    let receive = &mut context.receive;
    if receive.seen & seen::TUNNEL_RECEIVE == 0 {
        return;
    }
    if tunnel == 0 {
        receive.seen |= seen::TUNNEL_NOT_FOUND;
        return;
    }
    receive.seen |= seen::TUNNEL_FOUND;
    if let Some(dev) = read::at::<u64>(tunnel, dev) {
        belongs(receive, NetDevice(dev));
    }
}

/// The packet belongs to this device.
#[inline(always)]
fn belongs(receive: &mut Receive, dev: NetDevice<PROBED>) {
    receive.dev = dev.0;
    dev.receive_counters(&mut receive.before);
}

/// `struct ip_tunnel *` of a look-up.
#[inline(always)]
pub fn found_ip_tunnel(tunnel: u64) {
    looked_up(tunnel, offset!(ip_tunnel_dev));
}

/// `struct ip6_tnl *` of a look-up.
#[inline(always)]
pub fn found_ip6_tnl(tunnel: u64) {
    looked_up(tunnel, offset!(ip6_tnl_dev));
}

/// Something was seen of the packet whose receive function is running.
#[inline(always)]
pub fn note_newest(what: u32) {
    if let Some(context) = frame::context()
        && context.receive.seen & seen::TUNNEL_RECEIVE != 0
    {
        context.receive.seen |= what;
    }
}

/// WireGuard looks for the peer that may send from the packet's source: the
/// packet is decrypted and stands on its device.
#[inline(always)]
pub fn source_checked(skb: SkBuff<PROBED>) {
    entered(skb);
    let Some(context) = frame::context() else {
        return;
    };
    let receive = &mut context.receive;
    if receive.skb == skb.0
        && let Some(dev) = skb.device()
    {
        belongs(receive, dev);
        receive.seen |= seen::ALLOWED_SOURCE_CHECKED;
    }
}
