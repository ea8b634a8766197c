use proptest::prelude::*;

use tracer_common::record::start;

use super::*;

fn record() -> Record {
    // SAFETY: integers and arrays of them.
    let mut record: Record = unsafe { std::mem::zeroed() };
    record.key.outcome = outcome::LOST_LATER;
    record.key.flow = Flow {
        ethertype: ETH_P_IPV6,
        proto: IPPROTO_ICMPV6,
        icmp_type: 128,
        ..Flow::default()
    };
    record.length = 104;
    record.outer = Flow {
        ethertype: ETH_P_IP,
        proto: IPPROTO_IPV6,
        ..Flow::default()
    };
    record.outer.src[..4].copy_from_slice(&[192, 0, 2, 1]);
    record.outer.dst[..4].copy_from_slice(&[192, 0, 2, 2]);
    record.outer_length = 124;
    record
}

fn rebuilt(record: &Record, device: Option<&Device>) -> Option<Packet> {
    let sample = Sample {
        record: *record,
        stack: Vec::new(),
        packet: None,
    };
    of(&sample, device)
}

#[test]
fn kept_bytes_are_the_packet() {
    let kept = |begin, bytes: &[u8]| {
        let sample = Sample {
            record: record(),
            stack: Vec::new(),
            packet: event::Packet::new(begin, 1400, bytes),
        };
        of(&sample, None).unwrap()
    };
    let packet = kept(start::NETWORK, &[0x45, 1, 2, 3]);
    assert_eq!((packet.length, packet.rebuilt), (1400, false));
    assert_eq!(packet.bytes, [0x45, 1, 2, 3]);
    assert_eq!(kept(start::ETHERNET, &[2; 14]).layer, Layer::Ethernet);
    let mut sample = Sample {
        record: record(),
        stack: Vec::new(),
        packet: event::Packet::new(start::NETWORK, 1400, &[0x49, 0x30, 1, 64]),
    };
    sample.record.outer = Flow::default();
    sample.record.key.flow.ethertype = ETH_P_MPLS_UC;
    assert_eq!(of(&sample, None), None);
    // Neither IP nor Ethernet: an ARP packet without its frame.
    assert!(kept(start::NETWORK, &[0, 1, 8, 0]).rebuilt);
}

#[test]
fn an_ipv4_header_has_its_checksum() {
    let packet = rebuilt(&record(), None).unwrap();
    // Over the header as it is, it comes to nothing.
    assert_eq!(checksum(&packet.bytes[..IPV4]), 0);
    assert_eq!((packet.bytes[0], packet.bytes[3]), (0x45, 124));
}

#[test]
fn the_inner_packet_follows_where_nothing_else_fits() {
    let packet = rebuilt(&record(), None).unwrap();
    assert_eq!((packet.length, packet.bytes.len()), (124, IPV4 + IPV6 + 1));
    assert_eq!(packet.bytes[IPV4], 0x60);
    assert_eq!(packet.bytes.last(), Some(&128));
    // Four bytes more: something is there that is not known.
    let mut other = record();
    other.outer_length = 128;
    assert_eq!(rebuilt(&other, None).unwrap().bytes.len(), IPV4);
}

#[test]
fn what_was_not_encapsulated_is_the_inner_packet() {
    let mut record = record();
    record.outer = Flow::default();
    let packet = rebuilt(&record, None).unwrap();
    assert_eq!((packet.outer, packet.length), (false, 104));
    assert_eq!(packet.bytes.len(), IPV6 + 1);
    record.key.flow.ethertype = tracer_common::flow::ETH_P_ARP;
    assert_eq!(rebuilt(&record, None), None);
}

#[test]
fn vxlan_and_gre_by_their_lengths() {
    let mut vxlan = record();
    vxlan.kind[..5].copy_from_slice(b"vxlan");
    vxlan.outer.proto = IPPROTO_UDP;
    vxlan.outer.dport = 4789;
    vxlan.outer_length = 104 + 50;
    assert_eq!(
        rebuilt(&vxlan, None).unwrap().bytes.len(),
        IPV4 + 4,
        "no VNI"
    );
    let device = Device {
        vni: Some(42),
        ..Device::default()
    };
    let bytes = rebuilt(&vxlan, Some(&device)).unwrap().bytes;
    assert_eq!(bytes[IPV4 + UDP..][..8], [8, 0, 0, 0, 0, 0, 42, 0]);
    assert_eq!(bytes[IPV4 + 4..][..2], (134_u16).to_be_bytes());

    let mut gre = record();
    gre.outer.proto = IPPROTO_GRE;
    gre.outer_length = 104 + 28;
    assert_eq!(
        rebuilt(&gre, None).unwrap().bytes.len(),
        IPV4,
        "which four?"
    );
    gre.key.seen = seen::NUMBERED;
    gre.number = 7;
    let bytes = rebuilt(&gre, None).unwrap().bytes;
    assert_eq!(bytes[IPV4..][..8], [0x20, 0, 0x86, 0xdd, 0, 0, 0, 7]);
}

proptest! {
    #[test]
    fn any_record(bytes in proptest::collection::vec(any::<u8>(), size_of::<Record>()), vni in any::<u32>()) {
        // SAFETY: enough bytes, each pattern of which is a Record.
        let record = unsafe { bytes.as_ptr().cast::<Record>().read_unaligned() };
        let device = Device { vni: Some(vni), encap: Some("fou".to_owned()), ..Device::default() };
        if let Some(packet) = rebuilt(&record, Some(&device)) {
            prop_assert!(packet.bytes.len() < 200);
        }
    }

    #[test]
    fn what_is_there_is_no_longer_than_the_packet(
        outer in 0_u32..3000, inner in 0_u32..3000, proto in any::<u8>(), six in any::<bool>(),
    ) {
        let mut record = record();
        (record.outer_length, record.length, record.outer.proto) = (outer, inner, proto);
        if six {
            record.outer.ethertype = ETH_P_IPV6;
        }
        let packet = rebuilt(&record, None).unwrap();
        prop_assert!(packet.bytes.len() <= packet.length as usize);
    }
}
