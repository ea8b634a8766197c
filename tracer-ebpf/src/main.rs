//! The kernel side of tracer: the list of programs.
//!
//! Every program is an entry point of a few lines: it takes its arguments and
//! calls the subject they belong to. A point of interest has one program per
//! way to attach it; the user side loads those this kernel offers.
#![no_std]
#![no_main]
// For one instruction: see `tally::add`.
#![feature(asm_experimental_arch)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a map key passed by value is copied to the 512 bytes of stack"
)]

mod again;
mod device;
mod filter;
mod flow;
mod frame;
mod free;
mod globals;
mod maps;
mod process;
mod read;
mod receive;
mod route;
mod sent;
mod skb;
mod tally;
mod told;
mod way;
mod wireguard;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
        RetProbeContext,
    },
};
use tracer_common::{
    record::route_hook,
    tally::{freed_by, seen},
};

use crate::{
    again::Event,
    device::NetDevice,
    globals::{config, offset},
    read::{PROBED, TYPED},
    skb::SkBuff,
};

// --- frames -----------------------------------------------------------------

#[btf_tracepoint(function = "net_dev_start_xmit")]
pub fn frame_start_btf(ctx: BtfTracePointContext) -> i32 {
    again::ran(Event::FrameStart, ctx.arg(0));
    frame_start(&ctx)
}

#[btf_tracepoint(function = "net_dev_start_xmit")]
pub fn frame_start_btf_again(ctx: BtfTracePointContext) -> i32 {
    if again::was_left_out(Event::FrameStart, ctx.arg(0)) {
        frame_start(&ctx);
    }
    0
}

#[inline(always)]
fn frame_start(ctx: &BtfTracePointContext) -> i32 {
    frame::open(
        ctx.as_ptr(),
        SkBuff::<TYPED>(ctx.arg(0)),
        NetDevice::<TYPED>(ctx.arg(1)),
        seen::TRACEPOINTS,
    );
    0
}

#[raw_tracepoint(tracepoint = "net_dev_start_xmit")]
pub fn frame_start_raw(ctx: RawTracePointContext) -> i32 {
    frame::open(
        ctx.as_ptr(),
        SkBuff::<PROBED>(ctx.arg(0)),
        NetDevice::<PROBED>(ctx.arg(1)),
        seen::TRACEPOINTS,
    );
    0
}

#[btf_tracepoint(function = "net_dev_xmit")]
pub fn frame_end_btf(ctx: BtfTracePointContext) -> i32 {
    // The packet may be gone by now, and its address another's.
    again::ran(Event::FrameEnd, frame::task());
    frame::close_device(NetDevice::<TYPED>(ctx.arg(2)), ctx.arg(1));
    0
}

#[btf_tracepoint(function = "net_dev_xmit")]
pub fn frame_end_btf_again(ctx: BtfTracePointContext) -> i32 {
    if again::was_left_out(Event::FrameEnd, frame::task()) {
        frame::close_device(NetDevice::<TYPED>(ctx.arg(2)), ctx.arg(1));
    }
    0
}

#[raw_tracepoint(tracepoint = "net_dev_xmit")]
pub fn frame_end_raw(ctx: RawTracePointContext) -> i32 {
    frame::close_device(NetDevice::<PROBED>(ctx.arg(2)), ctx.arg(1));
    0
}

/// A tunnel driver's `ndo_start_xmit(skb, dev)`.
#[kprobe]
pub fn driver_xmit(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(dev)) = (ctx.arg(0), ctx.arg(1)) {
        frame::open(
            ctx.as_ptr(),
            SkBuff::<PROBED>(skb),
            NetDevice::<PROBED>(dev),
            seen::DRIVER,
        );
    }
    0
}

#[kretprobe]
pub fn driver_xmit_return(ctx: RetProbeContext) -> u32 {
    frame::close_driver(ctx.ret());
    0
}

/// `ipip6_tunnel_xmit(skb, dev)`, where it was not inlined: always called by
/// `sit_tunnel_xmit`, so it opens nothing.
#[kprobe]
pub fn inner_xmit(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0) {
        frame::mark(SkBuff::<PROBED>(skb), seen::INNER_FUNCTION);
    }
    0
}

/// `qdisc_create(ops, dev, parent)`
#[btf_tracepoint(function = "qdisc_create")]
pub fn device_up_btf(ctx: BtfTracePointContext) -> i32 {
    device::comes_up(NetDevice::<TYPED>(ctx.arg(1)));
    0
}

