//! Where packets are freed.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_ktime_get_ns, generated},
    programs::ProbeContext,
};
use tracer_common::{
    ABI_VERSION,
    flow::{Flow, IPPROTO_GRE, IPPROTO_IPIP, IPPROTO_IPV6, IPPROTO_UDP},
    record::Record,
    tally::{freed_by, outcome, seen},
};

use crate::{
    flow,
    frame::{self, Cpu, Frame},
    globals::config,
    maps::{DEPTH, EMPTY, PORTS, SCRATCH, SENT, STACKS},
    read,
    skb::SkBuff,
    tally,
};

/// A packet was dropped (`kfree_skb`), at `location`.
#[inline(always)]
pub fn freed(context: *mut c_void, skb: SkBuff, location: u64, reason: u32, by: u8) {
    let Some(cpu) = frame::cpu() else { return };
    if let Some(frame) = innermost(cpu, skb) {
        in_frame(context, cpu, frame, skb, location, reason, by);
        return;
    }
    outside(context, cpu, skb, location, reason);
}

/// The same at the entry of a function (kprobe): the caller is who frees.
#[inline(always)]
pub fn freed_at_entry(context: &ProbeContext, skb: SkBuff, reason: u32) {
    // SAFETY: `regs` is the context the kernel gave the program.
    let stack_pointer = unsafe { (*context.regs).rsp };
    let location = read::at(stack_pointer, 0).unwrap_or(0);
    freed(context.as_ptr(), skb, location, reason, freed_by::KFREE_SKB);
}

/// A packet was freed as if all were well (`consume_skb`).
#[inline(always)]
pub fn consumed(context: *mut c_void, skb: SkBuff, location: u64) {
    let Some(cpu) = frame::cpu() else { return };
    if cpu.told_skb == skb.0 {
        cpu.told_skb = 0;
    }
    if cpu.depth == 0 {
        return;
    }
    if let Some(frame) = innermost(cpu, skb) {
        frame.consumed = 1;
        frame.consumed_at = location;
        note(context, &mut frame.record, skb);
    }
}

/// The innermost open frame whose packet this is.
#[inline(always)]
fn innermost(cpu: &Cpu, skb: SkBuff) -> Option<&'static mut Frame> {
    for n in 0..DEPTH {
        if n >= cpu.depth {
            break;
        }
        if let Some(frame) = frame::nth(cpu, n)
            && frame.skb == skb.0
        {
            return Some(frame);
        }
    }
    None
}

#[inline(always)]
fn in_frame(
    context: *mut c_void,
    cpu: &mut Cpu,
    frame: &mut Frame,
    skb: SkBuff,
    location: u64,
    reason: u32,
    by: u8,
) {
    note(context, &mut frame.record, skb);
    let key = &mut frame.record.key;
    key.freed_by = by;
    key.location = location;
    key.reason = reason;
    if cpu.told_skb == skb.0 {
        cpu.told_skb = 0;
    }
    if key.seen & seen::HANDED_TO_IP != 0 {
        outer(&mut frame.record, skb);
        let _ = SENT.remove(&skb.0);
    }
    // The address may be given to another packet before the frame closes.
    frame.skb = 0;
}

/// What is written down of every freed packet.
#[inline(always)]
fn note(context: *mut c_void, record: &mut Record, skb: SkBuff) {
    if let Some(dev) = skb.device()
        && dev.0 != 0
    {
        record.freed_ifindex = dev.ifindex();
        record.freed_netns = dev.netns();
        record.freed_dev = [0; 16];
        dev.name(&raw mut record.freed_dev);
    }
    if config!(stack) != 0 {
        // SAFETY: `context` is the program's own context.
        record.stack = unsafe {
            generated::bpf_get_stackid(context, (&raw const STACKS).cast_mut().cast(), 0)
        } as i32;
    }
}

