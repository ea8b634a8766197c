//! What one recording says of each flow.

use std::collections::{BTreeMap, BTreeSet};

use tracer_common::{
    flow::{IPPROTO_ICMP, IPPROTO_ICMPV6},
    tally::{freed_by, outcome, seen},
};

use crate::{
    flows::{Row, Sent},
    judge::Confidence,
    probes::points::{CONSUME, FRAME_END},
    view::text,
};

/// What makes two flows the same: what they are, not when they were, whose process
/// sent them or which ephemeral port they had.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub device: String,
    pub netns: Option<String>,
    /// On its way into the tunnel, or where it arrives.
    pub arriving: bool,
    pub family: u16,
    pub proto: u8,
    pub dst: [u8; 16],
    pub icmp_type: u8,
    pub port: u16,
}

/// How a flow fared in one recording.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    /// Packets that vanished in the tunnel, by cause.
    pub dropped: Causes,
    /// Packets that were sent and vanished then, or where they arrived.
    pub lost: Causes,
    /// Packets that the tunnel sent, those that were lost later among them.
    pub sent: u64,
    /// Who sent those that vanished.
    pub sources: BTreeSet<[u8; 16]>,
    /// Points without which it would not have been seen that they vanished; of each
    /// set one is enough.
    pub needs: BTreeSet<&'static [&'static str]>,
    pub row: Option<Row>,
}

/// Packets by cause; with what tells two apart that have the same id.
pub type Causes = BTreeMap<Cause, (u64, Confidence)>;
type Cause = (&'static str, String);

/// A namespace without a name has another number in each run.
pub fn namespace(label: Option<&str>) -> Option<String> {
    label.map(
        |label| match label.starts_with("net:[") || label.starts_with("pid ") {
            true => "net".to_owned(),
            false => label.to_owned(),
        },
    )
}

/// An address without what a MAC address has made of it (RFC 4291, modified EUI-64):
/// devices get another one in each run.
fn plain(address: [u8; 16]) -> [u8; 16] {
    let mut address = address;
    if address[11..13] == [0xff, 0xfe] {
        address[8..].fill(0);
    }
    address
}

impl Id {
    pub fn of(row: &Row) -> Self {
        let key = &row.evidence.key;
        let sending = matches!(key.outcome, outcome::DROPPED | outcome::LOST_LATER)
            || (key.outcome == outcome::AT_DEVICE && !row.evidence.received());
        let is_icmp = matches!(key.flow.proto, IPPROTO_ICMP | IPPROTO_ICMPV6);
        Self {
            device: text::device_name(row),
            netns: namespace(row.netns.as_deref()),
            arriving: !sending,
            family: key.flow.ethertype,
            proto: key.flow.proto,
            dst: plain(key.flow.dst),
            icmp_type: if is_icmp { key.flow.icmp_type } else { 0 },
            port: key.flow.service(),
        }
    }

    pub fn of_sent(sent: &Sent) -> Self {
        Self {
            device: sent.device.clone(),
            netns: namespace(sent.netns.as_deref()),
            arriving: false,
            family: sent.ethertype,
            proto: sent.proto,
            dst: plain(sent.dst),
            icmp_type: sent.icmp_type,
            port: sent.port,
        }
    }

    /// The same without what older recordings do not have of packets that passed.
    pub fn coarse(self) -> Self {
        Self {
            icmp_type: 0,
            port: 0,
            ..self
        }
    }
}

/// What tells apart two that vanished for causes with the same id, which say little
/// by themselves.
fn detail(row: &Row) -> String {
    let evidence = &row.evidence;
    match row.cause.id {
        "kernel-reason" => evidence.reason.clone().unwrap_or_default(),
        "lookup-failed" => evidence.key.route_errno.to_string(),
        "unknown" => {
            let place = evidence.place.as_ref();
            place.map_or_else(String::new, |place| {
                let function = &place.function;
                // What the compiler made of it is not the same on two kernels.
                function.split('.').next().unwrap_or(function).to_owned()
            })
        }
        _ => String::new(),
    }
}

fn needs(row: &Row) -> BTreeSet<&'static [&'static str]> {
    let key = &row.evidence.key;
    let mut needs = BTreeSet::new();
    if key.freed_by == freed_by::CONSUME_SKB {
        needs.insert(&[CONSUME] as &[_]);
    }
    if matches!(key.outcome, outcome::DROPPED | outcome::LOST_LATER) {
        needs.insert(&[FRAME_END, "driver"] as &[_]);
    }
    if row.evidence.saw(seen::TUNNEL_RECEIVE) {
        needs.insert(&["receive"] as &[_]);
    }
    needs
}

impl Fate {
    pub fn add(&mut self, row: &Row) {
        let vanished = match (row.evidence.key.outcome, row.evidence.received()) {
            (outcome::DROPPED, _) | (outcome::AT_DEVICE, false) => &mut self.dropped,
            _ => &mut self.lost,
        };
        let (count, confidence) = vanished
            .entry((row.cause.id, detail(row)))
            .or_insert((0, Confidence::Proved));
        *count += row.count;
        *confidence = (*confidence).max(row.confidence);
        self.sources.insert(plain(row.evidence.key.flow.src));
        self.needs.extend(needs(row));
        if self.row.is_none() {
            self.row = Some(row.clone());
        }
    }

    pub fn is_seen(&self) -> bool {
        self.sent > 0 || self.vanishes()
    }

    pub fn vanishes(&self) -> bool {
        !self.dropped.is_empty() || !self.lost.is_empty()
    }

    /// How far packets came: none out of the tunnel, out of it, all the way.
    pub fn stages(&self) -> (bool, bool) {
        (!self.dropped.is_empty(), !self.lost.is_empty())
    }

    pub fn causes(&self) -> (Vec<&Cause>, Vec<&Cause>) {
        (self.dropped.keys().collect(), self.lost.keys().collect())
    }

    pub fn is_proved(&self) -> bool {
        let all = self.dropped.values().chain(self.lost.values());
        all.into_iter()
            .all(|(_, confidence)| *confidence == Confidence::Proved)
    }

    /// Packets that vanished, and all.
    pub fn of_all(&self) -> (u64, u64) {
        let sum = |causes: &Causes| causes.values().map(|(count, _)| count).sum::<u64>();
        let (dropped, lost) = (sum(&self.dropped), sum(&self.lost));
        (dropped + lost, dropped + self.sent.max(lost))
    }
}
