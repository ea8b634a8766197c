//! What is recorded is told as it would have been live; what was not written by
//! a tracer does no harm.

use std::{collections::BTreeMap, fs, path::Path, time::Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use tracer_common::{
    flow::{ETH_P_IP, ETH_P_IPV6, Flow, IPPROTO_UDP},
    record::{self, Record, sender},
    tally::{
        DeviceKey, DeviceTally, LikeKey, LikeTally, PassedKey, TX_DROPPED, Tally, TallyKey,
        freed_by, outcome, seen,
    },
};

use super::{
    blocks::{self, Broken},
    items::{self, End, Scope},
    plain::{self, Plan},
    *,
};
use crate::{
    cli::Format,
    devices::{Counters, Device},
    event::{Event, Known, Packet, Sample, Start},
    flows::{Counts, Watched},
    judge::Place,
    kernel::reasons::Reasons,
    probes::{Attached, Missing},
    story::{Ending, Manner, Story},
    stream::Lost,
    view::about::About,
};

const FREE: u64 = 0xffff_ffff_8123_4567;
const SECOND: u64 = 1_000_000_000;

fn start() -> Start {
    let reasons = r#"{"names": {"2": "NOT_SPECIFIED"}, "subsystems": {}, "shift": 16}"#;
    Start {
        kernel: "6.12.0".to_owned(),
        arch: "x86_64".to_owned(),
        config: BTreeMap::from([("kprobes".to_owned(), "no".to_owned())]),
        attached: vec![Attached {
            point: "free".to_owned(),
            target: "kfree_skb".to_owned(),
            way: "tp_btf".into(),
            module: None,
        }],
        missing: vec![Missing {
            point: "driver".to_owned(),
            why: "no kprobes".to_owned(),
            lost: "the driver's function".into(),
        }],
        watched: Watched {
            noop_queue: true,
            icmp: true,
            icmp6: true,
            blackholes: true,
            routes: true,
            tables: false,
            tables6: false,
        },
        reasons: serde_json::from_str::<Reasons>(reasons).unwrap(),
        own_netns: 1,
        time_ns: SECOND,
        clock_ns: 1_700_000_000 * SECOND as i64,
    }
}

fn key(ethertype: u16, sport: u16) -> TallyKey {
    let mut dst = [0; 16];
    dst[..4].copy_from_slice(&[192, 168, 9, 2]);
    TallyKey {
        flow: Flow {
            dst,
            sport,
            dport: 9,
            ethertype,
            proto: IPPROTO_UDP,
            ..Flow::default()
        },
        location: FREE,
        ifindex: 7,
        netns: 2,
        seen: seen::TRACEPOINTS,
        reason: 2,
        outcome: outcome::DROPPED,
        freed_by: freed_by::KFREE_SKB,
        counters: 1 << TX_DROPPED,
        ..TallyKey::default()
    }
}

fn record(key: TallyKey, time_ns: u64) -> Record {
    // All zero but what is set.
    let (mut record, _) = Plan::of::<Record>(&plain::Layout::new())
        .unwrap()
        .read::<Record>(&[])
        .unwrap();
    record.key = key;
    record.time_ns = time_ns;
    record.dev[..3].copy_from_slice(b"vx0");
    record.kind[..5].copy_from_slice(b"vxlan");
    record.process.comm[..4].copy_from_slice(b"ping");
    record.process.tgid = 12;
    record.process.uid = 1000;
    record.process.flags = sender::SOCKET | sender::USER_SOCKET;
    record.counters[TX_DROPPED] = 1;
    record.path[0] = DeviceKey {
        netns: 2,
        ifindex: 7,
    };
    record.path_len = 1;
    record
}

fn sample(key: TallyKey, time_ns: u64) -> Event {
    Event::Records(vec![Sample {
        record: record(key, time_ns),
        stack: vec![FREE, 1, 0xffff_ffff_8100_0000],
        packet: Packet::new(record::start::NETWORK, 84, &[0x45, 0, 0, 84]),
    }])
}

fn counts(time_ns: u64, tallies: &[(TallyKey, u64)], passed: u64) -> Event {
    let dropped = tallies.iter().map(|(_, packets)| packets).sum();
    let device = DeviceKey {
        netns: 2,
        ifindex: 7,
    };
    let tally = |packets: u64| Tally {
        packets,
        bytes: packets,
        last_ns: time_ns - 1,
    };
    Event::Counts(Counts {
        time_ns,
        frames: true,
        surveyed: true,
        lost: Lost::default(),
        tallies: tallies
            .iter()
            .map(|(key, packets)| (*key, tally(*packets)))
            .collect(),
        passed: BTreeMap::from([(
            PassedKey {
                netns: 2,
                ifindex: 7,
                ethertype: ETH_P_IPV6,
                ..PassedKey::default()
            },
            passed,
        )]),
        likes: BTreeMap::from([(
            LikeKey {
                netns: 2,
                ifindex: 7,
                cpu: 1,
                size: 2,
                ..LikeKey::default()
            },
            LikeTally {
                sent: passed,
                dropped,
                lost: 0,
            },
        )]),
        devices: BTreeMap::from([(
            device,
            DeviceTally {
                packets_in: dropped + passed,
                sent: passed,
                dropped,
                unexplained: 0,
            },
        )]),
    })
}

fn place(function: &str, module: Option<&str>) -> Place {
    Place {
        function: function.to_owned(),
        offset: 0x1a5,
        module: module.map(str::to_owned),
    }
}

/// A run with everything in it.
fn events() -> Vec<Event> {
    let device = Device {
        ifindex: 7,
        netns: 2,
        name: b"vx0\xff".to_vec(),
        kind: "vxlan".to_owned(),
        vni: Some(42),
        encap: Some("fou".to_owned()),
        remote: Some("2001:db8::1".parse().unwrap()),
        mtu: 1450,
        up: true,
        ..Device::default()
    };
    let before = Some(Counters {
        tx_dropped: 5,
        ..Counters::default()
    });
    let after = Device {
        counters: Counters {
            tx_dropped: 9,
            ..Counters::default()
        },
        ..device.clone()
    };
    let known = |device, before| {
        Event::Devices(vec![Known {
            device,
            before,
            gone: false,
        }])
    };
    vec![
        Event::Netns(vec![(2, "blue".to_owned())]),
        known(device, before),
        Event::Places(vec![(FREE, place("vxlan_xmit_one", Some("vxlan")))]),
        Event::Places(vec![(
            0xffff_ffff_8100_0000,
            place("dev_hard_start_xmit", None),
        )]),
        Event::Module {
            name: "fou".to_owned(),
            loaded: true,
        },
        sample(key(ETH_P_IP, 1), 2 * SECOND),
        sample(key(ETH_P_IP, 2), 2 * SECOND + 1),
        counts(
            3 * SECOND,
            &[(key(ETH_P_IP, 1), 1), (key(ETH_P_IP, 2), 1)],
            3,
        ),
        sample(key(ETH_P_IP, 1), 3 * SECOND + 1),
        known(after, None),
        counts(
            4 * SECOND,
            &[(key(ETH_P_IP, 1), 3), (key(ETH_P_IP, 2), 1)],
            5,
        ),
    ]
}

/// A file with these.
fn recorded(events: &[Event]) -> Vec<u8> {
    let mut file = blocks::header().to_vec();
    let mut items = Vec::new();
    items::put_begin(&start(), &Scope::default(), &mut items);
    for event in events {
        items::put(event, &mut items, |_| Ok(())).unwrap();
        // A block for each, so that there is something to cut.
        file.extend(blocks::block(&items));
        items.clear();
    }
    items::put_end(&End::default(), &mut items);
    file.extend(blocks::block(&items));
    file
}

fn manner(format: Format, appended: bool) -> Manner {
    Manner {
        format,
        stack: true,
        appended,
        ledgers: appended,
    }
}

/// What is told of events, with a look at each time they were counted.
fn told<'a>(
    start: Start,
    events: impl Iterator<Item = &'a Event>,
    manner: Manner,
    broken: bool,
) -> (String, Ending) {
    let mut out = Vec::new();
    let mut story = Story::new(start, manner, About::default(), &mut out);
    story.begin().unwrap();
    for event in events {
        story.take(event);
        if manner.appended && matches!(event, Event::Counts(_)) {
            story.refresh().unwrap();
        }
    }
    if broken {
        story.break_off();
    }
    let ending = story.conclude().unwrap();
    (String::from_utf8(out).unwrap(), ending)
}

