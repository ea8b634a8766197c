//! What a tunnel asked for in vain.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tracer_common::{
    record::Record,
    tally::{route, seen},
};

use crate::devices::Device;

/// The errnos of a look-up that rules, routes, addresses and devices explain.
pub const EACCES: u16 = 13;
pub const ENODEV: u16 = 19;
pub const EINVAL: u16 = 22;
pub const ENETUNREACH: u16 = 101;
pub const EHOSTUNREACH: u16 = 113;

/// A question that the kernel did not answer as the tunnel wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Question {
    /// Inode of the network namespace it was asked in.
    pub netns: u32,
    pub what: What,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A route.
    Route(LookUp),
    /// Whether this address may be used, for a tunnel that is bound to the
    /// device with this index (0: to none).
    Address { address: IpAddr, oif: u32 },
}

/// A look-up that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LookUp {
    pub dst: IpAddr,
    /// The source, unless the kernel was to choose it.
    pub src: Option<IpAddr>,
    pub mark: u32,
    /// Index of the device it is bound to, 0: none.
    pub oif: u32,
    /// The observed errno. `None`: all that was seen is that the last table
    /// which was asked has no route.
    pub errno: Option<u16>,
}

impl LookUp {
    /// Can this have been the answer?
    pub fn ended_in(&self, errno: u16) -> bool {
        errno != 0 && self.errno.is_none_or(|observed| observed == errno)
    }
}

impl Question {
    /// The question that the packet of this record failed on, with what is
    /// known of its tunnel device.
    pub fn of(record: &Record, device: Option<&Device>) -> Option<Self> {
        let key = &record.key;
        if key.seen & seen::HANDED_TO_IP != 0 {
            return None;
        }
        // A device that was moved sends in the namespace it was made in.
        let at_home = device.is_none_or(|device| device.link_netnsid.is_none());
        let own = Some(key.netns).filter(|netns| *netns != 0 && at_home);
        if key.route & route::SEEN == 0 {
            let refused = seen::TRANSMIT_CONTROL_REFUSED | seen::ADDRESS_NOT_HERE;
            let device = device.filter(|_| key.seen & refused == refused)?;
            return Some(Self {
                netns: own?,
                what: What::Address {
                    address: device.local.filter(IpAddr::is_ipv6)?,
                    oif: device.link.unwrap_or(0),
                },
            });
        }
        let table_only = key.route & route::TABLE_ONLY != 0;
        let answer = &record.route;
        let ipv6 = key.route & route::IPV6 != 0;
        let (mut dst, mut src) = (address(&answer.dst, ipv6), address(&answer.src, ipv6));
        let of_family = |address: &IpAddr| address.is_ipv6() == ipv6;
        let remote = device.and_then(|device| device.remote).filter(of_family);
        let local = device.and_then(|device| device.local).filter(of_family);
        // The last table is asked for the source address too, to see whether
        // it is this host's.
        let is_source = table_only && dst.is_some() && dst == local;
        let errno = key.route_errno;
        if !is_source && ![EACCES, ENODEV, EINVAL, ENETUNREACH, EHOSTUNREACH].contains(&errno) {
            return None;
        }
        // The errno of a table that has none is not that of the look-up; of the
        // source there may be a route, which is not what was asked.
        let observed = Some(errno)
            .filter(|errno| *errno != 0 && (!table_only || *errno != ENETUNREACH))
            .filter(|_| !is_source);
        if dst.is_none() || is_source {
            (dst, src) = (remote, local);
        }
        Some(Self {
            netns: Some(answer.netns).filter(|netns| *netns != 0).or(own)?,
            what: What::Route(LookUp {
                dst: dst?,
                src,
                mark: answer.mark,
                oif: answer.oif,
                errno: observed,
            }),
        })
    }
}