/// `module_load(mod)`: its code is there, and has not run yet.
#[btf_tracepoint(function = "module_load")]
pub fn module_load_btf(_ctx: BtfTracePointContext) -> i32 {
    device::may_come();
    0
}

// --- the outer packet goes to IP --------------------------------------------

/// `iptunnel_xmit(sk, rt, skb, …)`
#[fentry(function = "iptunnel_xmit")]
pub fn iptunnel_xmit_fentry(ctx: FEntryContext) -> i32 {
    frame::handed(SkBuff::<TYPED>(ctx.arg(2)));
    0
}

#[kprobe]
pub fn iptunnel_xmit_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(2) {
        frame::handed(SkBuff::<PROBED>(skb));
    }
    0
}

/// `ip6_local_out(net, sk, skb)`: what the inline `ip6tunnel_xmit` calls.
#[fentry(function = "ip6_local_out")]
pub fn ip6_local_out_fentry(ctx: FEntryContext) -> i32 {
    frame::handed(SkBuff::<TYPED>(ctx.arg(2)));
    0
}

#[kprobe]
pub fn ip6_local_out_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(2) {
        frame::handed(SkBuff::<PROBED>(skb));
    }
    0
}

// --- frees ------------------------------------------------------------------

#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb_btf(ctx: BtfTracePointContext) -> i32 {
    again::ran(Event::Freed, ctx.arg(0));
    kfree_skb(&ctx)
}

#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb_btf_again(ctx: BtfTracePointContext) -> i32 {
    if again::was_left_out(Event::Freed, ctx.arg(0)) {
        kfree_skb(&ctx);
    }
    0
}

#[inline(always)]
fn kfree_skb(ctx: &BtfTracePointContext) -> i32 {
    // The verifier refuses to read an argument that the tracepoint does not
    // have; the count is a constant to it, so the branch is cut away.
    let reason = if config!(kfree_skb_args) >= 3 {
        ctx.arg(2)
    } else {
        0
    };
    free::freed(
        ctx.as_ptr(),
        SkBuff::<TYPED>(ctx.arg(0)),
        ctx.arg(1),
        reason,
        freed_by::KFREE_SKB,
    );
    0
}

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn kfree_skb_raw(ctx: RawTracePointContext) -> i32 {
    let reason = if config!(kfree_skb_args) >= 3 {
        ctx.arg(2)
    } else {
        0
    };
    free::freed(
        ctx.as_ptr(),
        SkBuff::<PROBED>(ctx.arg(0)),
        ctx.arg(1),
        reason,
        freed_by::KFREE_SKB,
    );
    0
}

/// `kfree_skb(skb)`, a function until 5.16.
#[kprobe]
pub fn kfree_skb_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0) {
        free::freed_at_entry(&ctx, SkBuff::<PROBED>(skb), 0);
    }
    0
}

/// `kfree_skb_reason(skb, reason)`, 5.17 to 6.10.
#[kprobe]
pub fn kfree_skb_reason_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(reason)) = (ctx.arg(0), ctx.arg(1)) {
        free::freed_at_entry(&ctx, SkBuff::<PROBED>(skb), reason);
    }
    0
}

/// `sk_skb_reason_drop(sk, skb, reason)`, since 6.11.
#[kprobe]
pub fn sk_skb_reason_drop_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(reason)) = (ctx.arg(1), ctx.arg(2)) {
        free::freed_at_entry(&ctx, SkBuff::<PROBED>(skb), reason);
    }
    0
}

#[btf_tracepoint(function = "consume_skb")]
pub fn consume_skb_btf(ctx: BtfTracePointContext) -> i32 {
    let location = if config!(consume_skb_args) >= 2 {
        ctx.arg(1)
    } else {
        0
    };
    free::consumed(ctx.as_ptr(), SkBuff::<TYPED>(ctx.arg(0)), location);
    0
}

#[raw_tracepoint(tracepoint = "consume_skb")]
pub fn consume_skb_raw(ctx: RawTracePointContext) -> i32 {
    let location = if config!(consume_skb_args) >= 2 {
        ctx.arg(1)
    } else {
        0
    };
    free::consumed(ctx.as_ptr(), SkBuff::<PROBED>(ctx.arg(0)), location);
    0
}