/// Everything that can be read.
fn read(file: &[u8]) -> Result<(Start, Vec<Event>, Option<Broken>), Broken> {
    let (mut recording, begin) = Recording::open(file)?;
    let mut events = Vec::new();
    loop {
        match recording.next() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return Ok((begin.start, events, None)),
            Err(broken) => return Ok((begin.start, events, Some(broken))),
        }
    }
}

#[test]
fn a_recording_tells_what_the_run_told() {
    let events = events();
    let (start_read, events_read, broken) = read(&recorded(&events)).unwrap();
    assert!(broken.is_none(), "{broken:?}");
    assert_eq!(start_read, start());
    assert_eq!(events_read, events);
    for format in [Format::Table, Format::Lines, Format::Json] {
        for appended in [false, true] {
            let manner = manner(format, appended);
            let live = told(start(), events.iter(), manner, false);
            let replayed = told(start_read.clone(), events_read.iter(), manner, false);
            assert_eq!(live, replayed);
            assert_eq!((live.1.drops, live.1.exit_status), (4, 1));
            assert!(live.0.contains("vx0\\"), "{}", live.0);
        }
    }
}

#[test]
fn the_summary_of_a_recording() {
    let (start, events, _) = read(&recorded(&events())).unwrap();
    let (text, _) = told(start, events.iter(), manner(Format::Table, false), false);
    let expected = "\
IPv4 0.0.0.0:1 > 192.168.9.2:9 (UDP, ping[12] uid 1000), vx0\\xff (vxlan, fou, remote 2001:db8::1, netns blue)";
    assert_eq!(text.lines().next(), Some(expected));
    assert!(text.contains("    dev_hard_start_xmit+0x1a5\n"), "{text}");
    let end =
        "9 packets into tunnels, 9 accounted for, 4 vanished; nothing was lost by the tracer.\n";
    assert!(text.contains(end), "{text}");
}

