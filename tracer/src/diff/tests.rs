//! On recordings of the seed that real kernels made.

use std::path::PathBuf;

use serde_json::{Value, json};
use tracer_common::{
    flow::{ETH_P_IP, Flow, IPPROTO_UDP},
    tally::outcome,
};

use super::*;
use crate::{flows::Row, judge::Confidence};

fn recording(name: &str) -> Run {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/recordings", name]
        .iter()
        .collect();
    Run {
        name: name.to_owned(),
        ..Run::read(&path).unwrap()
    }
}

/// A run in which nothing happened yet.
fn empty() -> Run {
    let mut run = recording("seed-6.1.rec");
    run.report.rows.clear();
    run.sent.clear();
    run.sizes.clear();
    run.coarse = false;
    run
}

/// UDP to 10.0.0.`host`.
fn flow(host: u8, port: u16) -> Flow {
    let mut flow = Flow {
        ethertype: ETH_P_IP,
        proto: IPPROTO_UDP,
        sport: 40000,
        dport: port,
        ..Flow::default()
    };
    flow.src[..4].copy_from_slice(&[10, 0, 0, 1]);
    flow.dst[..4].copy_from_slice(&[10, 0, 0, host]);
    flow
}

fn sends(run: &mut Run, flow: &Flow, packets: u64) {
    run.sent.push(Sent {
        device: "t0".to_owned(),
        netns: None,
        ethertype: flow.ethertype,
        proto: flow.proto,
        dst: flow.dst,
        icmp_type: flow.icmp_type,
        port: flow.service(),
        packets,
    });
}

/// Packets that vanish, with a row of the seed for everything else.
fn loses(run: &mut Run, flow: &Flow, count: u64, change: impl FnOnce(&mut Row)) {
    let rows = recording("seed-5.10.rec").report.rows;
    let mut row = rows
        .into_iter()
        .find(|row| row.cause.id == "route-type-not-accepted")
        .unwrap();
    let mut record = *row.evidence.record.unwrap();
    record.dev = *b"t0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    row.evidence.record = Some(record.into());
    row.evidence.device = None;
    row.evidence.key.flow = *flow;
    (row.count, row.netns) = (count, None);
    change(&mut row);
    run.report.rows.push(row);
}

fn cause(id: &str) -> impl FnOnce(&mut Row) {
    let cause = crate::judge::cause(id).unwrap();
    move |row| {
        row.cause = cause;
        row.confidence = Confidence::Proved;
    }
}

fn verdicts(comparison: &Comparison) -> Vec<Verdict> {
    comparison.flows.iter().map(|flow| flow.verdict).collect()
}

fn status(a: &Run, b: &Run) -> u8 {
    compare(a, b).exit_status(a, b)
}

#[test]
fn a_recording_is_like_itself() {
    for name in ["seed-5.10.rec", "seed-6.1.rec", "vxlan-6.12.rec"] {
        let (a, b) = (recording(name), recording(name));
        let comparison = compare(&a, &b);
        assert!(!comparison.flows.is_empty());
        assert!(
            verdicts(&comparison)
                .iter()
                .all(|one| *one == Verdict::Same)
        );
        assert_eq!(comparison.exit_status(&a, &b), 0);
    }
}

#[test]
fn the_fix_of_the_seed_is_told() {
    let (a, b) = (recording("seed-5.10.rec"), recording("seed-6.1.rec"));
    let comparison = compare(&a, &b);
    assert_eq!(comparison.exit_status(&a, &b), 1);
    let text = view::render(&a, &b, &comparison);
    let expected = "\
A: seed-5.10.rec (5.10.0-32-amd64)
B: seed-6.1.rec (6.1.0-56-amd64)

IPv6 to fe80::d0b0:dfff:fe4c:fcbc (ICMPv6 echo request) over fou_test (sit, fou, remote 127.0.0.1): dropped in A, sent, then lost in B
";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("this kernel's sit accepts RTN_UNICAST only"));
    // The other way round it is a difference as well.
    assert_eq!(status(&b, &a), 1);
}

#[test]
fn what_was_cut_off_is_no_difference() {
    let (mut a, b) = (recording("seed-5.10.rec"), recording("seed-6.1.rec"));
    a.report.broken_off = true;
    let comparison = compare(&a, &b);
    assert_eq!(comparison.different(), 0);
    assert_eq!(comparison.unsure(), 1);
    assert_eq!(comparison.exit_status(&a, &b), crate::COULD_NOT_TRACE);
    assert!(view::render(&a, &b, &comparison).contains("A is incomplete"));
}

#[test]
fn what_was_not_asked_for_is_no_difference() {
    let (mut a, b) = (recording("seed-5.10.rec"), recording("seed-6.1.rec"));
    a.scope.filter = Some("icmp6".to_owned());
    let comparison = compare(&a, &b);
    assert_eq!(comparison.exit_status(&a, &b), crate::COULD_NOT_TRACE);
    assert!(view::render(&a, &b, &comparison).contains("with other options"));
}

