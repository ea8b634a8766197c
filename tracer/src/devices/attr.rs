//! What the netlink attributes of each kind of tunnel device mean.
//!
//! A kind of device is one line in [`KINDS`]; kinds that share their attributes
//! share a table. The numbers are those of `linux/if_tunnel.h` and
//! `linux/if_link.h`.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLA_HEADER_SIZE, NlasIterator};

/// What an attribute of `IFLA_INFO_DATA` tells about the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Link,
    Local,
    Remote,
    Ttl,
    Proto,
    EncapType,
    EncapSport,
    EncapDport,
    External,
    Fwmark,
    GreIflags,
    GreOflags,
    GreIkey,
    GreOkey,
    VtiIkey,
    VtiOkey,
    IfId,
    Vni,
    Port,
}

/// The attributes of a family of kinds, by their numbers.
type Family = &'static [(u16, Field)];

/// `IFLA_IPTUN_*`.
const IPTUN: Family = &[
    (1, Field::Link),
    (2, Field::Local),
    (3, Field::Remote),
    (4, Field::Ttl),
    (9, Field::Proto),
    (15, Field::EncapType),
    (17, Field::EncapSport),
    (18, Field::EncapDport),
    (19, Field::External),
    (20, Field::Fwmark),
];

/// `IFLA_GRE_*`.
const GRE: Family = &[
    (1, Field::Link),
    (2, Field::GreIflags),
    (3, Field::GreOflags),
    (4, Field::GreIkey),
    (5, Field::GreOkey),
    (6, Field::Local),
    (7, Field::Remote),
    (8, Field::Ttl),
    (14, Field::EncapType),
    (16, Field::EncapSport),
    (17, Field::EncapDport),
    (18, Field::External),
    (20, Field::Fwmark),
];

/// `IFLA_VTI_*`.
const VTI: Family = &[
    (1, Field::Link),
    (2, Field::VtiIkey),
    (3, Field::VtiOkey),
    (4, Field::Local),
    (5, Field::Remote),
    (6, Field::Fwmark),
];

/// `IFLA_XFRM_*`.
const XFRM: Family = &[(1, Field::Link), (2, Field::IfId), (3, Field::External)];

/// `IFLA_VXLAN_*`.
const VXLAN: Family = &[
    (1, Field::Vni),
    (2, Field::Remote),
    (3, Field::Link),
    (4, Field::Local),
    (5, Field::Ttl),
    (15, Field::Port),
    (16, Field::Remote),
    (17, Field::Local),
    (25, Field::External),
];

/// `IFLA_GENEVE_*`.
const GENEVE: Family = &[
    (1, Field::Vni),
    (2, Field::Remote),
    (3, Field::Ttl),
    (5, Field::Port),
    (6, Field::External),
    (7, Field::Remote),
];

/// `IFLA_BAREUDP_*`.
const BAREUDP: Family = &[(1, Field::Port)];

/// `IFLA_GTP_*`: the addresses are those of its contexts, in generic netlink.
const GTP: Family = &[(7, Field::Local), (8, Field::Local)];

/// Nothing about the tunnel over this protocol: it is in generic netlink.
const ELSEWHERE: Family = &[];

/// The kinds of tunnel devices (`IFLA_INFO_KIND`).
const KINDS: &[(&str, Family)] = &[
    ("sit", IPTUN),
    ("ipip", IPTUN),
    ("ip6tnl", IPTUN),
    ("gre", GRE),
    ("gretap", GRE),
    ("erspan", GRE),
    ("ip6gre", GRE),
    ("ip6gretap", GRE),
    ("ip6erspan", GRE),
    ("vti", VTI),
    ("vti6", VTI),
    ("xfrm", XFRM),
    ("vxlan", VXLAN),
    ("geneve", GENEVE),
    ("bareudp", BAREUDP),
    ("gtp", GTP),
    ("wireguard", ELSEWHERE),
    ("l2tp", ELSEWHERE),
    ("ovpn", ELSEWHERE),
    ("amt", ELSEWHERE),
];

