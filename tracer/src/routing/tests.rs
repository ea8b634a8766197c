//! [`find`] on facts as netlink has them, and the whole module against the
//! running kernel.

use std::net::IpAddr;

use super::{
    address::Address,
    facts,
    find::{Facts, find},
    prefix::Prefix,
    question::{EACCES, EHOSTUNREACH, EINVAL, ENETUNREACH, ENODEV, LookUp, What},
    route::{self, Route},
    rule::{self, Rule, tests::number},
    *,
};
use crate::devices::{
    Device,
    attr::tests::nla,
    netns,
    tests::{Scratch, must, words},
};

const FRA_DST: u16 = 1;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_UID_RANGE: u16 = 20;
const TO_TABLE: u8 = 1;
const BLACKHOLE: u8 = 6;
const UNREACHABLE: u8 = 7;
const PROHIBIT: u8 = 8;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn look_up(errno: u16) -> LookUp {
    LookUp {
        dst: ip("10.0.0.2"),
        src: Some(ip("10.0.0.1")),
        mark: 0,
        oif: 0,
        errno: Some(errno),
    }
}

fn rule(priority: u32, to: u8, action: u8, more: &[Vec<u8>]) -> Rule {
    let mut attributes = vec![number(FRA_PRIORITY, priority)];
    if to != 0 {
        attributes.push(nla(FRA_DST, &[10, 0, 0, 2]));
    }
    attributes.extend_from_slice(more);
    Rule::parse(&rule::tests::message(to, 0, action, &attributes)).unwrap()
}

fn table(priority: u32, table: u32) -> Rule {
    rule(priority, 0, TO_TABLE, &[number(FRA_TABLE, table)])
}

fn route(last: u8, length: u8, kind: u8, flags: u32) -> Route {
    let attributes = [nla(1, &[10, 0, 0, last]), number(4, 3)];
    Route::parse(&route::tests::message(length, kind, flags, &attributes)).unwrap()
}

/// A host with 10.0.0.1/24 on v0.
fn host() -> Facts {
    Facts {
        rules: vec![table(0, 255), table(32766, 254), table(32767, 253)],
        routes: vec![route(0, 24, 1, 0)],
        addresses: vec![Address {
            address: ip("10.0.0.1"),
            ifindex: 3,
            tentative: false,
            duplicate: false,
        }],
        devices: vec![Device {
            ifindex: 3,
            name: b"v0".to_vec(),
            up: true,
            carrier: true,
            ..Device::default()
        }],
        now: None,
    }
}

/// What is found, if it is one thing.
fn only(look_up: LookUp, facts: &Facts) -> Option<(Decided, String)> {
    let found = find(&What::Route(look_up), facts)?;
    assert_eq!(found.candidates.len(), 1, "{found:?}");
    found.candidates.into_iter().next()
}

fn text(look_up: LookUp, facts: &Facts) -> Option<String> {
    only(look_up, facts).map(|(_, text)| text)
}

#[test]
fn rules_that_refuse() {
    for (action, errno, word) in [
        (PROHIBIT, EACCES, "prohibit"),
        (BLACKHOLE, EINVAL, "blackhole"),
        (UNREACHABLE, ENETUNREACH, "unreachable"),
    ] {
        let mut facts = host();
        facts.rules.insert(1, rule(10, 32, action, &[]));
        facts.now = Some(errno);
        let expected = (Decided::Rule, format!("rule 10: to 10.0.0.2 {word}"));
        assert_eq!(only(look_up(errno), &facts), Some(expected));
        // It gives this errno and no other.
        assert_eq!(find(&What::Route(look_up(EHOSTUNREACH)), &facts), None);
        // The rule is there, but the kernel finds a route now.
        facts.now = Some(0);
        assert_eq!(find(&What::Route(look_up(errno)), &facts), None);
    }
}

