//! Packets for Wireshark, read by the real thing where it is there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Output, tool, tracer};

fn recording(name: &str) -> String {
    format!("{}/tests/recordings/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn export(directory: &Path, name: &str, options: &[&str]) -> (PathBuf, Output) {
    let out = directory.join(format!("{name}{}.pcapng", options.len()));
    let path = out.to_str().expect("our own path");
    let recording = recording(name);
    let own = ["report", "--pcapng", path, &recording];
    let output = Output::of(tracer(&[&own[..], options].concat()));
    (out, output)
}

/// What a tool of Wireshark's says of the file; it has to say it without a
/// complaint.
fn said(program: &str, arguments: &[&str], file: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .arg(file)
        .env("LC_ALL", "C")
        .output()
        .expect("it is there");
    assert!(output.status.success(), "{output:?}");
    let complaints = String::from_utf8_lossy(&output.stderr);
    let mut complaints = complaints.lines();
    // Of root it says so.
    assert_eq!(
        complaints.find(|line| !line.contains("Running as user")),
        None
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn wireshark_reads_the_packets() {
    if !tool("capinfos") || !tool("tshark") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (file, output) = export(directory.path(), "seed-5.10.rec", &[]);
    output.assert_code(1);
    assert!(output.stderr.contains("2 packets"), "{output:?}");
    let info = said("capinfos", &[], &file);
    for words in [
        "Number of packets:   2",
        "nanoseconds",
        "Linux 5.10.0-32-amd64",
        "Name = fou_test",
        "sit, fou, remote 127.0.0.1",
    ] {
        assert!(info.contains(words), "{words}: {info}");
    }
    let fields = |file: &Path, fields: &[&str]| {
        let fields = fields.iter().flat_map(|field| ["-e", field]);
        let all: Vec<&str> = ["-T", "fields"]
            .into_iter()
            .chain(fields)
            .chain(["-r"])
            .collect();
        said("tshark", &all, file)
    };
    let told = fields(
        &file,
        &[
            "frame.interface_name",
            "ipv6.dst",
            "icmpv6.type",
            "frame.comment",
        ],
    );
    assert_eq!(told.lines().count(), 2, "{told}");
    for line in told.lines() {
        let begin =
            "fou_test\tfe80::d0b0:dfff:fe4c:fcbc\t128\tdropped [route-type-not-accepted, proved]: ";
        assert!(line.starts_with(begin), "{line}");
        assert!(line.contains("freed in: sit_tunnel_xmit+0x180"), "{line}");
    }
    // What it dissects has nothing wrong with it but a comment and an end.
    let expert = fields(&file, &["_ws.expert.severity", "_ws.malformed"]);
    assert!(!expert.contains("Malformed"), "{expert}");

    // With what the tunnel put around it, by the reason's name, and filtered.
    let ip6 = ["--filter", "inner ip6"];
    let (file, _) = export(directory.path(), "seed-6.1.rec", &ip6);
    let told = fields(
        &file,
        &[
            "frame.interface_name",
            "ip.dst",
            "udp.dstport",
            "frame.len",
            "frame.comment",
        ],
    );
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.starts_with("lo\t127.0.0.1\t1111\t132\tsent, received, then lost"),
        "{told}"
    );
    assert!(told.contains("drop reason: NO_SOCKET"), "{told}");

    let short = ["--snaplen", "30"];
    let (file, _) = export(directory.path(), "seed-5.10.rec", &short);
    let told = fields(&file, &["frame.cap_len", "frame.len"]);
    assert_eq!(told, "30\t104\n30\t104\n");
}

#[test]
fn kept_packets_are_as_they_were() {
    if !tool("tshark") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (file, output) = export(directory.path(), "vxlan-6.12.rec", &[]);
    output.assert_code(1);
    let fields = [
        "frame.interface_name",
        "eth.dst",
        "ip.dst",
        "udp.dstport",
        "vxlan.vni",
        "icmp.checksum.status",
        "icmpv6.checksum.status",
        "frame.len",
        "frame.cap_len",
    ];
    let fields = fields.iter().flat_map(|field| ["-e", field]);
    let all: Vec<&str> = ["-T", "fields"]
        .into_iter()
        .chain(fields)
        .chain(["-r"])
        .collect();
    let told = said("tshark", &all, &file);
    let mut packets = told.lines().map(|line| line.split('\t'));
    // Outer and inner Ethernet; nothing was made up: the inner checksum (1: good)
    // is over the payload, which is there too.
    let mut next = || -> Vec<&str> { packets.next().expect("three packets").collect() };
    let [dev, macs, ips, port, vni, icmp, _, length, kept] = next()[..] else {
        panic!("{told}");
    };
    assert!(macs.ends_with(",02:00:00:00:00:02"), "{told}");
    assert_eq!([dev, ips, port], ["v0", "192.0.2.2,198.51.100.2", "4789"]);
    assert_eq!([vni, icmp, length, kept], ["42", "1", "132", "132"]);
    let [_, _, _, _, _, _, icmpv6, length, _] = next()[..] else {
        panic!("{told}");
    };
    assert_eq!([icmpv6, length], ["1", "152"]);
    // Dropped before anything was put around it.
    let [dev, mac, ip, port, _, icmp, _, length, _] = next()[..] else {
        panic!("{told}");
    };
    assert_eq!([dev, mac, ip], ["vx1", "02:00:00:00:00:03", "203.0.113.2"]);
    assert_eq!([port, icmp, length], ["", "1", "82"]);
}

#[test]
fn where_packets_may_be_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, output) = export(directory.path(), "seed-5.10.rec", &[]);
    output.assert_code(1);
    let first = fs::read(&file).expect("written");
    // What is there stays.
    let (_, output) = export(directory.path(), "seed-5.10.rec", &[]);
    output.assert_code(2);
    output.assert_says(&["--pcapng", "exists", "another file"]);
    assert_eq!(fs::read(&file).expect("there"), first);
    let recording = recording("seed-5.10.rec");
    for wrong in ["/no/such/x.pcapng", "/dev/null", "/dev"] {
        let output = Output::of(tracer(&["report", "--pcapng", wrong, &recording]));
        assert!(matches!(output.status.code(), Some(2 | 125)), "{output:?}");
        output.assert_says(&[wrong]);
        assert_eq!(output.stdout, "");
    }
    let output = Output::of(tracer(&["report", "--snaplen", "9", &recording]));
    output.assert_code(2);
}
