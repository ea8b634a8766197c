//! Which packets of a device vanish, where it is not their flow that decides:
//! size, whether they may be fragmented, mark, sender, whether they are the first
//! to their destination, CPU.

use std::collections::BTreeMap;

use tracer_common::tally::{LikeKey, LikeTally, like};

use super::asymmetry::{Asymmetry, cleanness, listed, of_counts};

/// On each side there have to be so many packets: with less, what they have in
/// common is chance.
const LEAST: u64 = 3;
/// Which CPU a packet is sent by is chance more often than not.
const LEAST_OF_CPUS: u64 = 20;

/// What splits packets into those that pass and those that vanish, which `fate`
/// tells apart; the first of the attributes that does.
pub fn splits(
    likes: &[(LikeKey, LikeTally)],
    fate: impl Fn(&LikeTally) -> (u64, u64),
) -> Vec<Asymmetry> {
    let counted: Vec<(LikeKey, u64, u64)> = likes
        .iter()
        .map(|(key, tally)| {
            let (passed, vanished) = fate(tally);
            (*key, passed, vanished)
        })
        .collect();
    let all: u64 = counted
        .iter()
        .map(|(_, passed, dropped)| passed + dropped)
        .sum();
    let by = |attribute, least, value: &dyn Fn(&LikeKey) -> Option<String>| {
        let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (key, passed, dropped) in &counted {
            let counts = counts.entry(value(key)?).or_default();
            counts.0 += passed;
            counts.1 += dropped;
        }
        clean(attribute, least, counts, all)
    };
    let size = || clean("size", LEAST, sizes(&counted)?, all);
    // Of other families there is no such thing: they have to be none of those that
    // vanish.
    let others = counted
        .iter()
        .filter(|(key, ..)| key.flags & like::IPV4 == 0);
    let others_pass = others.clone().all(|(_, _, vanished)| *vanished == 0);
    let of_others: u64 = others.map(|(_, passed, _)| passed).sum();
    let fragments = || {
        let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let of_ipv4 = counted
            .iter()
            .filter(|(key, ..)| key.flags & like::IPV4 != 0);
        for (key, passed, vanished) in of_ipv4 {
            let word = match key.flags & like::DONT_FRAGMENT {
                0 => "may be fragmented",
                _ => "may not be fragmented",
            };
            let counts = counts.entry(word.to_owned()).or_default();
            counts.0 += passed;
            counts.1 += vanished;
        }
        others_pass.then(|| clean("fragmentation", LEAST, counts, all - of_others))?
    };
    let mark = || by("mark", LEAST, &|key| Some(format!("{:#x}", key.mark)));
    let uid = || {
        by("uid", LEAST, &|key| {
            Some(match key.flags & like::SENDER {
                0 => "none".to_owned(),
                _ => key.uid.to_string(),
            })
        })
    };
    let order = || {
        by("order", LEAST, &|key| {
            Some(match key.flags & like::FIRST {
                0 => "later to their destination".to_owned(),
                _ => "first to their destination".to_owned(),
            })
        })
    };
    let cpu = || by("cpu", LEAST_OF_CPUS, &|key| Some(key.cpu.to_string()));
    size()
        .or_else(fragments)
        .or_else(mark)
        .or_else(uid)
        .or_else(order)
        .or_else(cpu)
        .unwrap_or_default()
}

/// The counts of an attribute's values, if they are a split.
fn clean(
    attribute: &'static str,
    least: u64,
    counts: impl IntoIterator<Item = (String, (u64, u64))>,
    all: u64,
) -> Option<Vec<Asymmetry>> {
    let mut values = of_counts(attribute, counts);
    let clean = cleanness(&values, all)?;
    if values
        .iter()
        .any(|value| value.passed.max(value.dropped) < least)
    {
        return None;
    }
    for value in &mut values {
        value.clean = clean;
    }
    listed(values)
}

