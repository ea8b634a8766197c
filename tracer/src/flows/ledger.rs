//! One device's ledger.

use std::collections::BTreeMap;

use tracer_common::tally::{DeviceKey, DeviceTally, LikeKey, LikeTally, outcome};

use super::{
    Asymmetry, Counts, Ledger, Row, alike,
    asymmetry::{self, Outcome},
};

/// Puts a ledger together from the device's counts and the rows about it. What
/// netlink says of the device is not in it yet.
pub fn ledger(
    key: DeviceKey,
    tally: DeviceTally,
    name: String,
    netns: Option<String>,
    counts: &Counts,
    rows: &[&Row],
) -> Ledger {
    let mut outcomes: Vec<Outcome> = counts
        .passed_by(key)
        .map(|(passed, packets)| Outcome {
            ethertype: passed.ethertype,
            proto: passed.proto,
            dst: Some(passed.dst).filter(|dst| *dst != [0; 16]),
            icmp_type: passed.icmp_type,
            port: passed.port,
            passed: *packets,
            dropped: 0,
        })
        .collect();
    // The same of what became of those that were sent.
    let mut later = outcomes.clone();
    let mut known = true;
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
                    icmp_type: of.flow.icmp_type,
                    port: of.flow.service(),
                    passed: 0,
                    dropped: row.count,
                });
            }
            outcome::LOST_LATER
                if (of.sender_netns, of.sender_ifindex) == (key.netns, key.ifindex) =>
            {
                *lost_after_sending.entry(row.cause.id).or_insert(0) += row.count;
                known &= take_away(&mut later, row);
            }
            _ => {}
        }
    }
    let likes: Vec<(LikeKey, LikeTally)> = counts
        .likes_of(key)
        .map(|(like, tally)| (*like, *tally))
        .collect();
    let asymmetry = unless_told(&likes, asymmetry::splits(&outcomes), &by_cause, |tally| {
        (tally.sent, tally.dropped)
    });
    let asymmetry_after_sending = match known {
        true => asymmetry::splits(&later),
        false => Vec::new(),
    };
    // A loss is counted where the packet is freed, on whichever CPU.
    let likes = by_any_cpu(&likes);
    let asymmetry_after_sending = unless_told(
        &likes,
        asymmetry_after_sending,
        &lost_after_sending,
        |tally| (tally.sent.saturating_sub(tally.lost), tally.lost),
    );
    Ledger {
        name,
        kind,
        netns,
        tally,
        by_cause: by_cause.into_iter().collect(),
        lost_after_sending: lost_after_sending.into_iter().collect(),
        families: asymmetry::families(&outcomes),
        asymmetry,
        asymmetry_after_sending,
        counters: None,
    }
}

/// What was told already, or else what packets that are alike say.
///
/// The programs count every end of a packet that was sent, and some of them only
/// arrived: what they say stands only where all they counted has vanished.
fn unless_told(
    likes: &[(LikeKey, LikeTally)],
    told: Vec<Asymmetry>,
    vanished: &BTreeMap<&str, u64>,
    fate: fn(&LikeTally) -> (u64, u64),
) -> Vec<Asymmetry> {
    let counted: u64 = likes.iter().map(|(_, tally)| fate(tally).1).sum();
    if told.is_empty() && counted == vanished.values().sum::<u64>() {
        alike::splits(likes, fate)
    } else {
        told
    }
}

/// The same of all CPUs together.
pub fn by_any_cpu(likes: &[(LikeKey, LikeTally)]) -> Vec<(LikeKey, LikeTally)> {
    let mut all: BTreeMap<LikeKey, LikeTally> = BTreeMap::new();
    for (key, tally) in likes {
        let sum = all.entry(LikeKey { cpu: 0, ..*key }).or_default();
        sum.sent += tally.sent;
        sum.dropped += tally.dropped;
        sum.lost += tally.lost;
    }
    all.into_iter().collect()
}

