//! Expressions that parse, those that do not, and what the program makes of
//! records.

use proptest::{collection::vec, prelude::*, sample::select};
use tracer_common::{
    config::KIND_LEN,
    filter::{Filter, Named, matches, needs},
    flow::{ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Flow},
    record::{PATH_LEN, Process, Record, sender},
    tally::{DeviceKey, TallyKey, outcome, seen},
};

use super::*;

/// A host with one user and one namespace.
struct Fixed;

impl World for Fixed {
    fn user(&self, name: &str) -> Result<u32, String> {
        match name {
            "alice" => Ok(1000),
            _ => Err(format!("no user '{name}' in /etc/passwd")),
        }
    }

    fn netns(&self, name: &str) -> Result<u32, String> {
        match name {
            "blue" => Ok(4_026_532_000),
            _ => Err(format!("no network namespace named '{name}'")),
        }
    }
}

fn parsed(text: &str) -> Expr {
    parse(text, &Fixed).unwrap_or_else(|error| panic!("{error}\n{}", error.marked()))
}

#[test]
fn expressions_parse_to_their_plain_form() {
    for (text, plain) in [
        ("host 10.0.0.1", "host 10.0.0.1"),
        ("10.0.0.1", "host 10.0.0.1"),
        ("src fe80::1", "src host fe80::1"),
        ("dst 10.0.0.0/8", "dst net 10.0.0.0/8"),
        ("src or dst host 1.1.1.1", "host 1.1.1.1"),
        ("dst or src port 53", "port 53"),
        ("net ::/0", "net ::/0"),
        ("net 1.2.3.4/32", "host 1.2.3.4"),
        ("portrange 1-2", "portrange 1-2"),
        ("portrange 7-7", "port 7"),
        ("tcp dst port 443", "tcp dst port 443"),
        ("ip6 and icmp6", "ip6 and icmp6"),
        ("proto ICMPv6", "proto 58"),
        ("ip6 proto 58", "icmp6"),
        ("proto tcp", "tcp"),
        ("ip proto tcp", "ip proto 6"),
        ("proto 250", "proto 250"),
        ("arp host 10.0.0.1", "arp host 10.0.0.1"),
        // As in pcap: neither binds closer.
        ("arp or ip and tcp", "arp or ip and tcp"),
        ("arp or (ip and tcp)", "arp or (ip and tcp)"),
        ("(arp or ip) && tcp", "arp or ip and tcp"),
        ("! arp || !(ip or ip6)", "not arp or not (ip or ip6)"),
        ("not not arp", "not not arp"),
        // What stands before a value counts for the next.
        ("host 1.1.1.1 or fe80::1", "host 1.1.1.1 or host fe80::1"),
        ("udp port 53 or 5353", "udp port 53 or udp port 5353"),
        (
            "inner src 1.1.1.1 or 2.2.2.2",
            "inner src host 1.1.1.1 or inner src host 2.2.2.2",
        ),
        (
            "inner src 1.1.1.1 or outer 2.2.2.2",
            "inner src host 1.1.1.1 or outer src host 2.2.2.2",
        ),
        ("port 53 or 10.0.0.1", "port 53 or host 10.0.0.1"),
        ("dev t0 or t1 and arp", "dev \"t0\" or dev \"t1\" and arp"),
        // inner and outer reach over parentheses.
        (
            "inner (host 1.1.1.1 and not tcp) or udp",
            "inner host 1.1.1.1 and not inner tcp or udp",
        ),
        ("outer not gre", "not outer gre"),
        ("dev \"or\"", "dev \"or\""),
        ("dev port", "dev \"port\""),
        ("comm \"Web Content\"", "comm \"Web Content\""),
        ("comm \"a\\\"\\\\\\x1b\"", "comm \"a\\\"\\\\\\x1b\""),
        ("kind vxlan", "kind \"vxlan\""),
        ("netns blue or 7", "netns 4026532000 or netns 7"),
        ("uid alice or 0", "uid 1000 or uid 0"),
        ("pid 42", "pid 42"),
        ("mark 7", "mark 0x7"),
        ("mark 0x10/0xf0", "mark 0x10/0xf0"),
    ] {
        assert_eq!(parsed(text).to_string(), plain, "{text}");
    }
}

