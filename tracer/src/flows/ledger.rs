//! One device's ledger.

use std::collections::BTreeMap;

use tracer_common::tally::{DeviceKey, DeviceTally, PassedKey, outcome};

use super::{Ledger, Row, asymmetry, asymmetry::Outcome};

/// Puts a ledger together from the device's counts and the rows about it. What
/// netlink says of the device is not in it yet.
pub fn ledger(
    key: DeviceKey,
    tally: DeviceTally,
    name: String,
    netns: Option<String>,
    passed: &BTreeMap<PassedKey, u64>,
    rows: &[Row],
) -> Ledger {
    let mut outcomes: Vec<Outcome> = passed
        .iter()
        .filter(|(passed, _)| passed.ifindex == key.ifindex && passed.netns == key.netns)
        .map(|(passed, packets)| Outcome {
            ethertype: passed.ethertype,
            proto: passed.proto,
            dst: Some(passed.dst).filter(|dst| *dst != [0; 16]),
            passed: *packets,
            dropped: 0,
        })
        .collect();
    let mut by_cause = BTreeMap::new();
    let mut lost_after_sending = BTreeMap::new();
    let mut kind = String::new();
    for row in rows {
        let of = &row.evidence.key;
        match of.outcome {
            outcome::DROPPED if (of.netns, of.ifindex) == (key.netns, key.ifindex) => {
                kind.clone_from(&row.evidence.kind);
                *by_cause.entry(row.cause.id).or_insert(0) += row.count;
                outcomes.push(Outcome {
                    ethertype: of.flow.ethertype,
                    proto: of.flow.proto,
                    dst: Some(of.flow.dst).filter(|dst| *dst != [0; 16]),
                    passed: 0,
                    dropped: row.count,
                });
            }
            outcome::LOST_LATER
                if (of.sender_netns, of.sender_ifindex) == (key.netns, key.ifindex) =>
            {
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
        families: asymmetry::families(&outcomes),
        asymmetry: asymmetry::clean_splits(&outcomes),
        counters: Vec::new(),
    }
}