/// Of those that were sent, these were lost. Says if they were among those that
/// were counted like them.
fn take_away(sent: &mut [Outcome], row: &Row) -> bool {
    let flow = &row.evidence.key.flow;
    let dst = Some(flow.dst).filter(|dst| *dst != [0; 16]);
    let like = |outcome: &&mut Outcome| {
        (outcome.ethertype, outcome.proto, outcome.dst) == (flow.ethertype, flow.proto, dst)
            && (outcome.icmp_type, outcome.port) == (flow.icmp_type, flow.service())
    };
    let Some(outcome) = sent.iter_mut().find(like) else {
        return false;
    };
    let lost = row.count.min(outcome.passed);
    outcome.passed -= lost;
    outcome.dropped += lost;
    lost == row.count
}

#[cfg(test)]
mod tests {
    use tracer_common::{flow::ETH_P_IP, tally::PassedKey};

    use super::*;
    use crate::judge::{self, tests::sit};

    const KEY: DeviceKey = DeviceKey {
        netns: 4,
        ifindex: 3,
    };

    fn passed(dst: u8) -> PassedKey {
        let mut key = PassedKey {
            netns: KEY.netns,
            ifindex: KEY.ifindex,
            ethertype: ETH_P_IP,
            proto: 6,
            ..PassedKey::default()
        };
        key.dst[3] = dst;
        key
    }

    fn lost(dst: u8, count: u64) -> Row {
        let mut evidence = sit();
        evidence.key.outcome = outcome::LOST_LATER;
        (evidence.key.sender_netns, evidence.key.sender_ifindex) = (KEY.netns, KEY.ifindex);
        evidence.key.flow.ethertype = ETH_P_IP;
        evidence.key.flow.proto = 6;
        evidence.key.flow.dst = passed(dst).dst;
        let (cause, confidence) = judge::judge(&evidence);
        Row {
            evidence,
            cause,
            confidence,
            count,
            last_ns: 0,
            rate: 0.0,
            stack: Vec::new(),
            path: Vec::new(),
            netns: None,
        }
    }

    fn of(sent: &[(u8, u64)], rows: &[Row]) -> Ledger {
        let sent = sent.iter().map(|(dst, packets)| (passed(*dst), *packets));
        let tally = DeviceTally::default();
        let counts = Counts {
            passed: sent.collect(),
            ..Counts::default()
        };
        ledger(
            KEY,
            tally,
            "t0".to_owned(),
            None,
            &counts,
            &rows.iter().collect::<Vec<_>>(),
        )
    }

    #[test]
    fn what_only_arrived_separates_nothing() {
        let like = |size, sent, lost| {
            let key = LikeKey {
                netns: KEY.netns,
                ifindex: KEY.ifindex,
                size,
                ..LikeKey::default()
            };
            let tally = LikeTally {
                sent,
                dropped: 0,
                lost,
            };
            (key, tally)
        };
        let counts = Counts {
            likes: BTreeMap::from([like(1, 9, 0), like(20, 9, 9)]),
            ..Counts::default()
        };
        let told = |rows: &[Row]| {
            let tally = DeviceTally::default();
            let ledger = ledger(
                KEY,
                tally,
                "t0".to_owned(),
                None,
                &counts,
                &rows.iter().collect::<Vec<_>>(),
            );
            ledger.asymmetry_after_sending.len()
        };
        assert_eq!(told(&[lost(2, 9)]), 2);
        // All of them, or some, were freed where they had arrived.
        assert_eq!((told(&[]), told(&[lost(2, 5)])), (0, 0));
    }

    #[test]
    fn what_separates_those_that_are_lost_later() {
        let of_two = of(&[(1, 5), (2, 7)], &[lost(2, 7)]);
        assert!(of_two.asymmetry.is_empty(), "all of them were sent");
        let later: Vec<_> = of_two
            .asymmetry_after_sending
            .iter()
            .map(|split| {
                (
                    split.attribute,
                    split.value.as_str(),
                    split.passed,
                    split.dropped,
                )
            })
            .collect();
        assert_eq!(
            later,
            [
                ("destination", "0.0.0.1", 5, 0),
                ("destination", "0.0.0.2", 0, 7)
            ]
        );
    }

    #[test]
    fn where_it_is_not_known_which_were_lost_nothing_is_said() {
        // More than were counted to there, and one that was counted with others.
        for rows in [[lost(2, 8)], [lost(3, 1)]] {
            assert!(
                of(&[(1, 5), (2, 7)], &rows)
                    .asymmetry_after_sending
                    .is_empty()
            );
        }
    }
}
