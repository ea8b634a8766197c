//! What is learned of a packet on its way through the stack, in a frame or
//! outside of any.

use tracer_common::tally::seen;

use crate::{frame, read::PROBED, receive, skb::SkBuff};

const EXDEV: i32 = 18;
const TC_ACT_SHOT: i32 = 2;

/// Writes it down where the packet's free will find it.
#[inline(always)]
fn note<const TYPED: bool>(skb: SkBuff<TYPED>, what: u32) {
    if let Some(top) = frame::top_of(skb) {
        top.record.key.seen |= what;
    } else {
        receive::note(skb, what);
    }
}

/// The packet came to the queue of a device that has none working: it is down
/// or has no carrier.
#[inline(always)]
pub fn at_noop_queue<const TYPED: bool>(skb: SkBuff<TYPED>) {
    note(skb, seen::NOOP_QUEUE);
}

/// A function that will give an answer about this packet was entered.
#[inline(always)]
pub fn asked(skb: SkBuff<PROBED>) {
    if let Some(context) = frame::enter() {
        context.asked_skb = skb.0;
    }
}

#[inline(always)]
fn answered() -> Option<SkBuff<PROBED>> {
    let context = frame::context()?;
    Some(SkBuff(core::mem::take(&mut context.asked_skb))).filter(|skb| skb.0 != 0)
}

/// The traffic-control filters of a device decided.
#[inline(always)]
pub fn classified(action: i32) {
    if let Some(skb) = answered()
        && action == TC_ACT_SHOT
    {
        note(skb, seen::TC_SHOT);
    }
}

/// The source address of a received packet was looked at.
#[inline(always)]
pub fn source_validated(answer: i32) {
    if let Some(skb) = answered()
        && answer < 0
    {
        note(
            skb,
            if answer == -EXDEV {
                seen::REVERSE_PATH
            } else {
                seen::SOURCE_REFUSED
            },
        );
    }
}

/// A packet was to be split into segments.
#[inline(always)]
pub fn split(list: u64) {
    if let Some(skb) = answered() {
        frame::split(skb, list);
    }
}
