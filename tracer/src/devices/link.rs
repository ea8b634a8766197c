//! The devices of one network namespace, by a `RTM_GETLINK` dump.
//!
//! The messages are read attribute by attribute: the names in them can hold any
//! bytes, and one odd device must not hide the others.

use std::{net::IpAddr, ops::ControlFlow, os::fd::OwnedFd};

use thiserror::Error;

use tracer_common::flow::{
    ETH_P_IPV6, Flow, IPPROTO_GRE, IPPROTO_IPIP, IPPROTO_IPV6, IPPROTO_MPLS, IPPROTO_UDP,
};

use super::{
    attr::{self, attributes, host_u32},
    netns::{self, Netns, NetnsError},
    text::printable,
    wire::{self, Answer, Request, WireError},
};

/// How often a dump is started that changes of the devices interrupted.
const ATTEMPTS: u32 = 5;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// `struct ifinfomsg`.
const IFINFOMSG: usize = 16;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const RTM_NEWNETCONF: u16 = 80;
const RTM_GETNETCONF: u16 = 82;
/// `struct netconfmsg`, and what aligns it.
const NETCONFMSG: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
/// `NETCONFA_IFINDEX_ALL`.
const ALL: i32 = -1;
/// In `IFLA_AF_SPEC`, by family: settings as 32-bit words.
const AF_INET: u16 = 2;
const IFLA_INET_CONF: u16 = 1;
/// `IPV4_DEVCONF_FORWARDING`, which counts from 1.
const INET_FORWARDING: usize = 0;
const AF_INET6: u16 = 10;
const IFLA_INET6_CONF: u16 = 2;
/// `DEVCONF_FORWARDING`, `DEVCONF_DISABLE_IPV6`.
const INET6_FORWARDING: usize = 0;
const INET6_DISABLE: usize = 26;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 0x10000;

/// A network device, tunnel or not.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Device {
    /// Its index, unique in its network namespace.
    pub ifindex: u32,
    /// The inode of its network namespace.
    pub netns: u32,
    /// Its name, bytes as the kernel has them.
    pub name: Vec<u8>,
    /// Its alternative names.
    pub altnames: Vec<Vec<u8>>,
    /// Its kind, such as `gre`; empty when the kernel says none, as for
    /// hardware and for l2tp.
    pub kind: String,
    /// What its packets are wrapped in besides: `fou`, `gue`.
    pub encap: Option<String>,
    /// The source port of that, unless chosen for each flow.
    pub encap_sport: Option<u16>,
    /// The destination port of that.
    pub encap_dport: Option<u16>,
    /// The local tunnel address, unless any.
    pub local: Option<IpAddr>,
    /// The remote tunnel address, unless any.
    pub remote: Option<IpAddr>,
    /// What tells its packets from those of like tunnels (gre key, vni,
    /// if_id), as `ip -d link` writes it: `0.0.0.7`, `42`, `0x7`, or
    /// `ikey … okey …` when these differ.
    pub key: Option<String>,
    /// The network number of vxlan and geneve.
    pub vni: Option<u32>,
    /// The UDP port of vxlan, geneve and bareudp, and where WireGuard listens.
    pub port: Option<u16>,
    /// Its MTU.
    pub mtu: u32,
    /// The index of the device below, or the other end of a veth.
    pub link: Option<u32>,
    /// When that is in another network namespace: which, by the number that
    /// the device's own namespace has for it (`ip netns list-id`).
    pub link_netnsid: Option<i32>,
    /// Whether each packet brings its own tunnel addresses and key.
    pub external: bool,
    /// The TTL of its outer packets; 0 for that of the inner ones or the
    /// system's, depending on the kind.
    pub ttl: Option<u8>,
    /// The one protocol it carries (its mode), unless any.
    pub proto: Option<u8>,
    /// The mark its outer packets are routed by.
    pub fwmark: Option<u32>,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
    /// Whether it is set up and has a carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Whether what comes in by it is forwarded, by family; `None`: unknown.
    pub forwards4: Option<bool>,
    pub forwards6: Option<bool>,
    /// Whether it has no IPv6 (net.ipv6.conf.DEV.disable_ipv6).
    pub ipv6_disabled: Option<bool>,
    /// Its counters.
    pub counters: Counters,
}

impl Device {
    /// Its name as text that is safe on a terminal.
    pub fn display_name(&self) -> String {
        printable(&self.name)
    }

