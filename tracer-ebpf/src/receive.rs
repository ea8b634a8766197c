//! What a tunnel's receive path does with the packet it has.
//!
//! Receiving does not nest: what comes out of a tunnel is queued again
//! (`netif_rx`, `gro_cells_receive`) before the next tunnel gets it. So the
//! newest packet per context is enough; a free ends it.

use tracer_common::tally::{RX, TX, lost, seen};

use crate::{
    device::NetDevice,
    frame::{self, Context},
    globals::offset,
    read::{self, PROBED},
    skb::{Fields as _, SkBuff},
    tally,
};

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
    pub reserved: u32,
}

impl Receive {
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

/// The newest received packet, if it is this one.
#[inline(always)]
pub fn of<const TYPED: bool>(context: &mut Context, skb: SkBuff<TYPED>) -> Option<&mut Receive> {
    Some(&mut context.receive).filter(|receive| receive.skb == skb.0)
}

/// Something was seen of a packet.
#[inline(always)]
pub fn note<const TYPED: bool>(skb: SkBuff<TYPED>, what: u32) {
    let Some(context) = frame::enter() else {
        return;
    };
    let receive = &mut context.receive;
    if receive.skb != skb.0 {
        receive.skb = skb.0;
        receive.dev = 0;
        receive.seen = 0;
    }
    receive.seen |= what;
}

/// A tunnel's receive function has the packet. What an earlier one saw of it,
/// or of another packet at the same address, is over.
#[inline(always)]
pub fn entered(skb: SkBuff<PROBED>) {
    let Some(context) = frame::enter() else {
        return;
    };
    context.receive.skb = skb.0;
    context.receive.dev = 0;
    context.receive.seen = seen::TUNNEL_RECEIVE;
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
    tally::lose(lost::UNCERTAIN);
    entered(skb);
    note(skb, seen::ALLOWED_SOURCE_CHECKED);
    if let Some(context) = frame::context()
        && let Some(dev) = skb.device()
    {
        belongs(&mut context.receive, dev);
    }
}
