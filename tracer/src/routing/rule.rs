//! The rules that lead a look-up to its tables (`ip rule`).

use std::fmt::Write as _;

use super::{
    prefix::{Prefix, address},
    question::{EACCES, EINVAL, ENETUNREACH, LookUp},
    route::table_name,
};
use crate::devices::{
    attr::{attributes, host_u32},
    printable,
};

/// `struct fib_rule_hdr`.
pub const HEADER: usize = 12;

const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_GOTO: u16 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_FLOW: u16 = 11;
const FRA_TUN_ID: u16 = 12;
const FRA_SUPPRESS_IFGROUP: u16 = 13;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FRA_PAD: u16 = 18;
const FRA_L3MDEV: u16 = 19;
const FRA_UID_RANGE: u16 = 20;
const FRA_PROTOCOL: u16 = 21;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
const FRA_DPORT_RANGE: u16 = 24;

const FIB_RULE_INVERT: u32 = 0x2;
const FIB_RULE_FIND_SADDR: u32 = 0x10000;
const AF_INET6: u8 = 10;

/// The device that packets of this host itself come in by.
const LOOPBACK: &[u8] = b"lo";

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Table(u32),
    /// On with the first rule of this priority or behind it.
    Goto(u32),
    Nop,
    Refuse(Refusal),
}

/// How a rule ends a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Blackhole,
    Unreachable,
    Prohibit,
}

impl Refusal {
    /// The answer of the look-up (`fib4_rule_action`, `__fib6_rule_action`):
    /// of unreachable, not the one that such a route gives.
    pub fn errno(self) -> u16 {
        match self {
            Self::Blackhole => EINVAL,
            Self::Unreachable => ENETUNREACH,
            Self::Prohibit => EACCES,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
        }
    }
}

/// Does a rule apply to a look-up?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fits {
    Yes,
    No,
    /// It asks for something that is not known of the look-up.
    Perhaps,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub priority: u32,
    pub action: Action,
    /// A route whose prefix is not longer than this does not count.
    pub suppressed: Option<u32>,
    /// What routes count depends on more than is read here.
    pub suppresses_groups: bool,
    inverted: bool,
    from: Option<Prefix>,
    to: Option<Prefix>,
    mark: u32,
    mask: u32,
    iif: Option<Vec<u8>>,
    oif: Option<Vec<u8>>,
    l3mdev: bool,
    /// Selectors that cannot be decided, as ip-rule(8) writes them.
    others: Vec<String>,
}

