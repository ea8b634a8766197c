//! Which route the tunnel got, or which errno.
//!
//! Taken at the bottom, where every tunnel's look-up ends, while a frame is
//! open. The route is a local variable of the driver that is gone when the
//! packet is freed.

use tracer_common::{
    record::{Route, route_hook},
    tally::{freed_by, route, seen},
};

use crate::{
    device::NetDevice,
    frame::{self, Frame},
    globals::offset,
    read::{self, PROBED},
};

const EAGAIN: i32 = 11;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const ENETUNREACH: u16 = 101;
const EHOSTUNREACH: i32 = 113;
const MAX_ERRNO: i64 = 4095;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BLACKHOLE: u8 = 6;
const RTN_UNREACHABLE: u8 = 7;
const RTN_PROHIBIT: u8 = 8;
const RTN_THROW: u8 = 9;
const RTF_LOCAL: u32 = 0x8000_0000;

/// The frame that is looking for its route: the innermost, until its packet is
/// on its way, freed, or an ICMP error about it (with a look-up of its own) is
/// being built.
#[inline(always)]
fn asking() -> Option<&'static mut Frame> {
    let top = frame::top(frame::context()?)?;
    let key = &top.record.key;
    if key.freed_by != freed_by::NONE || key.told != 0 || key.seen & seen::HANDED_TO_IP != 0 {
        return None;
    }
    Some(top)
}

/// A look-up begins in the `struct net` with the flow key at `question`, which
/// has its bound device at `oif` (kretprobe only).
#[inline(always)]
pub fn begins(net: u64, question: u64, oif: u32) {
    if let Some(context) = frame::context()
        && context.depth > 0
    {
        context.question = question;
        asks(net, question, oif);
    }
}

/// Where the look-up under way is made, and the device it is bound to.
#[inline(always)]
pub fn asks(net: u64, question: u64, oif: u32) {
    let Some(frame) = asking() else { return };
    let answer = &mut frame.record.route;
    answer.netns = read::at(net, offset!(net_inum)).unwrap_or(0);
    answer.oif = read::at(question, oif).unwrap_or(0);
}

/// The flow key of the look-up that returns now.
#[inline(always)]
pub fn question() -> u64 {
    match frame::context() {
        Some(context) => core::mem::take(&mut context.question),
        None => 0,
    }
}

/// Starts an answer: forgets the one before.
#[inline(always)]
fn begin(frame: &mut Frame, hook: u8) {
    let key = &mut frame.record.key;
    key.route = route::SEEN;
    key.route_errno = 0;
    key.route_type = 0;
    if matches!(
        hook,
        route_hook::DST_CACHE_GET_IP4 | route_hook::DST_CACHE_GET | route_hook::DST_CACHE_GET_IP6
    ) {
        key.route |= route::FROM_CACHE;
    }
    frame.record.route.seen_at = hook;
}

/// What a `struct flowi4` asks for.
#[inline(always)]
fn question4(answer: &mut Route, flow: u64) {
    answer.dst = [0; 16];
    answer.src = [0; 16];
    if let Some(dst) = read::at::<[u8; 4]>(flow, offset!(fl4_daddr)) {
        answer.dst[..4].copy_from_slice(&dst);
    }
    if let Some(src) = read::at::<[u8; 4]>(flow, offset!(fl4_saddr)) {
        answer.src[..4].copy_from_slice(&src);
    }
    answer.mark = read::at(flow, offset!(fl4_mark)).unwrap_or(0);
}

/// What a `struct flowi6` asks for.
#[inline(always)]
fn question6(answer: &mut Route, flow: u64) {
    answer.dst = read::at(flow, offset!(fl6_daddr)).unwrap_or([0; 16]);
    answer.src = read::at(flow, offset!(fl6_saddr)).unwrap_or([0; 16]);
    answer.mark = read::at(flow, offset!(fl6_mark)).unwrap_or(0);
}

/// `struct rtable *`, an ERR_PTR, or NULL for an empty cache; `flow` is the
/// `struct flowi4 *` or 0.
#[inline(always)]
pub fn ipv4(hook: u8, returned: u64, flow: u64) {
    if returned == 0 {
        return;
    }
    let Some(frame) = asking() else { return };
    begin(frame, hook);
    let answer = &mut frame.record.route;
    if flow != 0 {
        question4(answer, flow);
    }
    let error = (returned as i64).wrapping_neg();
    if error > 0 && error <= MAX_ERRNO {
        frame.record.key.route_errno = error as u16;
        return;
    }
    frame.record.key.route_type = read::at::<u16>(returned, offset!(rt_type)).unwrap_or(0) as u8;
    match read::at::<u8>(returned, offset!(rt_gw_family)) {
        Some(AF_INET) => {
            if let Some(gateway) = read::at::<[u8; 4]>(returned, offset!(rt_gw4)) {
                answer.gateway[..4].copy_from_slice(&gateway);
                answer.gateway_family = 4;
            }
        }
        Some(AF_INET6) => {
            if let Some(gateway) = read::at(returned, offset!(rt_gw4)) {
                answer.gateway = gateway;
                answer.gateway_family = 6;
            }
        }
        _ => answer.gateway_family = 0,
    }
    leaves_by(frame, read::at(returned, offset!(rt_dev)).unwrap_or(0));
}

