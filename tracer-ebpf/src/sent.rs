//! Packets that left a frame alive: a later free is theirs if their inner header
//! is still the same.
//!
//! Every packet that a tunnel sends is noted here, so it must cost little: an
//! array that packets share by the address of their skb, four to a set, the
//! oldest of which gives way. Nothing is locked. Who writes says so before and
//! after, and who reads believes only what both agree on.

use tracer_common::record::Record;

use crate::{
    frame::Frame,
    maps::{SENT, SETS},
    read,
};

/// Packets that share a set.
const WAYS: usize = 4;
pub const SETS_LEN: u32 = 4096;
pub const SENT_LEN: u32 = SETS_LEN * WAYS as u32;

/// Which packets a set has, one cache line.
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
    pub record: Record,
    /// Address of the name of its device's kind, see `device::Kind`.
    pub kind_name: u64,
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
pub fn put(frame: &Frame) {
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
        let since = if set.skb[n] == skb { 0 } else { set.since[n] };
        if since < oldest {
            oldest = since;
            way = n;
        }
    }
    way &= WAYS - 1;
    set.skb[way] = 0;
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

/// What was noted of the packet at this address; a plain number. Another CPU may
/// give the element to another packet at any time: copy it, then ask
/// [`Sent::is_whole`].
#[inline(always)]
pub fn find(skb: u64) -> Option<&'static Sent> {
    let number = set_of(skb);
    let set = SETS.get_ptr(number)?;
    // SAFETY: a live element.
    let set = unsafe { &*set };
    let mut way = WAYS;
    for n in 0..WAYS {
        if set.skb[n] == skb {
            way = n;
        }
    }
    if way >= WAYS {
        return None;
    }
    let sent = SENT.get_ptr(number * WAYS as u32 + way as u32)?;
    // SAFETY: likewise.
    Some(unsafe { &*sent })
}

impl Sent {
    /// Was it not written to while it was copied?
    #[inline(always)]
    pub fn is_whole(&self) -> bool {
        // SAFETY: live fields.
        unsafe {
            core::ptr::read_volatile(&raw const self.first)
                == core::ptr::read_volatile(&raw const self.last)
        }
    }
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