#[test]
fn a_cut_anywhere_tells_what_is_before_it() {
    let events = events();
    let file = recorded(&events);
    let mut most = 0;
    for end in 0..file.len() {
        let Ok((start, read, broken)) = read(&file[..end]) else {
            assert_eq!(most, 0, "the start was there");
            continue;
        };
        assert!(matches!(broken, Some(Broken::Cut)), "{end}: {broken:?}");
        assert_eq!(read, events[..read.len()], "{end}");
        assert!(read.len() >= most, "{end}");
        most = read.len();
        let (text, ending) = told(start, read.iter(), manner(Format::Table, false), true);
        let counted = read.iter().any(|event| matches!(event, Event::Counts(_)));
        assert_eq!(ending.exit_status, if counted { 1 } else { 125 });
        assert!(text.contains("incomplete: the recording breaks off."));
    }
    assert_eq!(most, events.len());
}

#[test]
fn what_a_newer_tracer_adds_is_passed_over() {
    let mut file = blocks::header().to_vec();
    let mut items = Vec::new();
    items::put_begin(&start(), &Scope::default(), &mut items);
    // An item of a type to come.
    items.extend([99, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3]);
    for event in &events() {
        items::put(event, &mut items, |_| Ok(())).unwrap();
    }
    items::put_end(&End::default(), &mut items);
    // And a key to come.
    let text = b"\"loaded\":true";
    let at = items.windows(text.len()).position(|part| part == text);
    items.splice(at.unwrap() - 1..at.unwrap(), *b",\"n\":7,");
    let length = at.unwrap() - 1 - b"{\"name\":\"fou\"".len() - 4;
    items[length] += 6;
    file.extend(blocks::block(&items));
    let (start_read, read, broken) = read(&file).unwrap();
    assert!(broken.is_none(), "{broken:?}");
    let manner = manner(Format::Json, false);
    assert_eq!(
        told(start_read, read.iter(), manner, false),
        told(start(), events().iter(), manner, false)
    );
}

#[test]
fn texts_of_a_file_are_no_orders_to_a_terminal() {
    let mut evil = events();
    evil.insert(
        0,
        Event::Netns(vec![(2, "a\x1b]0;x\x07\u{202e}".to_owned())]),
    );
    evil.remove(1);
    evil.insert(
        0,
        Event::Places(vec![(FREE, place("f\x1b[2J", Some("m\n")))]),
    );
    let (start, events, _) = read(&recorded(&evil)).unwrap();
    for format in [
        Format::Table,
        Format::Lines,
        Format::Json,
        Format::Markdown,
        Format::Html,
    ] {
        let (text, _) = told(start.clone(), events.iter(), manner(format, true), false);
        assert!(text.contains("\\x1b"), "{text}");
        let bad = |char: char| char.is_control() && char != '\n' || char == '\u{202e}';
        assert!(!text.contains(bad), "{text:?}");
    }
}

#[test]
fn counts_that_cannot_be_are_refused() {
    let huge = counts(3 * SECOND, &[(key(ETH_P_IP, 1), 1 << 60)], 0);
    let (_, events, broken) = read(&recorded(&[huge])).unwrap();
    assert!(events.is_empty());
    assert!(matches!(broken, Some(Broken::Damaged(_))), "{broken:?}");
}

