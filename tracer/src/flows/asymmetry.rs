//! Which attribute separates the packets of a device that pass from those
//! that vanish.

use std::{collections::BTreeMap, net::IpAddr};

use tracer_common::{
    flow::Flow,
    tally::{TallyKey, outcome},
};

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

/// Counts by one attribute.
fn by(
    attribute: &'static str,
    tallies: &[(TallyKey, u64)],
    value: impl Fn(&Flow) -> Option<String>,
) -> Vec<Asymmetry> {
    let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (key, packets) in tallies {
        let Some(value) = value(&key.flow) else {
            continue;
        };
        let (passed, dropped) = counts.entry(value).or_default();
        match key.outcome {
            outcome::SENT => *passed += packets,
            outcome::DROPPED => *dropped += packets,
            _ => {}
        }
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
pub fn families(tallies: &[(TallyKey, u64)]) -> Vec<Asymmetry> {
    by("family", tallies, |flow| {
        Some(text::family(flow).to_ascii_lowercase())
    })
}

/// The attributes that split the device's packets cleanly: with each value,
/// all packets pass or all vanish, and there is one of each.
pub fn clean_splits(tallies: &[(TallyKey, u64)]) -> Vec<Asymmetry> {
    let candidates = [
        families(tallies),
        by("protocol", tallies, |flow| {
            Some(names::protocol(flow.proto).map_or(flow.proto.to_string(), str::to_owned))
        }),
        by("destination", tallies, |flow| {
            text::address(&flow.dst, flow.ethertype).map(|address: IpAddr| address.to_string())
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

    fn tally(ethertype: u16, outcome: u8, packets: u64) -> (TallyKey, u64) {
        let flow = Flow {
            ethertype,
            ..Flow::default()
        };
        (
            TallyKey {
                flow,
                outcome,
                ..TallyKey::default()
            },
            packets,
        )
    }

    #[test]
    fn the_family_that_vanishes_is_named() {
        let tallies = [
            tally(ETH_P_IP, outcome::SENT, 5),
            tally(ETH_P_IPV6, outcome::DROPPED, 7),
        ];
        let splits = clean_splits(&tallies);
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
        let tallies = [
            tally(ETH_P_IP, outcome::SENT, 5),
            tally(ETH_P_IPV6, outcome::DROPPED, 7),
            tally(ETH_P_IPV6, outcome::SENT, 1),
        ];
        assert!(
            clean_splits(&tallies)
                .iter()
                .all(|split| split.attribute != "family")
        );
    }
}
