//! Frames: one call of a tunnel driver's transmit function, from entry to
//! return, on one CPU.
//!
//! The stack of open frames is per CPU: `ndo_start_xmit` runs with bottom
//! halves off (`__dev_queue_xmit`, `__dev_direct_xmit`), so nothing else
//! transmits on this CPU until it returns, and what it calls nests.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_common::{
    ABI_VERSION,
    config::switch,
    record::{PATH_LEN, Record},
    tally::{COUNTERS, DeviceKey, TallyKey, freed_by, lost, outcome, route, seen},
};

use crate::{
    device::NetDevice,
    flow,
    maps::{CPU, DEPTH, EMPTY, FRAMES, SENT, SWITCHES},
    process, read,
    skb::SkBuff,
    tally,
};

/// State of this CPU beside its frames.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Cpu {
    /// Number of open frames.
    pub depth: u32,
    /// `skb_realloc_headroom` was entered for the top frame's packet.
    pub replacing: u32,
    /// See `device::percpu_offset`.
    pub percpu_offset: u64,
    /// The flow key of the route look-up under way (kretprobe only).
    pub question: u64,
    /// The packet an ICMP error was last raised about.
    pub told_skb: u64,
    pub told: u8,
    pub told_type: u8,
    pub told_code: u8,
    pub reserved: [u8; 5],
    /// Room for the key of `COARSE`.
    pub coarse: TallyKey,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame {
    /// Filled while the frame is open, sent when it closes on a drop.
    pub record: Record,
    /// Counters of the device when the frame was opened.
    pub before: [u64; COUNTERS.len()],
    pub skb: u64,
    pub dev: u64,
    /// Where the packet was consumed, if it was.
    pub consumed_at: u64,
    pub consumed: u32,
    /// Which of `seen` opened the frame and will close it.
    pub opener: u32,
}

/// State of this CPU.
#[inline(always)]
pub fn cpu() -> Option<&'static mut Cpu> {
    // SAFETY: the element is this CPU's own, and programs of ours do not
    // interrupt each other on one CPU while frames are open.
    CPU.get_ptr_mut(0).map(|cpu| unsafe { &mut *cpu })
}

/// The `n`th open frame counted from the innermost, 0.
#[inline(always)]
pub fn nth(cpu: &Cpu, n: u32) -> Option<&'static mut Frame> {
    let index = cpu.depth.wrapping_sub(1).wrapping_sub(n);
    if index >= DEPTH {
        return None;
    }
    // SAFETY: as in `cpu`.
    FRAMES
        .get_ptr_mut(index)
        .map(|frame| unsafe { &mut *frame })
}

/// A packet enters a device's transmit function.
#[inline(always)]
pub fn open(context: *mut c_void, skb: SkBuff, dev: NetDevice, by: u8) {
    let Some(cpu) = cpu() else { return };
    if let Some(top) = nth(cpu, 0)
        && top.skb == skb.0
        && top.dev == dev.0
    {
        // Tracepoint and driver function bracket the same call.
        top.record.key.seen |= by;
        return;
    }
    let mut kind = [0; 16];
    if !dev.tunnel_kind(&raw mut kind) || !dev.wanted() {
        return;
    }
    if cpu.depth >= DEPTH {
        tally::lose(lost::FRAMES);
        return;
    }
    cpu.depth += 1;
    let (Some(frame), Some(empty)) = (nth(cpu, 0), EMPTY.get_ptr(0)) else {
        return;
    };
    read::copy(&raw mut *frame, empty as u64);
    frame.skb = skb.0;
    frame.dev = dev.0;
    frame.opener = u32::from(by);

    let record = &mut frame.record;
    record.version = ABI_VERSION;
    record.size = size_of::<Record>() as u16;
    record.stack = -1;
    record.kind = kind;
    dev.name(&raw mut record.dev);
    record.mtu = dev.mtu();
    record.mark = skb.mark();
    record.key.ifindex = dev.ifindex();
    record.key.netns = dev.netns();
    record.key.seen = by;
    if let Some(header) = skb.network_header() {
        record.length = flow::parse(header, skb.protocol(), &mut record.key.flow);
    }
    if record.length == 0 {
        record.length = skb.length();
    }
    process::of(context, skb, &mut record.process);
    path(cpu, record);
    dev.counters(cpu, &mut frame.before);
    tally::device(
        DeviceKey {
            netns: record.key.netns,
            ifindex: record.key.ifindex,
        },
        tally::DeviceEvent::In,
    );
}

/// Copies the path of the frame around this one and adds this device.
#[inline(always)]
fn path(cpu: &Cpu, record: &mut Record) {
    let mut length = 0;
    if let Some(outer) = nth(cpu, 1) {
        record.path = outer.record.path;
        length = outer.record.path_len;
    }
    if length < PATH_LEN as u32 {
        record.path[(length & (PATH_LEN as u32 - 1)) as usize] = record.key.ifindex;
        length += 1;
    }
    record.path_len = length;
}

/// Something more was seen of the frame of this packet.
#[inline(always)]
pub fn mark(skb: SkBuff, what: u8) {
    if let Some(cpu) = cpu()
        && let Some(top) = nth(cpu, 0)
        && top.skb == skb.0
    {
        top.record.key.seen |= what;
    }
}