#[test]
fn a_long_text_is_cut_and_a_long_item_refused() {
    let long = Event::Netns(vec![(2, "ä".repeat(20_000))]);
    let (_, events, broken) = read(&recorded(&[long])).unwrap();
    assert!(broken.is_none(), "{broken:?}");
    assert!(matches!(&events[..], [Event::Netns(names)] if names[0].1.len() <= 16 << 10));
    let longer = Event::Netns(vec![(2, "x".repeat(200_000))]);
    let (_, _, broken) = read(&recorded(&[longer])).unwrap();
    assert!(matches!(broken, Some(Broken::Damaged(_))), "{broken:?}");
}

#[test]
fn one_recorder_many_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rec");
    let limits = Limits {
        size: Some(1),
        files: 2,
    };
    let output = Output::open(&path, limits, false).unwrap();
    let mut recorder = output.begin(&start(), Scope::default()).unwrap();
    let mut story = Story::new(
        start(),
        manner(Format::Table, false),
        About::default(),
        std::io::sink(),
    );
    let mut feed = |recorder: &mut Recorder, events: &[Event]| {
        for event in events {
            recorder.append(event).unwrap();
            story.take(event);
        }
        recorder.flush().unwrap();
        (story.book().known(), story.book().counts().clone())
    };
    let all = events();
    let (known, so_far) = feed(&mut recorder, &all[..8]);
    // It came after the counts were read.
    let late = sample(key(ETH_P_IP, 1), 3 * SECOND + 1);
    let later = counts(
        3 * SECOND,
        &[(key(ETH_P_IP, 1), 1), (key(ETH_P_IP, 2), 1)],
        3,
    );
    feed(&mut recorder, &[late, later]);
    assert!(recorder.is_full());
    recorder.rotate(&start(), &known, &so_far).unwrap();
    feed(&mut recorder, &all[9..]);
    let (shown, bytes) = recorder.finish().unwrap();
    assert_eq!(shown, path.display().to_string());

    let file = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        let (start, events, broken) = read(&bytes).unwrap();
        assert!(broken.is_none(), "{broken:?}");
        let (text, ending) = told(start, events.iter(), manner(Format::Table, false), false);
        assert!(text.contains("netns blue"), "{text}");
        assert!(text.contains("ping[12]"), "details too: {text}");
        (ending.drops, bytes.len() as u64)
    };
    // Each file counts its own packets.
    let (first, second) = (file(&directory.path().join("rec.1")), file(&path));
    assert_eq!((first.0, second.0), (2, 2));
    assert_eq!(bytes, first.1 + second.1);
}

/// Recorded on Debian 5.10: what this project began with.
const SEED: &[u8] = include_bytes!("../../tests/recordings/seed-5.10.rec");

#[test]
fn a_recording_of_format_1_is_read() {
    let (start, events, broken) = read(SEED).unwrap();
    assert!(broken.is_none(), "{broken:?}");
    assert_eq!(start.kernel, "5.10.0-32-amd64");
    assert!(start.config.contains_key("realtime"), "{:?}", start.config);
    let (text, ending) = told(start, events.iter(), manner(Format::Json, false), false);
    assert_eq!(
        (ending.drops, ending.complete, ending.exit_status),
        (2, true, 1)
    );
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [_, drop, device, end] = &lines[..] else {
        panic!("{text}")
    };
    let ping = json!({"pid": 117, "comm": "ping", "cgroup": 1, "uid": 0});
    for (key, value) in [
        ("time", json!("2026-11-24T19:46:02.073490Z")),
        ("cause", json!("route-type-not-accepted")),
        ("confidence", json!("proved")),
        ("path", json!(["fou_test"])),
        ("counters", json!({"tx_errors": 1, "tx_carrier_errors": 1})),
        ("told", json!({"icmp": "icmpv6 1/3"})),
        ("process", ping),
        ("count", json!(2)),
    ] {
        assert_eq!(drop[key], value, "{key}");
    }
    assert_eq!(drop["tunnel"]["remote"], "127.0.0.1");
    assert_eq!(drop["inner"]["dst"], "fe80::d0b0:dfff:fe4c:fcbc");
    assert_eq!(drop["route"]["type"], "RTN_LOCAL");
    assert_eq!(drop["freed"]["module"], "sit");
    assert_eq!(device["counters"]["tx_carrier_errors"], 2);
    assert_eq!(
        (&device["packets_in"], &end["records"]),
        (&json!(2), &json!(2))
    );
}

#[test]
fn a_real_recording_cut_anywhere() {
    for end in 0..SEED.len() {
        if let Ok((start, events, broken)) = read(&SEED[..end]) {
            assert!(matches!(broken, Some(Broken::Cut)), "{end}: {broken:?}");
            told(start, events.iter(), manner(Format::Table, false), true);
        }
    }
}