/// `skb_realloc_headroom(skb, headroom)` returns a copy.
#[fexit(function = "skb_realloc_headroom")]
pub fn skb_realloc_headroom_fexit(ctx: FExitContext) -> i32 {
    frame::replaced(SkBuff::<TYPED>(ctx.arg(0)), SkBuff::<TYPED>(ctx.arg(2)));
    0
}

#[kprobe]
pub fn skb_realloc_headroom_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0) {
        frame::replacing(SkBuff::<PROBED>(skb));
    }
    0
}

#[kretprobe]
pub fn skb_realloc_headroom_kretprobe(ctx: RetProbeContext) -> u32 {
    frame::replaced_return(SkBuff::<PROBED>(ctx.ret()));
    0
}

/// `__skb_gso_segment(skb, features, tx_path)` returns a list.
#[fexit(function = "__skb_gso_segment")]
pub fn gso_segment_fexit(ctx: FExitContext) -> i32 {
    frame::split(SkBuff::<TYPED>(ctx.arg(0)), ctx.arg(3));
    0
}

#[kretprobe]
pub fn gso_segment_kretprobe(ctx: RetProbeContext) -> u32 {
    way::split(ctx.ret());
    0
}

// --- routes -----------------------------------------------------------------
// The return value of a function follows its arguments in the fexit context;
// the user side checks the number of arguments before it takes this way, since
// the helper for it is newer (5.17) than the oldest kernel.

#[fexit(function = "ip_route_output_flow")]
pub fn ip_route_output_flow_fexit(ctx: FExitContext) -> i32 {
    route::asks(ctx.arg(0), ctx.arg(1), offset!(fl4_oif));
    route::ipv4(route_hook::IP_ROUTE_OUTPUT_FLOW, ctx.arg(3), ctx.arg(1));
    0
}

#[kprobe]
pub fn ip_route_output_flow_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(net), Some(flow)) = (ctx.arg(0), ctx.arg(1)) {
        route::begins(net, flow, offset!(fl4_oif));
    }
    0
}

#[kretprobe]
pub fn ip_route_output_flow_kretprobe(ctx: RetProbeContext) -> u32 {
    route::ipv4(
        route_hook::IP_ROUTE_OUTPUT_FLOW,
        ctx.ret(),
        route::question(),
    );
    0
}

#[fexit(function = "dst_cache_get_ip4")]
pub fn dst_cache_get_ip4_fexit(ctx: FExitContext) -> i32 {
    route::ipv4(route_hook::DST_CACHE_GET_IP4, ctx.arg(2), 0);
    0
}

#[kretprobe]
pub fn dst_cache_get_ip4_kretprobe(ctx: RetProbeContext) -> u32 {
    route::ipv4(route_hook::DST_CACHE_GET_IP4, ctx.ret(), 0);
    0
}

#[fexit(function = "ip6_route_output_flags")]
pub fn ip6_route_output_flags_fexit(ctx: FExitContext) -> i32 {
    route::asks(ctx.arg(0), ctx.arg(2), offset!(fl6_oif));
    route::ipv6(route_hook::IP6_ROUTE_OUTPUT_FLAGS, ctx.arg(4), ctx.arg(2));
    0
}

#[kprobe]
pub fn ip6_route_output_flags_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(net), Some(flow)) = (ctx.arg(0), ctx.arg(2)) {
        route::begins(net, flow, offset!(fl6_oif));
    }
    0
}

#[kretprobe]
pub fn ip6_route_output_flags_kretprobe(ctx: RetProbeContext) -> u32 {
    route::ipv6(
        route_hook::IP6_ROUTE_OUTPUT_FLAGS,
        ctx.ret(),
        route::question(),
    );
    0
}

#[fexit(function = "dst_cache_get")]
pub fn dst_cache_get_fexit(ctx: FExitContext) -> i32 {
    route::ipv6(route_hook::DST_CACHE_GET, ctx.arg(1), 0);
    0
}

#[kretprobe]
pub fn dst_cache_get_kretprobe(ctx: RetProbeContext) -> u32 {
    route::ipv6(route_hook::DST_CACHE_GET, ctx.ret(), 0);
    0
}

#[fexit(function = "dst_cache_get_ip6")]
pub fn dst_cache_get_ip6_fexit(ctx: FExitContext) -> i32 {
    route::ipv6(route_hook::DST_CACHE_GET_IP6, ctx.arg(2), 0);
    0
}

