//! Exact counts, and the records beside them.

use core::arch::asm;

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated};
use tracer_common::{
    flow::{ETH_P_IP, ETH_P_IPV6, Flow},
    record::{Head, QUIET_NS, Record, sender},
    tally::{
        DeviceKey, DeviceTally, LikeKey, LikeTally, PassedKey, Tally, TallyKey, like, lost, seen,
    },
};

use crate::{
    device,
    frame::Frame,
    free::Scratch,
    globals::config,
    maps::{
        CLOCK, COARSE, DESTINATIONS, DEVICES, LIKES, LOST, PASSED, PASSED_COARSE, RECORDS, TALLIES,
        WOKEN,
    },
    read,
};

const BPF_NOEXIST: u64 = 1;
const BPF_RB_AVAIL_DATA: u64 = 0;
/// So many bytes of records that were not read are for the reader not to wait
/// longer, a quarter of the ring buffer; and of that, so many to say it.
const MUCH: u64 = 1 << 20;
const FEW: u64 = 8 << 10;
const BPF_RB_NO_WAKEUP: u64 = 1;
/// Wakes whoever waits for the ring buffer, although they have not caught up.
pub const BPF_RB_FORCE_WAKEUP: u64 = 2;
/// So many records of one tally on one CPU are sent in any case; beyond, only
/// at powers of two, unless all are asked for. The count stays exact.
const EVERY_RECORD: u64 = 64;

/// A time and the jiffy it was read in.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Clock {
    jiffies: u64,
    ns: u64,
}

/// The time to within a jiffy. To read the clock takes longer than to find a count.
#[inline(always)]
fn about_now() -> u64 {
    let Some(clock) = CLOCK.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: this CPU's own element.
    let clock = unsafe { &mut *clock };
    // SAFETY: the helper has no preconditions.
    let jiffies = unsafe { generated::bpf_jiffies64() };
    if clock.jiffies != jiffies {
        // SAFETY: likewise.
        clock.ns = unsafe { bpf_ktime_get_ns() };
        clock.jiffies = jiffies;
    }
    clock.ns
}

/// Something could not be kept.
#[inline(always)]
pub fn lose(what: u32) {
    if let Some(count) = LOST.get_ptr_mut(what) {
        // SAFETY: this CPU's own element.
        add(unsafe { &mut *count }, 1);
    }
}

/// Adds to a count of this CPU's. Where one task can be preempted by another in the
/// midst of it, and that one counts by a second program (see `again`), at once.
#[inline(always)]
fn add(count: &mut u64, by: u64) {
    if config!(twice) == 0 {
        *count += by;
    } else {
        // BPF_XADD, which core has no function for on this target.
        // SAFETY: a live and aligned count.
        unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) &raw mut *count, in(reg) by) };
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum DeviceEvent {
    In,
    Sent,
    Dropped,
    Unexplained,
}

/// Counts for a device.
#[inline(always)]
pub fn at_device(key: DeviceKey, event: DeviceEvent) {
    let mut known = DEVICES.get_ptr_mut(&key);
    if known.is_none() {
        let _ = DEVICES.insert(&key, &DeviceTally::default(), BPF_NOEXIST);
        known = DEVICES.get_ptr_mut(&key);
    }
    let Some(tally) = known else {
        lose(lost::TALLY);
        return;
    };
    // SAFETY: this CPU's own element.
    let tally = unsafe { &mut *tally };
    match event {
        DeviceEvent::In => add(&mut tally.packets_in, 1),
        DeviceEvent::Sent => add(&mut tally.sent, 1),
        DeviceEvent::Dropped => add(&mut tally.dropped, 1),
        DeviceEvent::Unexplained => add(&mut tally.unexplained, 1),
    }
}

#[derive(Clone, Copy)]
pub enum Fate {
    Sent,
    Dropped,
    Lost,
}

