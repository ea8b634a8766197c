//! Where packets are freed.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext as _, helpers::generated, programs::ProbeContext};
use tracer_common::{
    ABI_VERSION,
    config::{kind, switch},
    flow::{ETH_P_IP, ETH_P_IPV6, Flow, IPPROTO_UDP, is_networks},
    record::{Head, Record},
    tally::{TallyKey, freed_by, lost, outcome, seen},
};

use crate::{
    device::{NetDevice, Stats, kind_name},
    filter,
    flow::{self, Header, Parsed},
    frame::{self, Context, DEPTH, Frame},
    globals::config,
    maps::STACKS,
    process,
    read::{self, PROBED},
    receive::{self, Receive},
    sent,
    skb::{Copied, Fields, Followed, SkBuff},
    tally::{self, Fate},
};

/// Room to examine a freed packet, too big for the stack.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Scratch {
    pub record: Record,
    /// Behind the record, see `tally::send`.
    pub head: Head,
    pub skb: Copied,
    pub header: Header,
    pub outermost: Flow,
    pub inner: Flow,
    pub room: Room,
    // What the programs find out goes through a map, see `read::through`.
    /// Is the packet of interest although no frame of ours has sent it?
    pub strays: u64,
    /// The packet's address as a number.
    pub number: u64,
    pub parsed: Parsed,
    /// Is it the packet that was received last?
    pub is_received: u64,
    /// Is the record that of a packet that a tunnel sent?
    pub is_sent: u64,
    /// Bits of `what`.
    pub what: u64,
    /// Address of the name of the kind of the record's device, 0: the record
    /// has it, or there is none.
    pub kind_name: u64,
}

/// Room to count.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Room {
    /// For the key of `COARSE`.
    pub coarse: TallyKey,
    /// For the filter's tests.
    pub tests: u64,
    /// For `read::through`.
    pub number: u64,
    /// For a device's counters.
    pub stats: Stats,
    /// For the packet whose frame is opened.
    pub skb: Copied,
}

/// What a freed packet is.
mod what {
    /// Its outermost header is that of a tunnel.
    pub const BY_HEADER: u64 = 1;
    /// It belongs to a tunnel, by its header or because one received it.
    pub const TUNNELS: u64 = 2;
    /// It stands on a tunnel device.
    pub const AT_TUNNEL: u64 = 4;
}

/// How many frees can be under way in one context: a process frees a packet,
/// and the network's softirq, in the middle of our program, another. Since 7.0
/// another process can, too: programs at tracepoints can be preempted.
pub const LEVELS: usize = 3;

/// The lowest of the levels that is not among these bits.
static LOWEST_FREE: [u8; 1 << LEVELS] = [0, 1, 0, 2, 0, 1, 0, LEVELS as u8];

/// A free under way.
#[derive(Clone, Copy)]
struct Free<const TYPED: bool> {
    ctx: *mut c_void,
    skb: Followed<TYPED>,
    location: u64,
    reason: u32,
    by: u8,
    /// The ICMP error raised about the packet before: family, type, code.
    told: [u8; 3],
}

/// A packet was dropped (`kfree_skb`), at `location`.
#[inline(always)]
pub fn freed<const TYPED: bool>(
    ctx: *mut c_void,
    skb: SkBuff<TYPED>,
    location: u64,
    reason: u32,
    by: u8,
) {
    if !frame::switched(switch::READY) {
        return;
    }
    let Some(context) = frame::enter() else {
        return;
    };
    if frame::was_split(context, skb) {
        context.receive.forget_if(skb.0);
        return;
    }
    let free = Free {
        ctx,
        skb: skb.into(),
        location,
        reason,
        by,
        told: told(context, skb),
    };
    let room = &raw mut context.room;
    if context.depth > 0
        && let Some(frame) = innermost(context, skb)
    {
        // SAFETY: a field of this CPU's or task's own context, beside the frames.
        in_frame(&free, frame, unsafe { &mut (*room).number });
    } else {
        outside::<TYPED, true>(&free, context, true);
    }
    // Whether or not it was of interest.
    context.receive.forget_if(skb.0);
}

/// What the packet's sender was told; an address is given to another packet
/// soon, so it is forgotten here.
#[inline(always)]
fn told<const TYPED: bool>(context: &mut Context, skb: SkBuff<TYPED>) -> [u8; 3] {
    if context.told_skb != skb.0 {
        return [0; 3];
    }
    context.told_skb = 0;
    [context.told, context.told_type, context.told_code]
}