impl Rule {
    /// Reads the payload of a `RTM_NEWRULE` message.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let (header, rest) = message.split_at_checked(HEADER)?;
        let &[family, to_length, from_length, tos, table, _, _, action, ..] = header else {
            return None;
        };
        let flags = host_u32(header.get(8..)?)?;
        let mut rule = Self {
            priority: 0,
            action: Action::Nop,
            suppressed: None,
            suppresses_groups: false,
            inverted: flags & FIB_RULE_INVERT != 0,
            from: None,
            to: None,
            mark: 0,
            mask: 0,
            iif: None,
            oif: None,
            l3mdev: false,
            others: Vec::new(),
        };
        if tos != 0 {
            rule.others.push(format!("tos {tos:#x}"));
        }
        let (mut table, mut target, mut mask) = (u32::from(table), None, None);
        for (kind, value) in attributes(rest) {
            let number = host_u32(value);
            let prefix = |length| {
                let address = address(value)?;
                Some(Prefix { address, length })
            };
            match kind {
                FRA_DST => rule.to = prefix(to_length),
                FRA_SRC => rule.from = prefix(from_length),
                FRA_IIFNAME => rule.iif = Some(name(value)),
                FRA_OIFNAME => rule.oif = Some(name(value)),
                FRA_GOTO => target = number,
                FRA_PRIORITY => rule.priority = number?,
                FRA_FWMARK => rule.mark = number?,
                FRA_FWMASK => mask = number,
                FRA_TABLE => table = number?,
                FRA_SUPPRESS_PREFIXLEN => rule.suppressed = number.filter(|n| *n != u32::MAX),
                FRA_SUPPRESS_IFGROUP => {
                    rule.suppresses_groups = number.is_some_and(|n| n != u32::MAX);
                }
                FRA_L3MDEV => rule.l3mdev = value.first().is_some_and(|on| *on != 0),
                FRA_UID_RANGE => rule.others.push(range32("uidrange", value)),
                FRA_IP_PROTO => {
                    let proto = value.first().copied().unwrap_or(0);
                    rule.others.push(format!("ipproto {proto}"));
                }
                FRA_SPORT_RANGE => rule.others.push(range16("sport", value)),
                FRA_DPORT_RANGE => rule.others.push(range16("dport", value)),
                FRA_TUN_ID => {
                    let id = value.first_chunk().copied().map_or(0, u64::from_be_bytes);
                    if id != 0 {
                        rule.others.push(format!("tun_id {id}"));
                    }
                }
                FRA_FLOW | FRA_PAD | FRA_PROTOCOL => {}
                // A kernel that is newer than this list.
                other if other > FRA_DPORT_RANGE => {
                    rule.others.push(format!("a selector of type {other}"));
                }
                _ => {}
            }
        }
        // A prefix without an address is that of all.
        let all = Prefix::all(family == AF_INET6);
        let length_only = |length| (length != 0).then_some(Prefix { length, ..all });
        rule.to = rule.to.or(length_only(to_length));
        rule.from = rule.from.or(length_only(from_length));
        rule.mask = mask.unwrap_or(if rule.mark == 0 { 0 } else { u32::MAX });
        if flags & FIB_RULE_FIND_SADDR != 0 && rule.from.is_some() {
            rule.others.push("whatever source is chosen".to_owned());
        }
        rule.action = match action {
            1 => Action::Table(table),
            2 => Action::Goto(target?),
            3 => Action::Nop,
            6 => Action::Refuse(Refusal::Blackhole),
            7 => Action::Refuse(Refusal::Unreachable),
            8 => Action::Refuse(Refusal::Prohibit),
            _ => return None,
        };
        Some(rule)
    }

    /// Does it apply? `bound` is the name of the device that the look-up is
    /// bound to.
    pub fn fits(&self, look_up: &LookUp, bound: Option<&[u8]>) -> Fits {
        let covers = |prefix: &Option<Prefix>, address: Option<_>| {
            prefix.is_none_or(|prefix| match address {
                Some(address) => prefix.covers(address),
                None => prefix.length == 0,
            })
        };
        let decided = covers(&self.to, Some(look_up.dst))
            && covers(&self.from, look_up.src)
            && (look_up.mark ^ self.mark) & self.mask == 0
            && self.iif.as_deref().is_none_or(|name| name == LOOPBACK)
            && self.oif.as_deref().is_none_or(|name| Some(name) == bound);
        // Without a bound device there is no VRF that could be meant.
        let open = !self.others.is_empty() || (self.l3mdev && bound.is_some());
        let decided = decided && !(self.l3mdev && bound.is_none());
        match (decided, open) {
            (true, true) => Fits::Perhaps,
            (all, _) if all != self.inverted => Fits::Yes,
            _ => Fits::No,
        }
    }

    /// `rule 10: to 10.0.0.2 prohibit`.
    pub fn text(&self) -> String {
        let mut text = format!("rule {}:", self.priority);
        if self.inverted {
            text.push_str(" not");
        }
        for (word, prefix) in [("from", self.from), ("to", self.to)] {
            if let Some(prefix) = prefix {
                let _ = write!(text, " {word} {prefix}");
            }
        }
        if self.mask != 0 {
            let _ = write!(text, " fwmark {:#x}", self.mark);
            if self.mask != u32::MAX {
                let _ = write!(text, "/{:#x}", self.mask);
            }
        }
        for (word, name) in [("iif", &self.iif), ("oif", &self.oif)] {
            if let Some(name) = name {
                let _ = write!(text, " {word} {}", printable(name));
            }
        }
        for other in &self.others {
            let _ = write!(text, " {other}");
        }
        if self.from.is_none() && self.to.is_none() && text.ends_with(':') {
            text.push_str(" from all");
        }
        match self.action {
            Action::Table(_) if self.l3mdev => text.push_str(" lookup the table of the VRF"),
            Action::Table(table) => {
                let _ = write!(text, " lookup {}", table_name(table));
            }
            Action::Goto(target) => {
                let _ = write!(text, " goto {target}");
            }
            Action::Nop => text.push_str(" nop"),
            Action::Refuse(refusal) => {
                let _ = write!(text, " {}", refusal.word());
            }
        }
        text
    }

    /// Whether the table it leads to is not known here.
    pub fn leads_elsewhere(&self) -> bool {
        self.l3mdev
    }
}