/// Packets up to a size, and those above it, where the one pass and the others
/// vanish, or the other way round.
fn sizes(counted: &[(LikeKey, u64, u64)]) -> Option<Vec<(String, (u64, u64))>> {
    let mut sizes: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for (key, passed, dropped) in counted {
        let counts = sizes.entry(key.size.into()).or_default();
        counts.0 += passed;
        counts.1 += dropped;
    }
    let passes = |counts: &(u64, u64)| counts.0 > counts.1;
    let smallest = passes(sizes.first_key_value()?.1);
    // The first that goes the other way.
    let (bound, _) = sizes
        .iter()
        .find(|(_, counts)| passes(counts) != smallest)?;
    let bound = *bound;
    let sum = |of: BTreeMap<u32, (u64, u64)>| {
        of.into_values()
            .fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1))
    };
    let above = sizes.split_off(&bound);
    let last = sizes.last_key_value()?.0 * like::UNIT + like::UNIT - 1;
    Some(vec![
        (format!("up to {last} bytes"), sum(sizes)),
        (format!("{} bytes and more", bound * like::UNIT), sum(above)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        size: u16,
        change: impl Fn(&mut LikeKey),
        sent: u64,
        dropped: u64,
    ) -> (LikeKey, LikeTally) {
        let mut key = LikeKey {
            size,
            flags: like::IPV4 | like::SENDER,
            ..LikeKey::default()
        };
        change(&mut key);
        let tally = LikeTally {
            sent,
            dropped,
            lost: 0,
        };
        (key, tally)
    }

    fn told(likes: &[(LikeKey, LikeTally)]) -> Vec<String> {
        splits(likes, |tally| (tally.sent, tally.dropped))
            .iter()
            .map(|split| {
                let Asymmetry {
                    attribute,
                    value,
                    passed,
                    dropped,
                    ..
                } = split;
                format!("{attribute} {value}: {passed} {dropped}")
            })
            .collect()
    }

    #[test]
    fn packets_that_are_too_big() {
        let same = |_: &mut LikeKey| {};
        let likes = [
            of(1, same, 50, 0),
            of(2, same, 7, 0),
            of(22, same, 0, 5),
            of(23, same, 0, 9),
        ];
        assert_eq!(
            told(&likes),
            [
                "size up to 191 bytes: 57 0",
                "size 1408 bytes and more: 0 14"
            ]
        );
        // What is in between passes and vanishes: size is not it.
        assert!(told(&[of(1, same, 50, 0), of(2, same, 0, 7), of(22, same, 50, 0)]).is_empty());
        assert!(
            told(&[of(1, same, 50, 0), of(22, same, 0, 2)]).is_empty(),
            "too few"
        );
    }

    #[test]
    fn mark_sender_fragmentation_order_and_cpu() {
        let split = |change: fn(&mut LikeKey), packets| {
            told(&[of(1, |_| {}, packets, 0), of(1, change, 0, packets)])
        };
        assert_eq!(
            split(|key| key.mark = 7, 9),
            ["mark 0x0: 9 0", "mark 0x7: 0 9"]
        );
        assert_eq!(
            split(|key| key.uid = 1000, 9),
            ["uid 0: 9 0", "uid 1000: 0 9"]
        );
        assert_eq!(
            split(|key| key.flags |= like::DONT_FRAGMENT, 9),
            [
                "fragmentation may be fragmented: 9 0",
                "fragmentation may not be fragmented: 0 9"
            ]
        );
        // What the kernel sends by IPv6 has nothing to do with it.
        let with_ipv6 = [
            of(1, |_| {}, 9, 0),
            of(1, |key| key.flags |= like::DONT_FRAGMENT, 0, 9),
            of(1, |key| key.flags = like::IPV6, 3, 0),
        ];
        assert_eq!(told(&with_ipv6).len(), 2);
        assert_eq!(
            split(|key| key.flags |= like::FIRST, 9),
            [
                "order first to their destination: 0 9",
                "order later to their destination: 9 0"
            ]
        );
        assert!(split(|key| key.cpu = 1, 9).is_empty(), "chance");
        assert_eq!(split(|key| key.cpu = 1, 90), ["cpu 0: 90 0", "cpu 1: 0 90"]);
    }

    #[test]
    fn who_sent_the_lost_ones() {
        let mut likes = [of(1, |_| {}, 9, 0), of(1, |key| key.uid = 5, 9, 0)];
        likes[1].1.lost = 9;
        let later = splits(&likes, |tally| (tally.sent - tally.lost, tally.lost));
        assert_eq!((later.len(), later[0].attribute), (2, "uid"));
    }
}