#[test]
fn what_only_one_saw_is_no_difference() {
    let (a, b) = (empty(), recording("seed-6.1.rec"));
    let comparison = compare(&a, &b);
    assert!(
        verdicts(&comparison)
            .iter()
            .all(|one| *one == Verdict::OnlyB)
    );
    assert_eq!(comparison.exit_status(&a, &b), crate::COULD_NOT_TRACE);
}

#[test]
fn a_flow_that_passes_now_is_a_difference() {
    let (a, mut b) = (recording("seed-6.1.rec"), recording("seed-6.1.rec"));
    b.report.rows.clear();
    let comparison = compare(&a, &b);
    let mut all = verdicts(&comparison).into_iter();
    assert!(all.all(|one| one == Verdict::Different));
    let text = view::render(&a, &b, &comparison);
    assert!(text.contains("sent, then lost in A, sent in B"), "{text}");
}

#[test]
fn a_port_of_a_host_that_passes_is_not_another_that_vanishes() {
    let (mut a, mut b) = (empty(), empty());
    // Both lose DNS; B loses web as well, which A sends.
    for run in [&mut a, &mut b] {
        loses(run, &flow(9, 53), 3, |_| {});
    }
    sends(&mut a, &flow(9, 80), 7);
    loses(&mut b, &flow(9, 80), 7, |_| {});
    assert_eq!(
        verdicts(&compare(&a, &b)),
        [Verdict::Different, Verdict::Same]
    );
    assert_eq!(status(&a, &b), 1);
    // A loses DNS, B only sends web.
    let (mut a, mut b) = (empty(), empty());
    loses(&mut a, &flow(9, 53), 3, |_| {});
    sends(&mut b, &flow(9, 80), 7);
    assert_eq!(verdicts(&compare(&a, &b)), [Verdict::OnlyA, Verdict::OnlyB]);
    assert_eq!(status(&a, &b), crate::COULD_NOT_TRACE);
}

#[test]
fn what_vanishes_in_one_and_was_not_sent_in_the_other_leaves_it_open() {
    let (mut a, mut b) = (empty(), empty());
    for run in [&mut a, &mut b] {
        sends(run, &flow(1, 80), 3);
    }
    assert_eq!(status(&a, &b), 0);
    sends(&mut a, &flow(3, 80), 3);
    assert_eq!(status(&a, &b), 0, "it only passed");
    loses(&mut a, &flow(2, 80), 3, |_| {});
    assert_eq!(status(&a, &b), crate::COULD_NOT_TRACE);
}

#[test]
fn what_one_could_not_see_is_no_difference() {
    let (mut a, mut b) = (empty(), empty());
    loses(&mut a, &flow(1, 80), 3, cause("lookup-no-route"));
    loses(&mut b, &flow(1, 80), 3, cause("lookup-prohibited"));
    assert_eq!(verdicts(&compare(&a, &b)), [Verdict::Different]);
    b.points.remove("ip_route_output_flow");
    assert!(matches!(
        verdicts(&compare(&a, &b))[..],
        [Verdict::Unsure(_)]
    ));
    assert!(
        view::render(&a, &b, &compare(&a, &b))
            .contains("B was traced without ip_route_output_flow.")
    );

    // A drop that only consume_skb tells of.
    let (mut a, mut b) = (empty(), empty());
    loses(&mut a, &flow(1, 80), 3, |row| {
        row.evidence.key.freed_by = tracer_common::tally::freed_by::CONSUME_SKB;
    });
    sends(&mut b, &flow(1, 80), 3);
    assert_eq!(verdicts(&compare(&a, &b)), [Verdict::Different]);
    b.points.remove("consume_skb");
    assert!(matches!(
        verdicts(&compare(&a, &b))[..],
        [Verdict::Unsure(_)]
    ));
}

#[test]
fn what_arrives_is_compared_where_it_was_sent() {
    let arriving = |row: &mut Row| {
        row.evidence.key.outcome = outcome::STRAY;
        row.evidence.key.seen |= tracer_common::tally::seen::RECEIVED;
    };
    let (mut a, mut b) = (empty(), empty());
    loses(&mut a, &flow(1, 80), 3, arriving);
    assert_eq!(verdicts(&compare(&a, &b)), [Verdict::OnlyA]);
    sends(&mut b, &flow(1, 80), 3);
    assert!(verdicts(&compare(&a, &b)).contains(&Verdict::Different));
}

