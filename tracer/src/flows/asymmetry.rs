//! Which attribute separates the packets of a device that pass from those
//! that vanish.

use std::collections::BTreeMap;

use crate::{judge::names, view::text};

/// Counts of packets that share one value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Asymmetry {
    pub attribute: &'static str,
    pub value: String,
    pub passed: u64,
    pub dropped: u64,
    /// Of all packets, how many in a hundred go the way that most with their
    /// value of the attribute go; 100: all of them.
    pub clean: u8,
}

/// Most values of an attribute that are worth listing.
const MAX_VALUES: usize = 8;
/// Of a value's packets, at least so many in a hundred have to go one way: with
/// less, the attribute is not what decides.
const CLEAN: u64 = 95;

/// What is known of packets that went the same way.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub ethertype: u16,
    pub proto: u8,
    /// Inner destination, where it was kept apart.
    pub dst: Option<[u8; 16]>,
    pub icmp_type: u8,
    pub port: u16,
    pub passed: u64,
    pub dropped: u64,
}

/// Counts by one attribute.
fn by(
    attribute: &'static str,
    outcomes: &[Outcome],
    value: impl Fn(&Outcome) -> Option<String>,
) -> Vec<Asymmetry> {
    let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for outcome in outcomes {
        let Some(value) = value(outcome) else {
            continue;
        };
        let (passed, dropped) = counts.entry(value).or_default();
        *passed += outcome.passed;
        *dropped += outcome.dropped;
    }
    of_counts(attribute, counts)
}

/// What passed and vanished of an attribute's values; how clean that is comes later.
pub fn of_counts(
    attribute: &'static str,
    counts: impl IntoIterator<Item = (String, (u64, u64))>,
) -> Vec<Asymmetry> {
    counts
        .into_iter()
        .map(|(value, (passed, dropped))| Asymmetry {
            attribute,
            value,
            passed,
            dropped,
            clean: 0,
        })
        .collect()
}

/// Sent and dropped packets by address family.
pub fn families(outcomes: &[Outcome]) -> Vec<Asymmetry> {
    by("family", outcomes, |outcome| {
        Some(text::family_of(outcome.ethertype).to_ascii_lowercase())
    })
}

/// The attributes that split the device's packets: with some values (nearly) all
/// packets pass, with others (nearly) all vanish, and there is one of each. What
/// is kept of packets that pass is all that can be looked at.
pub fn splits(outcomes: &[Outcome]) -> Vec<Asymmetry> {
    let candidates = [
        families(outcomes),
        by("protocol", outcomes, |outcome| {
            let number = outcome.proto;
            Some(names::protocol(number).map_or(number.to_string(), str::to_owned))
        }),
        by("destination", outcomes, |outcome| {
            text::address(&outcome.dst?, outcome.ethertype).map(|address| address.to_string())
        }),
    ];
    candidates
        .into_iter()
        .filter_map(|mut values| {
            // What has no value is not split by it.
            let packets = |outcome: &Outcome| outcome.passed + outcome.dropped;
            let all: u64 = outcomes.iter().map(packets).sum();
            let clean = cleanness(&values, all)?;
            for value in &mut values {
                value.clean = clean;
            }
            listed(values)
        })
        .flatten()
        .collect()
}

/// Of many values those that go the way that fewer go, and the rest as one; `None`
/// where both are too many to be told.
pub fn listed(values: Vec<Asymmetry>) -> Option<Vec<Asymmetry>> {
    if values.len() <= MAX_VALUES {
        return Some(values);
    }
    let (pass, vanish): (Vec<_>, Vec<_>) = values
        .into_iter()
        .partition(|value| value.passed > value.dropped);
    let (mut few, many) = match pass.len() < vanish.len() {
        true => (pass, vanish),
        false => (vanish, pass),
    };
    if few.len() >= MAX_VALUES {
        return None;
    }
    let sum = |count: fn(&Asymmetry) -> u64| many.iter().map(count).sum();
    few.push(Asymmetry {
        attribute: many[0].attribute,
        value: format!("{} others", many.len()),
        passed: sum(|value| value.passed),
        dropped: sum(|value| value.dropped),
        clean: many[0].clean,
    });
    Some(few)
}