    /// Whether this is a name of it, or an alternative one.
    pub fn is_named(&self, name: &[u8]) -> bool {
        self.name == name || self.altnames.iter().any(|other| other == name)
    }

    /// Whether it takes packets like this outer one out of their
    /// encapsulation, as far as their protocol, family and port say.
    pub fn receives(&self, outer: &Flow) -> bool {
        let ipv6 = outer.ethertype == ETH_P_IPV6;
        match outer.proto {
            IPPROTO_UDP => {
                matches!(
                    self.kind.as_str(),
                    "vxlan" | "geneve" | "bareudp" | "wireguard"
                ) && self.port == Some(outer.dport)
            }
            IPPROTO_GRE if ipv6 => {
                matches!(self.kind.as_str(), "ip6gre" | "ip6gretap" | "ip6erspan")
            }
            IPPROTO_GRE => matches!(self.kind.as_str(), "gre" | "gretap" | "erspan"),
            IPPROTO_IPIP | IPPROTO_IPV6 | IPPROTO_MPLS if ipv6 => self.kind == "ip6tnl",
            IPPROTO_IPIP => matches!(self.kind.as_str(), "ipip" | "sit"),
            IPPROTO_IPV6 => self.kind == "sit",
            IPPROTO_MPLS => matches!(self.kind.as_str(), "ipip" | "sit"),
            _ => false,
        }
    }

    /// Whether it is of a kind that puts packets into other packets.
    pub fn is_tunnel(&self) -> bool {
        attr::is_tunnel(&self.kind)
    }

    /// Whether it is of a kind that certainly does not: what is of no kind, or of
    /// one that nobody here has heard of, may.
    pub fn is_no_tunnel(&self) -> bool {
        NO_TUNNELS.contains(&self.kind.as_str())
    }
}

/// Kinds of device without tunnels among them; those without a kind are hardware
/// and the loopback device.
const NO_TUNNELS: &[&str] = &[
    "",
    "bond",
    "bridge",
    "can",
    "dummy",
    "ifb",
    "ipvlan",
    "ipvtap",
    "macsec",
    "macvlan",
    "macvtap",
    "netdevsim",
    "netkit",
    "nlmon",
    "team",
    "tun",
    "vcan",
    "veth",
    "virt_wifi",
    "vlan",
    "vrf",
    "vxcan",
    "wwan",
];