#[kretprobe]
pub fn dst_cache_get_ip6_kretprobe(ctx: RetProbeContext) -> u32 {
    route::ipv6(route_hook::DST_CACHE_GET_IP6, ctx.ret(), 0);
    0
}

/// `fib_table_lookup(tb_id, flp, nhc, err)`: beside the whole look-up.
#[btf_tracepoint(function = "fib_table_lookup")]
pub fn table_asked_btf(ctx: BtfTracePointContext) -> i32 {
    route::asked_table(ctx.arg(0), ctx.arg(3));
    0
}

/// The same in place of the whole look-up, where functions cannot be probed.
#[btf_tracepoint(function = "fib_table_lookup")]
pub fn fib_table_lookup_btf(ctx: BtfTracePointContext) -> i32 {
    route::table(ctx.arg(0), ctx.arg(1), ctx.arg(3));
    0
}

#[raw_tracepoint(tracepoint = "fib_table_lookup")]
pub fn fib_table_lookup_raw(ctx: RawTracePointContext) -> i32 {
    route::table(ctx.arg(0), ctx.arg(1), ctx.arg(3));
    0
}

/// `fib6_table_lookup(net, res, table, flp)`: beside the whole look-up.
#[btf_tracepoint(function = "fib6_table_lookup")]
pub fn table6_asked_btf(ctx: BtfTracePointContext) -> i32 {
    route::asked_table6(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// The same in place of the whole look-up, where functions cannot be probed.
#[btf_tracepoint(function = "fib6_table_lookup")]
pub fn fib6_table_lookup_btf(ctx: BtfTracePointContext) -> i32 {
    route::table6(ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
    0
}

#[raw_tracepoint(tracepoint = "fib6_table_lookup")]
pub fn fib6_table_lookup_raw(ctx: RawTracePointContext) -> i32 {
    route::table6(ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
    0
}

// --- the receive side of tunnels ---------------------------------------------

/// A receive function whose first argument is the packet.
#[kprobe]
pub fn receive_skb0(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0) {
        receive::entered(SkBuff::<PROBED>(skb));
    }
    0
}

/// A receive function whose second argument is the packet.
#[kprobe]
pub fn receive_skb1(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(1) {
        receive::entered(SkBuff::<PROBED>(skb));
    }
    0
}

/// A look-up that returns a `struct ip_tunnel *`.
#[kretprobe]
pub fn ip_tunnel_found(ctx: RetProbeContext) -> u32 {
    receive::found_ip_tunnel(ctx.ret());
    0
}

/// A look-up that returns a `struct ip6_tnl *`.
#[kretprobe]
pub fn ip6_tnl_found(ctx: RetProbeContext) -> u32 {
    receive::found_ip6_tnl(ctx.ret());
    0
}

/// A look-up that returns a structure of the driver's own: found or not.
#[kretprobe]
pub fn tunnel_found(ctx: RetProbeContext) -> u32 {
    receive::looked_up(ctx.ret(), tracer_common::offsets::ABSENT);
    0
}

/// `gre_parse_header` returns the length of the header or an error.
#[kretprobe]
pub fn gre_header_parsed(ctx: RetProbeContext) -> u32 {
    let length: i32 = ctx.ret();
    if length < 0 {
        receive::note_newest(seen::GRE_HEADER_REFUSED);
    }
    0
}

/// `ip6_tnl_rcv_ctl` returns whether the tunnel may receive.
#[kretprobe]
pub fn receive_control(ctx: RetProbeContext) -> u32 {
    let allowed: i32 = ctx.ret();
    if allowed == 0 {
        receive::note_newest(seen::RECEIVE_CONTROL_REFUSED);
    }
    0
}

/// `ip6_tnl_xmit_ctl` returns whether the tunnel may send.
#[kretprobe]
pub fn transmit_control(ctx: RetProbeContext) -> u32 {
    let allowed: i32 = ctx.ret();
    if allowed == 0 {
        frame::mark_top(seen::TRANSMIT_CONTROL_REFUSED);
    }
    0
}

/// `ipv6_chk_addr_and_flags` returns whether an address is on this host.
#[kretprobe]
pub fn address_checked(ctx: RetProbeContext) -> u32 {
    let here: i32 = ctx.ret();
    frame::mark_top(match here {
        0 => seen::ADDRESS_NOT_HERE,
        _ => seen::ADDRESS_HERE,
    });
    0
}

// --- WireGuard ----------------------------------------------------------------

/// `wg_allowedips_lookup_dst(table, skb)` returns the peer for a packet.
#[kretprobe]
pub fn peer_for(ctx: RetProbeContext) -> u32 {
    let peer: u64 = ctx.ret();
    if peer == 0 {
        frame::mark_top(seen::NO_PEER);
    } else {
        frame::mark_top(seen::PEER);
        frame::goes_on();
    }
    0
}

/// `wg_allowedips_lookup_src(table, skb)`
#[kprobe]
pub fn allowed_source(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(1) {
        receive::source_checked(SkBuff::<PROBED>(skb));
    }
    0
}

/// `send4(wg, skb, …)`, `send6(wg, skb, …)`
#[kprobe]
pub fn peer_send(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(1) {
        wireguard::send(SkBuff::<PROBED>(skb));
    }
    0
}

#[kretprobe]
pub fn peer_sent(_ctx: RetProbeContext) -> u32 {
    wireguard::sent();
    0
}

// --- what becomes of a packet on its way --------------------------------------

/// `noop_enqueue(skb, qdisc, to_free)`
#[fentry(function = "noop_enqueue")]
pub fn noop_enqueue_fentry(ctx: FEntryContext) -> i32 {
    way::at_noop_queue(SkBuff::<TYPED>(ctx.arg(0)));
    0
}

#[kprobe]
pub fn noop_enqueue_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0) {
        way::at_noop_queue(SkBuff::<PROBED>(skb));
    }
    0
}

/// `ipv4_blackhole_route(net, dst)`
#[fentry(function = "ipv4_blackhole_route")]
pub fn ipv4_blackhole_route_fentry(_ctx: FEntryContext) -> i32 {
    frame::mark_top(seen::BLACKHOLE_ROUTE);
    0
}

/// `ip6_blackhole_route(net, dst)`
#[fentry(function = "ip6_blackhole_route")]
pub fn ip6_blackhole_route_fentry(_ctx: FEntryContext) -> i32 {
    frame::mark_top(seen::BLACKHOLE_ROUTE);
    0
}

#[kprobe]
pub fn blackhole_route_kprobe(_ctx: ProbeContext) -> u32 {
    frame::mark_top(seen::BLACKHOLE_ROUTE);
    0
}

/// A function whose first argument is the packet, entered: for its return.
#[kprobe]
pub fn asked_skb0(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0) {
        way::asked(SkBuff::<PROBED>(skb));
    }
    0
}