/// An address of a look-up, unless it was left to the kernel.
fn address(bytes: &[u8; 16], ipv6: bool) -> Option<IpAddr> {
    let address = if ipv6 {
        IpAddr::from(*bytes)
    } else {
        IpAddr::from(*bytes.first_chunk::<4>()?)
    };
    (!address.is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn tunnel(local: &str, remote: &str) -> Device {
        Device {
            local: Some(ip(local)),
            remote: Some(ip(remote)),
            ..Device::default()
        }
    }

    fn record(errno: u16) -> Record {
        // SAFETY: integers and arrays of them.
        let mut record: Record = unsafe { std::mem::zeroed() };
        record.key.netns = 7;
        record.key.route = route::SEEN;
        record.key.route_errno = errno;
        record.route.dst[..4].copy_from_slice(&[10, 0, 0, 2]);
        record.route.src[..4].copy_from_slice(&[10, 0, 0, 1]);
        record
    }

    fn look_up(question: Question) -> LookUp {
        match question.what {
            What::Route(look_up) => look_up,
            other @ What::Address { .. } => panic!("{other:?}"),
        }
    }

    #[test]
    fn is_asked_where_the_look_up_was_made() {
        let mut record = record(EACCES);
        let mut moved = tunnel("10.0.0.1", "10.0.0.2");
        moved.link_netnsid = Some(0);
        assert_eq!(Question::of(&record, None).unwrap().netns, 7);
        assert_eq!(Question::of(&record, Some(&moved)), None);
        record.route.netns = 9;
        let question = Question::of(&record, Some(&moved)).unwrap();
        assert_eq!(question.netns, 9);
        let expected = LookUp {
            dst: ip("10.0.0.2"),
            src: Some(ip("10.0.0.1")),
            mark: 0,
            oif: 0,
            errno: Some(EACCES),
        };
        assert_eq!(look_up(question), expected);
    }

    #[test]
    fn is_none_where_nothing_failed_or_netlink_cannot_tell() {
        assert_eq!(Question::of(&record(0), None), None);
        // A policy of IPsec.
        assert_eq!(Question::of(&record(1), None), None);
        let mut sent = record(EACCES);
        sent.key.seen = seen::HANDED_TO_IP;
        assert_eq!(Question::of(&sent, None), None);
    }

    #[test]
    fn the_check_of_the_source_is_not_the_question() {
        let mut record = record(ENETUNREACH);
        record.key.route |= route::TABLE_ONLY;
        record.route.dst = record.route.src;
        record.route.src = [0; 16];
        let device = tunnel("10.0.0.1", "10.0.0.2");
        let question = look_up(Question::of(&record, Some(&device)).unwrap());
        assert_eq!(
            (question.dst, question.src),
            (ip("10.0.0.2"), Some(ip("10.0.0.1")))
        );
        // Nor is the errno of that table.
        assert_eq!(question.errno, None);
    }

    #[test]
    fn what_was_not_seen_is_as_configured() {
        let mut record = record(ENETUNREACH);
        record.route.dst = [0; 16];
        let device = tunnel("10.0.0.1", "10.0.0.2");
        let question = look_up(Question::of(&record, Some(&device)).unwrap());
        assert_eq!(question.dst, ip("10.0.0.2"));
        assert_eq!(Question::of(&record, None), None);
        // Of the other family: not this look-up.
        let other = tunnel("fd00::1", "fd00::2");
        assert_eq!(Question::of(&record, Some(&other)), None);
    }

    #[test]
    fn a_refused_local_address_is_asked_for() {
        let mut record = record(0);
        record.key.route = 0;
        record.key.seen = seen::TRANSMIT_CONTROL_REFUSED;
        let device = tunnel("fd00::1", "fd00::2");
        assert_eq!(Question::of(&record, Some(&device)), None);
        record.key.seen |= seen::ADDRESS_NOT_HERE;
        let address = What::Address {
            address: ip("fd00::1"),
            oif: 0,
        };
        assert_eq!(Question::of(&record, Some(&device)).unwrap().what, address);
    }
}