/// The counters, and where each is in `struct rtnl_link_stats64`.
macro_rules! counters {
    ($($name:ident: $position:literal, $what:literal;)*) => {
        /// The counters of a device (`IFLA_STATS64`), with the kernel's names.
        #[derive(
            Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize,
        )]
        #[serde(default)]
        pub struct Counters {
            $(#[doc = $what] pub $name: u64,)*
        }

        impl Counters {
            /// Reads what is there; an older kernel has fewer of them.
            fn parse(bytes: &[u8]) -> Self {
                let (slots, _) = bytes.as_chunks::<8>();
                let at = |position: usize| {
                    slots.get(position).map_or(0, |slot| u64::from_ne_bytes(*slot))
                };
                Self { $($name: at($position),)* }
            }

            /// All of them, by name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    rx_packets: 0, "Packets received.";
    tx_packets: 1, "Packets sent.";
    rx_errors: 4, "Packets received with an error.";
    tx_errors: 5, "Packets that could not be sent.";
    rx_dropped: 6, "Packets received but not processed.";
    tx_dropped: 7, "Packets dropped on their way out.";
    collisions: 9, "Collisions; for tunnels, routes that lead back into the tunnel.";
    rx_length_errors: 10, "Packets received of a wrong length.";
    rx_over_errors: 11, "Receiver overflows; for gre, wrong sequence numbers.";
    rx_crc_errors: 12, "Packets received with a wrong checksum.";
    rx_frame_errors: 13, "Packets received with a wrong frame; for tunnels, wrong ECN bits.";
    rx_fifo_errors: 14, "Receiver queue overflows.";
    rx_missed_errors: 15, "Packets the host missed.";
    tx_aborted_errors: 16, "Sending given up; for tunnels, for instance too long a packet.";
    tx_carrier_errors: 17, "No carrier; for tunnels, no route to the other end.";
    tx_fifo_errors: 18, "Sender queue overflows.";
    tx_heartbeat_errors: 19, "Heartbeat errors.";
    tx_window_errors: 20, "Late collisions.";
}

impl Counters {
    /// By how much each counter moved since `earlier`, of those that did. One
    /// that went back (the device is another one by now) has not moved.
    pub fn delta(&self, earlier: &Self) -> Vec<(&'static str, u64)> {
        let pairs = self.iter().zip(earlier.iter());
        let moved = pairs.map(|((name, now), (_, before))| (name, now.saturating_sub(before)));
        moved.filter(|(_, by)| *by > 0).collect()
    }
}

/// Why the devices of a network namespace could not be read.
#[derive(Debug, Error)]
pub enum LinkError {
    /// Not even entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Entered, and not answered.
    #[error("the kernel did not list the devices: {0}")]
    Wire(#[from] WireError),
}

/// The devices that were read, and what is missing.
#[derive(Debug, Default)]
pub struct Dump {
    pub devices: Vec<Device>,
    pub problems: Vec<String>,
}

/// All devices of the network namespace, tunnel or not; what is missing is in
/// [`Dump::problems`].
pub fn dump(netns: &Netns) -> Result<Dump, LinkError> {
    // The socket stays in the namespace of the thread that made it.
    let socket = netns::with(netns, || wire::open(wire::ROUTE))??;
    let request = Request {
        kind: RTM_GETLINK,
        dump: true,
        body: &[0; IFINFOMSG],
    };
    let mut attempt = 1;
    loop {
        let mut links = Vec::new();
        let answer = wire::ask(&socket, request, attempt, &mut |kind, link| {
            if kind == RTM_NEWLINK {
                links.push(link.to_vec());
            }
            ControlFlow::Continue(())
        })?;
        if !answer.interrupted || attempt >= ATTEMPTS {
            let mut dump = digest(netns.inode, &links, &answer);
            if let Some(forwards) = forwards_ipv6(&socket, attempt + 1) {
                for device in &mut dump.devices {
                    device.forwards6 = device.forwards6.and(Some(forwards));
                }
            }
            return Ok(dump);
        }
        attempt += 1;
    }
}

/// Does the namespace forward IPv6? `ip6_forward` (net/ipv6/ip6_output.c) asks the
/// setting of `all`, not that of a device.
fn forwards_ipv6(socket: &OwnedFd, sequence: u32) -> Option<bool> {
    let request = Request {
        kind: RTM_GETNETCONF,
        dump: false,
        body: &about_all(),
    };
    let mut forwards = None;
    let answer = wire::ask(socket, request, sequence, &mut |kind, message| {
        if kind == RTM_NEWNETCONF {
            forwards = forwarding(message);
        }
        ControlFlow::Continue(())
    });
    // An old kernel need not know the question.
    answer.ok().and(forwards)
}

/// The question for the IPv6 settings of `all`.
fn about_all() -> [u8; NETCONFMSG + 8] {
    let mut body = [0; NETCONFMSG + 8];
    body[0] = AF_INET6 as u8;
    body[NETCONFMSG..][..2].copy_from_slice(&8_u16.to_ne_bytes());
    body[NETCONFMSG + 2..][..2].copy_from_slice(&NETCONFA_IFINDEX.to_ne_bytes());
    body[NETCONFMSG + 4..].copy_from_slice(&ALL.to_ne_bytes());
    body
}

/// Reads the payload of a `RTM_NEWNETCONF` message.
fn forwarding(message: &[u8]) -> Option<bool> {
    let mut settings = attributes(message.get(NETCONFMSG..)?);
    let (_, value) = settings.find(|(kind, _)| *kind == NETCONFA_FORWARDING)?;
    Some(host_u32(value)? != 0)
}

/// Reads the payloads of the `RTM_NEWLINK` messages.
fn digest(netns: u32, links: &[Vec<u8>], answer: &Answer) -> Dump {
    let mut dump = Dump::default();
    let mut malformed = answer.malformed;
    for message in links {
        match parse(netns, message) {
            Some(device) => dump.devices.push(device),
            None => malformed += 1,
        }
    }
    if malformed > 0 {
        dump.problems.push(format!(
            "{malformed} malformed netlink messages were left out"
        ));
    }
    if answer.interrupted {
        dump.problems.push(format!(
            "the devices kept changing while they were listed ({ATTEMPTS} attempts): \
             some may be missing"
        ));
    }
    dump
}

/// Reads the payload of a `RTM_NEWLINK` message.
fn parse(netns: u32, message: &[u8]) -> Option<Device> {
    // struct ifinfomsg: family, type, index, flags, change.
    let (header, rest) = message.split_at_checked(IFINFOMSG)?;
    let ifindex = host_u32(header.get(4..)?)?;
    let flags = host_u32(header.get(8..)?)?;
    if ifindex == 0 || i32::try_from(ifindex).is_err() {
        return None;
    }
    let mut device = Device {
        ifindex,
        netns,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        ..Device::default()
    };
    let mut info: &[u8] = &[];
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_IFNAME => device.name = string(value).to_vec(),
            IFLA_MTU => device.mtu = host_u32(value).unwrap_or(0),
            IFLA_LINK => device.link = host_u32(value).filter(|link| *link != 0),
            IFLA_LINKINFO => info = value,
            IFLA_STATS64 => device.counters = Counters::parse(value),
            IFLA_AF_SPEC => settings(&mut device, value),
            IFLA_LINK_NETNSID => {
                device.link_netnsid = value.first_chunk().copied().map(i32::from_ne_bytes);
            }
            IFLA_PROP_LIST => {
                let names = attributes(value).filter(|(kind, _)| *kind == IFLA_ALT_IFNAME);
                device.altnames = names.map(|(_, name)| string(name).to_vec()).collect();
            }
            _ => {}
        }
    }
    let mut data: &[u8] = &[];
    for (kind, value) in attributes(info) {
        match kind {
            IFLA_INFO_KIND => device.kind = String::from_utf8_lossy(string(value)).into_owned(),
            IFLA_INFO_DATA => data = value,
            _ => {}
        }
    }
    let tunnel = attr::tunnel(&device.kind, data);
    Some(Device {
        encap: tunnel.encap,
        encap_sport: tunnel.encap_sport,
        encap_dport: tunnel.encap_dport,
        local: tunnel.local,
        remote: tunnel.remote,
        key: tunnel.key,
        vni: tunnel.vni,
        port: tunnel.port,
        link: tunnel.link.or(device.link),
        external: tunnel.external,
        ttl: tunnel.ttl,
        proto: tunnel.proto,
        fwmark: tunnel.fwmark,
        ..device
    })
}

