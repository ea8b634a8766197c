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
}

/// Most values of an attribute that are worth listing.
const MAX_VALUES: usize = 8;

/// What is known of packets that went the same way.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub ethertype: u16,
    pub proto: u8,
    /// Inner destination, where it was kept apart.
    pub dst: Option<[u8; 16]>,
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
    counts
        .into_iter()
        .map(|(value, (passed, dropped))| Asymmetry {
            attribute,
            value,
            passed,
            dropped,
        })
        .collect()
}

/// Sent and dropped packets by address family.
pub fn families(outcomes: &[Outcome]) -> Vec<Asymmetry> {
    by("family", outcomes, |outcome| {
        Some(text::family_of(outcome.ethertype).to_ascii_lowercase())
    })
}

/// The attributes that split the device's packets cleanly: with each value,
/// all packets pass or all vanish, and there is one of each.
pub fn clean_splits(outcomes: &[Outcome]) -> Vec<Asymmetry> {
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
        .filter(|values| is_clean(values))
        .flatten()
        .collect()
}

fn is_clean(values: &[Asymmetry]) -> bool {
    values.len() <= MAX_VALUES
        && values
            .iter()
            .all(|value| value.passed == 0 || value.dropped == 0)
        && values.iter().any(|value| value.passed > 0)
        && values.iter().any(|value| value.dropped > 0)
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
            passed,
            dropped,
        }
    }

    #[test]
    fn the_family_that_vanishes_is_named() {
        let outcomes = [outcome(ETH_P_IP, 5, 0), outcome(ETH_P_IPV6, 0, 7)];
        let splits = clean_splits(&outcomes);
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
            clean_splits(&outcomes)
                .iter()
                .all(|split| split.attribute != "family")
        );
    }
}