/// Counts a packet of the device that sends it, by what it is like. `room` is for
/// `read::through`.
#[inline(always)]
pub fn like(record: &Record, fate: Fate, room: &mut u64) {
    let tallied = &record.key;
    let mut flags = 0;
    match tallied.flow.ethertype {
        ETH_P_IP => flags |= like::IPV4,
        ETH_P_IPV6 => flags |= like::IPV6,
        _ => {}
    }
    if tallied.seen & seen::DONT_FRAGMENT != 0 {
        flags |= like::DONT_FRAGMENT;
    }
    if record.first != 0 {
        flags |= like::FIRST;
    }
    // Of a sender that is not known it is 0.
    let uid = record.process.uid;
    if record.process.flags & sender::USER_SOCKET != 0 {
        flags |= like::SENDER;
    }
    let flags = read::through(room, flags.into()) as u16;
    let size = (record.length / like::UNIT).min(like::LARGEST);
    let size = read::through(room, size.into()) as u16;
    let key = LikeKey {
        netns: tallied.sender_netns,
        ifindex: tallied.sender_ifindex,
        mark: record.mark,
        uid,
        cpu: 0,
        size,
        flags,
    };
    let mut known = LIKES.get_ptr_mut(&key);
    if known.is_none() {
        let _ = LIKES.insert(&key, &LikeTally::default(), BPF_NOEXIST);
        known = LIKES.get_ptr_mut(&key);
    }
    let Some(tally) = known else {
        lose(lost::LIKES);
        return;
    };
    // SAFETY: this CPU's own element.
    let tally = unsafe { &mut *tally };
    match fate {
        Fate::Sent => add(&mut tally.sent, 1),
        Fate::Dropped => add(&mut tally.dropped, 1),
        Fate::Lost => add(&mut tally.lost, 1),
    }
}

/// Counts a packet that came to the end of its frame, if it `passed`. Is it the
/// first to its destination? `room` is for `read::through`.
#[inline(always)]
pub fn destination(key: &TallyKey, passed: bool, room: &mut u64) -> bool {
    let port = read::through(room, key.flow.service().into()) as u16;
    let mut destination = PassedKey {
        netns: key.netns,
        ifindex: key.ifindex,
        dst: key.flow.dst,
        ethertype: key.flow.ethertype,
        proto: key.flow.proto,
        icmp_type: key.flow.icmp_type,
        port,
        reserved: 0,
    };
    if !passed {
        // Storms come first.
        return DESTINATIONS.get_ptr(&destination).is_none()
            && PASSED.get_ptr(&destination).is_none()
            && DESTINATIONS.insert(&destination, &1, BPF_NOEXIST).is_ok();
    }
    if let Some(count) = PASSED.get_ptr_mut(&destination) {
        // SAFETY: this CPU's own element.
        add(unsafe { &mut *count }, 1);
        return false;
    }
    if PASSED.insert(&destination, &1, BPF_NOEXIST).is_ok() {
        return DESTINATIONS.get_ptr(&destination).is_none();
    }
    // Another CPU was faster, or there is no room.
    if let Some(count) = PASSED.get_ptr_mut(&destination) {
        // SAFETY: likewise.
        add(unsafe { &mut *count }, 1);
        return false;
    }
    destination.dst = [0; 16];
    destination.icmp_type = 0;
    destination.port = 0;
    if PASSED_COARSE.get_ptr(&destination).is_none() {
        let _ = PASSED_COARSE.insert(&destination, &0, BPF_NOEXIST);
    }
    match PASSED_COARSE.get_ptr_mut(&destination) {
        // SAFETY: likewise.
        Some(count) => add(unsafe { &mut *count }, 1),
        None => lose(lost::TALLY),
    }
    false
}

