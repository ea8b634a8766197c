//! Routes, and what a table of them answers.

use std::fmt::Write as _;

use super::{
    prefix::{Prefix, address},
    question::{EACCES, EHOSTUNREACH, EINVAL, LookUp},
};
use crate::devices::attr::{attributes, host_u16, host_u32};

/// `struct rtmsg`.
pub const HEADER: usize = 12;
/// `struct rtnexthop`.
const HOP: usize = 8;

/// The table of this host's own addresses.
pub const LOCAL: u32 = 255;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;

const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_DEAD: u32 = 1;
const AF_INET6: u8 = 10;

const RTN_LOCAL: u8 = 2;
const RTN_BLACKHOLE: u8 = 6;
const RTN_UNREACHABLE: u8 = 7;
const RTN_PROHIBIT: u8 = 8;
const RTN_THROW: u8 = 9;

/// A way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hop {
    oif: u32,
    dead: bool,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub table: u32,
    pub dst: Prefix,
    kind: u8,
    tos: u8,
    priority: u32,
    /// It is for packets from certain addresses only.
    sourced: bool,
    hops: Vec<Hop>,
}

/// What a table answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A way out.
    Found(&'a Route),
    /// A route that says no, with this errno.
    Refused(&'a Route, u16),
    /// Nothing; the next table is asked. These routes would have led there,
    /// but for what is said of each.
    Nothing(Vec<String>),
    /// It depends on what is not known here.
    Unsure,
}

impl Route {
    /// Reads the payload of a `RTM_NEWROUTE` message.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let (header, rest) = message.split_at_checked(HEADER)?;
        let &[family, length, from_length, tos, table, _, _, kind, ..] = header else {
            return None;
        };
        let flags = host_u32(header.get(8..)?)?;
        // What the kernel remembers of single destinations is no route.
        if flags & RTM_F_CLONED != 0 {
            return None;
        }
        let mut route = Self {
            table: table.into(),
            dst: Prefix {
                length,
                ..Prefix::all(family == AF_INET6)
            },
            kind,
            tos,
            priority: 0,
            sourced: from_length != 0,
            hops: Vec::new(),
        };
        for (kind, value) in attributes(rest) {
            match kind {
                RTA_DST => route.dst.address = address(value)?,
                RTA_TABLE => route.table = host_u32(value)?,
                RTA_PRIORITY => route.priority = host_u32(value)?,
                RTA_OIF => route.hops.push(Hop {
                    oif: host_u32(value)?,
                    dead: flags & RTNH_F_DEAD != 0,
                }),
                RTA_MULTIPATH => route.hops.extend(hops(value)),
                _ => {}
            }
        }
        Some(route)
    }

    /// Is it for an address of this host?
    pub fn is_local(&self) -> bool {
        self.kind == RTN_LOCAL
    }

    /// The errno of its type.
    fn refusal(&self) -> Option<u16> {
        match self.kind {
            RTN_BLACKHOLE => Some(EINVAL),
            RTN_UNREACHABLE => Some(EHOSTUNREACH),
            RTN_PROHIBIT => Some(EACCES),
            _ => None,
        }
    }

    /// `prohibit 10.0.0.2/32`, `10.0.0.0/24`.
    fn name(&self) -> String {
        let mut name = match self.kind {
            RTN_BLACKHOLE => "blackhole ",
            RTN_UNREACHABLE => "unreachable ",
            RTN_PROHIBIT => "prohibit ",
            RTN_THROW => "throw ",
            _ => "",
        }
        .to_owned();
        let _ = if self.dst.length == 0 {
            write!(name, "default")
        } else {
            write!(name, "{}/{}", self.dst.address, self.dst.length)
        };
        name
    }

    /// `route prohibit 10.0.0.2/32 in table main`.
    pub fn text(&self) -> String {
        format!("route {} in table {}", self.name(), table_name(self.table))
    }
}

/// The ways out of `RTA_MULTIPATH`.
fn hops(mut value: &[u8]) -> Vec<Hop> {
    let mut hops = Vec::new();
    while let Some(header) = value.get(..HOP) {
        let length = usize::from(host_u16(header).unwrap_or(0));
        let Some(oif) = header.get(4..).and_then(host_u32).filter(|_| length >= HOP) else {
            break;
        };
        let dead = header
            .get(2)
            .is_some_and(|flags| u32::from(*flags) & RTNH_F_DEAD != 0);
        hops.push(Hop { oif, dead });
        value = value.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

/// What the table answers, of whose routes these are all that cover the
/// destination (`fib_table_lookup`, `fib6_table_lookup`): the longest prefix
/// that has a way out or says no.
pub fn ask<'a>(table: u32, routes: &'a [Route], look_up: &LookUp) -> Answer<'a> {
    let mut covering: Vec<&Route> = routes
        .iter()
        .filter(|route| route.table == table && route.dst.covers(look_up.dst))
        .collect();
    covering.sort_by_key(|route| (std::cmp::Reverse(route.dst.length), route.priority));
    let mut passed_over = Vec::new();
    for route in covering {
        if route.sourced || route.tos != 0 {
            return Answer::Unsure;
        }
        if route.kind == RTN_THROW {
            passed_over.push(format!("{} says so", route.text()));
            return Answer::Nothing(passed_over);
        }
        if let Some(errno) = route.refusal() {
            return Answer::Refused(route, errno);
        }
        let alive = route.hops.iter().filter(|hop| !hop.dead);
        let mut fitting = alive.filter(|hop| look_up.oif == 0 || hop.oif == look_up.oif);
        if route.hops.is_empty() || fitting.next().is_some() {
            return Answer::Found(route);
        }
        let why = if route.hops.iter().all(|hop| hop.dead) {
            "is dead"
        } else {
            "leaves by another device"
        };
        passed_over.push(format!("{} {why}", route.text()));
    }
    Answer::Nothing(passed_over)
}

