//! UDP ports that no device tells: where fou, gue and l2tp listen, and each WireGuard
//! device. By generic netlink.

use std::{ops::ControlFlow, os::fd::OwnedFd};

use rustix::io::Errno;
use tracer_common::{
    config::payload,
    flow::{IPPROTO_GRE, IPPROTO_IPIP, IPPROTO_IPV6},
};

use super::{
    attr::{attributes, be_u16, host_u16},
    link::{Device, LinkError, string},
    netns::{self, Netns},
    wire::{self, Request, WireError},
};

/// The family that knows the others (include/uapi/linux/genetlink.h).
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// `struct genlmsghdr`.
const HEADER: usize = 4;

/// include/uapi/linux/fou.h
const FOU_CMD_GET: u8 = 3;
const FOU_ATTR_PORT: u16 = 1;
const FOU_ATTR_IPPROTO: u16 = 3;
const FOU_ATTR_TYPE: u16 = 4;
const FOU_ENCAP_DIRECT: u8 = 1;
const FOU_ENCAP_GUE: u8 = 2;

/// include/uapi/linux/l2tp.h
const L2TP_CMD_TUNNEL_GET: u8 = 4;
const L2TP_ATTR_UDP_SPORT: u16 = 26;

/// include/uapi/linux/wireguard.h
const WG_CMD_GET_DEVICE: u8 = 0;
const WGDEVICE_A_IFINDEX: u16 = 1;
const WGDEVICE_A_LISTEN_PORT: u16 = 6;

/// Their numbers on this kernel, of those that are there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Families {
    fou: Option<u16>,
    l2tp: Option<u16>,
    wireguard: Option<u16>,
}

impl Families {
    /// All of them are asked for: to ask for one by its name would load its module.
    pub fn read() -> Result<Self, WireError> {
        let socket = wire::open(wire::GENERIC)?;
        let mut families = Self::default();
        ask(
            &socket,
            GENL_ID_CTRL,
            CTRL_CMD_GETFAMILY,
            &[],
            1,
            &mut |answer| families.take(answer),
        )?;
        Ok(families)
    }

    fn take(&mut self, answer: &[u8]) {
        let (mut id, mut name) = (None, None);
        for (kind, value) in attributes(answer) {
            match kind {
                CTRL_ATTR_FAMILY_ID => id = host_u16(value),
                CTRL_ATTR_FAMILY_NAME => name = Some(string(value)),
                _ => {}
            }
        }
        match name {
            Some(b"fou") => self.fou = id,
            Some(b"l2tp") => self.l2tp = id,
            Some(b"wireguard") => self.wireguard = id,
            _ => {}
        }
    }
}

/// Adds the ports of the network namespace, with what follows the UDP header there
/// (`config::payload`). Those of WireGuard's devices are written down in them. What
/// can be had is there even where something else could not be.
pub fn dump(
    netns: &Netns,
    families: &Families,
    devices: &mut [Device],
    ports: &mut Vec<(u16, u32)>,
) -> Result<(), LinkError> {
    let mut wireguard: Vec<&mut Device> = devices
        .iter_mut()
        .filter(|device| device.kind == "wireguard")
        .collect();
    if families.fou.is_none() && families.l2tp.is_none() && wireguard.is_empty() {
        return Ok(());
    }
    let socket = netns::with(netns, || wire::open(wire::GENERIC))??;
    let mut failed = Ok(());
    let mut sequence = 0;
    let mut next = || {
        sequence += 1;
        sequence
    };
    if let Some(family) = families.fou {
        let mut take = |answer: &[u8]| ports.extend(fou(answer));
        failed = ask(&socket, family, FOU_CMD_GET, &[], next(), &mut take);
    }
    if let Some(family) = families.l2tp {
        let mut take = |answer: &[u8]| ports.extend(l2tp(answer));
        let command = L2TP_CMD_TUNNEL_GET;
        failed = failed.and(ask(&socket, family, command, &[], next(), &mut take));
    }
    if let Some(family) = families.wireguard {
        for device in &mut wireguard {
            let mut which = [0; 8];
            which[..2].copy_from_slice(&8_u16.to_ne_bytes());
            which[2..4].copy_from_slice(&WGDEVICE_A_IFINDEX.to_ne_bytes());
            which[4..].copy_from_slice(&device.ifindex.to_ne_bytes());
            let mut port = None;
            let mut take = |answer: &[u8]| port = port.or(listens(answer));
            let command = WG_CMD_GET_DEVICE;
            match ask(&socket, family, command, &which, next(), &mut take) {
                // It went meanwhile.
                Err(WireError::Refused(Errno::NODEV | Errno::OPNOTSUPP)) => {}
                answer => failed = failed.and(answer),
            }
            device.port = port;
        }
    }
    Ok(failed?)
}