/// The same at the entry of a function (kprobe): the caller is who frees.
#[inline(always)]
pub fn freed_at_entry(context: &ProbeContext, skb: SkBuff<PROBED>, reason: u32) {
    // Freeing nothing is nothing.
    if skb.0 == 0 {
        return;
    }
    // SAFETY: `regs` is the context the kernel gave the program.
    let stack_pointer = unsafe { (*context.regs).rsp };
    let location = read::at(stack_pointer, 0).unwrap_or(0);
    freed(context.as_ptr(), skb, location, reason, freed_by::KFREE_SKB);
}

/// A packet was freed as if all were well (`consume_skb`).
#[inline(always)]
pub fn consumed<const TYPED: bool>(ctx: *mut c_void, skb: SkBuff<TYPED>, location: u64) {
    let Some(context) = frame::context() else {
        return;
    };
    let told = told(context, skb);
    // It ends here as it should.
    frame::was_split(context, skb);
    let is_received = context.receive.skb == skb.0;
    if context.depth == 0 && !is_received {
        return;
    }
    let free = Free {
        ctx,
        skb: skb.into(),
        location,
        reason: 0,
        by: freed_by::CONSUME_SKB,
        told,
    };
    let mut waited = false;
    let room = &raw mut context.room;
    if context.depth > 0 {
        if let Some(frame) = innermost(context, skb) {
            frame.consumed = 1;
            frame.consumed_at = location;
            // SAFETY: as in `freed`.
            let room = unsafe { &mut (*room).number };
            note(&free, &free.skb, &mut frame.record, &mut frame.head, room);
            return;
        }
        // Another packet than the frame's: one that waited, pushed out of the
        // queue (WireGuard's staged packets).
        waited = frame::top(context).is_some_and(|top| top.kind & kind::CONSUMES_DROPS != 0);
    }
    // A driver that counts an error and consumes has dropped (WireGuard). What it
    // delivers comes in by its device before anything frees it; the counters can have
    // moved for another packet, on another CPU.
    let dropped = is_received
        && skb.iif() == 0
        && context.receive.is_still(&free.skb)
        && context.receive.moved(&mut []) != 0;
    let dropped = read::through(&mut context.room.number, dropped.into()) != 0;
    if dropped || waited {
        // Those drivers have the packet out of its encapsulation by then.
        outside::<TYPED, false>(&free, context, dropped);
    }
    if dropped {
        context.receive.forget();
    } else if is_received {
        context.receive.end();
    }
}

/// The innermost open frame whose packet this is.
///
/// Which it is goes through a map: were it in a register, the verifier would
/// follow all that comes after once for each value it can have.
#[inline(always)]
fn innermost<const TYPED: bool>(context: &mut Context, skb: SkBuff<TYPED>) -> Option<&mut Frame> {
    context.found = DEPTH;
    for n in 0..DEPTH {
        if n >= context.depth {
            break;
        }
        if frame::nth(context, n).is_some_and(|frame| frame.skb == skb.0) {
            context.found = n;
            break;
        }
    }
    // SAFETY: a field of a live structure.
    let found = unsafe { core::ptr::read_volatile(&raw const context.found) };
    if found >= DEPTH {
        return None;
    }
    frame::nth(context, found)
}

#[inline(always)]
fn in_frame<const TYPED: bool>(free: &Free<TYPED>, frame: &mut Frame, room: &mut u64) {
    note(free, &free.skb, &mut frame.record, &mut frame.head, room);
    let key = &mut frame.record.key;
    key.freed_by = free.by;
    key.location = free.location;
    key.reason = free.reason;
    if key.told == 0 {
        [key.told, key.told_type, key.told_code] = free.told;
    }
    if key.seen & seen::HANDED_TO_IP != 0 {
        outer(frame, free.skb.skb);
        sent::forget(frame.address());
    }
    // The address may be given to another packet before the frame closes.
    frame.skb = 0;
}

/// What is written down of every freed packet.
#[inline(always)]
fn note<const TYPED: bool, const OF: bool>(
    free: &Free<TYPED>,
    skb: &impl Fields<OF>,
    record: &mut Record,
    head: &mut Head,
    room: &mut u64,
) {
    if config!(snaplen) != 0 {
        skb.copy_to(head, room);
    }
    if let Some(dev) = skb.device()
        && dev.0 != 0
    {
        record.freed_ifindex = dev.ifindex();
        record.freed_netns = dev.netns();
        record.freed_dev = [0; 16];
        dev.name(&raw mut record.freed_dev);
    }
    if config!(stack) != 0 {
        // SAFETY: `ctx` is the program's own context.
        record.stack = unsafe {
            generated::bpf_get_stackid(free.ctx, (&raw const STACKS).cast_mut().cast(), 0)
        } as i32;
    }
}

