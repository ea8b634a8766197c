//! The judge on evidence as kernels gave it.

use std::sync::Arc;

use tracer_common::{
    flow::{ETH_P_IP, ETH_P_IPV6, Flow, IPPROTO_UDP},
    record::Record,
    tally::{
        COLLISIONS, TX_CARRIER_ERRORS, TX_DROPPED, TX_ERRORS, TallyKey, freed_by, outcome, route,
        seen,
    },
};

use super::*;
use crate::devices::Device;

fn counters(moved: &[usize]) -> u16 {
    moved.iter().fold(0, |mask, counter| mask | 1 << counter)
}

/// An IPv6 packet dropped in sit, for a reason yet to be told.
pub fn sit() -> Evidence {
    Evidence {
        key: TallyKey {
            flow: Flow {
                ethertype: ETH_P_IPV6,
                ..Flow::default()
            },
            outcome: outcome::DROPPED,
            freed_by: freed_by::KFREE_SKB,
            seen: seen::TRACEPOINTS | seen::DRIVER,
            counters: counters(&[TX_ERRORS]),
            ..TallyKey::default()
        },
        record: None,
        place: Some(Place {
            function: "sit_tunnel_xmit".to_owned(),
            offset: 0x1a5,
            module: Some("sit".to_owned()),
        }),
        reason: None,
        device: Some(Arc::new(Device {
            kind: "sit".to_owned(),
            ..Device::default()
        })),
        freed_device: None,
        kind: "sit".to_owned(),
        noop_watched: true,
        errors_watched: true,
        blackholes_watched: true,
        names_reverse_path: true,
        names_duplicates: true,
        names_local_source: false,
        names_backlog: true,
        routes_watched: true,
        tables_watched: true,
        receivers: Vec::new(),
        finding: None,
        encap_module: None,
    }
}

/// The story this project began with.
fn seed() -> Evidence {
    let mut evidence = sit();
    evidence.key.route = route::SEEN;
    evidence.key.route_type = 2;
    evidence.key.counters = counters(&[TX_ERRORS, TX_CARRIER_ERRORS]);
    evidence.key.told = 6;
    evidence.key.told_type = 1;
    evidence.key.told_code = 3;
    evidence
}

fn at(function: &str) -> Option<Place> {
    Some(Place {
        function: function.to_owned(),
        offset: 1,
        module: None,
    })
}

fn verdict(evidence: &Evidence) -> (&'static str, Confidence) {
    let (cause, confidence) = judge(evidence);
    (cause.id, confidence)
}

#[test]
fn the_seed_is_proved() {
    assert_eq!(
        verdict(&seed()),
        ("route-type-not-accepted", Confidence::Proved)
    );
}

#[test]
fn the_seed_from_the_cache_is_the_same() {
    let mut evidence = seed();
    evidence.key.route |= route::FROM_CACHE;
    assert_eq!(
        verdict(&evidence),
        ("route-type-not-accepted", Confidence::Proved)
    );
}

#[test]
fn without_the_driver_the_seed_is_only_inferred() {
    let mut evidence = seed();
    evidence.key.seen = seen::TRACEPOINTS;
    assert_eq!(
        verdict(&evidence),
        ("route-type-not-accepted", Confidence::Inferred)
    );
}

#[test]
fn a_local_route_alone_is_no_verdict() {
    // A fixed kernel: the route is local, the packet dies of something else.
    let mut evidence = seed();
    evidence.key.counters = counters(&[TX_ERRORS]);
    assert_eq!(verdict(&evidence).0, "unknown");
    // Or it was sent, and lost where nobody listens.
    let mut evidence = seed();
    evidence.key.outcome = outcome::LOST_LATER;
    evidence.key.seen |= seen::HANDED_TO_IP;
    evidence.key.counters = 0;
    evidence.key.outer_proto = IPPROTO_UDP;
    evidence.reason = Some("NO_SOCKET".to_owned());
    evidence.place = at("__udp4_lib_rcv");
    assert_eq!(verdict(&evidence), ("no-listener", Confidence::Proved));
}

#[test]
fn ipv4_through_sit_takes_any_route_type() {
    let mut evidence = seed();
    evidence.key.flow.ethertype = ETH_P_IP;
    assert_eq!(verdict(&evidence).0, "unknown");
}