/// `GRE_KEY`: the key is there, even when it is 0.
const GRE_KEY: u16 = 0x2000;

/// What the attributes of a tunnel device say.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Tunnel {
    pub link: Option<u32>,
    pub local: Option<IpAddr>,
    pub remote: Option<IpAddr>,
    pub ttl: Option<u8>,
    pub proto: Option<u8>,
    pub encap: Option<String>,
    pub encap_sport: Option<u16>,
    pub encap_dport: Option<u16>,
    pub external: bool,
    pub fwmark: Option<u32>,
    pub key: Option<String>,
    pub vni: Option<u32>,
    pub port: Option<u16>,
}

fn family(kind: &str) -> Option<Family> {
    let known = KINDS.iter().find(|(name, _)| *name == kind);
    known.map(|(_, family)| *family)
}

/// Whether devices of this kind are tunnels.
pub(super) fn is_tunnel(kind: &str) -> bool {
    family(kind).is_some()
}

/// The well-formed attributes at the start of `bytes`.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        let value = attribute.into_inner().get(NLA_HEADER_SIZE..length)?;
        Some((kind, value))
    })
}

/// Reads `IFLA_INFO_DATA` of a device of this kind. Attributes that are too
/// short are as if they were not there.
pub(super) fn tunnel(kind: &str, data: &[u8]) -> Tunnel {
    let mut tunnel = Tunnel::default();
    let Some(family) = family(kind) else {
        return tunnel;
    };
    let (mut iflags, mut oflags) = (0, 0);
    let (mut ikey, mut okey) = (None, None);
    for (number, value) in attributes(data) {
        let Some((_, field)) = family.iter().find(|(known, _)| *known == number) else {
            continue;
        };
        // The last one counts, as in the kernel, but a missing or zero address
        // of the other protocol does not undo one.
        match field {
            Field::Link => tunnel.link = host_u32(value).filter(|link| *link != 0),
            Field::Local => tunnel.local = address(value).or(tunnel.local),
            Field::Remote => tunnel.remote = address(value).or(tunnel.remote),
            Field::Ttl => tunnel.ttl = value.first().copied(),
            Field::Proto => tunnel.proto = value.first().copied().filter(|proto| *proto != 0),
            Field::EncapType => tunnel.encap = host_u16(value).and_then(encap),
            Field::EncapSport => tunnel.encap_sport = be_u16(value).filter(|port| *port != 0),
            Field::EncapDport => tunnel.encap_dport = be_u16(value).filter(|port| *port != 0),
            // A flag without a value, or a byte for vxlan.
            Field::External => tunnel.external = value.first().is_none_or(|byte| *byte != 0),
            Field::Fwmark => tunnel.fwmark = host_u32(value).filter(|mark| *mark != 0),
            Field::GreIflags => iflags = be_u16(value).unwrap_or(0),
            Field::GreOflags => oflags = be_u16(value).unwrap_or(0),
            Field::GreIkey => ikey = be_u32(value).map(dotted),
            Field::GreOkey => okey = be_u32(value).map(dotted),
            Field::VtiIkey => ikey = be_u32(value).filter(|key| *key != 0).map(hex),
            Field::VtiOkey => okey = be_u32(value).filter(|key| *key != 0).map(hex),
            Field::IfId => tunnel.key = host_u32(value).map(hex),
            Field::Vni => tunnel.vni = host_u32(value),
            Field::Port => tunnel.port = be_u16(value),
        }
    }
    if family.iter().any(|(_, field)| *field == Field::GreIflags) {
        ikey = ikey.filter(|_| iflags & GRE_KEY != 0);
        okey = okey.filter(|_| oflags & GRE_KEY != 0);
    }
    if tunnel.encap.is_none() {
        tunnel.encap_sport = None;
        tunnel.encap_dport = None;
    }
    if tunnel.external {
        // Each packet brings its own: the 0 there is none.
        tunnel.vni = tunnel.vni.filter(|vni| *vni != 0);
        tunnel.key = tunnel.key.filter(|key| key != "0x0");
    }
    let vni = tunnel.vni.map(|vni| vni.to_string());
    tunnel.key = tunnel.key.or(vni).or(keys(ikey, okey));
    tunnel
}