#[test]
fn a_real_recording_with_a_wrong_bit() {
    // One in each byte; the blocks' own test takes all of them.
    for byte in (0..SEED.len()).filter(|byte| !(8..16).contains(byte)) {
        let mut file = SEED.to_vec();
        file[byte] ^= 1 << (byte % 8);
        if let Ok((_, _, broken)) = read(&file) {
            assert!(broken.is_some(), "{byte}");
        }
    }
}

/// What a long night of drops costs: a million records of a thousand flows.
///
/// cargo test --release -p tracer --bin tracer -- --ignored --nocapture a_million
#[test]
#[ignore = "takes its time; a release build says something"]
fn a_million_records() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rec");
    let limits = Limits {
        size: None,
        files: 1,
    };
    let output = Output::open(&path, limits, false).unwrap();
    let mut recorder = output.begin(&start(), Scope::default()).unwrap();
    for event in &events()[..4] {
        recorder.append(event).unwrap();
    }
    let mut flows: Vec<Sample> = (0..1000)
        .map(|flow| Sample {
            record: record(key(ETH_P_IP, flow), 0),
            stack: vec![FREE],
            packet: None,
        })
        .collect();
    let began = Instant::now();
    for round in 1..=1000 {
        for sample in &mut flows {
            sample.record.time_ns = SECOND + round * 1_000_000;
        }
        recorder.append(&Event::Records(flows.clone())).unwrap();
        if round % 100 == 0 {
            let tallies: Vec<_> = (0..1000).map(|flow| (key(ETH_P_IP, flow), round)).collect();
            recorder
                .append(&counts(2 * SECOND + round, &tallies, round))
                .unwrap();
        }
    }
    let (_, bytes) = recorder.finish().unwrap();
    let written = began.elapsed();
    let began = Instant::now();
    let (mut recording, begin) = Recording::open(fs::File::open(&path).unwrap()).unwrap();
    let mut story = Story::new(
        begin.start,
        manner(Format::Json, false),
        About::default(),
        std::io::sink(),
    );
    while let Some(event) = recording.next().unwrap() {
        story.take(&event);
    }
    let ending = story.conclude().unwrap();
    assert_eq!(ending.drops, 1_000_000);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!(
        "{bytes} bytes, written in {written:?}, told in {:?}, {}",
        began.elapsed(),
        peak.unwrap_or_default()
    );
}

proptest! {
    #[test]
    fn any_content_of_blocks(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        // Right checksums on anything.
        let mut file = blocks::header().to_vec();
        file.extend(blocks::block(&bytes));
        let _ = read(&file);
        let mut items = Vec::new();
        items::put_begin(&start(), &Scope::default(), &mut items);
        items.extend(&bytes);
        let mut file = blocks::header().to_vec();
        file.extend(blocks::block(&items));
        if let Ok((start, events, _)) = read(&file) {
            told(start, events.iter(), manner(Format::Table, true), true);
        }
    }

    #[test]
    fn any_change_of_items(at in 0..4096_usize, byte in any::<u8>(), format in 0..3) {
        let mut items = Vec::new();
        items::put_begin(&start(), &Scope::default(), &mut items);
        for event in &events() {
            items::put(event, &mut items, |_| Ok(())).unwrap();
        }
        let place = at * items.len() / 4096;
        items[place] = byte;
        let mut file = blocks::header().to_vec();
        file.extend(blocks::block(&items));
        if let Ok((start, events, _)) = read(&file) {
            let format = [Format::Table, Format::Json, Format::Html][format as usize];
            told(start, events.iter(), manner(format, true), true);
        }
    }

    #[test]
    fn any_numbers_in_a_record(bytes in proptest::collection::vec(any::<u8>(), 512), n in 0..4096_u64) {
        let plan = Plan::of::<Record>(&plain::layout::<Record>()).unwrap();
        let (record, _) = plan.read::<Record>(&bytes).unwrap();
        let all = vec![
            Event::Records(vec![Sample {
                record,
                stack: vec![n],
                packet: Packet::new(bytes[0].into(), bytes[1].into(), &bytes[2..][..usize::from(bytes[2]).min(200)]),
            }]),
            counts(n + 1, &[(record.key, n)], n),
        ];
        let (_, read, broken) = read(&recorded(&all)).unwrap();
        prop_assert!(broken.is_none());
        prop_assert_eq!(&read, &all);
        for format in [Format::Table, Format::Lines, Format::Json, Format::Markdown, Format::Html] {
            told(start(), read.iter(), manner(format, false), false);
        }
    }

    #[test]
    fn any_bytes_are_no_recording(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&bytes).is_err());
    }
}