#[test]
fn each_errno_has_its_cause() {
    for (errno, id) in [
        (1, "lookup-policy"),
        (13, "lookup-prohibited"),
        (22, "lookup-blackhole"),
        (101, "lookup-no-route"),
        (113, "lookup-unreachable"),
        (19, "lookup-failed"),
    ] {
        let mut evidence = seed();
        evidence.key.route_type = 0;
        evidence.key.route_errno = errno;
        assert_eq!(verdict(&evidence), (id, Confidence::Proved), "{errno}");
    }
}

#[test]
fn a_table_without_a_route_proves_nothing() {
    let mut evidence = seed();
    evidence.key.route |= route::TABLE_ONLY;
    evidence.key.route_type = 0;
    evidence.key.route_errno = 101;
    evidence.key.seen = seen::TRACEPOINTS;
    assert_eq!(verdict(&evidence).0, "lookup-no-route");
}

#[test]
fn a_loop_is_told_from_a_small_path() {
    let mut evidence = sit();
    evidence.key.route = route::SEEN | route::TO_ITSELF;
    evidence.key.route_type = 1;
    evidence.key.counters = counters(&[TX_ERRORS, COLLISIONS]);
    assert_eq!(verdict(&evidence), ("loop-to-itself", Confidence::Proved));
    evidence.key.route = route::SEEN;
    assert_eq!(
        verdict(&evidence),
        ("path-mtu-too-small", Confidence::Inferred)
    );
}

#[test]
fn no_remote_needs_silence_of_watched_hooks() {
    let mut evidence = sit();
    assert_eq!(verdict(&evidence), ("no-remote", Confidence::Inferred));
    evidence.routes_watched = false;
    assert_eq!(verdict(&evidence).0, "unknown");
    evidence.routes_watched = true;
    evidence.device = None;
    assert_eq!(verdict(&evidence).0, "unknown");
}

#[test]
fn vxlan_without_an_entry() {
    let mut evidence = sit();
    evidence.kind = "vxlan".to_owned();
    evidence.place = Some(Place {
        function: "vxlan_xmit".to_owned(),
        offset: 1,
        module: None,
    });
    evidence.key.counters = counters(&[TX_DROPPED]);
    assert_eq!(verdict(&evidence), ("no-fdb-entry", Confidence::Inferred));
    evidence.reason = Some("NO_TX_TARGET".to_owned());
    assert_eq!(verdict(&evidence), ("no-fdb-entry", Confidence::Proved));
}

#[test]
fn a_refusal_without_a_reason_is_known_by_its_icmp_error() {
    // 5.10 has no drop reasons.
    let mut evidence = sit();
    evidence.key.outcome = outcome::LOST_LATER;
    evidence.key.outer_proto = IPPROTO_UDP;
    evidence.key.counters = 0;
    assert_eq!(verdict(&evidence).0, "unknown");
    evidence.place = at("udp_rcv");
    (
        evidence.key.told,
        evidence.key.told_type,
        evidence.key.told_code,
    ) = (4, 3, 3);
    assert_eq!(verdict(&evidence), ("no-listener", Confidence::Proved));
}

#[test]
fn a_firewall_that_rejects_is_no_missing_listener() {
    let mut evidence = sit();
    evidence.key.outcome = outcome::STRAY;
    evidence.key.outer_proto = IPPROTO_UDP;
    evidence.key.counters = 0;
    evidence.key.told = 4;
    evidence.key.told_type = 3;
    evidence.key.told_code = 3;
    evidence.place = at("nf_hook_slow");
    assert_eq!(verdict(&evidence), ("netfilter-drop", Confidence::Proved));
    // FOU resubmitted the packet, and no tunnel wanted it.
    evidence.place = at("tunnel64_rcv");
    assert_eq!(
        verdict(&evidence),
        ("no-matching-tunnel", Confidence::Proved)
    );
}

#[test]
fn what_arrived_is_no_drop() {
    let mut evidence = sit();
    evidence.key.outcome = outcome::AT_DEVICE;
    evidence.key.seen = seen::DECAPSULATED | seen::RECEIVED;
    evidence.reason = Some("NO_SOCKET".to_owned());
    evidence.place = at("icmp_rcv");
    assert!(!is_drop(&evidence));
    evidence.place = at("ip_rcv_finish_core");
    assert!(is_drop(&evidence));
    // A copy for a tap, on its way out.
    evidence.key.outcome = outcome::STRAY;
    evidence.key.seen = 0;
    evidence.place = at("tpacket_rcv");
    assert!(!is_drop(&evidence));
}

