//! Asking netlink for what a question needs.

use std::{
    net::IpAddr,
    ops::ControlFlow,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use thiserror::Error;

use super::{
    address::{self, Address},
    find::Facts,
    question::{LookUp, Question, What},
    route::{self, LOCAL, Route},
    rule::{self, Rule},
};
use crate::devices::{
    link::{self, LinkError},
    netns::{self, NetnsError},
    wire::{self, Request, WireError},
};

/// How long all answers together may take: a table of the whole internet
/// takes a second or two.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often something is asked for that changed meanwhile.
const ATTEMPTS: u32 = 3;
/// Most rules, routes that cover the destination, and addresses, that are
/// kept.
const MAX_KEPT: usize = 4096;

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;

const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_MARK: u16 = 16;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Why the facts are not known.
#[derive(Debug, Error)]
pub enum Unknown {
    #[error("network namespace net:[{0}] is gone, or nothing is known to keep it")]
    Gone(u32),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("netlink: {0}")]
    Wire(#[from] WireError),
    #[error("it took more than {} s", PATIENCE.as_secs())]
    Late,
    #[error("there are more than {MAX_KEPT}")]
    Many,
    #[error("they kept changing, or could not be read in full")]
    Unsteady,
}

/// Asks in the network namespace of the question.
pub fn gather(question: &Question) -> Result<Facts, Unknown> {
    let netns = netns::by_inode(question.netns).ok_or(Unknown::Gone(question.netns))?;
    let mut asking = Asking {
        socket: netns::with(&netns, || wire::open(wire::ROUTE))??,
        sequence: 0,
        until: Instant::now() + PATIENCE,
    };
    let mut facts = Facts {
        devices: link::dump(&netns)?.devices,
        ..Facts::default()
    };
    match question.what {
        What::Address { address, .. } => facts.addresses = asking.addresses(family(address))?,
        What::Route(look_up) => {
            let family = family(look_up.dst);
            facts.addresses = asking.addresses(family)?;
            facts.rules = asking.dump(
                (RTM_GETRULE, RTM_NEWRULE),
                &header(family, rule::HEADER),
                |message| Some(Rule::parse(message)),
            )?;
            facts.routes = asking.dump(
                (RTM_GETROUTE, RTM_NEWROUTE),
                &header(family, route::HEADER),
                |message| {
                    let route = Route::parse(message)?;
                    wanted(&route, &look_up).then_some(Some(route))
                },
            )?;
            facts.now = Some(asking.route(&look_up)?);
        }
    }
    Ok(facts)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv6() { AF_INET6 } else { AF_INET }
}

/// A header of zeros but for the family.
fn header(family: u8, length: usize) -> Vec<u8> {
    let mut header = vec![0; length];
    if let Some(first) = header.first_mut() {
        *first = family;
    }
    header
}

/// Of a table of any size, these are few.
fn wanted(route: &Route, look_up: &LookUp) -> bool {
    let of_source = |src| route.table == LOCAL && route.is_local() && route.dst.covers(src);
    route.dst.covers(look_up.dst) || look_up.src.is_some_and(of_source)
}

struct Asking {
    socket: OwnedFd,
    sequence: u32,
    until: Instant,
}

impl Asking {
    fn addresses(&mut self, family: u8) -> Result<Vec<Address>, Unknown> {
        let body = header(family, address::HEADER);
        self.dump((RTM_GETADDR, RTM_NEWADDR), &body, |message| {
            Some(Address::parse(message))
        })
    }

    /// All there is of something, read by `parse`: `None` is none that is
    /// wanted, `Some(None)` one that cannot be read.
    fn dump<T>(
        &mut self,
        (ask, new): (u16, u16),
        body: &[u8],
        parse: impl Fn(&[u8]) -> Option<Option<T>>,
    ) -> Result<Vec<T>, Unknown> {
        let request = Request {
            kind: ask,
            dump: true,
            body,
        };
        for _ in 0..ATTEMPTS {
            let (mut kept, mut unread, mut late) = (Vec::new(), false, false);
            self.sequence += 1;
            let mut take = |kind, message: &[u8]| {
                late = Instant::now() > self.until;
                match parse(message).filter(|_| kind == new) {
                    None => {}
                    Some(Some(one)) => kept.push(one),
                    Some(None) => unread = true,
                }
                if late || unread || kept.len() > MAX_KEPT {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            let answer = wire::ask(&self.socket, request, self.sequence, &mut take)?;
            if late {
                return Err(Unknown::Late);
            }
            if kept.len() > MAX_KEPT {
                return Err(Unknown::Many);
            }
            if unread || answer.malformed > 0 {
                return Err(Unknown::Unsteady);
            }
            if !answer.interrupted {
                return Ok(kept);
            }
        }
        Err(Unknown::Unsteady)
    }

    /// `ip route get DST from SRC mark MARK oif DEV`: the errno, 0: a route.
    fn route(&mut self, look_up: &LookUp) -> Result<u16, Unknown> {
        self.sequence += 1;
        let body = question(look_up);
        let request = Request {
            kind: RTM_GETROUTE,
            dump: false,
            body: &body,
        };
        let mut take = |_, _: &[u8]| ControlFlow::Break(());
        match wire::ask(&self.socket, request, self.sequence, &mut take) {
            Ok(_) => Ok(0),
            Err(WireError::Refused(errno)) => Ok(number(errno)),
            Err(other) => Err(other.into()),
        }
    }
}

fn number(errno: Errno) -> u16 {
    u16::try_from(errno.raw_os_error()).unwrap_or(u16::MAX)
}

/// The body of `RTM_GETROUTE` for one route.
fn question(look_up: &LookUp) -> Vec<u8> {
    let mut body = header(family(look_up.dst), route::HEADER);
    let length = |address: IpAddr| if address.is_ipv6() { 128 } else { 32 };
    if let [_, to, from, ..] = body.as_mut_slice() {
        *to = length(look_up.dst);
        *from = look_up.src.map_or(0, length);
    }
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    attribute(&mut body, RTA_DST, &octets(look_up.dst));
    if let Some(src) = look_up.src {
        attribute(&mut body, RTA_SRC, &octets(src));
    }
    for (kind, number) in [(RTA_OIF, look_up.oif), (RTA_MARK, look_up.mark)] {
        if number != 0 {
            attribute(&mut body, kind, &number.to_ne_bytes());
        }
    }
    body
}

/// Adds an attribute of 4 or 16 bytes, which needs no padding.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = value.len() as u16 + 4;
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::attr::tests::nla;

    #[test]
    fn asks_for_one_route() {
        let look_up = LookUp {
            dst: "10.0.0.2".parse().unwrap(),
            src: Some("10.0.0.1".parse().unwrap()),
            mark: 7,
            oif: 3,
            errno: Some(13),
        };
        let expected = [
            vec![2, 32, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            nla(RTA_DST, &[10, 0, 0, 2]),
            nla(RTA_SRC, &[10, 0, 0, 1]),
            nla(RTA_OIF, &3_u32.to_ne_bytes()),
            nla(RTA_MARK, &7_u32.to_ne_bytes()),
        ];
        assert_eq!(question(&look_up), expected.concat());
        let plain = LookUp {
            dst: "fd00::2".parse().unwrap(),
            src: None,
            mark: 0,
            oif: 0,
            errno: Some(13),
        };
        let body = question(&plain);
        assert_eq!((body.len(), &body[..4]), (12 + 20, &[10, 128, 0, 0][..]));
    }
}