/// Fills in the outer packet from the network header.
#[inline(always)]
fn outer(record: &mut Record, skb: SkBuff) {
    if let Some(header) = skb.network_header() {
        record.outer = Flow::default();
        record.outer_length = flow::parse(header, flow::version(header), &mut record.outer);
        record.key.outer_proto = record.outer.proto;
        if record.outer.proto == IPPROTO_UDP {
            record.key.outer_dport = record.outer.dport;
        }
    }
}

/// A free with no frame around it: is the packet one that a tunnel sent?
#[inline(always)]
fn outside(context: *mut c_void, cpu: &mut Cpu, skb: SkBuff, location: u64, reason: u32) {
    if let Some(sent) = SENT.get_ptr_mut(&skb.0) {
        // SAFETY: an element of an LRU map stays readable while the program
        // runs; that it may be reused is no matter, see below.
        let record = unsafe { &mut *sent };
        // An skb's address is reused. The packet is the one remembered only if
        // its inner header still says so.
        if let Some(inner) = skb.inner_network_header() {
            let mut now = Flow::default();
            flow::parse(inner, record.key.flow.ethertype, &mut now);
            if now == record.key.flow {
                outer(record, skb);
                finish(context, cpu, record, skb, location, reason);
                let _ = SENT.remove(&skb.0);
                return;
            }
        }
        let _ = SENT.remove(&skb.0);
    }
    stray(context, cpu, skb, location, reason);
}

/// A packet no frame of ours has sent: of interest if it is a tunnel's outer
/// packet, or if everything is.
#[inline(always)]
fn stray(context: *mut c_void, cpu: &mut Cpu, skb: SkBuff, location: u64, reason: u32) {
    let all = config!(all_drops) != 0;
    let Some(header) = skb.network_header() else {
        return;
    };
    let ethertype = flow::version(header);
    if ethertype == 0 && !all {
        return;
    }
    let (Some(record), Some(empty)) = (SCRATCH.get_ptr_mut(0), EMPTY.get_ptr(0)) else {
        return;
    };
    read::copy(record, empty as u64);
    // SAFETY: this CPU's own element.
    let record = unsafe { &mut *record };
    record.outer_length = flow::parse(header, ethertype, &mut record.outer);
    let tunnel = match record.outer.proto {
        IPPROTO_IPIP | IPPROTO_IPV6 | IPPROTO_GRE => true,
        IPPROTO_UDP => PORTS.get_ptr(&record.outer.dport).is_some(),
        _ => false,
    };
    if !tunnel && !all {
        return;
    }
    let Some(dev) = skb.device() else { return };
    if dev.0 != 0 {
        if !dev.wanted() {
            return;
        }
        record.key.ifindex = 0;
        record.key.netns = dev.netns();
    } else if config!(netns) != 0 || config!(dev)[0] != 0 {
        return;
    }
    record.version = ABI_VERSION;
    record.size = size_of::<Record>() as u16;
    record.stack = -1;
    record.mark = skb.mark();
    record.length = skb.length();
    record.key.flow = record.outer;
    record.key.outer_proto = record.outer.proto;
    record.key.outer_dport = record.outer.dport;
    record.key.outcome = if tunnel {
        outcome::STRAY
    } else {
        outcome::UNRELATED
    };
    finish(context, cpu, record, skb, location, reason);
}

/// What every drop outside a frame has in common.
#[inline(always)]
fn finish(
    context: *mut c_void,
    cpu: &mut Cpu,
    record: &mut Record,
    skb: SkBuff,
    location: u64,
    reason: u32,
) {
    note(context, record, skb);
    let key = &mut record.key;
    key.freed_by = freed_by::KFREE_SKB;
    key.location = location;
    key.reason = reason;
    if skb.iif() != 0 {
        key.seen |= seen::RECEIVED;
    }
    if cpu.told_skb == skb.0 {
        key.told = cpu.told;
        key.told_type = cpu.told_type;
        key.told_code = cpu.told_code;
        cpu.told_skb = 0;
    }
    // SAFETY: the helper has no preconditions.
    record.time_ns = unsafe { bpf_ktime_get_ns() };
    tally::drop(cpu, record);
}