#[test]
fn errors_say_what_fits_and_where() {
    let tests = "host, net, port, portrange, proto, src, dst, ip, ip6, arp, icmp, icmp6, tcp, udp, \
                 gre, esp, sctp, inner, outer, dev, kind, netns, mark, uid, pid, comm, not";
    for (text, message, marked) in [
        ("", format!("a test fits here: {tests} or ("), "\n  ^"),
        ("host", "an IPv4 or IPv6 address fits here".to_owned(), "  host\n      ^"),
        (
            "icmp and hots 10.0.0.1",
            "unknown word 'hots', did you mean host, not?".to_owned(),
            "  icmp and hots 10.0.0.1\n           ^^^^",
        ),
        (
            "host 10.0.0.300",
            "'10.0.0.300' does not fit: an IPv4 or IPv6 address fits here".to_owned(),
            "  host 10.0.0.300\n       ^^^^^^^^^^",
        ),
        (
            "host 10.0.0.0/8",
            "a host has no prefix length: '10.0.0.0' fits here, or net before it".to_owned(),
            "  host 10.0.0.0/8\n       ^^^^^^^^^^",
        ),
        (
            "net 10.1.0.0/8",
            "bits beyond the prefix length are set: '10.0.0.0/8' fits here, or host before the address".to_owned(),
            "  net 10.1.0.0/8\n      ^^^^^^^^^^",
        ),
        (
            "net 10.0.0.0/33",
            "the length of this prefix is 0 to 32".to_owned(),
            "  net 10.0.0.0/33\n      ^^^^^^^^^^^",
        ),
        (
            "net fd00::1",
            "a prefix without its length: 'fd00::1/128' or shorter fits here, or host before it".to_owned(),
            "  net fd00::1\n      ^^^^^^^",
        ),
        (
            "host fe80::1%eth0",
            "packets carry no zone: 'fe80::1' fits here, and dev for the device".to_owned(),
            "  host fe80::1%eth0\n       ^^^^^^^^^^^^",
        ),
        (
            "port 53-54",
            "a range is no port: portrange 53-54 fits".to_owned(),
            "  port 53-54\n       ^^^^^",
        ),
        (
            "port http",
            "'http' does not fit: a port number, 0 to 65535, fits here".to_owned(),
            "  port http\n       ^^^^",
        ),
        (
            "portrange 9-1",
            "the range is empty: 1-9 fits here".to_owned(),
            "  portrange 9-1\n            ^^^",
        ),
        (
            "icmp port 5",
            "icmp has no ports: host or net fits here, or tcp, udp or sctp before it".to_owned(),
            "  icmp port 5\n       ^^^^",
        ),
        (
            "ip6 host 10.0.0.1",
            "ip6 does not go with '10.0.0.1': an IPv6 address fits here".to_owned(),
            "  ip6 host 10.0.0.1\n           ^^^^^^^^",
        ),
        (
            "src tcp",
            "host, net, port, portrange or an address fits here".to_owned(),
            "  src tcp\n      ^^^",
        ),
        (
            "(icmp or arp",
            "no ) for this (".to_owned(),
            "  (icmp or arp\n  ^",
        ),
        (
            "icmp)",
            "a ) without its (: and, or or the end fits here".to_owned(),
            "  icmp)\n      ^",
        ),
        (
            "icmp arp",
            "and, or or the end fits here".to_owned(),
            "  icmp arp\n       ^^^",
        ),
        (
            "icmp & arp",
            "a single '&': and, or && fits here".to_owned(),
            "  icmp & arp\n       ^",
        ),
        (
            "icmp and",
            format!("a test fits here: {tests} or ("),
            "  icmp and\n          ^",
        ),
        (
            "inner dev t0",
            "inner and outer are about headers: host, net, port, portrange, proto or a protocol fits here".to_owned(),
            "  inner dev t0\n        ^^^",
        ),
        (
            "inner outer icmp",
            "a second inner or outer: one of them fits".to_owned(),
            "  inner outer icmp\n        ^^^^^",
        ),
        (
            "comm \"never ends",
            "no end of this quotation: \" fits behind it".to_owned(),
            "  comm \"never ends\n       ^^^^^^^^^^^",
        ),
        (
            "comm systemd-resolved",
            "too long: the kernel keeps 15 bytes of a name, \"systemd-resolve\" fits here".to_owned(),
            "  comm systemd-resolved\n       ^^^^^^^^^^^^^^^^",
        ),
        (
            "mark 0x11/0x10",
            "'0x11/0x10' never matches: the mark has bits that the mask takes away, 0x10/0x10 fits".to_owned(),
            "  mark 0x11/0x10\n       ^^^^^^^^^",
        ),
        (
            "uid bob",
            "no user 'bob' in /etc/passwd: a user's number or name fits here".to_owned(),
            "  uid bob\n      ^^^",
        ),
        (
            "netns red",
            "no network namespace named 'red'".to_owned(),
            "  netns red\n        ^^^",
        ),
        // Wide characters, and characters that would do something.
        (
            "dev 漢字 or hots 1",
            "unknown word 'hots', did you mean host, not?".to_owned(),
            "  dev 漢字 or hots 1\n              ^^^^",
        ),
        (
            "dev \u{1b}[2J or hots 1",
            "unknown word 'hots', did you mean host, not?".to_owned(),
            "  dev \\x1b[2J or hots 1\n                 ^^^^",
        ),
        (
            "port \u{202e}",
            "'\\xe2\\x80\\xae' does not fit: a port number, 0 to 65535, fits here".to_owned(),
            "  port \\xe2\\x80\\xae\n       ^^^^^^^^^^^^",
        ),
    ] {
        let error = parse(text, &Fixed).expect_err(text);
        assert_eq!(error.to_string(), format!("--filter: {message}"), "{text}");
        assert_eq!(error.marked(), marked, "{text}");
    }
}

