//! Frames: one call of a tunnel driver's transmit function, from entry to
//! return, on one CPU.
//!
//! The stack of open frames is per CPU: `ndo_start_xmit` runs with bottom
//! halves off (`__dev_queue_xmit`, `__dev_direct_xmit`), so nothing else
//! transmits on this CPU until it returns, and what it calls nests. On
//! PREEMPT_RT such a section can be preempted by another: there it is per task.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated};
use tracer_common::{
    ABI_VERSION,
    config::{kind, switch},
    flow::{ETH_P_IP, Flow},
    record::{Head, PATH_LEN, Record, start},
    tally::{DeviceKey, TX, TX_PACKETS, freed_by, lost, outcome, seen},
};

use crate::{
    device::{Kind, NetDevice},
    filter,
    flow::{self, Header},
    free::{LEVELS, Room, Scratch},
    globals::{config, offset},
    maps::{CPU, EMPTY, SWITCHES, TASKS},
    process,
    read::{self, PROBED},
    receive::Receive,
    sent,
    skb::{Fields, SkBuff},
    tally::{self, DeviceEvent, Fate},
};

/// Deepest nesting of tunnel devices on one CPU. The kernel stops at 8
/// (XMIT_RECURSION_LIMIT), for IP tunnels at 5.
pub const DEPTH: u32 = 16;

/// Older than this, an open frame is one whose end was missed.
const LONGEST_NS: u64 = 1_000_000_000;
const MAX_ERRNO: u64 = 4095;

/// What is under way here: on this CPU, or in this task on PREEMPT_RT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Context {
    /// Number of open frames.
    pub depth: u32,
    /// `skb_realloc_headroom` was entered for the top frame's packet.
    pub replacing: u32,
    /// The flow key of the route look-up under way (kretprobe only).
    pub question: u64,
    /// The packet a function that is about to return was called for.
    pub asked_skb: u64,
    /// The packet that was last split into segments, its buffer, and the jiffy of
    /// that.
    pub split_skb: u64,
    pub split_head: u64,
    pub split_at: u64,
    /// The packet an ICMP error was last raised about.
    pub told_skb: u64,
    pub told: u8,
    pub told_type: u8,
    pub told_code: u8,
    pub reserved: u8,
    /// Which frame a search found.
    pub found: u32,
    pub receive: Receive,
    /// Where a frame closes.
    pub room: Room,
    /// Bit N: scratch N belongs to a free under way.
    pub busy: u64,
    pub scratch: [Scratch; LEVELS],
    pub frames: [Frame; DEPTH as usize],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame {
    /// Filled while the frame is open, sent when it closes on a drop.
    pub record: Record,
    /// Behind the record, see `tally::send`.
    pub head: Head,
    /// Counters of the device when the frame was opened.
    pub before: [u64; TX],
    pub skb: u64,
    pub dev: u64,
    /// Where the packet was consumed, if it was.
    pub consumed_at: u64,
    pub consumed: u32,
    /// Which of `seen` opened the frame and will close it.
    pub opener: u32,
    /// What is known of the device's kind (`tracer_common::config::kind`).
    pub kind: u32,
    /// 1: the packet was split into others, which live on.
    pub split: u32,
    pub opened_ns: u64,
    /// Address of the name of the device's kind, 0: the record has it, or there
    /// is none.
    pub kind_name: u64,
    /// For `read::through`.
    pub room: u64,
    /// Room for a header of the packet.
    pub header: Header,
}

impl Frame {
    /// The packet's address as a number: what was written here can be a pointer
    /// to the verifier, and the compiler knows that it is the same.
    #[inline(always)]
    pub fn address(&self) -> u64 {
        // SAFETY: a field of a live structure.
        unsafe { core::ptr::read_volatile(&raw const self.skb) }
    }
}