/// `tcf_classify` returns the filters' action.
#[kretprobe]
pub fn classified(ctx: RetProbeContext) -> u32 {
    way::classified(ctx.ret());
    0
}

/// `fib_validate_source` returns an error for a source it refuses.
#[kretprobe]
pub fn source_validated(ctx: RetProbeContext) -> u32 {
    way::source_validated(ctx.ret());
    0
}

// --- ICMP errors to the sender ----------------------------------------------

/// `__icmp_send(skb_in, type, code, …)`
#[fentry(function = "__icmp_send")]
pub fn icmp_send_fentry(ctx: FEntryContext) -> i32 {
    told::raised(SkBuff::<TYPED>(ctx.arg(0)), 4, ctx.arg(1), ctx.arg(2));
    0
}

#[kprobe]
pub fn icmp_send_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(kind), Some(code)) = (ctx.arg(0), ctx.arg(1), ctx.arg(2)) {
        told::raised(SkBuff::<PROBED>(skb), 4, kind, code);
    }
    0
}

#[btf_tracepoint(function = "icmp_send")]
pub fn icmp_send_btf(ctx: BtfTracePointContext) -> i32 {
    told::raised(SkBuff::<TYPED>(ctx.arg(0)), 4, ctx.arg(1), ctx.arg(2));
    0
}

/// `icmp6_send(skb, type, code, …)`
#[fentry(function = "icmp6_send")]
pub fn icmp6_send_fentry(ctx: FEntryContext) -> i32 {
    told::raised(SkBuff::<TYPED>(ctx.arg(0)), 6, ctx.arg(1), ctx.arg(2));
    0
}

#[kprobe]
pub fn icmp6_send_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(kind), Some(code)) = (ctx.arg(0), ctx.arg(1), ctx.arg(2)) {
        told::raised(SkBuff::<PROBED>(skb), 6, kind, code);
    }
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel lets only programs under a GPL-compatible licence read kernel
/// memory.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
