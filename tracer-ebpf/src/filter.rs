//! Which packets are wanted (`--filter`).
//!
//! A packet is judged once, when its frame closes or it is freed outside of
//! one, before it is counted: then everything is known of it that will be. The
//! program is in `.rodata`, so the verifier sees none of this where it is empty.
//!
//! Its outer header is known when it is freed. Of a packet that is well, it is
//! noted on the way: another tunnel or a device that is no tunnel takes it, or
//! it waits in a queue when the frame closes. Where it is built later
//! (WireGuard's thread), the packet has none.

use tracer_common::{
    filter::{self, Named, needs},
    flow::Flow,
    record::Record,
    tally::{DeviceKey, freed_by, lost, outcome, seen},
};

use crate::{
    device, flow,
    frame::Frame,
    globals::{self, filter},
    maps::{NAMES, OUTERS},
    read::PROBED,
    sent,
    skb::{Fields as _, SkBuff},
    tally,
};

/// Is there a filter?
#[inline(always)]
pub fn on() -> bool {
    filter!(len) != 0
}

/// Does the program look at outer headers?
#[inline(always)]
fn needs_outer() -> bool {
    filter!(needs) & needs::OUTER != 0
}

/// Is the packet of this record wanted? `room` is room for the tests under way.
#[inline(always)]
pub fn wants(record: &Record, room: &mut u64) -> bool {
    filter::matches(
        &globals::FILTER,
        record,
        |device| {
            // SAFETY: nothing is ever removed from the map; a name that is
            // changed meanwhile is read as either.
            NAMES.get_ptr(device).map(|named| unsafe { &*named })
        },
        room,
    )
}

/// The same of a packet freed outside any frame.
#[inline(always)]
pub fn wants_freed<const TYPED: bool>(
    record: &mut Record,
    skb: SkBuff<TYPED>,
    kind_name: u64,
    room: &mut u64,
) -> bool {
    if filter!(needs) & needs::NAMES != 0 {
        device::kind_name(&raw mut record.kind, kind_name);
    }
    // Out of its encapsulation: it had one.
    let bare =
        needs_outer() && record.key.outcome == outcome::LOST_LATER && record.outer.ethertype == 0;
    if bare && let Some(outer) = OUTERS.get_ptr(&skb.0) {
        // SAFETY: a live element; that of another packet by now would be of one
        // that has the same inner header.
        record.outer = unsafe { *outer };
    }
    let wanted = wants(record, room);
    if bare {
        record.outer = Flow::default();
    }
    wanted
}

/// A frame is opened for a device.
#[inline(always)]
pub fn named(device: &DeviceKey, frame: &mut Frame) {
    if filter!(needs) & needs::NAMES == 0 {
        return;
    }
    let record = &mut frame.record;
    device::kind_name(&raw mut record.kind, frame.kind_name);
    if let Some(known) = NAMES.get_ptr(device) {
        // SAFETY: nothing is ever removed from the map.
        let known = unsafe { &*known };
        if flow::same(&known.name, &record.dev) && flow::same(&known.kind, &record.kind) {
            return;
        }
    }
    let named = Named {
        name: record.dev,
        kind: record.kind,
    };
    if NAMES.insert(device, &named, 0).is_err() {
        tally::lose(lost::FRAMES);
    }
}

/// The packet of a frame that has just been remembered has no outer header yet.
#[inline(always)]
pub fn remembered(frame: &Frame) {
    if needs_outer() {
        let _ = OUTERS.remove(&frame.skb);
    }
}

/// The packet of a frame is somewhere with its outer header on.
#[inline(always)]
pub fn encapsulated<const TYPED: bool>(frame: &mut Frame, skb: SkBuff<TYPED>) {
    if !needs_outer() {
        return;
    }
    let record = &mut frame.record;
    if record.outer.ethertype != 0
        || record.key.freed_by != freed_by::NONE
        || record.key.seen & seen::HANDED_TO_IP == 0
    {
        return;
    }
    if let Some(header) = skb.network_header() {
        flow::parse_ip(header, &mut frame.header, &mut record.outer);
        let _ = OUTERS.insert(&skb.0, &record.outer, 0);
    }
}

/// A frame closes whose packet is on its way. Where it was not seen with its
/// outer header on, it may wait somewhere; its address may be another packet's
/// by now, too, whose inner header says so.
#[inline(always)]
pub fn sent(frame: &mut Frame) {
    if !needs_outer() || frame.record.outer.ethertype != 0 {
        return;
    }
    let skb = SkBuff::<PROBED>(frame.skb);
    let Some(outer) = sent::inner(skb.0, &mut frame.room) else {
        return;
    };
    if let Some(inner) = skb.inner_network_header() {
        // Of whichever packet.
        if outer.ethertype != 0 && flow::has_addresses(inner, outer) {
            encapsulated(frame, skb);
        }
    }
}