/// Fills in the outer packet from the network header.
#[inline(always)]
fn outer<const TYPED: bool>(frame: &mut Frame, skb: SkBuff<TYPED>) {
    if let Some(header) = skb.network_header() {
        let record = &mut frame.record;
        record.outer = Flow::default();
        record.outer_length = flow::parse_ip(header, &mut frame.header, &mut record.outer);
        keyed(record);
    }
}

/// Puts of the outer packet into the key what a verdict needs.
#[inline(always)]
fn keyed(record: &mut Record) {
    record.key.outer_proto = record.outer.proto;
    if record.outer.proto == IPPROTO_UDP {
        record.key.outer_dport = record.outer.dport;
    }
}

/// A free with no frame around it: is the packet one that a tunnel sent, or,
/// with `strays`, of interest although no frame of ours has sent it? `WRAPPED`:
/// it may have a packet inside, to be decoded.
#[inline(always)]
fn outside<const TYPED: bool, const WRAPPED: bool>(
    free: &Free<TYPED>,
    context: &mut Context,
    strays: bool,
) {
    // SAFETY: an element of a table of eight. Volatile: a branch for each level
    // would have the verifier follow all that comes after once for each.
    let level =
        unsafe { core::ptr::read_volatile(LOWEST_FREE.as_ptr().add((context.busy & 7) as usize)) };
    let Some(scratch) = context.scratch.get_mut(level as usize) else {
        tally::lose(lost::TALLY);
        return;
    };
    scratch.strays = strays.into();
    scratch.number = free.skb.skb.0;
    scratch.kind_name = 0;
    let scratch = &raw mut *scratch;
    context.busy |= 1 << level;
    // SAFETY: a part of the context that nobody else has: whoever comes in
    // between takes another.
    let scratch = unsafe { &mut *scratch };
    if TYPED {
        examine::<TYPED, TYPED, WRAPPED>(free, &free.skb, context, scratch);
    } else {
        let copied = &raw mut scratch.skb;
        // SAFETY: likewise, a field that nobody writes from here on.
        if unsafe { (*copied).fill(free.skb.skb) } {
            // SAFETY: likewise.
            examine::<TYPED, PROBED, WRAPPED>(free, unsafe { &*copied }, context, scratch);
        } else {
            tally::lose(lost::TALLY);
        }
    }
    context.busy &= !(1 << level);
}

/// `OF`: what the packet's fields point to has types.
#[inline(always)]
fn examine<const TYPED: bool, const OF: bool, const WRAPPED: bool>(
    free: &Free<TYPED>,
    skb: &impl Fields<OF>,
    context: &mut Context,
    scratch: &mut Scratch,
) {
    // SAFETY: fields of a live structure.
    let (strays, number) = unsafe {
        (
            core::ptr::read_volatile(&raw const scratch.strays) != 0,
            core::ptr::read_volatile(&raw const scratch.number),
        )
    };
    let Some(header) = skb.network_header() else {
        return;
    };
    let protocol = skb.protocol();
    scratch.header.fill(header);
    let version = scratch.header.version_of(protocol);
    let ethertype = if version == 0 { protocol } else { version };
    scratch.outermost = Flow::default();
    let parsed = flow::walk(&scratch.header, ethertype, &mut scratch.outermost);
    let parsed = read::through(&mut scratch.parsed, parsed);
    // What was consumed has been asked already, see `consumed`.
    let is_received = if WRAPPED {
        let is_received = receive::is(context, free.skb.skb.0, skb);
        read::through(&mut scratch.is_received, is_received.into()) != 0
    } else {
        strays
    };
    let is_sent = was_sent(skb, number, strays, parsed, scratch);
    if read::through(&mut scratch.is_sent, is_sent.into()) == 0 {
        // On its way it may be split into fragments, which go on.
        let tunnels = is_received && context.receive.seen & seen::TUNNEL_RECEIVE != 0;
        if !strays || !stray::<OF, WRAPPED>(free.ctx, skb, scratch, parsed, tunnels) {
            return;
        }
    }
    let receive = is_received.then_some(&context.receive);
    finish(free, skb, receive, scratch);
}

