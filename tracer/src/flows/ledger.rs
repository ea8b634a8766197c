//! One device's ledger.

use std::collections::BTreeMap;

use tracer_common::tally::{DeviceKey, DeviceTally, TallyKey, outcome};

use super::{Ledger, Row, asymmetry};

/// Puts a ledger together from the device's counts and the rows about it. What
/// netlink says of the device is not in it yet.
pub fn ledger(
    key: DeviceKey,
    tally: DeviceTally,
    name: String,
    netns: Option<String>,
    tallies: &[(TallyKey, u64)],
    rows: &[Row],
) -> Ledger {
    let own: Vec<(TallyKey, u64)> = tallies
        .iter()
        .filter(|(tally, _)| tally.ifindex == key.ifindex && tally.netns == key.netns)
        .copied()
        .collect();
    let mut by_cause = BTreeMap::new();
    let mut lost_after_sending = BTreeMap::new();
    let mut kind = String::new();
    for row in rows {
        let of = &row.evidence.key;
        if of.ifindex != key.ifindex || of.netns != key.netns {
            continue;
        }
        kind.clone_from(&row.evidence.kind);
        match of.outcome {
            outcome::DROPPED => *by_cause.entry(row.cause.id).or_insert(0) += row.count,
            outcome::LOST_LATER => {
                *lost_after_sending.entry(row.cause.id).or_insert(0) += row.count;
            }
            _ => {}
        }
    }
    Ledger {
        name,
        kind,
        netns,
        tally,
        by_cause: by_cause.into_iter().collect(),
        lost_after_sending: lost_after_sending.into_iter().collect(),
        families: asymmetry::families(&own),
        asymmetry: asymmetry::clean_splits(&own),
        counters: Vec::new(),
    }
}