#[test]
fn of_a_long_expression_the_part_around_the_spot_is_shown() {
    let many = ["host 10.0.0.1"; 12].join(" or ");
    let text = format!("{many} and hots 1 and {many}");
    let error = parse(&text, &Fixed).expect_err("hots");
    assert_eq!(
        error.marked(),
        "  ….1 or host 10.0.0.1 and hots 1 and host 10.0.0.1 or host 10.0.0.1 or hos…\n\
        \x20                          ^^^^"
    );
}

#[test]
fn what_is_too_long_or_too_deep_is_said() {
    let long = ["arp"; 17].join(" or ");
    let error = parse(&long, &Fixed).expect_err("33 of them");
    assert!(
        error.to_string().contains("32 tests, and, or and not fit"),
        "{error}"
    );
    assert_eq!(
        program(&["arp"; 16].join(" or "), &Fixed).expect("31").len,
        31
    );
    let deep = "(".repeat(100_000) + "arp";
    let error = parse(&deep, &Fixed).expect_err("deep");
    assert!(error.to_string().contains("nested too deep"), "{error}");
    let error = parse(&"not ".repeat(100_000), &Fixed).expect_err("long");
    assert!(error.to_string().contains("too long"), "{error}");
}

#[test]
fn the_program_says_what_it_needs() {
    let needs = |text| compile::compile(&parsed(text)).needs;
    assert_eq!(needs("inner host 1.1.1.1 and uid 0"), 0);
    assert_eq!(needs("inner icmp or arp"), needs::OUTER);
    assert_eq!(needs("dev t0 or kind sit"), needs::NAMES);
}

// --- trees -------------------------------------------------------------------

/// Few enough that tests and records meet.
const ADDRESSES: [&str; 5] = ["10.0.0.1", "10.0.0.2", "192.168.9.1", "fe80::1", "fd00::2"];
const NAMES: [&str; 3] = ["t0", "t1", "ping"];
const KINDS: [&str; 2] = ["sit", "vxlan"];
const PORTS: [u16; 4] = [0, 53, 4789, 65535];

fn name(names: &'static [&'static str]) -> impl Strategy<Value = Name> {
    select(names).prop_map(|name| Name::new(name.as_bytes()).expect("short"))
}

fn ends() -> impl Strategy<Value = Ends> {
    select(&[Ends::Either, Ends::Src, Ends::Dst][..])
}

