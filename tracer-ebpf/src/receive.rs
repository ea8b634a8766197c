//! What a tunnel's receive path does with the packet it has.
//!
//! Receiving does not nest: what comes out of a tunnel is queued again
//! (`netif_rx`, `gro_cells_receive`) before the next tunnel gets it. So the
//! newest packet per context is enough; a free ends it. Some frees nobody hears
//! of (TCP's, and those the kernel did not run our program for): what comes to
//! the same address later is told apart by its header.

use tracer_common::tally::{RX, TX, lost, seen};

use crate::{
    device::NetDevice,
    frame::{self, Context},
    globals::offset,
    read::{self, PROBED},
    skb::{Fields, SkBuff},
    tally,
};

/// Words of a header that tell packets apart: all of IPv4's, and of IPv6's
/// lengths, protocol and source.
const HEADER_WORDS: usize = 3;

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
    /// Where its network header was in its buffer, and what it said.
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
        self.at = fields
            .field::<u16>(offset!(skb_network_header))
            .unwrap_or(0)
            .into();
        self.header = [0; HEADER_WORDS];
        let head = fields.field::<u64>(offset!(skb_head)).unwrap_or(0);
        read::copy(&raw mut self.header, head + self.at);
    }

    /// What is at the packet's address: the packet still? It is if it comes from
    /// the tunnel's device, or if its outer header is where it was. A buffer that
    /// was made anew has it elsewhere, which is of no account where the device is
    /// known; where it is not, another interface than before tells that it was
    /// taken out of its encapsulation since.
    #[inline(always)]
    pub fn is_still<const OF: bool>(&self, fields: &impl Fields<OF>) -> bool {
        let iif = fields.iif();
        if self.dev == 0 {
            if iif != 0 && iif != self.iif {
                return true;
            }
        } else if fields.device().is_some_and(|dev| dev.0 == self.dev)
            || (iif != 0 && iif == NetDevice::<PROBED>(self.dev).ifindex())
        {
            return true;
        }
        let mut header = [0u64; HEADER_WORDS];
        let head = fields.field::<u64>(offset!(skb_head)).unwrap_or(0);
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
pub fn is<const OF: bool>(context: &Context, skb: u64, fields: &impl Fields<OF>) -> bool {
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