#[test]
fn causes_of_the_same_name_can_differ() {
    let reason = |name: &str| {
        let name = name.to_owned();
        move |row: &mut Row| {
            cause("kernel-reason")(row);
            row.evidence.reason = Some(name);
        }
    };
    let (mut a, mut b) = (empty(), empty());
    loses(&mut a, &flow(1, 80), 3, reason("NOMEM"));
    loses(&mut b, &flow(1, 80), 3, reason("PKT_TOO_BIG"));
    assert_eq!(verdicts(&compare(&a, &b)), [Verdict::Different]);
}

#[test]
fn how_much_vanishes_can_be_the_difference() {
    let (mut a, mut b) = (empty(), empty());
    for (run, lost) in [(&mut a, 1), (&mut b, 100)] {
        loses(run, &flow(1, 80), lost, |_| {});
        sends(run, &flow(1, 80), 101 - lost);
    }
    assert_eq!(verdicts(&compare(&a, &b)), [Verdict::Different]);
    assert!(view::render(&a, &b, &compare(&a, &b)).contains("more of it vanishes in one"));
    assert!(!are_apart((1, 3), (3, 3)), "chance");
}

#[test]
fn other_senders_are_not_the_same() {
    let (mut a, mut b) = (empty(), empty());
    loses(&mut a, &flow(1, 80), 3, |_| {});
    loses(&mut b, &flow(1, 80), 3, |row| {
        row.evidence.key.flow.src[3] = 77
    });
    assert!(matches!(
        verdicts(&compare(&a, &b))[..],
        [Verdict::Unsure(_)]
    ));
}

#[test]
fn addresses_that_come_from_a_mac_are_the_same() {
    let to = |last: [u8; 3]| {
        let mut flow = Flow {
            ethertype: ETH_P_IPV6,
            ..flow(1, 80)
        };
        flow.dst = [
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0xff, 0xfe, last[0], last[1], last[2],
        ];
        flow
    };
    let (mut a, mut b) = (empty(), empty());
    loses(&mut a, &to([1, 2, 3]), 3, |_| {});
    sends(&mut b, &to([9, 9, 9]), 3);
    assert_eq!(verdicts(&compare(&a, &b)), [Verdict::Different]);
}

#[test]
fn unexplained_packets_and_runs_without_frames_are_incomplete() {
    let (a, mut b) = (recording("seed-5.10.rec"), recording("seed-5.10.rec"));
    b.report.frames = false;
    assert_eq!(status(&a, &b), crate::COULD_NOT_TRACE);
}

#[test]
fn sizes_are_told_where_flows_are_the_same() {
    let (mut a, mut b) = (empty(), empty());
    let of = Of {
        device: "t0".to_owned(),
        netns: None,
        family: ETH_P_IP,
    };
    for run in [&mut a, &mut b] {
        loses(run, &flow(1, 80), 9, |_| {});
        sends(run, &flow(1, 80), 9);
    }
    a.sizes
        .insert(of.clone(), [(0, (9, 0)), (4, (0, 9))].into());
    b.sizes
        .insert(of.clone(), [(0, (0, 9)), (4, (9, 0))].into());
    let comparison = compare(&a, &b);
    assert_eq!(verdicts(&comparison), [Verdict::Same]);
    assert_eq!(comparison.exit_status(&a, &b), 1);
    let text = view::render(&a, &b, &comparison);
    assert!(
        text.contains("IPv4 over t0, packets of up to 127 bytes: sent in A, lost in B"),
        "{text}"
    );
    b.sizes.insert(of, [(0, (0, 9))].into());
    assert_eq!(status(&a, &b), 1, "small packets vanish in one only");
}

#[test]
fn many_flows_are_compared_at_once() {
    let (mut a, mut b) = (empty(), empty());
    for port in 1..4000 {
        sends(&mut a, &flow(1, port), 3);
        sends(&mut b, &flow(2, port), 3);
    }
    let comparison = compare(&a, &b);
    // A test that ends.
    assert!(view::render(&a, &b, &comparison).len() > 100_000);
}

#[test]
fn lines_are_json() {
    let (a, b) = (recording("seed-5.10.rec"), recording("seed-6.1.rec"));
    let text = view::lines(&a, &b, &compare(&a, &b));
    let parsed: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(parsed[0]["verdict"], "different");
    assert_eq!(parsed[0]["inner"]["proto"], "icmpv6");
    assert_eq!(parsed[0]["a"]["dropped"]["route-type-not-accepted"], 2);
    assert_eq!(parsed[0]["b"]["lost"]["no-listener"], 1);
    let end = parsed.last().unwrap();
    assert_eq!(
        (&end["type"], &end["different"]),
        (&json!("end"), &json!(1))
    );
}

#[test]
fn namespaces_without_a_name_are_alike() {
    assert_eq!(
        fate::namespace(Some("net:[4026532]")).as_deref(),
        Some("net")
    );
    assert_eq!(fate::namespace(Some("A")).as_deref(), Some("A"));
}