fn keys(ikey: Option<String>, okey: Option<String>) -> Option<String> {
    match (ikey, okey) {
        (None, None) => None,
        (Some(ikey), None) => Some(format!("ikey {ikey}")),
        (None, Some(okey)) => Some(format!("okey {okey}")),
        (Some(ikey), Some(okey)) if ikey == okey => Some(ikey),
        (Some(ikey), Some(okey)) => Some(format!("ikey {ikey} okey {okey}")),
    }
}

fn encap(number: u16) -> Option<String> {
    match number {
        0 => None,
        1 => Some("fou".to_owned()),
        2 => Some("gue".to_owned()),
        3 => Some("mpls".to_owned()),
        other => Some(format!("encap-{other}")),
    }
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let address = match value.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
        _ => return None,
    };
    (!address.is_unspecified()).then_some(address)
}

/// As ip-link(8) shows the keys of gre.
fn dotted(key: u32) -> String {
    Ipv4Addr::from(key).to_string()
}

/// As ip-link(8) shows the keys of vti and the if_id of xfrm.
fn hex(key: u32) -> String {
    format!("{key:#x}")
}

/// The same in network byte order.
pub fn be_u16(value: &[u8]) -> Option<u16> {
    value.first_chunk().copied().map(u16::from_be_bytes)
}

fn be_u32(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_be_bytes)
}

/// The 16 bits at the start of the value.
pub fn host_u16(value: &[u8]) -> Option<u16> {
    value.first_chunk().copied().map(u16::from_ne_bytes)
}

