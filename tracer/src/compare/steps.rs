//! The steps of a packet's way, as far as they are known, and where two ways
//! part.

use tracer_common::tally::{outcome, seen};

use crate::{
    flows::Row,
    view::{facts, text},
};

/// The steps in their order.
pub const NAMES: [&str; 6] = [
    "tunnel device",
    "taken by its driver",
    "route of the outer packet",
    "handed to the underlay",
    "received by a tunnel",
    "end",
];

/// What is known of each step.
pub type Way = [Option<String>; NAMES.len()];

/// Where two ways part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parting {
    /// The last step that is known of both, and the same, before they part.
    pub common: Option<usize>,
    /// The first that is known of both, and not the same.
    pub parted: Option<usize>,
}

fn yes_or_no(yes: bool) -> Option<String> {
    Some(if yes { "yes" } else { "no" }.to_owned())
}

/// The way of packets that vanished.
pub fn of_row(row: &Row) -> Way {
    let evidence = &row.evidence;
    let of_tunnel = evidence.key.ifindex != 0 && evidence.key.outcome != outcome::UNRELATED;
    let handed = evidence.saw(seen::HANDED_TO_IP);
    let (taken, underlay, received) = match evidence.key.outcome {
        outcome::DROPPED => (yes_or_no(true), yes_or_no(handed), yes_or_no(false)),
        outcome::LOST_LATER => {
            // Some send much later, in a thread of theirs.
            let underlay = !evidence.before_the_underlay();
            let received = evidence.received();
            (yes_or_no(true), yes_or_no(underlay), yes_or_no(received))
        }
        outcome::AT_DEVICE if !evidence.received() => {
            (yes_or_no(false), yes_or_no(false), yes_or_no(false))
        }
        _ => (None, None, yes_or_no(evidence.received())),
    };
    [
        of_tunnel.then(|| text::tunnel(row)),
        taken,
        text::route_of(row),
        underlay,
        received,
        Some(format!(
            "{} in {} [{}]",
            facts::fate(row),
            text::place(evidence.place.as_ref()),
            row.cause.id
        )),
    ]
}

/// The way of packets that were sent and not seen to vanish. Of these, only
/// counts are kept.
pub fn of_sent(device: Option<String>) -> Way {
    [
        device,
        yes_or_no(true),
        None,
        yes_or_no(true),
        None,
        Some("sent, and not seen to vanish".to_owned()),
    ]
}

/// Compares them step by step.
pub fn parting(a: &Way, b: &Way) -> Parting {
    let mut found = Parting::default();
    for (n, (a, b)) in a.iter().zip(b).enumerate() {
        let (Some(a), Some(b)) = (a, b) else {
            continue;
        };
        if a != b {
            found.parted = Some(n);
            break;
        }
        found.common = Some(n);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(steps: [&str; 6]) -> Way {
        steps.map(|step| (!step.is_empty()).then(|| step.to_owned()))
    }

    #[test]
    fn they_part_where_both_are_known() {
        let a = way(["t0", "yes", "RTN_LOCAL", "no", "no", "dropped"]);
        let b = way(["t0", "yes", "", "yes", "", "sent"]);
        let parting = parting(&a, &b);
        assert_eq!(parting.common, Some(1), "of the route it is not known");
        assert_eq!(parting.parted, Some(3));
    }

    #[test]
    fn like_is_like() {
        let a = way(["t0", "yes", "RTN_LOCAL", "no", "no", "dropped"]);
        let same = parting(&a, &a);
        assert_eq!((same.common, same.parted), (Some(5), None));
        let nothing = parting(&a, &Way::default());
        assert_eq!(nothing, Parting::default());
    }

    #[test]
    fn what_was_sent_was_taken() {
        let way = of_sent(Some("t0".to_owned()));
        assert_eq!(way[2], None);
        assert_eq!(way[3].as_deref(), Some("yes"));
    }
}