fn name(value: &[u8]) -> Vec<u8> {
    let end = value.iter().position(|byte| *byte == 0);
    value
        .get(..end.unwrap_or(value.len()))
        .unwrap_or_default()
        .to_vec()
}

fn range32(word: &str, value: &[u8]) -> String {
    let end = value.get(4..).and_then(host_u32);
    range(word, host_u32(value), end)
}

fn range16(word: &str, value: &[u8]) -> String {
    let number = |at| {
        let bytes: &[u8] = value.get(at..)?;
        bytes.first_chunk().copied().map(u16::from_ne_bytes)
    };
    range(word, number(0).map(u32::from), number(2).map(u32::from))
}

fn range(word: &str, begin: Option<u32>, end: Option<u32>) -> String {
    match (begin, end) {
        (Some(begin), Some(end)) if begin == end => format!("{word} {begin}"),
        (Some(begin), Some(end)) => format!("{word} {begin}-{end}"),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::devices::attr::tests::nla;
    use proptest::prelude::*;

    /// The payload of a `RTM_NEWRULE` message of IPv4.
    pub fn message(to: u8, from: u8, action: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let header = [2, to, from, 0, 0, 0, 0, action, 0, 0, 0, 0];
        [header.to_vec(), attributes.concat()].concat()
    }

    pub fn number(kind: u16, number: u32) -> Vec<u8> {
        nla(kind, &number.to_ne_bytes())
    }

    fn rule(to: u8, from: u8, action: u8, attributes: &[Vec<u8>]) -> Rule {
        Rule::parse(&message(to, from, action, attributes)).unwrap()
    }

    fn look_up() -> LookUp {
        LookUp {
            dst: "10.0.0.2".parse().unwrap(),
            src: Some("10.0.0.1".parse().unwrap()),
            mark: 7,
            oif: 0,
            errno: Some(EACCES),
        }
    }

    #[test]
    fn a_rule_for_a_destination() {
        let to = |length, last| {
            rule(
                length,
                0,
                8,
                &[
                    number(FRA_PRIORITY, 10),
                    nla(FRA_DST, &[10, 0, 0, last]),
                    number(FRA_SUPPRESS_PREFIXLEN, u32::MAX),
                    nla(FRA_PROTOCOL, &[3]),
                ],
            )
        };
        assert_eq!(to(32, 2).text(), "rule 10: to 10.0.0.2 prohibit");
        assert_eq!(to(24, 0).text(), "rule 10: to 10.0.0.0/24 prohibit");
        assert_eq!(to(32, 2).fits(&look_up(), None), Fits::Yes);
        assert_eq!(to(24, 0).fits(&look_up(), None), Fits::Yes);
        assert_eq!(to(32, 3).fits(&look_up(), None), Fits::No);
        assert_eq!(to(32, 2).action, Action::Refuse(Refusal::Prohibit));
        assert_eq!(to(32, 2).suppressed, None);
    }

    #[test]
    fn a_rule_for_a_mark() {
        let mark = |mark, mask| {
            rule(
                0,
                0,
                1,
                &[
                    number(FRA_PRIORITY, 11),
                    number(FRA_FWMARK, mark),
                    number(FRA_FWMASK, mask),
                    number(FRA_TABLE, 1000),
                ],
            )
        };
        assert_eq!(mark(7, u32::MAX).text(), "rule 11: fwmark 0x7 lookup 1000");
        assert_eq!(mark(5, 0xf).text(), "rule 11: fwmark 0x5/0xf lookup 1000");
        assert_eq!(mark(7, u32::MAX).fits(&look_up(), None), Fits::Yes);
        assert_eq!(mark(3, 3).fits(&look_up(), None), Fits::Yes);
        assert_eq!(mark(5, 0xf).fits(&look_up(), None), Fits::No);
    }

    #[test]
    fn rules_for_devices() {
        let of = |kind, name: &[u8]| rule(0, 0, 7, &[nla(kind, name)]);
        assert_eq!(of(FRA_IIFNAME, b"lo\0").fits(&look_up(), None), Fits::Yes);
        assert_eq!(of(FRA_IIFNAME, b"v0\0").fits(&look_up(), None), Fits::No);
        let oif = of(FRA_OIFNAME, b"v0\0");
        assert_eq!(oif.fits(&look_up(), None), Fits::No);
        assert_eq!(oif.fits(&look_up(), Some(b"v0")), Fits::Yes);
        let odd = of(FRA_OIFNAME, b"\x1b[m\0");
        assert_eq!(odd.text(), "rule 0: oif \\x1b[m unreachable");
    }

    #[test]
    fn what_is_not_known_is_not_decided() {
        let uid = [1000_u32.to_ne_bytes(), 1001_u32.to_ne_bytes()].concat();
        let attributes = [nla(FRA_UID_RANGE, &uid), nla(FRA_DST, &[10, 0, 0, 2])];
        let some = rule(32, 0, 6, &attributes);
        assert_eq!(some.fits(&look_up(), None), Fits::Perhaps);
        assert_eq!(
            some.text(),
            "rule 0: to 10.0.0.2 uidrange 1000-1001 blackhole"
        );
        // What is known excludes it.
        let elsewhere = LookUp {
            dst: "10.0.0.3".parse().unwrap(),
            ..look_up()
        };
        assert_eq!(some.fits(&elsewhere, None), Fits::No);
        let newer = rule(0, 0, 6, &[nla(77, &[1])]);
        assert_eq!(newer.fits(&look_up(), None), Fits::Perhaps);
    }

    #[test]
    fn rules_of_vrf_need_a_bound_device() {
        let vrf = rule(
            0,
            0,
            1,
            &[nla(FRA_L3MDEV, &[1]), number(FRA_PRIORITY, 1000)],
        );
        assert_eq!(vrf.fits(&look_up(), None), Fits::No);
        assert_eq!(vrf.fits(&look_up(), Some(b"v0")), Fits::Perhaps);
    }

    #[test]
    fn inverted_rules() {
        let mut message = message(32, 0, 8, &[nla(FRA_DST, &[10, 0, 0, 3])]);
        message[8..12].copy_from_slice(&FIB_RULE_INVERT.to_ne_bytes());
        let rule = Rule::parse(&message).unwrap();
        assert_eq!(rule.fits(&look_up(), None), Fits::Yes);
        assert_eq!(rule.text(), "rule 0: not to 10.0.0.3 prohibit");
    }

    #[test]
    fn the_rules_of_every_host() {
        let local = rule(0, 0, 1, &[number(FRA_TABLE, 255)]);
        assert_eq!(local.text(), "rule 0: from all lookup local");
        assert_eq!(local.fits(&look_up(), None), Fits::Yes);
        assert_eq!(Rule::parse(&message(0, 0, 99, &[])), None);
        assert_eq!(Rule::parse(&[0; HEADER - 1]), None);
    }

    proptest! {
        #[test]
        fn any_message_is_survived(
            header: [u8; HEADER],
            values in prop::collection::vec(
                (0_u16..32, prop::collection::vec(any::<u8>(), 0..20)),
                0..10,
            ),
            cut in 0_usize..30,
        ) {
            let values = values.iter().flat_map(|(kind, value)| nla(*kind, value));
            let mut bytes: Vec<u8> = header.into_iter().chain(values).collect();
            bytes.truncate(bytes.len().saturating_sub(cut));
            if let Some(rule) = Rule::parse(&bytes) {
                rule.fits(&look_up(), Some(b"v0"));
                prop_assert!(rule.text().chars().all(|char| !char.is_control()));
            }
        }
    }
}
