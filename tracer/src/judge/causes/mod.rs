//! The table of causes: one entry each, first match wins.
//!
//! [`transmit`] has what the tunnel's driver does before it hands the outer
//! packet on, [`underlay`] what happens to the outer packet then, [`receive`]
//! what the other end does with it.
//!
//! `applies` looks at evidence only. `Proved` means that each part of the
//! condition was observed; `Inferred` that a part was concluded, from the
//! device's configuration or from what did not happen.

mod receive;
mod transmit;
mod underlay;

use super::{Confidence, evidence::Evidence};

/// Why packets vanish.
#[derive(Debug)]
pub struct Cause {
    /// Stable.
    pub id: &'static str,
    pub title: &'static str,
    /// The condition in the kernel's words, with its file and function.
    pub condition: &'static str,
    /// Which counters move.
    pub counters: &'static str,
    /// Is the sender told?
    pub told: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// Upstream commits that change it.
    pub fixes: &'static [&'static str],
    pub applies: fn(&Evidence) -> Option<Confidence>,
}

/// All causes; the last one always applies.
pub fn all() -> impl Iterator<Item = &'static Cause> {
    transmit::CAUSES
        .iter()
        .chain(underlay::CAUSES)
        .chain(receive::CAUSES)
        .chain(REST)
}

const REST: &[Cause] = &[
    Cause {
        id: "kernel-reason",
        title: "dropped for the reason the kernel names",
        condition: "the running kernel's own drop reason (enum skb_drop_reason, include/net/dropreason-core.h)",
        counters: "depends on the reason",
        told: "depends on the reason",
        remedy: "the reason is described beside its name in include/net/dropreason-core.h",
        fixes: &[],
        applies: |evidence| evidence.named_reason().map(|_| Confidence::Proved),
    },
    Cause {
        id: "unknown",
        title: "the cause is not known; the evidence is all there is",
        condition: "none of the others; the function and its offset are where the kernel freed the packet",
        counters: "as shown",
        told: "as shown",
        remedy: "look at the function and offset in the source of this kernel; --stack shows how it got there",
        fixes: &[],
        applies: |_| Some(Confidence::Unknown),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_plain() {
        let mut ids: Vec<_> = all().map(|cause| cause.id).collect();
        for id in &ids {
            assert!(
                id.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
                "{id}"
            );
        }
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn every_cause_says_what_to_do() {
        for cause in all() {
            assert!(!cause.title.is_empty() && !cause.remedy.is_empty());
            assert!(!cause.title.ends_with('.') && !cause.remedy.ends_with('.'));
        }
    }
}