/// A routing table, as ip-route(8) names it.
pub fn table_name(number: u32) -> String {
    match number {
        253 => "default".to_owned(),
        254 => "main".to_owned(),
        LOCAL => "local".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::{super::rule::tests::number, *};
    use crate::devices::attr::tests::nla;
    use proptest::prelude::*;

    /// The payload of a `RTM_NEWROUTE` message of IPv4.
    pub fn message(length: u8, kind: u8, flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut header = vec![2, length, 0, 0, 254, 3, 0, kind];
        header.extend(flags.to_ne_bytes());
        header.extend(attributes.concat());
        header
    }

    fn route(length: u8, kind: u8, flags: u32, attributes: &[Vec<u8>]) -> Route {
        Route::parse(&message(length, kind, flags, attributes)).unwrap()
    }

    fn look_up(oif: u32) -> LookUp {
        LookUp {
            dst: "10.0.0.2".parse().unwrap(),
            src: None,
            mark: 0,
            oif,
            errno: Some(EACCES),
        }
    }

    fn subnet(flags: u32) -> Route {
        route(
            24,
            1,
            flags,
            &[nla(RTA_DST, &[10, 0, 0, 0]), number(RTA_OIF, 3)],
        )
    }

    #[test]
    fn reads_routes() {
        let one = route(
            32,
            RTN_PROHIBIT,
            0,
            &[
                nla(RTA_DST, &[10, 0, 0, 2]),
                number(RTA_TABLE, 1000),
                number(RTA_PRIORITY, 5),
            ],
        );
        assert_eq!(one.text(), "route prohibit 10.0.0.2/32 in table 1000");
        assert_eq!(one.priority, 5);
        let default = route(0, RTN_BLACKHOLE, 0, &[]);
        assert_eq!(default.text(), "route blackhole default in table main");
        assert_eq!(Route::parse(&message(32, 1, RTM_F_CLONED, &[])), None);
        let hop = |oif: u32, flags| {
            let header = [8_u16.to_ne_bytes(), [flags, 0]].concat();
            [header, oif.to_ne_bytes().to_vec()].concat()
        };
        let several = route(
            0,
            1,
            0,
            &[nla(RTA_MULTIPATH, &[hop(3, 1), hop(4, 0)].concat())],
        );
        let expected = [(3, true), (4, false)].map(|(oif, dead)| Hop { oif, dead });
        assert_eq!(several.hops, expected);
    }

    #[test]
    fn the_longest_prefix_answers() {
        let prohibit = route(32, RTN_PROHIBIT, 0, &[nla(RTA_DST, &[10, 0, 0, 2])]);
        let routes = [subnet(0), prohibit.clone(), route(0, 1, 0, &[])];
        assert_eq!(
            ask(254, &routes, &look_up(0)),
            Answer::Refused(&prohibit, EACCES)
        );
        assert_eq!(
            ask(254, &routes[..1], &look_up(0)),
            Answer::Found(&routes[0])
        );
        assert_eq!(ask(253, &routes, &look_up(0)), Answer::Nothing(Vec::new()));
    }

    #[test]
    fn routes_that_lead_nowhere_are_passed_over() {
        let dead = [subnet(RTNH_F_DEAD)];
        let said = ["route 10.0.0.0/24 in table main is dead".to_owned()];
        assert_eq!(ask(254, &dead, &look_up(0)), Answer::Nothing(said.to_vec()));
        let other = [subnet(0)];
        let said = ["route 10.0.0.0/24 in table main leaves by another device".to_owned()];
        assert_eq!(
            ask(254, &other, &look_up(4)),
            Answer::Nothing(said.to_vec())
        );
        assert_eq!(ask(254, &other, &look_up(3)), Answer::Found(&other[0]));
        // A throw ends the table, not the look-up.
        let throw = [
            subnet(0),
            route(32, RTN_THROW, 0, &[nla(RTA_DST, &[10, 0, 0, 2])]),
        ];
        let said = ["route throw 10.0.0.2/32 in table main says so".to_owned()];
        assert_eq!(
            ask(254, &throw, &look_up(0)),
            Answer::Nothing(said.to_vec())
        );
    }

    #[test]
    fn what_is_not_known_is_not_decided() {
        let mut sourced = subnet(0);
        sourced.sourced = true;
        assert_eq!(ask(254, &[sourced], &look_up(0)), Answer::Unsure);
    }

    proptest! {
        #[test]
        fn any_message_is_survived(
            header: [u8; HEADER],
            values in prop::collection::vec(
                (0_u16..32, prop::collection::vec(any::<u8>(), 0..40)),
                0..10,
            ),
            cut in 0_usize..30,
        ) {
            let values = values.iter().flat_map(|(kind, value)| nla(*kind, value));
            let mut bytes: Vec<u8> = header.into_iter().chain(values).collect();
            bytes.truncate(bytes.len().saturating_sub(cut));
            if let Some(route) = Route::parse(&bytes) {
                let table = route.table;
                ask(table, &[route], &look_up(3));
            }
        }
    }
}