#[test]
fn what_a_driver_frees_without_a_frame_is_a_drop() {
    let mut evidence = sit();
    evidence.key.outcome = outcome::AT_DEVICE;
    evidence.key.seen = 0;
    evidence.place = at("sit_tunnel_xmit.isra.0");
    assert!(is_drop(&evidence));
    // A copy that is let go of without a word.
    evidence.place = at("icmp_rcv");
    assert!(!is_drop(&evidence));
}

#[test]
fn what_is_for_others_is_no_drop() {
    let mut evidence = sit();
    evidence.key.outcome = outcome::LOST_LATER;
    evidence.key.seen = seen::DECAPSULATED | seen::RECEIVED;
    evidence.place = at("ip_rcv_core.isra.0");
    assert!(is_drop(&evidence));
    // 5.10 has no drop reasons: the packet's type tells.
    evidence.key.seen |= seen::OTHER_HOST;
    assert!(!is_drop(&evidence));
    // What everybody on the link gets is routed by nobody.
    evidence.place = at("ip_error");
    assert!(!is_drop(&evidence));
    evidence.key.seen &= !seen::OTHER_HOST;
    assert!(is_drop(&evidence));
    evidence.key.seen |= seen::OTHER_HOST;
    // What a bridge forwards is for others too, and can be lost.
    evidence.place = at("__dev_queue_xmit");
    assert!(is_drop(&evidence));
    // It has no port for it.
    evidence.place = at("br_handle_frame_finish");
    assert!(!is_drop(&evidence));
    evidence.place = at("__allowed_ingress");
    assert!(is_drop(&evidence));

    // A multicast group that nobody has joined, still encapsulated.
    let mut outer = received("ip_rcv_finish_core");
    // SAFETY: a record is integers only, for which all zeros is a value.
    let mut record: Record = unsafe { std::mem::zeroed() };
    record.outer.ethertype = ETH_P_IP;
    record.outer.dst[..4].copy_from_slice(&[239, 1, 1, 1]);
    outer.record = Some(Arc::new(record));
    assert!(!is_drop(&outer));
    outer.place = at("ip6_mc_input");
    assert!(!is_drop(&outer));

    // And out of it.
    evidence.key.seen = seen::DECAPSULATED | seen::RECEIVED;
    evidence.key.flow.ethertype = ETH_P_IP;
    evidence.key.flow.dst[..4].copy_from_slice(&[224, 0, 0, 22]);
    evidence.place = at("ip_rcv_finish_core");
    evidence.reason = Some("NOT_SPECIFIED".to_owned());
    assert!(!is_drop(&evidence));
    evidence.key.seen |= seen::SOURCE_REFUSED;
    assert!(is_drop(&evidence));
    assert_eq!(verdict(&evidence), ("martian-source", Confidence::Proved));
    evidence.key.seen &= !seen::SOURCE_REFUSED;
    evidence.key.flow.dst[0] = 10;
    assert!(is_drop(&evidence));
    assert_eq!(verdict(&evidence), ("martian-source", Confidence::Inferred));
}

/// A packet that geneve freed after it took it out of its encapsulation.
fn geneve_received(what: u32) -> Evidence {
    let mut evidence = sit();
    evidence.key.outcome = outcome::STRAY;
    evidence.key.seen = seen::TUNNEL_RECEIVE | seen::TUNNEL_FOUND | what;
    evidence.key.counters = 0;
    evidence.place = Some(Place {
        function: "geneve_udp_encap_recv".to_owned(),
        offset: 0x2b0,
        module: Some("geneve".to_owned()),
    });
    evidence.device = None;
    evidence.freed_device = Some(
        Device {
            kind: "geneve".to_owned(),
            ..Device::default()
        }
        .into(),
    );
    evidence.kind = "geneve".to_owned();
    evidence
}

#[test]
fn an_overlay_s_own_mac_is_told_from_congestion() {
    let id = |what| judge(&geneve_received(what)).0.id;
    assert_eq!(id(seen::OWN_MAC), "own-mac");
    assert_eq!(id(seen::CONGESTED), "ecn-mismatch");
    // The address is looked at first.
    assert_eq!(id(seen::OWN_MAC | seen::CONGESTED), "own-mac");
    assert_eq!(id(0), "unknown");
}

#[test]
fn a_congested_packet_that_died_elsewhere_is_no_ecn_mismatch() {
    let mut evidence = geneve_received(seen::CONGESTED);
    evidence.place = Some(Place {
        function: "ip_forward".to_owned(),
        offset: 1,
        module: None,
    });
    assert_ne!(judge(&evidence).0.id, "ecn-mismatch");
}