#[test]
fn only_a_table_was_seen_to_have_nothing() {
    let mut facts = host();
    let unseen = LookUp {
        errno: None,
        ..look_up(0)
    };
    facts.rules.insert(1, rule(10, 32, PROHIBIT, &[]));
    facts.now = Some(EACCES);
    let said = text(unseen, &facts).unwrap();
    assert_eq!(said, "rule 10: to 10.0.0.2 prohibit");
    // The kernel ends in another errno now.
    facts.now = Some(ENETUNREACH);
    assert_eq!(find(&What::Route(unseen), &facts), None);
    // A table that refuses would have been seen.
    facts.rules.remove(1);
    facts.routes.push(route(2, 32, PROHIBIT, 0));
    facts.now = Some(EACCES);
    assert_eq!(find(&What::Route(unseen), &facts), None);
    facts.routes.clear();
    facts.now = Some(ENETUNREACH);
    let said = text(unseen, &facts).unwrap();
    assert_eq!(said, "no route in tables local, main, default");
}

#[test]
fn a_rule_for_a_mark() {
    let mut facts = host();
    let mark = [number(FRA_FWMARK, 7)];
    facts.rules.insert(1, rule(11, 0, PROHIBIT, &mark));
    assert_eq!(find(&What::Route(look_up(EACCES)), &facts), None);
    let marked = LookUp {
        mark: 7,
        ..look_up(EACCES)
    };
    assert_eq!(
        text(marked, &facts).unwrap(),
        "rule 11: fwmark 0x7 prohibit"
    );
}

#[test]
fn routes_that_refuse() {
    for (kind, errno, word) in [
        (PROHIBIT, EACCES, "prohibit"),
        (BLACKHOLE, EINVAL, "blackhole"),
        (UNREACHABLE, EHOSTUNREACH, "unreachable"),
    ] {
        let mut facts = host();
        facts.routes.push(route(2, 32, kind, 0));
        let expected = format!("route {word} 10.0.0.2/32 in table main");
        let expected = (Decided::Table(254), expected);
        assert_eq!(only(look_up(errno), &facts), Some(expected));
        // What they have in common with a rule is not taken for one.
        facts.rules.insert(1, rule(10, 32, PROHIBIT, &[]));
        let found = only(look_up(errno), &facts).map(|(decided, _)| decided);
        assert_eq!(found, (errno == EACCES).then_some(Decided::Rule));
    }
}

#[test]
fn no_route_at_all() {
    let mut facts = host();
    // There is one: whatever it was, it is over.
    assert_eq!(find(&What::Route(look_up(ENETUNREACH)), &facts), None);
    facts.routes.clear();
    let said = text(look_up(ENETUNREACH), &facts).unwrap();
    assert_eq!(said, "no route in tables local, main, default");
    facts.devices[0].up = false;
    let said = text(look_up(ENETUNREACH), &facts).unwrap();
    assert_eq!(said, "no route in tables local, main, default; v0 is down");
    facts.devices[0].up = true;
    facts.routes.push(route(0, 24, 1, 1));
    let said = text(look_up(ENETUNREACH), &facts).unwrap();
    let dead = "no route in tables local, main, default; route 10.0.0.0/24 in table main is dead";
    assert_eq!(said, dead);
    facts.rules.clear();
    let said = text(look_up(ENETUNREACH), &facts).unwrap();
    assert_eq!(said, "no rule leads to a table");
}

#[test]
fn a_source_that_is_gone() {
    let mut facts = host();
    facts.addresses.clear();
    let expected = "source 10.0.0.1 is not an address of this host".to_owned();
    let found = only(look_up(ENETUNREACH), &facts);
    assert_eq!(found, Some((Decided::Address, expected)));
    // Addresses can be local by a route.
    let mut local = route(0, 8, 2, 0);
    local.table = 255;
    local.dst = Prefix {
        address: ip("10.0.0.0"),
        length: 24,
    };
    facts.routes.push(local);
    assert_eq!(find(&What::Route(look_up(ENETUNREACH)), &facts), None);
}

#[test]
fn sources_that_may_not_leave() {
    let facts = host();
    let from = |src| LookUp {
        src: Some(ip(src)),
        ..look_up(EINVAL)
    };
    let said = text(from("224.0.0.1"), &facts).unwrap();
    assert_eq!(said, "source 224.0.0.1 is none that a packet may have");
    assert_eq!(
        text(from("127.0.0.1"), &facts).unwrap(),
        "source 127.0.0.1 may not leave this host, as by route 10.0.0.0/24 in table main"
    );
    assert_eq!(find(&What::Route(from("10.0.0.1")), &facts), None);
}

