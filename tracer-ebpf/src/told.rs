//! ICMP errors raised towards the sender of a packet.

use crate::{frame, skb::SkBuff};

const ICMP_REDIRECT: i32 = 5;

/// The kernel sets out to send an ICMP error about `skb`. Whether it leaves
/// (rate limits, no route back) is another matter: this is the attempt.
#[inline(always)]
pub fn raised<const TYPED: bool>(skb: SkBuff<TYPED>, family: u8, kind: i32, code: i32) {
    // Which tells of a better way, not of an error.
    if family == 4 && kind == ICMP_REDIRECT {
        return;
    }
    let Some(context) = frame::enter() else {
        return;
    };
    context.told_skb = skb.0;
    context.told = family;
    context.told_type = kind as u8;
    context.told_code = code as u8;
    if let Some(top) = frame::top(context)
        && top.skb == skb.0
    {
        let key = &mut top.record.key;
        key.told = family;
        key.told_type = kind as u8;
        key.told_code = code as u8;
    }
}