/// The context, if anything was ever under way in it.
#[inline(always)]
pub fn context() -> Option<&'static mut Context> {
    let found = if config!(realtime) != 0 {
        TASKS.get_ptr_mut(&task())
    } else {
        CPU.get_ptr_mut(0)
    };
    // SAFETY: the element is this CPU's or this task's own, and programs of
    // ours do not interrupt each other there while frames are open.
    found.map(|context| unsafe { &mut *context })
}

/// The context, made where there is none yet.
#[inline(always)]
pub fn enter() -> Option<&'static mut Context> {
    if config!(realtime) != 0 && TASKS.get_ptr(&task()).is_none() {
        let empty = EMPTY.get_ptr(0)?;
        // SAFETY: a live element that nobody writes.
        let _ = TASKS.insert(&task(), unsafe { &*empty }, 0);
    }
    context()
}

/// Address of the running task.
#[inline(always)]
pub fn task() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { generated::bpf_get_current_task() }
}

/// The `n`th open frame counted from the innermost, 0.
#[inline(always)]
pub fn nth(context: &mut Context, n: u32) -> Option<&mut Frame> {
    let index = depth(context).wrapping_sub(1).wrapping_sub(n);
    if index >= DEPTH {
        return None;
    }
    context.frames.get_mut(index as usize)
}

/// Number of open frames. Volatile: what the compiler knows of it from a check
/// before, the verifier does not, and every index needs a check it can see.
#[inline(always)]
fn depth(context: &Context) -> u32 {
    // SAFETY: a field of a live structure.
    unsafe { core::ptr::read_volatile(&raw const context.depth) }
}

/// The innermost open frame.
#[inline(always)]
pub fn top(context: &mut Context) -> Option<&mut Frame> {
    nth(context, 0)
}

/// The innermost frame of this packet.
#[inline(always)]
pub fn top_of<const TYPED: bool>(skb: SkBuff<TYPED>) -> Option<&'static mut Frame> {
    top(context()?).filter(|frame| frame.skb == skb.0)
}