/// Is this a packet that a tunnel sent? Makes its record the scratch's.
#[inline(always)]
fn was_sent<const OF: bool>(
    skb: &impl Fields<OF>,
    number: u64,
    strays: bool,
    parsed: Parsed,
    scratch: &mut Scratch,
) -> bool {
    if !sent::get(number, &mut scratch.record, &mut scratch.kind_name) {
        return false;
    }
    sent::forget(number);
    let record = &mut scratch.record;
    // What stands on no device waits in a socket, as a tap's copy does: its
    // end is not the packet's.
    let on_its_way = skb.device().is_some_and(|dev| dev.0 != 0);
    if !on_its_way || !is_same(record, skb, &scratch.outermost) {
        return false;
    }
    record.outer = Flow::default();
    if record.key.seen & seen::IN_THE_CLEAR == 0 {
        if !strays {
            return false;
        }
        record.outer = scratch.outermost;
        record.outer_length = parsed.length;
        keyed(record);
    }
    true
}

/// An skb's address is reused. The packet is the one remembered only if its
/// inner header still says so, in the encapsulation or out of it.
#[inline(always)]
fn is_same<const OF: bool>(record: &mut Record, skb: &impl Fields<OF>, outermost: &Flow) -> bool {
    if let Some(inner) = skb.inner_network_header() {
        return record.outer.ethertype != 0 && flow::has_addresses(inner, &record.outer);
    }
    let flow = &record.key.flow;
    // An ARP request has the addresses of the packet that waits for its answer.
    if flow.ethertype == 0
        || flow.ethertype != outermost.ethertype
        || !flow::same(&outermost.src, &flow.src)
        || !flow::same(&outermost.dst, &flow.dst)
    {
        return false;
    }
    record.key.seen |= seen::IN_THE_CLEAR;
    if came_since(record, skb) {
        record.key.seen |= seen::DECAPSULATED;
    }
    true
}

/// Has the packet been received since a tunnel sent it? One that was forwarded into
/// the tunnel keeps the interface that it had come by where the driver lets it;
/// WireGuard clears it before it sends, and so does the way into another network
/// namespace, where the same number is another interface.
#[inline(always)]
fn came_since<const OF: bool>(record: &Record, skb: &impl Fields<OF>) -> bool {
    let iif = skb.iif();
    iif != 0
        && (iif != record.process.iif
            || record.key.seen & seen::PEER_SEND != 0
            || skb
                .device()
                .is_some_and(|dev| dev.0 != 0 && dev.netns() != record.key.sender_netns))
}

/// A packet no frame of ours has sent: of interest if it is a tunnel's outer
/// packet, if it stands on a tunnel device, or if everything is. `received`: a
/// tunnel's receive function had it.
#[inline(always)]
fn stray<const OF: bool, const WRAPPED: bool>(
    ctx: *mut c_void,
    skb: &impl Fields<OF>,
    scratch: &mut Scratch,
    parsed: Parsed,
    received: bool,
) -> bool {
    let all = config!(all_drops) != 0;
    let Some(dev) = skb.device() else {
        return false;
    };
    if !all {
        // Fragments that a reassembled packet was made of have no device; what
        // is no packet of a network (unix, netlink) has no protocol.
        let protocol = skb.protocol();
        if dev.0 == 0 || !is_networks(protocol) {
            return false;
        }
    }
    scratch.kind_name = 0;
    let mut found = 0;
    if dev.0 != 0
        && let Some(kind) = dev.tunnel()
    {
        scratch.kind_name = kind.name;
        found |= what::AT_TUNNEL;
    }
    if matches!(scratch.outermost.ethertype, ETH_P_IP | ETH_P_IPV6)
        && flow::is_tunnels(&scratch.outermost, parsed.transport)
    {
        found |= what::BY_HEADER | what::TUNNELS;
    } else if received {
        // It knows better (a port we do not).
        found |= what::TUNNELS;
    }
    // What was appended to another packet (GRO) is freed with that, long after it
    // arrived: what waits in a queue begins with its header. Under an outer header it
    // is a tunnel's receive function that has pulled it.
    if found & what::AT_TUNNEL != 0
        && found & what::BY_HEADER == 0
        && skb.iif() == 0
        && skb.is_pulled()
    {
        return false;
    }
    let found = read::through(&mut scratch.what, found);
    if found == 0 && !all {
        return false;
    }
    let record = &mut scratch.record;
    read::clear(record);
    record.outer = scratch.outermost;
    if dev.0 != 0 {
        if !dev.wanted() {
            return false;
        }
        record.key.netns = dev.netns();
        if found & what::AT_TUNNEL != 0 {
            record.key.ifindex = dev.ifindex();
            dev.name(&raw mut record.dev);
            if skb.iif() == record.key.ifindex {
                record.key.seen |= seen::DECAPSULATED;
            }
        }
    } else {
        // What a socket sends has none before the routing has given it one.
        record.key.netns = skb.sock_netns();
        let netns = config!(netns);
        if config!(dev)[0] != 0 || (netns != 0 && netns != record.key.netns) {
            return false;
        }
    }
    // What came in is nobody's here.
    if all && skb.iif() == 0 {
        process::of::<OF>(
            ctx,
            skb.sock(),
            &mut scratch.room.number,
            &mut record.process,
        );
    }
    record.version = ABI_VERSION;
    record.size = size_of::<Record>() as u16;
    record.stack = -1;
    record.mark = skb.mark();
    record.length = if parsed.length == 0 {
        skb.length()
    } else {
        parsed.length
    };
    record.key.flow = record.outer;
    if found & (what::TUNNELS | what::BY_HEADER) == what::TUNNELS {
        // Out of its encapsulation, for all that can be said.
        record.key.seen |= seen::DECAPSULATED;
    }
    if found & what::TUNNELS != 0 {
        record.outer_length = parsed.length;
        keyed(record);
        record.key.outcome = outcome::STRAY;
        if WRAPPED {
            scratch.inner = Flow::default();
            let inner = flow::inner(
                &scratch.outermost,
                parsed.transport,
                &mut scratch.header,
                &mut scratch.inner,
            );
            if inner.numbered {
                record.number = inner.number;
                record.key.seen |= seen::NUMBERED;
            }
            if scratch.inner.ethertype != 0 {
                record.key.flow = scratch.inner;
                record.key.seen |= seen::INNER_DECODED;
                record.length = inner.length;
            }
        }
    } else {
        record.outer = Flow::default();
        record.key.outcome = if found & what::AT_TUNNEL != 0 {
            outcome::AT_DEVICE
        } else {
            outcome::UNRELATED
        };
    }
    true
}

