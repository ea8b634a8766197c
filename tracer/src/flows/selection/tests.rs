use proptest::{prelude::*, sample::select};
use tracer_common::{
    flow::{ETH_P_IP, ETH_P_IPV6, Flow},
    record::sender,
};

use super::*;
use crate::filter::{Host, program};

fn selection(text: &str) -> Selection {
    Selection::default().by_filter(program(text, &Host).unwrap())
}

fn record(ethertype: u16, uid: u32) -> Record {
    let mut record = blank();
    record.key = key(ethertype);
    record.dev[..2].copy_from_slice(b"t0");
    record.kind[..3].copy_from_slice(b"sit");
    record.process.flags = sender::SOCKET | sender::USER_SOCKET;
    record.process.uid = uid;
    record
}

fn key(ethertype: u16) -> TallyKey {
    TallyKey {
        flow: Flow {
            src: [1; 16],
            dst: [2; 16],
            ethertype,
            proto: 6,
            sport: 40000,
            dport: 443,
            ..Flow::default()
        },
        ifindex: 3,
        netns: 4,
        outcome: outcome::DROPPED,
        ..TallyKey::default()
    }
}

fn share(text: &str, records: &[Record], packets: u64) -> (u64, u64) {
    let mut selection = selection(text);
    let mut decided = Decided::default();
    for record in records {
        selection.decide(record, &mut decided);
    }
    let known = (!records.is_empty()).then_some(&decided);
    let key = records.first().map_or(key(ETH_P_IP), |record| record.key);
    let share = selection.share(&key, packets, known);
    (share.packets, share.undecided)
}

#[test]
fn packets_with_records_are_decided_by_them() {
    let records = [record(ETH_P_IP, 7), record(ETH_P_IP, 8)];
    assert_eq!(share("uid 7", &records, 2), (1, 0));
    assert_eq!(share("not uid 7", &records, 2), (1, 0));
    assert_eq!(share("uid 9", &records, 2), (0, 0));
    assert_eq!(share("ip", &records, 2), (2, 0));
}

#[test]
fn what_was_only_counted_is_like_the_rest_of_its_flow() {
    let records = [record(ETH_P_IP, 7)];
    for (text, packets) in [
        ("ip", 1000),
        ("ip6", 0),
        ("dst port 443", 1000),
        ("dev t0", 1000),
        ("dev t1 or kind vxlan", 0),
        ("outer ip", 0),
        ("ip or uid 9", 1000),
        ("ip6 and uid 7", 0),
    ] {
        assert_eq!(share(text, &records, 1000), (packets, 0), "{text}");
    }
}

#[test]
fn who_sent_what_was_only_counted_is_not_guessed() {
    let records = [record(ETH_P_IP, 7), record(ETH_P_IP, 7)];
    assert_eq!(share("uid 7", &records, 1000), (2, 998));
    assert_eq!(share("uid 8", &records, 1000), (0, 998));
    assert_eq!(share("not mark 1 and ip", &records, 1000), (2, 998));
}

#[test]
fn records_that_differ_say_nothing_of_the_rest() {
    let mut other = record(ETH_P_IP, 7);
    other.outer.ethertype = ETH_P_IP;
    let records = [record(ETH_P_IP, 7), other];
    assert_eq!(share("outer ip", &records, 1000), (1, 998));
}

#[test]
fn without_a_record_only_what_the_key_has_is_certain() {
    assert_eq!(share("ip and dst port 443", &[], 5), (5, 0));
    assert_eq!(share("netns 4", &[], 5), (5, 0));
    // There may be a header that matches, on a way that is not known.
    assert_eq!(share("ip6", &[], 5), (0, 5));
    assert_eq!(share("uid 7", &[], 5), (0, 5));
    let mut coarse = key(ETH_P_IP);
    (coarse.flow.src, coarse.flow.dst) = ([0; 16], [0; 16]);
    let share = |text: &str| selection(text).share(&coarse, 5, None);
    assert_eq!(share("ip").packets, 5);
    for text in ["host 0.0.0.0", "port 0", "net 0.0.0.0/0"] {
        assert_eq!(share(text).undecided, 5, "{text}");
    }
}