#[test]
fn a_bound_device_that_is_down_or_gone() {
    let mut facts = host();
    let bound = |errno| LookUp {
        oif: 3,
        ..look_up(errno)
    };
    assert_eq!(find(&What::Route(bound(ENETUNREACH)), &facts), None);
    facts.devices[0].up = false;
    let expected = (Decided::Device, "the bound device v0 is down".to_owned());
    assert_eq!(only(bound(ENETUNREACH), &facts), Some(expected));
    facts.devices.clear();
    let said = text(bound(ENODEV), &facts).unwrap();
    assert_eq!(said, "the bound device (index 3) is gone");
}

#[test]
fn a_rule_that_cannot_be_decided() {
    let uid = nla(FRA_UID_RANGE, &[0; 8]);
    let mut facts = host();
    facts.rules.insert(1, rule(5, 32, PROHIBIT, &[uid]));
    // The question now is not asked by whom the tunnel's was.
    facts.now = Some(0);
    // Nothing else refuses: it was that rule.
    let said = text(look_up(EACCES), &facts).unwrap();
    assert_eq!(said, "rule 5: to 10.0.0.2 uidrange 0 prohibit");
    // Another one does.
    facts.rules.insert(2, rule(10, 32, PROHIBIT, &[]));
    let found = find(&What::Route(look_up(EACCES)), &facts).unwrap();
    assert_eq!(found.candidates.len(), 2);
    // Without it, the look-up would have succeeded.
    facts.rules.remove(2);
    assert_eq!(find(&What::Route(look_up(ENETUNREACH)), &facts), None);
}

#[test]
fn a_goto_leaves_rules_out() {
    let mut facts = host();
    facts.rules.insert(1, rule(8, 0, 2, &[number(4, 20)]));
    facts.rules.insert(2, rule(10, 32, PROHIBIT, &[]));
    assert_eq!(find(&What::Route(look_up(EACCES)), &facts), None);
    facts.rules.insert(3, rule(20, 32, PROHIBIT, &[]));
    let said = text(look_up(EACCES), &facts).unwrap();
    assert_eq!(said, "rule 20: to 10.0.0.2 prohibit");
}

#[test]
fn addresses_of_ipv6_tunnels() {
    let mut facts = host();
    let said = |facts: &Facts, oif| {
        let address = ip("fd00::1");
        let found = find(&What::Address { address, oif }, facts)?;
        found.candidates.into_iter().next().map(|(_, text)| text)
    };
    let gone = "fd00::1 is not an address of this host";
    assert_eq!(said(&facts, 0).unwrap(), gone);
    facts.devices[0].up = false;
    assert_eq!(said(&facts, 3).unwrap(), format!("{gone}; v0 is down"));
    facts.addresses[0].address = ip("fd00::1");
    assert_eq!(said(&facts, 0), None);
    facts.addresses[0].tentative = true;
    assert_eq!(
        said(&facts, 0).unwrap(),
        "fd00::1 on v0 is tentative: duplicate address detection is not over"
    );
    facts.addresses[0].duplicate = true;
    assert_eq!(
        said(&facts, 0).unwrap(),
        "fd00::1 on v0 failed duplicate address detection: another host has it"
    );
}

/// Asks the running kernel.
fn ask(netns: u32, what: What) -> Option<(Decided, String)> {
    let facts = facts::gather(&Question { netns, what }).unwrap();
    let found = find(&what, &facts)?;
    assert_eq!(found.candidates.len(), 1, "{found:?}");
    found.candidates.into_iter().next()
}

