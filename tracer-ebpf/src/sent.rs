//! Packets that left a frame alive: a later free is theirs if their inner header
//! is still the same.
//!
//! Every packet that a tunnel sends is noted here, so it must cost little: an
//! array that packets share by the address of their skb, eight to a set, the
//! oldest of which gives way. Nothing is locked. Who writes says so before and
//! after, and who reads believes only what both agree on.

use tracer_common::{flow::Flow, record::Record};

use crate::{
    frame::Frame,
    maps::{SENT, SETS},
    read,
};

/// Packets that share a set.
const WAYS: usize = 8;
pub const SETS_LEN: u32 = 4096;
pub const SENT_LEN: u32 = SETS_LEN * WAYS as u32;

/// Which packets a set has, two cache lines.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Set {
    /// Addresses, 0: free.
    skb: [u64; WAYS],
    /// When their frames were opened.
    since: [u64; WAYS],
}

/// One packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sent {
    /// The time its frame was opened, written first.
    first: u64,
    record: Record,
    /// Address of the name of its device's kind, see `device::Kind`.
    kind_name: u64,
    /// The same time, written last.
    last: u64,
}

/// Where the packets with the address `skb` are kept; a plain number.
#[inline(always)]
fn set_of(skb: u64) -> u32 {
    const BITS: u32 = SETS_LEN.trailing_zeros();
    // Skbs are as far apart as cache lines at least.
    ((skb >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BITS)) as u32
}

/// Notes what is known of a frame's packet.
#[inline(always)]
pub fn put(frame: &mut Frame) {
    let skb = frame.address();
    let number = set_of(skb);
    let Some(set) = SETS.get_ptr_mut(number) else {
        return;
    };
    // SAFETY: a live element; others may write it, too.
    let set = unsafe { &mut *set };
    let mut way = 0;
    let mut oldest = u64::MAX;
    for n in 0..WAYS {
        // Its own place before one that is free.
        let since = if set.skb[n] == skb {
            0
        } else {
            set.since[n] + 1
        };
        if since < oldest {
            oldest = since;
            way = n;
        }
    }
    let way = read::through(&mut frame.room, way as u64) as usize & (WAYS - 1);
    volatile(&mut set.skb[way], 0);
    let Some(sent) = SENT.get_ptr_mut(number * WAYS as u32 + way as u32) else {
        return;
    };
    // SAFETY: likewise.
    let sent = unsafe { &mut *sent };
    volatile(&mut sent.first, frame.opened_ns);
    read::assign(&mut sent.record, &frame.record);
    volatile(&mut sent.kind_name, frame.kind_name);
    volatile(&mut sent.last, frame.opened_ns);
    volatile(&mut set.since[way], frame.opened_ns);
    volatile(&mut set.skb[way], skb);
}

#[inline(always)]
fn volatile(to: &mut u64, value: u64) {
    // SAFETY: a live field. The order is what makes it safe to read meanwhile.
    unsafe { core::ptr::write_volatile(to, value) };
}

/// The packet at this address, a plain number, whose frame was opened at that time,
/// is the first to its destination. `room` is for `read::through`.
#[inline(always)]
pub fn is_first(skb: u64, opened_ns: u64, room: &mut u64) {
    if skb == 0 {
        return;
    }
    // Another tunnel may have noted it since, as its own.
    if let Some((sent, _)) = find(skb, room)
        && now(&sent.first) == opened_ns
    {
        let first = (&raw const sent.record.first).cast_mut();
        // SAFETY: a field of a live element of the map.
        unsafe { core::ptr::write_volatile(first, 1) };
    }
}

/// Copies what was noted of the packet at this address, a plain number, and the
/// address of the name of its device's kind. Another CPU may give the place to
/// another packet meanwhile: then, as if there were nothing, it gives false.
#[inline(always)]
pub fn get(skb: u64, record: &mut Record, kind_name: &mut u64) -> bool {
    let Some((sent, since)) = find(skb, kind_name) else {
        return false;
    };
    read::assign(record, &sent.record);
    *kind_name = now(&sent.kind_name);
    now(&sent.first) == since && now(&sent.last) == since
}

/// What the inner header of the packet at this address said when it was noted.
#[inline(always)]
pub fn inner(skb: u64, room: &mut u64) -> Option<&'static Flow> {
    find(skb, room).map(|(sent, _)| &sent.record.outer)
}

/// The place of a packet, and the time that everything in it has to be of. `room`
/// is for `read::through`.
#[inline(always)]
fn find(skb: u64, room: &mut u64) -> Option<(&'static Sent, u64)> {
    let number = set_of(skb);
    let set = SETS.get_ptr(number)?;
    // SAFETY: a live element.
    let set = unsafe { &*set };
    let (mut way, mut since) = (WAYS, 0);
    for n in 0..WAYS {
        let then = now(&set.since[n]);
        if now(&set.skb[n]) == skb {
            (way, since) = (n, then);
        }
    }
    let way = read::through(room, way as u64) as usize;
    if way >= WAYS {
        return None;
    }
    let sent = SENT.get_ptr(number * WAYS as u32 + way as u32)?;
    // SAFETY: likewise.
    Some((unsafe { &*sent }, since))
}

#[inline(always)]
fn now(place: &u64) -> u64 {
    // SAFETY: a live field, which others may write.
    unsafe { core::ptr::read_volatile(place) }
}

/// Forgets the packet at this address; a plain number.
#[inline(always)]
pub fn forget(skb: u64) {
    let Some(set) = SETS.get_ptr_mut(set_of(skb)) else {
        return;
    };
    // SAFETY: a live element.
    let set = unsafe { &mut *set };
    for n in 0..WAYS {
        if set.skb[n] == skb {
            volatile(&mut set.skb[n], 0);
            volatile(&mut set.since[n], 0);
        }
    }
}