fn header_test() -> impl Strategy<Value = Header> {
    let net = (ends(), select(&ADDRESSES[..]), 0..=128u8).prop_map(|(ends, address, length)| {
        let address: IpAddr = address.parse().expect("an address");
        let length = length.min(longest(address));
        let address = parser::masked(address, length);
        What::Net {
            ends,
            address,
            length,
        }
    });
    let ports =
        (ends(), select(&PORTS[..]), select(&PORTS[..])).prop_map(|(ends, a, b)| What::Ports {
            ends,
            low: a.min(b),
            high: a.max(b),
        });
    let alone = select(&Layer::WORDS[..]).prop_map(|(_, layer)| (layer, What::Protocol));
    let number = (select(&[IP, family::IPV4, family::IPV6][..]), any::<u8>())
        .prop_map(|(families, proto)| (Layer::new(families, Some(proto)), What::Protocol));
    let before = |what: What| {
        let fits = move |layer: &Layer| match what {
            What::Net { address, .. } if address.is_ipv4() => layer.families & !family::IPV6 != 0,
            What::Net { .. } => layer.families & family::IPV6 != 0,
            _ => layer.families != family::ARP && matches!(layer.proto, None | Some(6 | 17 | 132)),
        };
        let layers: Vec<Layer> = Layer::WORDS
            .iter()
            .map(|(_, layer)| *layer)
            .chain([Layer::ANY])
            .filter(fits)
            .collect();
        select(layers).prop_map(move |layer| (layer, what))
    };
    let valued = prop_oneof![net, ports].prop_flat_map(before);
    let headers = select(&[EITHER, header::INNER, header::OUTER][..]);
    (headers, prop_oneof![alone, number, valued]).prop_map(|(headers, (layer, what))| Header {
        headers,
        layer,
        what,
    })
}

fn test() -> impl Strategy<Value = Test> {
    prop_oneof![
        6 => header_test().prop_map(Test::Header),
        1 => name(&NAMES).prop_map(Test::Dev),
        1 => vec(1..=255u8, 1..=15).prop_map(|bytes| Test::Comm(Name::new(&bytes).expect("short"))),
        1 => name(&KINDS).prop_map(Test::Kind),
        1 => (1..3u32).prop_map(Test::Netns),
        1 => (0..4u32, 0..4u32).prop_map(|(value, mask)| Test::Mark { value: value & mask, mask }),
        1 => (0..2u32).prop_map(Test::Uid),
        1 => (1..3u32).prop_map(Test::Pid),
        1 => name(&NAMES).prop_map(Test::Comm),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    test()
        .prop_map(Expr::Test)
        .prop_recursive(4, 15, 2, |inner| {
            let boxed = || inner.clone().prop_map(Box::new);
            prop_oneof![
                (boxed(), boxed()).prop_map(|(left, right)| Expr::And(left, right)),
                (boxed(), boxed()).prop_map(|(left, right)| Expr::Or(left, right)),
                boxed().prop_map(Expr::Not),
            ]
        })
}

/// Tests and operators.
fn size(expr: &Expr) -> usize {
    match expr {
        Expr::And(left, right) | Expr::Or(left, right) => 1 + size(left) + size(right),
        Expr::Not(inner) => 1 + size(inner),
        Expr::Test(_) => 1,
    }
}

fn fitting() -> impl Strategy<Value = Expr> {
    expr().prop_filter("too long", |expr| {
        size(expr) <= tracer_common::filter::MAX_OPS
    })
}

// --- records -----------------------------------------------------------------

fn flow() -> impl Strategy<Value = Flow> {
    let address = || select(&ADDRESSES[..]).prop_map(|text| text.parse::<IpAddr>().expect("valid"));
    let port = || select(&PORTS[..]);
    let ethertype = select(&[0, ETH_P_IP, ETH_P_IPV6, ETH_P_ARP, 0x8847][..]);
    let proto = select(&[0u8, 1, 6, 17, 47, 58, 132][..]);
    (address(), address(), port(), port(), ethertype, proto).prop_map(
        |(src, dst, sport, dport, ethertype, proto)| Flow {
            src: bytes(src),
            dst: bytes(dst),
            sport,
            dport,
            ethertype,
            proto,
            icmp_type: 0,
        },
    )
}

fn bytes(address: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes = v6.octets(),
    }
    bytes
}