/// How clean the split of so many packets is; `None` if it is none.
pub fn cleanness(values: &[Asymmetry], all: u64) -> Option<u8> {
    let minority = |value: &Asymmetry| value.passed.min(value.dropped);
    let is_pure = |value: &Asymmetry| {
        let all = u128::from(value.passed) + u128::from(value.dropped);
        u128::from(minority(value)) * 100 <= u128::from(100 - CLEAN) * all
    };
    let two_ways = values.iter().any(|value| value.passed > value.dropped)
        && values.iter().any(|value| value.dropped > value.passed);
    let counted: u64 = values
        .iter()
        .map(|value| value.passed + value.dropped)
        .sum();
    if !two_ways || counted < all || !values.iter().all(is_pure) {
        return None;
    }
    let strays: u64 = values.iter().map(minority).sum();
    let clean = u128::from(all - strays) * 100 / u128::from(all.max(1));
    u8::try_from(clean).ok()
}

#[cfg(test)]
mod tests {
    use tracer_common::flow::{ETH_P_IP, ETH_P_IPV6};

    use super::*;

    fn outcome(ethertype: u16, passed: u64, dropped: u64) -> Outcome {
        Outcome {
            ethertype,
            proto: 0,
            dst: None,
            icmp_type: 0,
            port: 0,
            passed,
            dropped,
        }
    }

    #[test]
    fn the_family_that_vanishes_is_named() {
        let outcomes = [outcome(ETH_P_IP, 5, 0), outcome(ETH_P_IPV6, 0, 7)];
        let splits = splits(&outcomes);
        let family: Vec<_> = splits
            .iter()
            .filter(|split| split.attribute == "family")
            .collect();
        assert_eq!(family.len(), 2, "{splits:?}");
        assert_eq!((family[0].passed, family[0].dropped), (5, 0));
        assert_eq!((family[1].passed, family[1].dropped), (0, 7));
    }

    #[test]
    fn a_mixed_family_separates_nothing() {
        let outcomes = [
            outcome(ETH_P_IP, 5, 0),
            outcome(ETH_P_IPV6, 0, 7),
            outcome(ETH_P_IPV6, 1, 0),
        ];
        assert!(
            splits(&outcomes)
                .iter()
                .all(|split| split.attribute != "family")
        );
    }

    fn to(dst: u8, passed: u64, dropped: u64) -> Outcome {
        let mut address = [0; 16];
        address[3] = dst;
        Outcome {
            dst: Some(address),
            proto: 6,
            ..outcome(ETH_P_IP, passed, dropped)
        }
    }

    #[test]
    fn a_split_says_how_clean_it_is() {
        let clean = |outcomes: &[Outcome]| {
            let splits = splits(outcomes);
            let found = splits.iter().find(|split| split.attribute == "destination");
            found.map(|split| split.clean)
        };
        assert_eq!(clean(&[to(1, 50, 0), to(2, 0, 50)]), Some(100));
        // One stray of two hundred is never nothing.
        assert_eq!(clean(&[to(1, 100, 0), to(2, 1, 99)]), Some(99));
        assert_eq!(clean(&[to(1, 1_000_000, 0), to(2, 1, 999_999)]), Some(99));
        assert_eq!(clean(&[to(1, 100, 0), to(2, 6, 94)]), None, "too many");
        assert_eq!(clean(&[to(1, 1, 1), to(2, 0, 50)]), None, "one of two");
        assert_eq!(clean(&[to(1, 0, 9), to(2, 0, 9)]), None, "none passes");
        let nowhere = outcome(ETH_P_IP, 1, 0);
        let some = [to(1, 50, 0), to(2, 0, 50), nowhere];
        assert_eq!(clean(&some), None, "of one it is not known");
        let many: Vec<Outcome> = (0..9).map(|n| to(n, u64::from(n), 0)).collect();
        assert_eq!(clean(&many), None);
    }

    #[test]
    fn of_many_values_the_few_are_told() {
        let mut outcomes: Vec<Outcome> = (0..50).map(|n| to(n, 8, 0)).collect();
        outcomes.push(to(99, 0, 50));
        let told: Vec<_> = splits(&outcomes)
            .into_iter()
            .map(|split| (split.value, split.passed, split.dropped))
            .collect();
        let expected = [("0.0.0.99", 0, 50), ("50 others", 400, 0)];
        assert_eq!(told, expected.map(|(value, a, b)| (value.to_owned(), a, b)));
        outcomes.extend((100..120).map(|n| to(n, 0, 8)));
        assert!(splits(&outcomes).is_empty(), "too many of both");
    }
}