/// What every drop outside a frame has in common.
#[inline(always)]
fn finish<const TYPED: bool, const OF: bool>(
    free: &Free<TYPED>,
    skb: &impl Fields<OF>,
    receive: Option<&Receive>,
    scratch: &mut Scratch,
) {
    let record = &mut scratch.record;
    let room = &mut scratch.room;
    note(free, skb, record, &mut scratch.head, &mut room.number);
    let key = &mut record.key;
    key.freed_by = free.by;
    key.location = free.location;
    key.reason = free.reason;
    [key.told, key.told_type, key.told_code] = free.told;
    if key.outcome == outcome::LOST_LATER {
        if came_since(record, skb) {
            record.key.seen |= seen::RECEIVED;
        }
    } else if skb.iif() != 0 {
        key.seen |= seen::RECEIVED;
    }
    let key = &mut record.key;
    if skb.for_other_hosts() {
        key.seen |= seen::OTHER_HOST;
    }
    if let Some(receive) = receive
        && received(record, receive, skb)
    {
        scratch.kind_name = 0;
    }
    if filter::on()
        && !filter::wants_freed(record, free.skb.skb, scratch.kind_name, &mut room.tests)
    {
        return;
    }
    if record.key.outcome == outcome::LOST_LATER {
        tally::like(record, Fate::Lost, &mut room.number);
    }
    tally::drop(&mut room.coarse, record, scratch.kind_name);
}

/// What the receiving tunnel's driver did with the packet. Does the record now
/// have the name of another device and its kind?
#[inline(always)]
fn received<const OF: bool>(record: &mut Record, receive: &Receive, skb: &impl Fields<OF>) -> bool {
    record.key.seen |= receive.seen;
    // For what the kernel names no reason of, and no counter that we know of.
    if receive.seen & seen::TUNNEL_RECEIVE != 0 {
        if skb.device().is_some_and(|dev| skb.is_from(dev)) {
            record.key.seen |= seen::OWN_MAC;
        }
        if skb.has_no_source() {
            record.key.seen |= seen::NO_SOURCE_MAC;
        }
        if skb.is_congested() {
            record.key.seen |= seen::CONGESTED;
        }
    }
    if receive.dev == 0 {
        return false;
    }
    record.key.seen |= seen::RECEIVED;
    record.key.counters |= receive.moved(&mut record.counters);
    let dev = NetDevice::<PROBED>(receive.dev);
    record.key.ifindex = dev.ifindex();
    record.key.netns = dev.netns();
    record.dev = [0; 16];
    dev.name(&raw mut record.dev);
    record.kind = [0; 16];
    if let Some(kind) = dev.tunnel() {
        kind_name(&raw mut record.kind, kind.name);
    }
    true
}