#[test]
fn the_running_kernel_is_understood() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root, for network namespaces");
        return;
    }
    let scratch = Scratch::new("routing");
    let name = &scratch.0;
    let run = |command: &str| must(&words(&format!("-n {name} {command}")));
    run("link set lo up");
    run("link add v0 type veth peer name v1");
    run("link set v0 up");
    run("link set v1 up");
    run("addr add 10.0.0.1/24 dev v0");
    run("addr add fd00::1/64 dev v0 nodad");
    let netns = netns::find(name).unwrap().inode;
    let four = |errno| look_up(errno);
    let six = |errno| LookUp {
        dst: ip("fd00::2"),
        src: Some(ip("fd00::1")),
        ..look_up(errno)
    };
    let asked = |look_up| ask(netns, What::Route(look_up));

    // All is well: whatever was refused, it is not any more.
    assert_eq!(asked(four(EACCES)), None);
    assert_eq!(asked(six(ENETUNREACH)), None);

    for (look_up, family, dst) in [(four(0), "-4", "10.0.0.2"), (six(0), "-6", "fd00::2")] {
        let with = |errno| LookUp {
            errno: Some(errno),
            ..look_up
        };
        let length = if look_up.dst.is_ipv6() { 128 } else { 32 };
        for (word, by_rule, by_route) in [
            ("prohibit", EACCES, EACCES),
            ("blackhole", EINVAL, EINVAL),
            ("unreachable", ENETUNREACH, EHOSTUNREACH),
        ] {
            run(&format!("{family} rule add to {dst} pref 10 {word}"));
            let said = format!("rule 10: to {dst} {word}");
            assert_eq!(asked(with(by_rule)), Some((Decided::Rule, said)), "{dst}");
            run(&format!("{family} rule del pref 10"));

            run(&format!(
                "{family} route add {word} {dst}/{length} table 1000"
            ));
            run(&format!(
                "{family} rule add fwmark 0x5/0xf pref 11 lookup 1000"
            ));
            let marked = LookUp {
                mark: 0x25,
                ..with(by_route)
            };
            let said = format!("route {word} {dst}/{length} in table 1000");
            assert_eq!(asked(marked), Some((Decided::Table(1000), said)), "{dst}");
            assert_eq!(asked(with(by_route)), None);
            run(&format!("{family} rule del pref 11"));
            run(&format!("{family} route flush table 1000"));
        }
    }

    // A source that is no address, of either kind of being one.
    let source = |src| LookUp {
        src: Some(ip(src)),
        ..four(ENETUNREACH)
    };
    let said = "source 10.0.0.9 is not an address of this host".to_owned();
    assert_eq!(asked(source("10.0.0.9")), Some((Decided::Address, said)));
    assert_eq!(asked(source("127.1.2.3")), None);

    let elsewhere = LookUp {
        dst: ip("10.9.9.9"),
        ..four(ENETUNREACH)
    };
    let said = "no route in tables local, main, default".to_owned();
    assert_eq!(asked(elsewhere), Some((Decided::NoRoute, said)));
    let elsewhere = LookUp {
        dst: ip("fd99::9"),
        ..six(ENETUNREACH)
    };
    let said = "no route in tables local, main".to_owned();
    assert_eq!(asked(elsewhere), Some((Decided::NoRoute, said)));

    // The device below is down: with it go IPv6 addresses and all routes.
    let devices = crate::devices::link::dump(&netns::find(name).unwrap()).unwrap();
    let v0 = devices.devices.iter().find(|device| device.name == b"v0");
    let oif = v0.unwrap().ifindex;
    run("link set v0 down");
    let bound = LookUp {
        oif,
        ..four(ENETUNREACH)
    };
    let said = "the bound device v0 is down".to_owned();
    assert_eq!(asked(bound), Some((Decided::Device, said)));
    let said = "no route in tables local, main, default; v0 is down".to_owned();
    assert_eq!(asked(four(ENETUNREACH)), Some((Decided::NoRoute, said)));
    let address = ip("fd00::1");
    let said = "fd00::1 is not an address of this host; v0 is down".to_owned();
    let found = ask(netns, What::Address { address, oif });
    assert_eq!(found, Some((Decided::Address, said)));
    drop(scratch);
    let what = What::Route(four(EACCES));
    assert!(facts::gather(&Question { netns, what }).is_err());
}
