//! From facts to a finding: what the kernel does to answer a look-up, done
//! again.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    address::Address,
    question::{EINVAL, ENETUNREACH, ENODEV, LookUp, What},
    route::{self, Answer, LOCAL, Route, table_name},
    rule::{Action, Fits, Rule},
};
use crate::devices::Device;

/// Most tables that are named one by one.
const MAX_TABLES: usize = 8;

/// What a network namespace has, as far as a question needs it.
#[derive(Debug, Default)]
pub struct Facts {
    /// In the order that the kernel takes them.
    pub rules: Vec<Rule>,
    /// Those that cover the destination, and the local ones that cover the
    /// source.
    pub routes: Vec<Route>,
    pub addresses: Vec<Address>,
    pub devices: Vec<Device>,
    /// The answer to the same question now: a positive errno, 0: a route.
    pub now: Option<u16>,
}

/// What made a look-up fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decided {
    Rule,
    /// A route in this table.
    Table(u32),
    /// No route in any table.
    NoRoute,
    /// An address of the question itself.
    Address,
    /// The device that the tunnel is bound to.
    Device,
}

/// What can have made it fail, with the errno that it gives.
type Candidate = (u16, Decided, String);

/// What may be why a look-up failed: more than one where it could not be
/// decided which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub candidates: Vec<(Decided, String)>,
}

impl Finding {
    fn one(decided: Decided, text: String) -> Self {
        Self {
            candidates: vec![(decided, text)],
        }
    }
}

/// Why the answer was what it was; nothing where the facts do not lead to it.
pub fn find(question: &What, facts: &Facts) -> Option<Finding> {
    match question {
        What::Address { address, oif } => refused_address(*address, *oif, facts),
        What::Route(look_up) => {
            let (finding, certain) = match before_the_tables(look_up, facts) {
                Some(candidate) => (vec![candidate], true),
                None => walk(look_up, facts)?,
            };
            // The system can be another by now.
            let same = |now| finding.iter().any(|(errno, _, _)| *errno == now);
            if certain && !facts.now.is_none_or(same) {
                return None;
            }
            let candidates = finding.into_iter();
            Some(Finding {
                candidates: candidates
                    .map(|(_, decided, text)| (decided, text))
                    .collect(),
            })
        }
    }
}

impl Facts {
    fn device(&self, index: u32) -> Option<&Device> {
        self.devices.iter().find(|device| device.ifindex == index)
    }

    fn of_address(&self, address: IpAddr) -> impl Iterator<Item = &Address> {
        self.addresses
            .iter()
            .filter(move |known| known.address == address)
    }

    /// Is this an address of the host, also by a route (127.0.0.0/8)?
    fn is_local(&self, address: IpAddr) -> bool {
        let mut routes = self.routes.iter().filter(|route| route.table == LOCAL);
        self.of_address(address).next().is_some()
            || routes.any(|route| route.is_local() && route.dst.covers(address))
    }

    /// `; v0 is down`, of the device that an answer would need.
    fn down(&self, index: u32) -> String {
        match self.device(index) {
            Some(device) if !device.up => format!("; {} is down", device.display_name()),
            Some(device) if !device.carrier => {
                format!("; {} has no carrier", device.display_name())
            }
            _ => String::new(),
        }
    }
}