/// `struct dst_entry *` of an IPv6 look-up, or NULL for an empty cache; `flow`
/// is the `struct flowi6 *` or 0.
#[inline(always)]
pub fn ipv6(hook: u8, returned: u64, flow: u64) {
    if returned == 0 {
        return;
    }
    let Some(frame) = asking() else { return };
    begin(frame, hook);
    frame.record.key.route |= route::IPV6;
    let answer = &mut frame.record.route;
    if flow != 0 {
        question6(answer, flow);
    }
    // Negative errno; the reject routes are real dst entries.
    let error: i16 = read::at(returned, offset!(dst_error)).unwrap_or(0);
    if error < 0 {
        frame.record.key.route_errno = error.wrapping_neg() as u16;
    }
    let local = read::at::<u32>(returned, offset!(rt6_flags)).unwrap_or(0) & RTF_LOCAL != 0;
    let from: u64 = read::at(returned, offset!(rt6_from)).unwrap_or(0);
    frame.record.key.route_type = if local {
        RTN_LOCAL
    } else if from != 0 {
        read::at(from, offset!(fib6_type)).unwrap_or(0)
    } else if error == 0 {
        RTN_UNICAST
    } else {
        0
    };
    leaves_by(frame, read::at(returned, offset!(dst_dev)).unwrap_or(0));
}

#[inline(always)]
fn leaves_by(frame: &mut Frame, dev: u64) {
    if dev == 0 {
        return;
    }
    if dev == frame.dev {
        frame.record.key.route |= route::TO_ITSELF;
    }
    let dev = NetDevice::<PROBED>(dev);
    frame.record.route.dev = [0; 16];
    dev.name(&raw mut frame.record.route.dev);
    frame.record.route.dev_ifindex = dev.ifindex();
}

/// One routing table gave its answer, as part of a look-up: a route of it, or
/// a rule, may be why the look-up failed.
#[inline(always)]
pub fn asked_table(table: u32, error: i32) {
    if let Some(frame) = asking() {
        asked(frame, table, error);
    }
}

#[inline(always)]
fn asked(frame: &mut Frame, table: u32, error: i32) {
    frame.record.route.table = table;
    frame.record.route.table_errno = error.unsigned_abs() as u16;
}

/// The same of the `struct fib6_table *`.
#[inline(always)]
pub fn asked_table6(net: u64, result: u64, table: u64) {
    if asking().is_none() {
        return;
    }
    let table = read::at(table, offset!(fib6_table_id)).unwrap_or(0);
    asked_table(table, table6_error(net, result));
}

/// The errno of a `struct fib6_result *` as IPv4 has it: -EAGAIN where the
/// table has no route.
#[inline(always)]
fn table6_error(net: u64, result: u64) -> i32 {
    let null: u64 = read::at(net, offset!(net_fib6_null_entry)).unwrap_or(0);
    if null != 0 && read::at::<u64>(result, offset!(fib6_result_entry)) == Some(null) {
        return -EAGAIN;
    }
    match read::at::<u8>(result, offset!(fib6_result_type)) {
        Some(RTN_BLACKHOLE) => -EINVAL,
        // The entry for no route is of this type too.
        Some(RTN_UNREACHABLE) if null != 0 => -EHOSTUNREACH,
        Some(RTN_PROHIBIT) => -EACCES,
        Some(RTN_THROW) => -EAGAIN,
        _ => 0,
    }
}

/// One IPv4 routing table was asked (tracepoint), and nothing tells of the
/// whole look-up.
#[inline(always)]
pub fn table(table: u32, flow: u64, error: i32) {
    let Some(frame) = asking() else { return };
    asked(frame, table, error);
    begin(frame, route_hook::FIB_TABLE_LOOKUP);
    let answer = &mut frame.record.route;
    question4(answer, flow);
    answer.oif = read::at(flow, offset!(fl4_oif)).unwrap_or(0);
    only_table(frame, error);
}

/// The same for IPv6.
#[inline(always)]
pub fn table6(net: u64, result: u64, table: u64, flow: u64) {
    let Some(frame) = asking() else { return };
    let error = table6_error(net, result);
    let table = read::at(table, offset!(fib6_table_id)).unwrap_or(0);
    asked(frame, table, error);
    begin(frame, route_hook::FIB6_TABLE_LOOKUP);
    frame.record.key.route |= route::IPV6;
    let answer = &mut frame.record.route;
    question6(answer, flow);
    answer.oif = read::at(flow, offset!(fl6_oif)).unwrap_or(0);
    answer.netns = read::at(net, offset!(net_inum)).unwrap_or(0);
    only_table(frame, error);
}

/// The errno is that of one table, not yet of the whole look-up. -EAGAIN means
/// that it has no route; if no later table has one either, the look-up ends in
/// ENETUNREACH.
#[inline(always)]
fn only_table(frame: &mut Frame, error: i32) {
    let key = &mut frame.record.key;
    key.route |= route::TABLE_ONLY;
    if error == -EAGAIN {
        key.route_errno = ENETUNREACH;
    } else if error < 0 {
        key.route_errno = error.wrapping_neg() as u16;
    }
}