/// Reads the families' own settings.
fn settings(device: &mut Device, families: &[u8]) {
    let setting = |conf: &[u8], n: usize| {
        let word = conf.get(4 * n..).and_then(host_u32);
        word.map(|value| value != 0)
    };
    for (family, value) in attributes(families) {
        for (kind, conf) in attributes(value) {
            match (family, kind) {
                (AF_INET, IFLA_INET_CONF) => device.forwards4 = setting(conf, INET_FORWARDING),
                (AF_INET6, IFLA_INET6_CONF) => {
                    device.forwards6 = setting(conf, INET6_FORWARDING);
                    device.ipv6_disabled = setting(conf, INET6_DISABLE);
                }
                _ => {}
            }
        }
    }
}

/// The bytes up to the first 0.
pub(super) fn string(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{super::attr::tests::nla, *};
    use proptest::prelude::*;

    fn message(ifindex: i32, flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let header = [[0; 4], ifindex.to_ne_bytes(), flags.to_ne_bytes(), [0; 4]];
        [header.concat(), attributes.concat()].concat()
    }

    #[test]
    fn reads_a_device() {
        let data = nla(2, &[10, 0, 0, 1]);
        let stats: Vec<u8> = (100_u64..125).flat_map(u64::to_ne_bytes).collect();
        let alternatives = [
            nla(IFLA_ALT_IFNAME, b"other\0"),
            nla(IFLA_ALT_IFNAME, b"x\0"),
        ];
        let message = message(
            9,
            IFF_UP | IFF_LOWER_UP | 0x10,
            &[
                nla(IFLA_IFNAME, b"sit1\0"),
                nla(IFLA_MTU, &1480_u32.to_ne_bytes()),
                nla(IFLA_LINK, &2_u32.to_ne_bytes()),
                nla(IFLA_LINK_NETNSID, &0_i32.to_ne_bytes()),
                nla(IFLA_STATS64, &stats),
                nla(IFLA_PROP_LIST | 0x8000, &alternatives.concat()),
                nla(
                    IFLA_AF_SPEC,
                    &[
                        nla(AF_INET, &nla(IFLA_INET_CONF, &[1, 0, 0, 0])),
                        nla(AF_INET6, &nla(IFLA_INET6_CONF, &[0; 27 * 4])),
                    ]
                    .concat(),
                ),
                // Whatever the order.
                nla(
                    IFLA_LINKINFO,
                    &[nla(IFLA_INFO_DATA, &data), nla(IFLA_INFO_KIND, b"sit\0")].concat(),
                ),
            ],
        );
        let device = parse(77, &message).unwrap();
        let expected = Device {
            ifindex: 9,
            netns: 77,
            name: b"sit1".to_vec(),
            altnames: vec![b"other".to_vec(), b"x".to_vec()],
            kind: "sit".to_owned(),
            local: Some("10.0.0.1".parse().unwrap()),
            mtu: 1480,
            link: Some(2),
            link_netnsid: Some(0),
            up: true,
            carrier: true,
            forwards4: Some(true),
            forwards6: Some(false),
            ipv6_disabled: Some(false),
            counters: device.counters,
            ..Device::default()
        };
        assert_eq!(device, expected);
        assert!(device.is_named(b"sit1") && device.is_named(b"x") && device.is_tunnel());
        assert_eq!(device.counters.rx_packets, 100);
        assert_eq!(device.counters.collisions, 109);
        assert_eq!(device.counters.tx_carrier_errors, 117);
        assert_eq!(device.counters.tx_window_errors, 120);
    }

    #[test]
    fn what_is_asked_of_all() {
        let question = about_all();
        assert_eq!(question[..NETCONFMSG], [10, 0, 0, 0]);
        assert_eq!(
            question[NETCONFMSG..],
            nla(NETCONFA_IFINDEX, &ALL.to_ne_bytes())
        );
        let answer = |value: u32| {
            let forwarding = nla(NETCONFA_FORWARDING, &value.to_ne_bytes());
            [&question[..], &forwarding].concat()
        };
        assert_eq!(forwarding(&answer(1)), Some(true));
        assert_eq!(forwarding(&answer(0)), Some(false));
        assert_eq!(forwarding(&question), None);
    }

    #[test]
    fn the_own_namespace_answers() {
        let socket = wire::open(wire::ROUTE).unwrap();
        let said = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding");
        let said = said.ok().map(|said| said.trim() != "0");
        assert_eq!(forwards_ipv6(&socket, 1), said);
    }

    #[test]
    fn names_are_bytes() {
        let name = b"\xff\x1b[31m\\ \"x";
        let device = parse(1, &message(1, 0, &[nla(IFLA_IFNAME, name)])).unwrap();
        assert_eq!(device.name, name);
        assert_eq!(device.display_name(), "\\xff\\x1b[31m\\ \"x");
        assert!(!device.up && !device.carrier && device.kind.is_empty() && !device.is_tunnel());
    }

    #[test]
    fn malformed_messages_are_counted() {
        let links = [
            message(1, 0, &[]),
            vec![0; 15],
            message(0, 0, &[]),
            message(-1, 0, &[]),
        ];
        let answer = Answer {
            malformed: 1,
            ..Answer::default()
        };
        let dump = digest(1, &links, &answer);
        assert_eq!(dump.devices.len(), 1);
        assert_eq!(
            dump.problems,
            ["4 malformed netlink messages were left out"]
        );
    }

    #[test]
    fn deltas() {
        let earlier = Counters {
            rx_packets: 5,
            tx_errors: 9,
            ..Counters::default()
        };
        let later = Counters {
            rx_packets: 7,
            tx_errors: 1,
            tx_carrier_errors: 3,
            ..Counters::default()
        };
        assert_eq!(
            later.delta(&earlier),
            [("rx_packets", 2), ("tx_carrier_errors", 3)]
        );
        assert!(later.delta(&later).is_empty());
        // An older kernel has fewer, and a cut one does not count.
        let few = Counters::parse(&[1; 15]);
        assert_eq!((few.rx_packets, few.tx_packets), (0x0101_0101_0101_0101, 0));
    }

    proptest! {
        #[test]
        fn any_message_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            parse(1, &bytes);
        }

        #[test]
        fn any_attributes_are_survived(
            values in prop::collection::vec(
                (0_u16..60, prop::collection::vec(any::<u8>(), 0..40)),
                0..10,
            ),
            name in prop::collection::vec(1_u8.., 0..15),
        ) {
            let mut attributes: Vec<_> =
                values.iter().map(|(kind, value)| nla(*kind, value)).collect();
            attributes.push(nla(IFLA_IFNAME, &name));
            let device = parse(1, &message(1, 0, &attributes)).unwrap();
            prop_assert_eq!(&device.name, &name);
            prop_assert!(device.display_name().chars().all(|char| !char.is_control()));
        }
    }
}
