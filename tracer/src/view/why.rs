//! Why a look-up failed: what the hooks saw of it, and what netlink told
//! afterwards, where the two agree.

use tracer_common::record::Route;

use crate::{
    flows::Row,
    judge::{Confidence, Evidence},
    routing::{Decided, table_name},
};

const EAGAIN: u16 = 11;
const EACCES: u16 = 13;
const EINVAL: u16 = 22;

/// What the hooks saw of who gave the errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saw {
    /// A route in this table.
    Table(u32),
    /// None of the tables that were asked.
    Rule,
    Nothing,
}

/// The reason, and how sure it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    pub text: String,
    pub confidence: Confidence,
    /// What of it was seen all the same.
    seen: Option<&'static str>,
}

impl Why {
    /// For people: with what is concluded and what is not.
    pub fn sentence(&self) -> String {
        match (self.confidence, self.seen) {
            (Confidence::Proved, _) => self.text.clone(),
            (_, None) => format!("{} (inferred)", self.text),
            (_, Some(seen)) => format!("{} (inferred; {seen})", self.text),
        }
    }
}

/// Why the look-up of this row failed, where its cause is that.
pub fn of(row: &Row) -> Option<Why> {
    let about = row.cause.id.starts_with("lookup-") || row.cause.id == "local-address-missing";
    if about {
        of_evidence(&row.evidence)
    } else {
        None
    }
}

fn of_evidence(evidence: &Evidence) -> Option<Why> {
    let saw = saw(evidence);
    let agrees = |decided: Decided| match saw {
        Saw::Table(table) => decided == Decided::Table(table),
        Saw::Rule => decided == Decided::Rule,
        Saw::Nothing => true,
    };
    let candidates = evidence.finding.iter().flat_map(|found| &found.candidates);
    let texts: Vec<&str> = candidates
        .filter(|(decided, _)| agrees(*decided))
        .map(|(_, text)| text.as_str())
        .collect();
    if !texts.is_empty() {
        return Some(Why {
            text: texts.join(" or "),
            confidence: Confidence::Inferred,
            seen: match saw {
                Saw::Table(_) => Some("the table was seen to answer so"),
                Saw::Rule => Some("no table was seen to answer so"),
                Saw::Nothing => None,
            },
        });
    }
    let text = match saw {
        Saw::Table(table) => format!("a route in table {}", table_name(table)),
        Saw::Rule => "an ip rule, since no table answered so".to_owned(),
        Saw::Nothing => return None,
    };
    Some(Why {
        text,
        confidence: Confidence::Proved,
        seen: None,
    })
}

fn saw(evidence: &Evidence) -> Saw {
    let errno = evidence.key.route_errno;
    let Some(Route {
        table,
        table_errno,
        oif,
        ..
    }) = evidence.record.as_ref().map(|record| record.route)
    else {
        return Saw::Nothing;
    };
    if !evidence.tables_watched || table == 0 || errno == 0 {
        return Saw::Nothing;
    }
    if table_errno == errno {
        return Saw::Table(table);
    }
    // No other refuses so when the last table had no route. After one that had
    // some, the addresses of the packet can be why (EINVAL).
    // (bound to a device it goes on without a route: EINVAL, __mkroute_output).
    if table_errno == EAGAIN && (errno == EACCES || (errno == EINVAL && oif == 0)) {
        return Saw::Rule;
    }
    Saw::Nothing
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{judge::tests::sit, routing::Finding};

    const ENETUNREACH: u16 = 101;

    fn failed(errno: u16, table: u32, table_errno: u16) -> Evidence {
        let mut evidence = sit();
        evidence.key.route_errno = errno;
        // SAFETY: integers and arrays of them.
        let mut record: tracer_common::record::Record = unsafe { std::mem::zeroed() };
        record.route.table = table;
        record.route.table_errno = table_errno;
        evidence.record = Some(Arc::new(record));
        evidence
    }

    fn found(candidates: &[(Decided, &str)]) -> Option<Finding> {
        let candidates = candidates.iter();
        Some(Finding {
            candidates: candidates
                .map(|(decided, text)| (*decided, (*text).to_owned()))
                .collect(),
        })
    }

    fn sentence(evidence: &Evidence) -> Option<String> {
        of_evidence(evidence).map(|why| why.sentence())
    }

    #[test]
    fn the_hooks_alone() {
        let table = sentence(&failed(EACCES, 254, EACCES)).unwrap();
        assert_eq!(table, "a route in table main");
        let rule = sentence(&failed(EACCES, 255, EAGAIN)).unwrap();
        assert_eq!(rule, "an ip rule, since no table answered so");
        assert_eq!(sentence(&failed(ENETUNREACH, 253, EAGAIN)), None);
        // A route was found, and refused for another reason.
        assert_eq!(sentence(&failed(EINVAL, 254, 0)), None);
        let mut unwatched = failed(EACCES, 255, EAGAIN);
        unwatched.tables_watched = false;
        assert_eq!(sentence(&unwatched), None);
    }

    #[test]
    fn netlink_alone_is_inferred() {
        let mut evidence = failed(ENETUNREACH, 255, EAGAIN);
        evidence.finding = found(&[(Decided::Rule, "rule 10: unreachable")]);
        let why = of_evidence(&evidence).unwrap();
        assert_eq!(why.confidence, Confidence::Inferred);
        assert_eq!(why.sentence(), "rule 10: unreachable (inferred)");
    }

    #[test]
    fn netlink_tells_more_where_it_agrees() {
        let mut evidence = failed(EACCES, 254, EACCES);
        let both = [
            (Decided::Rule, "rule 10: prohibit"),
            (
                Decided::Table(254),
                "route prohibit 10.0.0.2/32 in table main",
            ),
        ];
        evidence.finding = found(&both);
        assert_eq!(
            sentence(&evidence).unwrap(),
            "route prohibit 10.0.0.2/32 in table main (inferred; the table was seen to answer so)"
        );
        Arc::make_mut(evidence.record.as_mut().unwrap())
            .route
            .table_errno = EAGAIN;
        assert_eq!(
            sentence(&evidence).unwrap(),
            "rule 10: prohibit (inferred; no table was seen to answer so)"
        );
        // Where it does not, what was seen stands.
        evidence.finding = found(&both[1..]);
        assert_eq!(
            sentence(&evidence).unwrap(),
            "an ip rule, since no table answered so"
        );
    }
}
