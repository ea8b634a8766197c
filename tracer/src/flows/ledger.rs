//! One device's ledger.

use std::collections::BTreeMap;

use tracer_common::tally::{DeviceKey, DeviceTally, TallyKey, outcome};

use super::{Ledger, Row, asymmetry};
use crate::devices::{Counters, Device};

/// Puts a ledger together from the device's counts and the rows about it.
pub fn ledger(
    key: DeviceKey,
    tally: DeviceTally,
    name: String,
    netns: Option<String>,
    device: Option<&Device>,
    before: Option<&Counters>,
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
    if let Some(device) = device {
        kind.clone_from(&device.kind);
    }
    Ledger {
        name,
        kind,
        netns,
        device: device.cloned(),
        tally,
        by_cause: by_cause.into_iter().collect(),
        lost_after_sending: lost_after_sending.into_iter().collect(),
        families: asymmetry::families(&own),
        asymmetry: asymmetry::clean_splits(&own),
        counters: match (device, before) {
            (Some(device), Some(before)) => device.counters.delta(before),
            // Made while tracing: its counters began at zero.
            (Some(device), None) => device.counters.delta(&Counters::default()),
            (None, _) => Vec::new(),
        },
    }
}
