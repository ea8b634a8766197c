//! Sizes of packets, where the flows fare alike: of those that pass, what is kept is
//! how many of a size there were on a device.

use std::collections::BTreeMap;

use tracer_common::{
    flow::{ETH_P_IP, ETH_P_IPV6},
    tally::{LikeKey, LikeTally, like},
};

/// Where classes of size begin, in units of `like::UNIT` bytes: below the smallest
/// MTUs of the two families (576, 1280), and about those of tunnels over Ethernet.
const CLASSES: [u16; 6] = [0, 2, 9, 20, 22, 24];
/// With fewer packets, it is chance.
const LEAST: u64 = 3;

/// Packets of a device and a family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Of {
    pub device: String,
    pub netns: Option<String>,
    pub family: u16,
}

/// How many passed and vanished, by class.
pub type Sizes = BTreeMap<usize, (u64, u64)>;

/// Adds what was counted of packets that are alike. Those without a sender are left
/// out: they are the kernel's own, too, which come when they come.
pub fn add(to: &mut BTreeMap<Of, Sizes>, of: impl Fn(u16) -> Of, key: &LikeKey, tally: &LikeTally) {
    let family = match key.flags & (like::IPV4 | like::IPV6) {
        like::IPV4 => ETH_P_IP,
        like::IPV6 => ETH_P_IPV6,
        _ => return,
    };
    if key.flags & like::SENDER == 0 {
        return;
    }
    let class = CLASSES.iter().rposition(|begin| *begin <= key.size);
    let sizes = to.entry(of(family)).or_default();
    let counts = sizes.entry(class.unwrap_or(0)).or_default();
    counts.0 += tally.sent.saturating_sub(tally.lost);
    counts.1 += tally.dropped + tally.lost;
}

/// `up to 127 bytes`, `1408 bytes and more`, `128 to 575 bytes`.
pub fn words(class: usize) -> String {
    let bytes = |class: usize| u32::from(CLASSES[class]) * like::UNIT;
    match class {
        0 => format!("up to {} bytes", bytes(1) - 1),
        last if last + 1 >= CLASSES.len() => format!("{} bytes and more", bytes(last)),
        class => format!("{} to {} bytes", bytes(class), bytes(class + 1) - 1),
    }
}

/// The classes of which all pass in one and all vanish in the other.
pub fn differ(a: &Sizes, b: &Sizes) -> Vec<usize> {
    let all_pass = |(passed, vanished): (u64, u64)| passed >= LEAST && vanished == 0;
    let all_vanish = |(passed, vanished): (u64, u64)| vanished >= LEAST && passed == 0;
    a.iter()
        .filter_map(|(class, of_a)| {
            let of_b = *b.get(class)?;
            let differs =
                (all_pass(*of_a) && all_vanish(of_b)) || (all_vanish(*of_a) && all_pass(of_b));
            differs.then_some(*class)
        })
        .collect()
}

/// Do packets vanish in both, but of no size that vanishes in both?
pub fn are_others(a: &Sizes, b: &Sizes) -> bool {
    let vanish = |sizes: &Sizes| -> Vec<usize> {
        let vanish = sizes.iter().filter(|(_, (_, vanished))| *vanished > 0);
        vanish.map(|(class, _)| *class).collect()
    };
    let (a, b) = (vanish(a), vanish(b));
    !a.is_empty() && !b.is_empty() && !a.iter().any(|class| b.contains(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(counts: &[(usize, u64, u64)]) -> Sizes {
        counts
            .iter()
            .map(|(class, passed, vanished)| (*class, (*passed, *vanished)))
            .collect()
    }

    #[test]
    fn classes_have_bounds() {
        let all: Vec<String> = (0..CLASSES.len()).map(words).collect();
        assert_eq!(all[0], "up to 127 bytes");
        assert_eq!(all[2], "576 to 1279 bytes");
        assert_eq!(all[5], "1536 bytes and more");
    }

    #[test]
    fn large_packets_pass_in_one() {
        let a = sizes(&[(0, 9, 0), (4, 0, 9)]);
        let b = sizes(&[(0, 9, 0), (4, 9, 0)]);
        assert_eq!(differ(&a, &b), [4]);
        assert!(differ(&a, &a).is_empty());
        assert!(
            differ(&a, &sizes(&[(0, 9, 0), (4, 2, 0)])).is_empty(),
            "chance"
        );
    }

    #[test]
    fn other_sizes_vanish() {
        let (a, b) = (sizes(&[(0, 9, 0), (4, 0, 9)]), sizes(&[(0, 0, 9)]));
        assert!(are_others(&a, &b));
        assert!(!are_others(&a, &a));
        assert!(!are_others(&a, &sizes(&[(0, 9, 0)])), "nothing vanishes");
    }
}
