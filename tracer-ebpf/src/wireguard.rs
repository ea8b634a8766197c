//! WireGuard sends in a kernel thread, long after its device took the packet:
//! handing a packet to the peer's socket is a frame of its own.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_common::tally::{freed_by, outcome, seen};

use crate::{
    filter,
    frame::{self, Frame},
    read::PROBED,
    sent,
    skb::{Fields as _, SkBuff},
    tally::{self, Fate},
};

/// `send4(wg, skb, …)`, `send6(wg, skb, …)`: encrypted data, or a handshake.
#[inline(always)]
pub fn send(skb: SkBuff<PROBED>) {
    let Some(context) = frame::enter() else {
        return;
    };
    if context.depth >= frame::DEPTH {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(frame) = frame::push(context, skb, seen::PEER_SEND, now) else {
        return;
    };
    // Data is encrypted in place: which packet it was is known by its address.
    if sent::get(skb.0, &mut frame.record, &mut frame.kind_name) {
        frame.record.key.seen |= seen::PEER_SEND;
    } else {
        frame.kind_name = 0;
        frame::blank(&mut frame.record, seen::PEER_SEND);
        frame.record.length = skb.length();
    }
}

/// They return.
#[inline(always)]
pub fn sent() {
    let Some(context) = frame::context() else {
        return;
    };
    if frame::top(context).is_none_or(|top| top.opener != seen::PEER_SEND) {
        return;
    }
    let room = &raw mut context.room;
    let Some(frame) = frame::pop(context) else {
        return;
    };
    if frame.record.key.freed_by == freed_by::NONE {
        return;
    }
    identify(frame);
    if frame.record.key.ifindex == 0 {
        return;
    }
    // SAFETY: a field of this CPU's or task's own context.
    if filter::on() && !filter::wants(&frame.record, unsafe { &mut (*room).tests }) {
        return;
    }
    // SAFETY: likewise.
    let room = unsafe { &mut *room };
    tally::drop(&mut room.coarse, &mut frame.record, frame.kind_name);
    tally::like(&frame.record, Fate::Lost, &mut room.number);
}

/// The device by the freed packet, which stands on it by then.
#[inline(always)]
fn identify(frame: &mut Frame) {
    let record = &mut frame.record;
    record.key.outcome = outcome::LOST_LATER;
    if record.key.ifindex == 0 {
        record.key.ifindex = record.freed_ifindex;
        record.key.netns = record.freed_netns;
        record.key.sender_ifindex = record.freed_ifindex;
        record.key.sender_netns = record.freed_netns;
        record.dev = record.freed_dev;
    }
}