/// The outer packet of a tunnel over UDP, received and freed in this function.
fn received(function: &str) -> Evidence {
    let mut evidence = sit();
    evidence.key.outcome = outcome::STRAY;
    evidence.key.seen = seen::RECEIVED;
    evidence.key.counters = 0;
    evidence.key.outer_proto = IPPROTO_UDP;
    evidence.place = at(function);
    evidence
}

#[test]
fn a_full_queue_is_not_a_device_that_is_down() {
    let mut evidence = received("enqueue_to_backlog");
    // Only a full queue would have a reason.
    assert_eq!(verdict(&evidence), ("device-down", Confidence::Proved));
    evidence.reason = Some("CPU_BACKLOG".to_owned());
    assert_eq!(verdict(&evidence), ("backlog-full", Confidence::Proved));
    evidence.reason = Some("DEV_READY".to_owned());
    assert_eq!(verdict(&evidence), ("device-down", Confidence::Proved));
    // Before either had a name.
    evidence.names_backlog = false;
    evidence.reason = Some("NOT_SPECIFIED".to_owned());
    assert_eq!(verdict(&evidence), ("backlog-full", Confidence::Inferred));
    for (up, cause) in [(false, "device-down"), (true, "backlog-full")] {
        evidence.freed_device = Some(Arc::new(Device {
            up,
            ..Device::default()
        }));
        assert_eq!(verdict(&evidence), (cause, Confidence::Inferred));
    }
}

#[test]
fn l2tps_own_device_is_not_the_other_end_of_a_veth() {
    let mut evidence = received("__dev_forward_skb2");
    evidence.freed_device = Some(Arc::new(Device {
        kind: "veth".to_owned(),
        ..Device::default()
    }));
    // On its way to the other end.
    assert_eq!(
        verdict(&evidence),
        ("peer-device-refused", Confidence::Proved)
    );
    evidence.key.seen |= seen::TUNNEL_RECEIVE;
    assert_eq!(
        verdict(&evidence),
        ("tunnel-device-refused", Confidence::Proved)
    );
    // What came out of a tunnel goes on over a veth.
    evidence.key.seen |= seen::DECAPSULATED;
    assert_eq!(
        verdict(&evidence),
        ("peer-device-refused", Confidence::Proved)
    );
}

#[test]
fn what_a_card_has_sent_is_not_lost() {
    for outcome in [outcome::STRAY, outcome::LOST_LATER, outcome::AT_DEVICE] {
        let mut evidence = received("dev_kfree_skb_any_reason");
        evidence.key.outcome = outcome;
        evidence.reason = Some("NOT_SPECIFIED".to_owned());
        assert!(!is_drop(&evidence));
    }
    // A driver that refuses a packet in a frame.
    let mut evidence = sit();
    evidence.place = at("dev_kfree_skb_any_reason");
    assert!(is_drop(&evidence));
}

#[test]
fn queues_drop_what_they_would_give_out() {
    let mut evidence = sit();
    evidence.key.outcome = outcome::AT_DEVICE;
    for function in ["fq_codel_dequeue", "__fq_codel_dequeue.part.0", "drop_func"] {
        evidence.place = at(function);
        assert!(is_drop(&evidence));
        assert_eq!(verdict(&evidence), ("qdisc-drop", Confidence::Proved));
    }
    // Where it has a name, wherever it is freed.
    evidence.place = at("kfree_skb_reason");
    evidence.reason = Some("QDISC_CONGESTED".to_owned());
    assert!(is_drop(&evidence));
    assert_eq!(verdict(&evidence), ("qdisc-drop", Confidence::Proved));
}

#[test]
fn a_bridges_port_is_too_small() {
    let mut evidence = sit();
    evidence.key.outcome = outcome::AT_DEVICE;
    evidence.place = at("br_dev_queue_push_xmit");
    assert!(is_drop(&evidence));
    assert_eq!(
        verdict(&evidence),
        ("bridge-port-too-small", Confidence::Inferred)
    );
}

#[test]
fn ipsec_does_not_take_what_is_too_big() {
    let mut evidence = received("xfrm_output_resume");
    evidence.key.seen = 0;
    assert_eq!(verdict(&evidence), ("ipsec-output", Confidence::Proved));
    (evidence.key.told, evidence.key.told_type) = (4, 3);
    evidence.key.told_code = 4;
    assert_eq!(verdict(&evidence), ("outer-too-big", Confidence::Proved));
}