/// Asks a family for all it has, and hands on the attributes of each answer.
fn ask(
    socket: &OwnedFd,
    family: u16,
    command: u8,
    what: &[u8],
    sequence: u32,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), WireError> {
    const VERSION: u8 = 1;
    let mut body = vec![command, VERSION, 0, 0];
    body.extend_from_slice(what);
    let request = Request {
        kind: family,
        dump: true,
        body: &body,
    };
    wire::ask(socket, request, sequence, &mut |kind, message| {
        if kind == family
            && let Some(answer) = message.get(HEADER..)
        {
            take(answer);
        }
        ControlFlow::Continue(())
    })?;
    Ok(())
}

/// A port of fou's or gue's.
fn fou(answer: &[u8]) -> Option<(u16, u32)> {
    let (mut port, mut protocol, mut encap) = (None, 0, 0);
    for (kind, value) in attributes(answer) {
        match kind {
            FOU_ATTR_PORT => port = be_u16(value),
            FOU_ATTR_IPPROTO => protocol = value.first().copied().unwrap_or(0),
            FOU_ATTR_TYPE => encap = value.first().copied().unwrap_or(0),
            _ => {}
        }
    }
    let payload = match (encap, protocol) {
        (FOU_ENCAP_GUE, _) => payload::GUE,
        (FOU_ENCAP_DIRECT, IPPROTO_IPIP | IPPROTO_IPV6) => payload::FOU_IP,
        (FOU_ENCAP_DIRECT, IPPROTO_GRE) => payload::FOU_GRE,
        _ => payload::OPAQUE,
    };
    Some((port?, payload))
}

/// The port of a tunnel over UDP.
fn l2tp(answer: &[u8]) -> Option<(u16, u32)> {
    let mut ports = attributes(answer).filter(|(kind, _)| *kind == L2TP_ATTR_UDP_SPORT);
    let port = host_u16(ports.next()?.1).filter(|port| *port != 0)?;
    Some((port, payload::L2TP))
}

/// The port of a WireGuard device. Its keys come with it, which nobody asked for.
fn listens(answer: &[u8]) -> Option<u16> {
    let mut ports = attributes(answer).filter(|(kind, _)| *kind == WGDEVICE_A_LISTEN_PORT);
    host_u16(ports.next()?.1).filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::attr::tests::nla;
    use proptest::prelude::*;

    #[test]
    fn families_are_known_by_name() {
        let mut families = Families::default();
        for (id, name) in [(30_u16, "nl80211"), (31, "fou"), (32, "wireguard")] {
            let id = nla(CTRL_ATTR_FAMILY_ID, &id.to_ne_bytes());
            let name = nla(CTRL_ATTR_FAMILY_NAME, format!("{name}\0").as_bytes());
            families.take(&[id, name].concat());
        }
        let expected = Families {
            fou: Some(31),
            l2tp: None,
            wireguard: Some(32),
        };
        assert_eq!(families, expected);
    }

    #[test]
    fn what_follows_the_header_is_known() {
        let answer = |encap: u8, protocol: u8| {
            fou(&[
                nla(FOU_ATTR_PORT, &5555_u16.to_be_bytes()),
                nla(FOU_ATTR_IPPROTO, &[protocol]),
                nla(FOU_ATTR_TYPE, &[encap]),
            ]
            .concat())
        };
        assert_eq!(answer(FOU_ENCAP_DIRECT, 4), Some((5555, payload::FOU_IP)));
        assert_eq!(answer(FOU_ENCAP_DIRECT, 41), Some((5555, payload::FOU_IP)));
        assert_eq!(answer(FOU_ENCAP_DIRECT, 47), Some((5555, payload::FOU_GRE)));
        assert_eq!(answer(FOU_ENCAP_DIRECT, 50), Some((5555, payload::OPAQUE)));
        assert_eq!(answer(FOU_ENCAP_GUE, 0), Some((5555, payload::GUE)));
    }

    #[test]
    fn l2tp_and_wireguard_say_where_they_listen() {
        let port = 1701_u16.to_ne_bytes();
        let answer = [nla(4, &[7; 8]), nla(L2TP_ATTR_UDP_SPORT, &port)].concat();
        assert_eq!(l2tp(&answer), Some((1701, payload::L2TP)));
        // Over IP, there is none.
        assert_eq!(l2tp(&nla(4, &[7; 8])), None);
        let answer = [nla(3, &[9; 32]), nla(WGDEVICE_A_LISTEN_PORT, &port)].concat();
        assert_eq!(listens(&answer), Some(1701));
        // Not chosen yet.
        assert_eq!(listens(&nla(WGDEVICE_A_LISTEN_PORT, &[0, 0])), None);
    }

    #[test]
    fn this_kernel_answers() {
        Families::read().unwrap();
    }

    proptest! {
        #[test]
        fn any_answer_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            Families::default().take(&bytes);
            let _ = (fou(&bytes), l2tp(&bytes), listens(&bytes));
        }
    }
}