/// A packet enters a device's transmit function.
#[inline(always)]
pub fn open<const TYPED: bool>(
    ctx: *mut c_void,
    skb: SkBuff<TYPED>,
    dev: NetDevice<TYPED>,
    by: u32,
) {
    let known = dev.tunnel();
    let has_kind = known.is_some();
    let Some(kind) = known.or(
        // A driver of ours, even if its devices have no kind (l2tp).
        (by == seen::DRIVER).then_some(Kind::NAMELESS),
    ) else {
        leaves(skb);
        return;
    };
    if !switched(switch::READY) {
        return;
    }
    let Some(context) = enter() else { return };
    if let Some(top) = top(context)
        && top.skb == skb.0
    {
        if top.dev == dev.0 {
            // Tracepoint and driver function bracket the same call.
            top.record.key.seen |= by;
            return;
        }
        // One tunnel sends through another.
        top.record.key.seen |= seen::HANDED_TO_IP;
        filter::encapsulated(top, skb);
    }
    if by == seen::DRIVER && has_kind && switched(switch::BRACKETED) {
        // Sent past the tracepoints (packet sockets can): its end would not be
        // seen.
        return;
    }
    if !dev.wanted() {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    heal(context, now);
    if context.depth >= DEPTH {
        tally::lose(lost::FRAMES);
        return;
    }
    if push(context, skb, by, now).is_none() {
        return;
    }
    let device = DeviceKey {
        netns: dev.netns(),
        ifindex: dev.ifindex(),
    };
    inherit(context, device);
    let room = &raw mut context.room;
    let Some(frame) = top(context) else { return };
    frame.dev = dev.0;
    frame.kind = kind.facts;
    frame.kind_name = kind.name;

    let record = &mut frame.record;
    dev.name(&raw mut record.dev);
    record.mtu = dev.mtu();
    record.key.ifindex = device.ifindex;
    record.key.netns = device.netns;
    record.key.sender_ifindex = device.ifindex;
    record.key.sender_netns = device.netns;
    // SAFETY: a field of this CPU's or task's own context, beside the frames.
    let room = unsafe { &mut *room };
    if TYPED {
        enters::<TYPED>(ctx, &skb, &mut room.number, frame);
    } else if room.skb.fill(skb) {
        enters::<PROBED>(ctx, &room.skb, &mut room.number, frame);
    }
    filter::named(&device, frame);
    dev.transmit_counters(&mut room.stats, &mut frame.before);
    if !filter::on() {
        tally::at_device(device, DeviceEvent::In);
    }
}

/// Writes down which packet it is, and whose.
#[inline(always)]
fn enters<const TYPED: bool>(
    ctx: *mut c_void,
    skb: &impl Fields<TYPED>,
    room: &mut u64,
    frame: &mut Frame,
) {
    let record = &mut frame.record;
    record.mark = skb.mark();
    if let Some(header) = skb.network_header() {
        record.length = flow::parse(
            header,
            skb.protocol(),
            &mut frame.header,
            &mut record.key.flow,
        );
        if frame.header.must_stay_whole() && record.key.flow.ethertype == ETH_P_IP {
            record.key.seen |= seen::DONT_FRAGMENT;
        }
    }
    if record.length == 0 {
        record.length = skb.length();
    }
    process::of::<TYPED>(ctx, skb.sock(), room, &mut record.process);
}

/// A frame whose end was missed (the programs were attached in the middle of
/// it, or a kretprobe had no room) would stay for ever, and with it all that
/// are opened inside. Nothing transmits for so long.
#[inline(always)]
fn heal(context: &mut Context, now: u64) {
    let Some(top) = top(context) else { return };
    if now.wrapping_sub(top.opened_ns) > LONGEST_NS {
        context.depth = 0;
        tally::lose(lost::FRAMES);
    }
}

/// Puts an empty frame on the stack, which has room.
#[inline(always)]
pub fn push<const TYPED: bool>(
    context: &mut Context,
    skb: SkBuff<TYPED>,
    by: u32,
    now: u64,
) -> Option<&mut Frame> {
    context.depth += 1;
    let frame = top(context)?;
    blank(&mut frame.record, by);
    frame.head.kept = 0;
    frame.head.start = start::NONE;
    frame.before = [0; TX];
    frame.skb = skb.0;
    frame.dev = 0;
    frame.consumed_at = 0;
    frame.consumed = 0;
    frame.opener = by;
    frame.kind = 0;
    frame.split = 0;
    frame.kind_name = 0;
    frame.opened_ns = now;
    Some(frame)
}

/// Makes the record one of a frame of which nothing is known yet.
#[inline(always)]
pub fn blank(record: &mut Record, by: u32) {
    read::clear(record);
    record.version = ABI_VERSION;
    record.size = size_of::<Record>() as u16;
    record.stack = -1;
    record.key.seen = by;
}

/// Gives the innermost frame the path of the one around it and its own device,
/// and the packet that entered the outermost.
#[inline(always)]
fn inherit(context: &mut Context, device: DeviceKey) {
    let outer = nth(context, 1).map(|outer| &raw const outer.record);
    let Some(frame) = top(context) else { return };
    let record = &mut frame.record;
    if let Some(outer) = outer {
        // SAFETY: another element of the context's frames, alive and not
        // written here.
        let outer = unsafe { &*outer };
        record.path_len = outer.path_len;
        for (to, from) in record.path.iter_mut().zip(&outer.path) {
            *to = *from;
        }
        record.origin = if outer.origin.ethertype == 0 {
            outer.key.flow
        } else {
            outer.origin
        };
    }
    if record.path_len < PATH_LEN as u16 {
        record.path[(record.path_len & (PATH_LEN as u16 - 1)) as usize] = device;
        record.path_len += 1;
    }
}

/// A device that is no tunnel transmits the packet of the innermost frame: it
/// has left the tunnel, whichever way it took.
#[inline(always)]
fn leaves<const TYPED: bool>(skb: SkBuff<TYPED>) {
    if let Some(top) = top_of(skb) {
        if top.record.key.seen & seen::HANDED_TO_IP == 0 {
            handed(skb);
        }
        filter::encapsulated(top, skb);
    }
}

/// Something more was seen of the frame of this packet.
#[inline(always)]
pub fn mark<const TYPED: bool>(skb: SkBuff<TYPED>, what: u32) {
    if let Some(top) = top_of(skb) {
        top.record.key.seen |= what;
    }
}

/// Something more was seen of the innermost frame, whichever its packet.
#[inline(always)]
pub fn mark_top(what: u32) {
    if let Some(context) = context()
        && let Some(top) = top(context)
        && top.record.key.freed_by == freed_by::NONE
    {
        top.record.key.seen |= what;
    }
}

/// The outer packet of the innermost frame is handed to IP.
#[inline(always)]
pub fn handed<const TYPED: bool>(skb: SkBuff<TYPED>) {
    let Some(context) = context() else { return };
    let told_skb = &raw mut context.told_skb;
    let Some(top) = top(context) else { return };
    let key = &mut top.record.key;
    if key.freed_by != freed_by::NONE || (key.told != 0 && top.skb != skb.0) {
        // The ICMP error on its way to the sender, not the packet.
        return;
    }
    // An error that was raised although the packet goes on (err_count of
    // ip_tunnel_xmit) is none about this packet.
    key.told = 0;
    // SAFETY: a field of this CPU's or task's own context, beside the frames.
    unsafe {
        if *told_skb == skb.0 {
            *told_skb = 0;
        }
    }
    key.seen |= seen::HANDED_TO_IP;
    top.skb = skb.0;
    top.consumed = 0;
    remember(skb, top);
}

/// Keeps what is known of the frame's packet, which leaves it alive.
#[inline(always)]
fn remember<const TYPED: bool>(skb: SkBuff<TYPED>, frame: &mut Frame) {
    let record = &mut frame.record;
    record.key.outcome = outcome::LOST_LATER;
    record.process.iif = skb.iif();
    // Where tunnels nest the marked inner header can be that of a tunnel
    // further in: what it says now is what it has to say later.
    record.outer = Flow::default();
    if let Some(inner) = skb.marked_inner_header() {
        flow::parse_ip(inner, &mut frame.header, &mut record.outer);
    }
    sent::put(frame);
    frame.record.outer = Flow::default();
    filter::remembered(frame);
}

/// The driver of the innermost frame gives its packet to another CPU next, which can
/// be done with it before this frame is closed.
#[inline(always)]
pub fn goes_on() {
    if let Some(context) = context()
        && let Some(top) = top(context)
        && top.record.key.freed_by == freed_by::NONE
    {
        remember(SkBuff::<PROBED>(top.address()), top);
    }
}

/// `__skb_gso_segment(skb)` returned a list of packets: they are what goes on,
/// and the end of `skb` is not theirs.
#[inline(always)]
pub fn split<const TYPED: bool>(skb: SkBuff<TYPED>, list: u64) {
    if list == 0 || list.wrapping_neg() <= MAX_ERRNO {
        return;
    }
    let Some(context) = context() else { return };
    for n in 0..DEPTH {
        if n >= context.depth {
            break;
        }
        if let Some(frame) = nth(context, n)
            && frame.skb == skb.0
        {
            filter::encapsulated(frame, skb);
            frame.split = 1;
            frame.skb = 0;
        }
    }
    sent::forget(read::through(&mut context.room.number, skb.0));
    context.split_skb = skb.0;
    context.split_head = skb.field(offset!(skb_head)).unwrap_or(0);
    // SAFETY: the helper has no preconditions.
    context.split_at = unsafe { generated::bpf_jiffies64() };
}

/// Was this packet split into others, which go on? Some free it as if it were dropped
/// (`xfrm_output_gso`, `nfqnl_enqueue_packet`). An address is given to another packet
/// soon: it is forgotten here and after a jiffy, and the packet's buffer has to be the
/// same.
#[inline(always)]
pub fn was_split<const TYPED: bool>(context: &mut Context, skb: SkBuff<TYPED>) -> bool {
    if context.split_skb != skb.0 {
        return false;
    }
    context.split_skb = 0;
    // SAFETY: the helper has no preconditions.
    let jiffies = unsafe { generated::bpf_jiffies64() };
    jiffies.wrapping_sub(context.split_at) <= 1
        && skb.field::<u64>(offset!(skb_head)) == Some(context.split_head)
}

/// `skb_realloc_headroom` is entered.
#[inline(always)]
pub fn replacing<const TYPED: bool>(skb: SkBuff<TYPED>) {
    let Some(context) = context() else { return };
    context.replacing = 0;
    if top(context).is_some_and(|top| top.skb == skb.0) {
        context.replacing = 1;
    }
}

/// `skb_realloc_headroom` returns.
#[inline(always)]
pub fn replaced_return(copy: SkBuff<PROBED>) {
    let Some(context) = context() else { return };
    if context.replacing == 0 {
        return;
    }
    context.replacing = 0;
    if let Some(top) = top(context) {
        replace(top, copy);
    }
}

/// `skb_realloc_headroom(skb)` returned a roomier copy: the frame goes on with
/// it, and the original's end is not the packet's.
#[inline(always)]
pub fn replaced<const TYPED: bool>(skb: SkBuff<TYPED>, copy: SkBuff<TYPED>) {
    if let Some(top) = top_of(skb) {
        replace(top, copy);
    }
}

#[inline(always)]
fn replace<const TYPED: bool>(frame: &mut Frame, copy: SkBuff<TYPED>) {
    if copy.0 == 0 {
        frame.record.key.seen |= seen::NO_HEADROOM;
        return;
    }
    let original = frame.address();
    frame.skb = copy.0;
    if frame.record.key.seen & seen::HANDED_TO_IP != 0 {
        sent::forget(original);
        remember(copy, frame);
    }
}

/// `net_dev_xmit`: the device's transmit function returned `code`.
#[inline(always)]
pub fn close_device<const TYPED: bool>(dev: NetDevice<TYPED>, code: i32) {
    let Some(context) = context() else { return };
    let Some(top) = top(context) else { return };
    if top.dev != dev.0 {
        // A device that is no tunnel, inside a frame.
        return;
    }
    close(context, dev, code);
}

/// What the user side found out after loading.
#[inline(always)]
pub fn switched(which: u32) -> bool {
    SWITCHES.get(which).is_some_and(|on| *on != 0)
}

/// A driver's transmit function returned, and no tracepoint brackets it.
#[inline(always)]
pub fn close_driver(code: i32) {
    let Some(context) = context() else { return };
    let Some(top) = top(context) else { return };
    if top.opener == seen::DRIVER {
        let dev = NetDevice::<PROBED>(top.dev);
        close(context, dev, code);
    }
}

/// Takes the innermost frame off the stack; it stays readable until the next
/// one is put there.
#[inline(always)]
pub fn pop(context: &mut Context) -> Option<&mut Frame> {
    let index = depth(context).wrapping_sub(1);
    if index >= DEPTH {
        return None;
    }
    context.depth = index;
    context.frames.get_mut(index as usize)
}

/// Writes down which counters of its device moved since the frame was opened.
#[inline(always)]
fn compare<const TYPED: bool>(dev: NetDevice<TYPED>, room: &mut Room, frame: &mut Frame) {
    let mut after = [0u64; TX];
    dev.transmit_counters(&mut room.stats, &mut after);
    let record = &mut frame.record;
    for (n, (after, before)) in after.iter().zip(&frame.before).enumerate() {
        let moved = after.wrapping_sub(*before) as u32;
        record.counters[n] = moved;
        if moved != 0 {
            record.key.counters |= 1 << n;
        }
    }
}

#[inline(always)]
fn close<const TYPED: bool>(context: &mut Context, dev: NetDevice<TYPED>, code: i32) {
    let room = &raw mut context.room;
    let Some(frame) = pop(context) else { return };
    let handed = frame.record.key.seen & seen::HANDED_TO_IP != 0;
    frame.record.key.counters = 0;
    // Of a packet that is well on its way nobody asks which counters moved, and
    // reading them is dear.
    if !handed || frame.record.key.freed_by != freed_by::NONE || frame.consumed != 0 {
        // SAFETY: a field of this CPU's or task's own context, beside the frames.
        compare(dev, unsafe { &mut *room }, frame);
    }
    let skb = frame.address();
    let record = &mut frame.record;
    let key = &mut record.key;

    let device = DeviceKey {
        netns: key.netns,
        ifindex: key.ifindex,
    };
    if key.freed_by == freed_by::NONE
        && frame.consumed != 0
        // Below the driver others do so, and say that it is dropped (ipvlan).
        && (handed || frame.kind & kind::CONSUMES_DROPS != 0)
        && frame.split == 0
        // Each such driver counts what it drops, and nothing where it only
        // answers in another's stead (vxlan's proxy).
        && key.counters & !(1 << TX_PACKETS) != 0
        // Of what was handed on and well, it counts that.
        && (!handed || key.counters & (1 << TX_PACKETS) == 0)
        && switched(switch::REALLOC_WATCHED)
    {
        key.freed_by = freed_by::CONSUME_SKB;
        key.location = frame.consumed_at;
        if handed {
            sent::forget(skb);
        }
    }
    let end = if key.freed_by != freed_by::NONE {
        key.outcome = outcome::DROPPED;
        DeviceEvent::Dropped
    } else if handed || code == 0 {
        // Alive, or split into packets that are, and the driver content: it is
        // on its way. Where the hand-over itself was not seen, the packet is
        // remembered here.
        if !handed
            && frame.consumed == 0
            && frame.split == 0
            && frame.record.key.seen & seen::PEER == 0
        {
            let skb = SkBuff::<PROBED>(frame.skb);
            remember(skb, frame);
        }
        filter::sent(frame);
        DeviceEvent::Sent
    } else {
        DeviceEvent::Unexplained
    };
    let record = &mut frame.record;
    if filter::on() {
        // SAFETY: a field of this CPU's or task's own context.
        if !filter::wants(record, unsafe { &mut (*room).tests }) {
            return;
        }
        tally::at_device(device, DeviceEvent::In);
    }
    tally::at_device(device, end);
    // SAFETY: a field of this CPU's or task's own context.
    let room = unsafe { &mut *room };
    match end {
        DeviceEvent::Dropped => {
            let nth = tally::count(&mut room.coarse, record);
            // Where others like it went there already, this is not the first.
            if nth <= 1 && tally::destination(&record.key, false, &mut room.number) {
                record.first = 1;
            }
            tally::like(record, Fate::Dropped, &mut room.number);
            tally::send(nth, record, frame.kind_name);
        }
        DeviceEvent::Sent => {
            if tally::destination(&record.key, true, &mut room.number) {
                record.first = 1;
                let skb = read::through(&mut frame.room, frame.skb);
                sent::is_first(skb, frame.opened_ns, &mut frame.room);
            }
            tally::like(&frame.record, Fate::Sent, &mut room.number);
        }
        DeviceEvent::In | DeviceEvent::Unexplained => {}
    }
    // Last: the verifier follows what comes after twice.
    if may_be_consumed(frame) {
        tally::lose(lost::UNCERTAIN);
    }
}

/// Such drivers count what they drop as if all were well: has this one counted
/// something, and nothing told of a packet's end?
#[inline(always)]
fn may_be_consumed(frame: &Frame) -> bool {
    let key = &frame.record.key;
    frame.kind & kind::CONSUMES_DROPS != 0
        && frame.consumed == 0
        && key.freed_by == freed_by::NONE
        && key.counters & !(1 << TX_PACKETS) != 0
}