/// The tunnel devices of the records: 1 to 3, in namespaces 1 and 2.
fn device(index: u32) -> (DeviceKey, Named) {
    let key = DeviceKey {
        netns: 1 + index % 2,
        ifindex: index,
    };
    let mut kind = [0; KIND_LEN];
    let text = KINDS[index as usize % KINDS.len()].as_bytes();
    kind[..text.len()].copy_from_slice(text);
    let name = Name::new(NAMES[index as usize % NAMES.len()].as_bytes())
        .expect("short")
        .0;
    (key, Named { name, kind })
}

fn record() -> impl Strategy<Value = Record> {
    const OUTCOMES: [u8; 5] = [
        outcome::DROPPED,
        outcome::LOST_LATER,
        outcome::STRAY,
        outcome::UNRELATED,
        outcome::AT_DEVICE,
    ];
    let process =
        (select(&NAMES[..]), 0..3u32, 0..2u32, 0..8u32).prop_map(|(comm, tgid, uid, flags)| {
            Process {
                comm: Name::new(comm.as_bytes()).expect("short").0,
                tgid,
                uid,
                flags,
                ..Process::default()
            }
        });
    let flows = (flow(), flow(), flow());
    let key = (select(&OUTCOMES[..]), any::<bool>(), 0..4u32);
    let freed = (0..4u32, 0..3u32);
    (
        flows,
        key,
        process,
        0..8u32,
        vec(1..4u32, 0..=PATH_LEN),
        freed,
    )
        .prop_map(
            |((inner, origin, outer), (outcome, decoded, own), process, mark, path, freed)| {
                // SAFETY: integers and arrays of them only: zero is a value.
                let mut record: Record = unsafe { std::mem::zeroed() };
                record.key = TallyKey {
                    flow: inner,
                    outcome,
                    seen: if decoded { seen::INNER_DECODED } else { 0 },
                    ..TallyKey::default()
                };
                if own > 0 {
                    let (key, named) = device(own);
                    record.key.ifindex = key.ifindex;
                    record.key.netns = key.netns;
                    record.dev = named.name;
                    record.kind = named.kind;
                }
                if freed.0 > 0 {
                    record.freed_dev = device(freed.0).1.name;
                }
                record.freed_netns = freed.1;
                record.origin = origin;
                record.outer = outer;
                record.process = process;
                record.mark = mark;
                record.path_len = path.len() as u16;
                for (to, index) in record.path.iter_mut().zip(path) {
                    *to = device(index).0;
                }
                record
            },
        )
}

// --- what an expression means, in plain words ---------------------------------

fn holds(expr: &Expr, record: &Record) -> bool {
    match expr {
        Expr::And(left, right) => holds(left, record) && holds(right, record),
        Expr::Or(left, right) => holds(left, record) || holds(right, record),
        Expr::Not(inner) => !holds(inner, record),
        Expr::Test(test) => passes(test, record),
    }
}

fn path(record: &Record) -> impl Iterator<Item = (DeviceKey, Named)> {
    let path = &record.path[..record.path_len as usize];
    path.iter().map(|key| device(key.ifindex))
}

fn passes(test: &Test, record: &Record) -> bool {
    let process = &record.process;
    let in_process = process.flags & sender::PROCESS_CONTEXT != 0;
    match test {
        Test::Header(wanted) => headers(record)
            .into_iter()
            .any(|(which, flow)| wanted.headers & which != 0 && is_such(wanted, flow)),
        Test::Dev(name) => {
            [record.dev, record.freed_dev].contains(&name.0)
                || path(record).any(|(_, named)| named.name == name.0)
        }
        Test::Kind(kind) => {
            record.kind == kind.0 || path(record).any(|(_, named)| named.kind == kind.0)
        }
        Test::Netns(inode) => {
            [
                record.key.netns,
                record.key.sender_netns,
                record.freed_netns,
            ]
            .contains(inode)
                || path(record).any(|(key, _)| key.netns == *inode)
        }
        Test::Mark { value, mask } => record.mark & mask == *value,
        Test::Uid(uid) => process.flags & sender::USER_SOCKET != 0 && process.uid == *uid,
        Test::Pid(pid) => in_process && process.tgid == *pid,
        Test::Comm(comm) => in_process && process.comm == comm.0,
    }
}