/// The 32 bits at the start of the value.
pub fn host_u32(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One attribute, padded.
    pub fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn sit_in_fou() {
        let data = [
            nla(1, &7_u32.to_ne_bytes()),
            nla(2, &[10, 0, 0, 1]),
            nla(3, &[10, 0, 0, 2]),
            nla(4, &[64]),
            nla(15, &1_u16.to_ne_bytes()),
            nla(17, &0_u16.to_be_bytes()),
            nla(18, &5555_u16.to_be_bytes()),
            nla(20, &0x2a_u32.to_ne_bytes()),
            nla(999, &[1, 2, 3]),
        ]
        .concat();
        let expected = Tunnel {
            link: Some(7),
            local: ip("10.0.0.1"),
            remote: ip("10.0.0.2"),
            ttl: Some(64),
            encap: Some("fou".to_owned()),
            encap_dport: Some(5555),
            fwmark: Some(42),
            ..Tunnel::default()
        };
        assert_eq!(tunnel("sit", &data), expected);
        assert_eq!(tunnel("ipip", &data), expected);
        assert_eq!(tunnel("veth", &data), Tunnel::default());
    }

    #[test]
    fn zeros_are_nothing() {
        let data = [
            nla(1, &[0; 4]),
            nla(2, &[0; 16]),
            nla(3, &[0; 16]),
            nla(15, &[0; 2]),
            nla(17, &[1; 2]),
            nla(18, &[1; 2]),
            nla(20, &[0; 4]),
        ]
        .concat();
        assert_eq!(tunnel("ip6tnl", &data), Tunnel::default());
    }

    #[test]
    fn gre_keys_only_with_their_flags() {
        let gre = |iflags: u16, oflags: u16, ikey: u32, okey: u32| {
            let data = [
                nla(2, &iflags.to_be_bytes()),
                nla(3, &oflags.to_be_bytes()),
                nla(4, &ikey.to_be_bytes()),
                nla(5, &okey.to_be_bytes()),
                nla(18, &[]),
            ]
            .concat();
            let tunnel = tunnel("ip6gretap", &data);
            assert!(tunnel.external);
            tunnel.key
        };
        assert_eq!(gre(0, 0, 1, 1), None);
        assert_eq!(gre(GRE_KEY, GRE_KEY, 0, 0).unwrap(), "0.0.0.0");
        assert_eq!(gre(GRE_KEY, GRE_KEY, 256, 256).unwrap(), "0.0.1.0");
        assert_eq!(
            gre(GRE_KEY, GRE_KEY, 1, 2).unwrap(),
            "ikey 0.0.0.1 okey 0.0.0.2"
        );
        assert_eq!(gre(GRE_KEY, 0, 1, 2).unwrap(), "ikey 0.0.0.1");
        assert_eq!(gre(0, GRE_KEY, 1, 2).unwrap(), "okey 0.0.0.2");
    }

    #[test]
    fn vti_and_xfrm_keys() {
        let key = 0x2a_u32.to_be_bytes();
        let data = [nla(2, &key), nla(3, &key), nla(6, &9_u32.to_ne_bytes())].concat();
        let vti = tunnel("vti", &data);
        assert_eq!((vti.key.unwrap().as_str(), vti.fwmark), ("0x2a", Some(9)));
        assert_eq!(tunnel("vti6", &nla(2, &[0; 4])).key, None);
        let data = [nla(1, &3_u32.to_ne_bytes()), nla(2, &7_u32.to_ne_bytes())].concat();
        let xfrm = tunnel("xfrm", &data);
        assert_eq!((xfrm.key.unwrap().as_str(), xfrm.link), ("0x7", Some(3)));
    }

    #[test]
    fn vxlan_geneve_and_bareudp() {
        let v6: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
        let data = [
            nla(1, &42_u32.to_ne_bytes()),
            nla(16, &v6.octets()),
            nla(15, &4789_u16.to_be_bytes()),
            nla(25, &[0]),
        ]
        .concat();
        let vxlan = tunnel("vxlan", &data);
        assert_eq!(vxlan.vni, Some(42));
        assert_eq!(vxlan.key.as_deref(), Some("42"));
        assert_eq!(vxlan.remote, ip("2001:db8::1"));
        assert_eq!(vxlan.port, Some(4789));
        assert!(!vxlan.external);

        let data = [nla(1, &[0; 4]), nla(25, &[1])].concat();
        let external = tunnel("vxlan", &data);
        assert!(external.external);
        assert_eq!((external.vni, external.key), (None, None));
        // Without it, 0 is a network like any other.
        assert_eq!(tunnel("vxlan", &nla(1, &[0; 4])).vni, Some(0));

        let data = [nla(2, &[192, 0, 2, 1]), nla(5, &[0x17, 0xc1])].concat();
        let geneve = tunnel("geneve", &data);
        assert_eq!((geneve.remote, geneve.port), (ip("192.0.2.1"), Some(6081)));
        assert_eq!(tunnel("bareudp", &nla(1, &[0x19, 0xeb])).port, Some(6635));
    }

    #[test]
    fn short_values_are_left_out() {
        for (kind, family) in KINDS {
            for (number, field) in *family {
                let tunnel = tunnel(kind, &nla(*number, &[]));
                let expected = Tunnel {
                    external: *field == Field::External,
                    ..Tunnel::default()
                };
                assert_eq!(tunnel, expected, "{kind} {number}");
            }
        }
    }

    #[test]
    fn kinds_and_numbers_are_unique() {
        for (index, (kind, family)) in KINDS.iter().enumerate() {
            assert!(KINDS.iter().skip(index + 1).all(|(other, _)| other != kind));
            assert!(family.is_sorted_by(|a, b| a.0 < b.0), "{kind}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            which in 0..KINDS.len(),
            bytes in prop::collection::vec(any::<u8>(), 0..256),
        ) {
            tunnel(KINDS[which].0, &bytes);
        }

        #[test]
        fn any_attributes_are_survived(
            which in 0..KINDS.len(),
            data in prop::collection::vec(
                (0_u16..40, prop::collection::vec(any::<u8>(), 0..20)),
                0..20,
            ),
            cut in 0_usize..8,
        ) {
            let bytes = data.iter().flat_map(|(kind, value)| nla(*kind, value));
            let mut bytes: Vec<u8> = bytes.collect();
            bytes.truncate(bytes.len().saturating_sub(cut));
            tunnel(KINDS[which].0, &bytes);
        }
    }
}