/// An address that an IPv6 tunnel may not send from (`ip6_tnl_xmit_ctl`).
fn refused_address(address: IpAddr, oif: u32, facts: &Facts) -> Option<Finding> {
    let name = |ifindex| {
        let device = facts.device(ifindex);
        device.map_or_else(|| format!("if{ifindex}"), Device::display_name)
    };
    let Some(own) = facts.of_address(address).next() else {
        let down = if oif == 0 {
            String::new()
        } else {
            facts.down(oif)
        };
        let text = format!("{address} is not an address of this host{down}");
        return Some(Finding::one(Decided::Address, text));
    };
    let dev = name(own.ifindex);
    let text = if own.duplicate {
        format!("{address} on {dev} failed duplicate address detection: another host has it")
    } else if own.tentative {
        format!("{address} on {dev} is tentative: duplicate address detection is not over")
    } else if oif != 0 && own.ifindex != oif && is_link_local(address) {
        format!(
            "{address} is on {dev}, and the tunnel is bound to {}",
            name(oif)
        )
    } else {
        return None;
    };
    Some(Finding::one(Decided::Address, text))
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// What `ip_route_output_key_hash_rcu` looks at before it asks any rule. The
/// IPv6 side has nothing like it.
fn before_the_tables(look_up: &LookUp, facts: &Facts) -> Option<Candidate> {
    if look_up.dst.is_ipv6() {
        return None;
    }
    if let Some(IpAddr::V4(src)) = look_up.src {
        let impossible = src.is_multicast() || src.is_broadcast() || src.octets()[0] == 0;
        if impossible && look_up.ended_in(EINVAL) {
            let text = format!("source {src} is none that a packet may have");
            return Some((EINVAL, Decided::Address, text));
        }
        if look_up.ended_in(ENETUNREACH) && !facts.is_local(src.into()) {
            let text = format!("source {src} is not an address of this host");
            return Some((ENETUNREACH, Decided::Address, text));
        }
    }
    if look_up.oif == 0 {
        return None;
    }
    match facts.device(look_up.oif) {
        None if look_up.ended_in(ENODEV) => {
            let text = format!("the bound device (index {}) is gone", look_up.oif);
            Some((ENODEV, Decided::Device, text))
        }
        Some(device) if !device.up && look_up.ended_in(ENETUNREACH) => {
            let text = format!("the bound device {} is down", device.display_name());
            Some((ENETUNREACH, Decided::Device, text))
        }
        _ => None,
    }
}

/// The rules, one after the other, with the tables that they lead to
/// (`fib_rules_lookup`). Also says whether no rule was left undecided.
fn walk(look_up: &LookUp, facts: &Facts) -> Option<(Vec<Candidate>, bool)> {
    let bound = facts
        .device(look_up.oif)
        .map(|device| device.name.as_slice());
    let mut candidates = Vec::new();
    let mut certain = true;
    let mut nothing_in: Vec<u32> = Vec::new();
    let mut passed_over: Vec<String> = Vec::new();
    let mut from = 0;
    for rule in &facts.rules {
        if rule.priority < from {
            continue;
        }
        let fits = rule.fits(look_up, bound);
        if fits == Fits::No {
            continue;
        }
        // The errno that the rule gives, and what to say of it.
        let (errno, decided, text) = match rule.action {
            Action::Nop => continue,
            Action::Goto(_) if fits == Fits::Perhaps => return None,
            Action::Goto(target) => {
                from = target;
                continue;
            }
            Action::Refuse(refusal) => (refusal.errno(), Decided::Rule, rule.text()),
            Action::Table(_) if rule.leads_elsewhere() || rule.suppresses_groups => return None,
            Action::Table(table) => match route::ask(table, &facts.routes, look_up) {
                Answer::Unsure => return None,
                Answer::Nothing(said) => {
                    if fits == Fits::Yes && !nothing_in.contains(&table) {
                        nothing_in.push(table);
                        passed_over.extend(said);
                    }
                    continue;
                }
                Answer::Found(route) if rule.suppressed >= Some(route.dst.length.into()) => {
                    continue;
                }
                Answer::Found(route) => match not_as_wished(look_up, route) {
                    Some(text) => (EINVAL, Decided::Address, text),
                    None => (0, Decided::Table(table), String::new()),
                },
                Answer::Refused(route, errno) => (errno, Decided::Table(table), route.text()),
            },
        };
        // That a table refused would have been seen.
        let unseen = look_up.errno.is_none() && matches!(decided, Decided::Table(_));
        if look_up.ended_in(errno) && !unseen {
            candidates.push((errno, decided, text));
        }
        if fits == Fits::Yes {
            // Here the look-up ends. If in another answer than was observed,
            // it was one of the undecided before that gave it.
            return (!candidates.is_empty()).then_some((candidates, certain));
        }
        certain = false;
    }
    if look_up.ended_in(ENETUNREACH) {
        let text = no_route(look_up, facts, &nothing_in, &passed_over);
        candidates.push((ENETUNREACH, Decided::NoRoute, text));
    }
    (!candidates.is_empty()).then_some((candidates, certain))
}

/// A source that may not leave by any route but one to the host itself
/// (`__mkroute_output`).
fn not_as_wished(look_up: &LookUp, route: &Route) -> Option<String> {
    let Some(IpAddr::V4(src)) = look_up.src else {
        return None;
    };
    (look_up.errno == Some(EINVAL) && src.is_loopback() && !route.is_local()).then(|| {
        format!(
            "source {src} may not leave this host, as by {}",
            route.text()
        )
    })
}

fn no_route(look_up: &LookUp, facts: &Facts, tables: &[u32], passed_over: &[String]) -> String {
    let named: Vec<String> = tables
        .iter()
        .take(MAX_TABLES)
        .map(|table| table_name(*table))
        .collect();
    let more = tables.len().saturating_sub(MAX_TABLES);
    let mut text = match named.as_slice() {
        [] => "no rule leads to a table".to_owned(),
        [one] => format!("no route in table {one}"),
        several => format!("no route in tables {}", several.join(", ")),
    };
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    for said in passed_over.iter().take(MAX_TABLES) {
        text.push_str("; ");
        text.push_str(said);
    }
    // A device that is down has no routes: which one they may have led by.
    let source = look_up.src.and_then(|src| facts.of_address(src).next());
    let by = if look_up.oif != 0 {
        Some(look_up.oif)
    } else {
        source.map(|address| address.ifindex)
    };
    if let Some(by) = by {
        text.push_str(&facts.down(by));
    }
    text
}
