//! Joins records, exact counts and devices into what is shown: one row per
//! inner flow and cause, one ledger per device.

mod alike;
mod asymmetry;
mod book;
mod counts;
mod ledger;
mod selection;

use std::{sync::Arc, time::Duration};

use tracer_common::tally::DeviceTally;

pub use asymmetry::Asymmetry;
pub use book::{Book, FOU, Watched, until_zero};
pub use counts::Counts;
pub use ledger::by_any_cpu;
pub use selection::Selection;

use crate::{
    judge::{Cause, Confidence, Evidence, Place},
    stream::Lost,
};

/// Packets of one flow that vanished for one cause.
#[derive(Clone, Debug)]
pub struct Row {
    pub evidence: Evidence,
    pub cause: &'static Cause,
    pub confidence: Confidence,
    /// Exact.
    pub count: u64,
    /// `CLOCK_MONOTONIC` of the newest packet.
    pub last_ns: u64,
    /// Packets per second since the view before.
    pub rate: f64,
    pub stack: Vec<Arc<Place>>,
    /// Names of the devices of the frames around, outermost first.
    pub path: Vec<String>,
    /// Label of the tunnel's network namespace.
    pub netns: Option<String>,
}

impl Row {
    /// Sent by a user's socket, not by the kernel itself.
    pub fn is_users(&self) -> bool {
        let flags = self
            .evidence
            .record
            .as_ref()
            .map_or(0, |record| record.process.flags);
        flags & tracer_common::record::sender::USER_SOCKET != 0
    }

    /// The kernel's own housekeeping: it has a socket, but of no process.
    pub fn is_kernels(&self) -> bool {
        let flags = self
            .evidence
            .record
            .as_ref()
            .map_or(0, |record| record.process.flags);
        flags & tracer_common::record::sender::SOCKET != 0 && !self.is_users()
    }
}

/// Packets that a device sent to one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub device: String,
    pub netns: Option<String>,
    pub ethertype: u16,
    pub proto: u8,
    /// Zero where there was no room to count by destination.
    pub dst: [u8; 16],
    pub icmp_type: u8,
    /// [`tracer_common::flow::Flow::service`].
    pub port: u16,
    pub packets: u64,
}

/// A device's ledger: packets in = sent + dropped + unexplained.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub name: String,
    pub kind: String,
    pub netns: Option<String>,
    pub tally: DeviceTally,
    /// Dropped packets by cause.
    pub by_cause: Vec<(&'static str, u64)>,
    /// Sent, but lost later on this host, by cause.
    pub lost_after_sending: Vec<(&'static str, u64)>,
    /// Sent and dropped packets by address family.
    pub families: Vec<Asymmetry>,
    /// What separates packets that pass from those that vanish.
    pub asymmetry: Vec<Asymmetry>,
    /// What separates those that were sent and lost then from the rest of those
    /// that were sent.
    pub asymmetry_after_sending: Vec<Asymmetry>,
    /// How far the device's counters moved since the start, by netlink; `None` where
    /// they are not of the same time as the rest.
    pub counters: Option<Vec<(&'static str, u64)>>,
}

impl Ledger {
    /// Not accounted for by what was seen of each packet.
    pub fn unexplained(&self) -> u64 {
        self.tally
            .packets_in
            .saturating_sub(self.tally.sent + self.tally.dropped)
    }
}

/// All there is to show at one time.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Worst first: users' flows before the kernel's own, newest first.
    pub rows: Vec<Row>,
    pub ledgers: Vec<Ledger>,
    pub lost: Lost,
    pub records: u64,
    pub duration: Duration,
    /// Could frames be opened and closed?
    pub frames: bool,
    /// Does it end before the run did (a recording that is cut)?
    pub broken_off: bool,
    /// The rows are a part of what vanished.
    pub selected: Option<Selected>,
}

/// What the rows of a report were selected from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Packets that vanished.
    pub of: u64,
    /// Packets that were only counted, of which it cannot be said whether they
    /// are asked for.
    pub undecided: u64,
    /// The ledgers are of all packets of their devices.
    pub devices_whole: bool,
}

impl Report {
    /// Packets that vanished.
    pub fn drops(&self) -> u64 {
        self.rows.iter().map(|row| row.count).sum()
    }

    /// Packets that may be asked for, too.
    pub fn undecided(&self) -> u64 {
        self.selected.map_or(0, |selected| selected.undecided)
    }

    /// Packets whose end was not seen.
    pub fn unexplained(&self) -> u64 {
        self.ledgers.iter().map(Ledger::unexplained).sum()
    }

    /// Is every count exact?
    pub fn is_exact(&self) -> bool {
        self.lost.is_nothing() && !self.broken_off && self.undecided() == 0
    }

    /// And could everything be followed?
    pub fn is_complete(&self) -> bool {
        self.is_exact() && self.frames
    }

    /// And was each packet's end seen? Of a part of a run, those of some packets are in
    /// the next.
    pub fn is_certain(&self) -> bool {
        self.is_complete() && self.unexplained() == 0
    }
}