fn headers(record: &Record) -> [(u32, &Flow); 3] {
    let key = &record.key;
    let lone = match key.outcome {
        outcome::UNRELATED => true,
        outcome::STRAY => key.seen & seen::INNER_DECODED == 0,
        _ => false,
    };
    let first = if lone { header::OUTER } else { header::INNER };
    [
        (first, &key.flow),
        (header::INNER, &record.origin),
        (header::OUTER, &record.outer),
    ]
}

fn is_such(wanted: &Header, flow: &Flow) -> bool {
    let (family, v4) = match flow.ethertype {
        ETH_P_IP => (family::IPV4, true),
        ETH_P_IPV6 => (family::IPV6, false),
        ETH_P_ARP => (family::ARP, true),
        _ => return false,
    };
    if wanted.layer.families & family == 0
        || wanted.layer.proto.is_some_and(|proto| proto != flow.proto)
    {
        return false;
    }
    fn at<T: PartialEq>(ends: Ends, src: T, dst: T, is: impl Fn(T) -> bool) -> bool {
        match ends {
            Ends::Either => is(src) || is(dst),
            Ends::Src => is(src),
            Ends::Dst => is(dst),
        }
    }
    match wanted.what {
        What::Protocol => true,
        What::Net {
            ends,
            address,
            length,
        } => {
            address.is_ipv4() == v4
                && at(ends, flow.src, flow.dst, |end| {
                    let bit = |bytes: &[u8; 16], n: usize| bytes[n / 8] >> (7 - n % 8) & 1;
                    let address = bytes(address);
                    (0..usize::from(length)).all(|n| bit(&end, n) == bit(&address, n))
                })
        }
        What::Ports { ends, low, high } => {
            [6, 17, 33, 132, 136].contains(&flow.proto)
                && at(ends, flow.sport, flow.dport, |port| {
                    (low..=high).contains(&port)
                })
        }
    }
}

fn runs(filter: &Filter, record: &Record) -> bool {
    let all: Vec<(DeviceKey, Named)> = (1..4).map(device).collect();
    let named = |key: &DeviceKey| {
        all.iter()
            .find(|(known, _)| known == key)
            .map(|(_, named)| named)
    };
    matches(filter, record, named, &mut 0)
}

proptest! {
    #[test]
    fn any_text_parses_or_fails(text in any::<String>()) {
        if let Err(error) = parse(&text, &Fixed) {
            prop_assert!(!error.to_string().contains(char::is_control));
            prop_assert_eq!(error.marked().lines().count(), 2);
        }
    }

    #[test]
    fn any_words_parse_or_fail(words in vec(select(&[
        "host", "net", "port", "portrange", "proto", "src", "dst", "ip", "ip6", "arp", "icmp",
        "tcp", "inner", "outer", "dev", "kind", "netns", "mark", "uid", "pid", "comm", "not",
        "and", "or", "(", ")", "!", "&&", "||", "\"", "\\", "10.0.0.1", "fe80::1", "10.0.0.0/8",
        "::/0", "53", "1-2", "0x1/0x3", "vxlan", "alice", "blue", "\"x y\"", "漢", "\u{1b}", "x",
    ][..]), 0..24)) {
        for between in ["", " "] {
            match parse(&words.join(between), &Fixed) {
                Err(error) => prop_assert_eq!(error.marked().lines().count(), 2),
                Ok(expr) => {
                    compile::compile(&expr);
                    prop_assert_eq!(parsed(&expr.to_string()), expr);
                }
            }
        }
    }

    #[test]
    fn what_is_printed_parses_to_the_same(expr in fitting()) {
        prop_assert_eq!(parsed(&expr.to_string()), expr);
    }

    #[test]
    fn the_program_does_what_the_expression_says(
        expr in fitting(),
        records in vec(record(), 1..16),
    ) {
        let filter = compile::compile(&expr);
        for record in &records {
            prop_assert_eq!(runs(&filter, record), holds(&expr, record), "{} {:?}", expr, record);
        }
    }

    #[test]
    fn any_program_runs(words in vec(any::<u32>(), size_of::<Filter>() / 4), record in record()) {
        let mut filter = Filter::NONE;
        // SAFETY: as many bytes as it has, and each pattern of them is a Filter.
        unsafe {
            std::ptr::copy_nonoverlapping(
                words.as_ptr().cast::<u8>(),
                (&raw mut filter).cast::<u8>(),
                size_of::<Filter>(),
            );
        }
        runs(&filter, &record);
    }
}