/// Counts one packet under the record's key; how many this CPU has now.
/// `coarse` is room for a key.
#[inline(always)]
pub fn count(coarse: &mut TallyKey, record: &Record) -> u64 {
    let mut known = TALLIES.get_ptr_mut(&record.key);
    if known.is_none() {
        let _ = TALLIES.insert(&record.key, &Tally::default(), BPF_NOEXIST);
        known = TALLIES.get_ptr_mut(&record.key);
    }
    if let Some(tally) = known {
        // SAFETY: this CPU's own element.
        return tallied(unsafe { &mut *tally }, record);
    }
    // Full. Still exact, by device and evidence only.
    *coarse = record.key;
    coarse.flow = Flow {
        ethertype: record.key.flow.ethertype,
        proto: record.key.flow.proto,
        ..Flow::default()
    };
    let coarse = &*coarse;
    if COARSE.get_ptr(coarse).is_none() {
        let _ = COARSE.insert(coarse, &Tally::default(), BPF_NOEXIST);
    }
    match COARSE.get_ptr_mut(coarse) {
        // SAFETY: this CPU's own element.
        Some(tally) => tallied(unsafe { &mut *tally }, record),
        None => {
            lose(lost::TALLY);
            0
        }
    }
}

#[inline(always)]
fn tallied(tally: &mut Tally, record: &Record) -> u64 {
    add(&mut tally.packets, 1);
    add(&mut tally.bytes, record.length.into());
    tally.last_ns = about_now();
    tally.packets
}

/// Flags for a record of this time: does it wake who reads?
#[inline(always)]
fn wakes(now: u64) -> u64 {
    let Some(woken) = WOKEN.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: this CPU's own element.
    let woken = unsafe { &mut *woken };
    if now.wrapping_sub(*woken) < QUIET_NS {
        // SAFETY: the map is a ring buffer.
        let unread = unsafe {
            generated::bpf_ringbuf_query((&raw const RECORDS).cast_mut().cast(), BPF_RB_AVAIL_DATA)
        };
        // Some records on the way up are enough.
        return if unread.wrapping_sub(MUCH) < FEW {
            BPF_RB_FORCE_WAKEUP
        } else {
            BPF_RB_NO_WAKEUP
        };
    }
    *woken = now;
    // Those before it may not have been read yet.
    BPF_RB_FORCE_WAKEUP
}

/// What stands behind a record that is sent.
const _: () = {
    const HEAD: usize = size_of::<Record>();
    assert!(core::mem::offset_of!(Frame, head) == core::mem::offset_of!(Frame, record) + HEAD);
    assert!(core::mem::offset_of!(Scratch, head) == core::mem::offset_of!(Scratch, record) + HEAD);
};

/// Counts a drop and sends its record.
#[inline(always)]
pub fn drop(coarse: &mut TallyKey, record: &mut Record, kind: u64) {
    let nth = count(coarse, record);
    send(nth, record, kind);
}

/// Sends the record of the `nth` drop that was counted, for which the name of the
/// device's kind is read if it has an address (`device::Kind`). With it goes the
/// [`Head`] that stands behind the record, where the packets' bytes were asked for.
#[inline(always)]
pub fn send(nth: u64, record: &mut Record, kind: u64) {
    if config!(all_records) == 0 && nth > EVERY_RECORD && nth & (nth - 1) != 0 {
        return;
    }
    device::kind_name(&raw mut record.kind, kind);
    // SAFETY: the helper has no preconditions.
    record.time_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: likewise.
    record.cpu = unsafe { generated::bpf_get_smp_processor_id() };
    let size = if config!(snaplen) == 0 {
        size_of::<Record>()
    } else {
        size_of::<Record>() + size_of::<Head>()
    };
    // SAFETY: the record is part of a map value, and its head behind it.
    let failed = unsafe {
        generated::bpf_ringbuf_output(
            (&raw const RECORDS).cast_mut().cast(),
            (&raw mut *record).cast(),
            size as u64,
            wakes(record.time_ns),
        )
    };
    if failed != 0 {
        lose(lost::RING);
    }
}