#[test]
fn devices_are_asked_for_as_wholes() {
    let device = |name: &[u8]| Device {
        name: name.to_vec(),
        ..Device::default()
    };
    let key = DeviceKey {
        netns: 4,
        ifindex: 3,
    };
    let of_dev = Selection::default().by_dev(b"t0").unwrap();
    assert!(of_dev.has_device(key, Some(&device(b"t0"))));
    assert!(!of_dev.has_device(key, Some(&device(b"t1"))));
    assert!(!of_dev.has_device(key, None));
    assert!(!of_dev.divides_devices());
    assert!(!Selection::default().by_netns(5).has_device(key, None));
    assert!(selection("ip").divides_devices());
    assert!(Selection::default().by_dev(b"sixteen bytes, no").is_none());
}

#[test]
fn what_passed_is_decided_by_what_is_kept_of_it() {
    let passed = |ethertype, proto, dst: [u8; 4]| {
        let mut key = PassedKey {
            netns: 4,
            ifindex: 3,
            ethertype,
            proto,
            ..PassedKey::default()
        };
        key.dst[..4].copy_from_slice(&dst);
        key
    };
    let tcp = passed(ETH_P_IP, 6, [10, 0, 0, 2]);
    for (text, expected) in [
        ("inner ip", Some(true)),
        ("inner ip6", Some(false)),
        ("not inner tcp", Some(false)),
        // Its outer header may be.
        ("ip6", None),
        ("inner dst host 10.0.0.2", Some(true)),
        ("inner dst host 10.0.0.3", Some(false)),
        ("inner host 10.0.0.2", Some(true)),
        // The source may be.
        ("inner host 10.0.0.3", None),
        ("inner src net 0.0.0.0/0", None),
        ("inner port 80", None),
        ("uid 0", None),
        ("netns 4", Some(true)),
        ("netns 5", Some(false)),
        ("inner ip and uid 0", None),
        ("inner ip6 and uid 0", Some(false)),
    ] {
        assert_eq!(selection(text).passes(&tcp, false), expected, "{text}");
    }
    // In a tunnel's packet there may be another.
    let udp = passed(ETH_P_IP, 17, [10, 0, 0, 2]);
    let ip6 = selection("inner ip6");
    assert_eq!(ip6.passes(&udp, false), None);
    assert_eq!(ip6.passes(&udp, true), Some(false));
    // Where there was no room for destinations.
    let coarse = passed(ETH_P_IP, 6, [0; 4]);
    assert_eq!(
        selection("inner dst net 0.0.0.0/0").passes(&coarse, true),
        None
    );
}

const TEXTS: &[&str] = &[
    "ip",
    "ip6",
    "not ip",
    "outer udp or uid 7",
    "inner tcp and not uid 7",
    "dev t0 and (mark 1 or pid 12)",
    "kind sit and not (ip6 or comm x)",
    "host 1.1.1.1 or netns 4",
    "not (uid 7 and ip) or dst port 443",
];

proptest! {
    /// Whatever is said of packets that were only counted is true of each whose
    /// way is that of the recorded one, whoever sent it.
    #[test]
    fn nothing_is_said_that_may_be_wrong(
        text in select(TEXTS),
        ethertype in select(&[ETH_P_IP, ETH_P_IPV6][..]),
        outer in any::<bool>(),
        senders in proptest::collection::vec((0..9_u32, 0..3_u32, 10..14_u32), 1..6),
        first in 1..6_usize,
    ) {
        let records: Vec<Record> = senders.iter().map(|(uid, mark, pid)| {
            let mut record = record(ethertype, *uid);
            record.mark = *mark;
            record.process.tgid = *pid;
            record.process.flags |= sender::PROCESS_CONTEXT;
            record.outer.ethertype = if outer { ETH_P_IP } else { 0 };
            record.outer.proto = 17;
            record
        }).collect();
        let mut selection = selection(text);
        let mut decided = Decided::default();
        for record in records.iter().take(first) {
            selection.decide(record, &mut decided);
        }
        let share = selection.share(&records[0].key, records.len() as u64, Some(&decided));
        let wanted = records.iter().filter(|record| selection.wants(record)).count() as u64;
        prop_assert!(share.packets <= wanted);
        prop_assert!(wanted <= share.packets + share.undecided);
    }
}