/// The outer packet of the innermost frame is handed to IP.
#[inline(always)]
pub fn handed(skb: SkBuff) {
    let Some(cpu) = cpu() else { return };
    let Some(top) = nth(cpu, 0) else { return };
    if top.record.key.freed_by != freed_by::NONE || top.record.key.told != 0 {
        // The ICMP error on its way to the sender, not the packet.
        return;
    }
    top.skb = skb.0;
    top.consumed = 0;
    top.record.key.seen |= seen::HANDED_TO_IP;
    remember(skb, top);
}

/// Keeps what is known of a packet that leaves its frame alive.
#[inline(always)]
fn remember(skb: SkBuff, frame: &mut Frame) {
    frame.record.key.outcome = outcome::LOST_LATER;
    let _ = SENT.insert(&skb.0, &frame.record, 0);
}

/// `skb_realloc_headroom` is entered.
#[inline(always)]
pub fn replacing(skb: SkBuff) {
    let Some(cpu) = cpu() else { return };
    cpu.replacing = 0;
    if let Some(top) = nth(cpu, 0)
        && top.skb == skb.0
    {
        cpu.replacing = 1;
    }
}

/// `skb_realloc_headroom` returns.
#[inline(always)]
pub fn replaced_return(copy: SkBuff) {
    let Some(cpu) = cpu() else { return };
    if cpu.replacing == 0 {
        return;
    }
    cpu.replacing = 0;
    if let Some(top) = nth(cpu, 0) {
        replace(top, copy);
    }
}

/// `skb_realloc_headroom(skb)` returned a roomier copy: the frame goes on with
/// it, and the original's end is not the packet's.
#[inline(always)]
pub fn replaced(skb: SkBuff, copy: SkBuff) {
    if let Some(cpu) = cpu()
        && let Some(top) = nth(cpu, 0)
        && top.skb == skb.0
    {
        replace(top, copy);
    }
}

#[inline(always)]
fn replace(frame: &mut Frame, copy: SkBuff) {
    if copy.0 == 0 {
        frame.record.key.seen |= seen::NO_HEADROOM;
    } else {
        frame.skb = copy.0;
    }
}

/// `net_dev_xmit`: the device's transmit function returned `code`.
#[inline(always)]
pub fn close_device(dev: NetDevice, code: i32) {
    let Some(cpu) = cpu() else { return };
    let Some(top) = nth(cpu, 0) else { return };
    if top.dev != dev.0 || top.opener != u32::from(seen::TRACEPOINTS) {
        // A device that is no tunnel, inside a frame.
        return;
    }
    close(cpu, top, code);
}

/// A driver's transmit function returned, and no tracepoint brackets it.
#[inline(always)]
pub fn close_driver(code: i32) {
    let Some(cpu) = cpu() else { return };
    let Some(top) = nth(cpu, 0) else { return };
    if top.opener == u32::from(seen::DRIVER) {
        close(cpu, top, code);
    }
}

#[inline(always)]
fn close(cpu: &mut Cpu, frame: &mut Frame, code: i32) {
    cpu.depth = cpu.depth.saturating_sub(1);
    let mut after = [0u64; COUNTERS.len()];
    NetDevice(frame.dev).counters(cpu, &mut after);
    let record = &mut frame.record;
    let key = &mut record.key;
    key.counters = 0;
    for (n, (after, before)) in after.iter().zip(&frame.before).enumerate() {
        let moved = after.wrapping_sub(*before) as u32;
        record.counters[n] = moved;
        if moved != 0 {
            key.counters |= 1 << n;
        }
    }
    // SAFETY: the helper has no preconditions.
    record.time_ns = unsafe { bpf_ktime_get_ns() };

    let handed = key.seen & seen::HANDED_TO_IP != 0;
    let device = DeviceKey {
        netns: key.netns,
        ifindex: key.ifindex,
    };
    if key.freed_by == freed_by::NONE
        && frame.consumed != 0
        && !handed
        && SWITCHES
            .get(switch::REALLOC_WATCHED)
            .is_some_and(|on| *on != 0)
    {
        key.freed_by = freed_by::CONSUME_SKB;
        key.location = frame.consumed_at;
    }
    if key.freed_by != freed_by::NONE {
        key.outcome = outcome::DROPPED;
        tally::device(device, tally::DeviceEvent::Dropped);
        tally::drop(cpu, record);
    } else if handed || (code == 0 && frame.consumed == 0) {
        // Alive and the driver content: it is on its way. Where the hand-over
        // itself was not seen, the packet is remembered here.
        if !handed {
            let skb = SkBuff(frame.skb);
            remember(skb, frame);
        }
        let key = &mut frame.record.key;
        key.outcome = outcome::SENT;
        key.route &= !route::FROM_CACHE;
        key.told = 0;
        key.counters = 0;
        tally::device(device, tally::DeviceEvent::Sent);
        tally::count(cpu, &frame.record);
    } else {
        tally::device(device, tally::DeviceEvent::Unexplained);
    }
}
