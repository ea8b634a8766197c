//! What a run is made of, in the order in which it is told. Tracing makes events
//! of what comes out of the kernel and of what it looks up on this machine; what
//! is told ([`crate::story`]) depends on nothing else, so that a recording of
//! them tells the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracer_common::record::{Record, start};

use crate::{
    devices::{Counters, Device},
    flows::{Counts, Watched},
    judge::Place,
    kernel::reasons::Reasons,
    probes::{Attached, Missing},
    routing::{Finding, Question},
};

/// What is known at the start, and does not change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Start {
    /// Release and machine, as `uname` has them.
    pub kernel: String,
    pub arch: String,
    /// How the kernel was built and set up.
    pub config: BTreeMap<String, String>,
    pub attached: Vec<Attached>,
    pub missing: Vec<Missing>,
    pub watched: Watched,
    /// Names of this kernel's drop reasons.
    pub reasons: Reasons,
    /// Namespace to leave unnamed: the tracer's own.
    pub own_netns: u32,
    /// `CLOCK_MONOTONIC` when tracing began.
    pub time_ns: u64,
    /// What to add to `CLOCK_MONOTONIC` to get the time of day, in nanoseconds.
    pub clock_ns: i64,
}

/// What came next.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Devices that are new, or have changed.
    Devices(Vec<Known>),
    /// What network namespaces are called, by inode.
    Netns(Vec<(u32, String)>),
    /// What is at addresses of the kernel's code.
    Places(Vec<(u64, Place)>),
    /// A module that verdicts ask for came or went.
    Module { name: String, loaded: bool },
    /// What netlink said of a question; `None`: nothing any more.
    Answer {
        question: Question,
        finding: Option<Finding>,
    },
    /// Details of drops.
    Records(Vec<Sample>),
    /// The counts that moved.
    Counts(Counts),
}

/// A device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    #[serde(flatten)]
    pub device: Device,
    /// Its counters when tracing began, if it was there then; one that came
    /// later began with zeros.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Counters>,
    /// It is not there any more; this is how it was last seen.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[serde(default)]
    pub gone: bool,
}

/// A record, with the addresses of its stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub record: Record,
    pub stack: Vec<u64>,
    /// Where they were asked for, and could be read.
    pub packet: Option<Packet>,
}

/// The first bytes of a packet, as they were when it was freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub layer: Layer,
    /// How long it was.
    pub length: u32,
    pub bytes: Vec<u8>,
}

/// What a packet's bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The network header, the outer one where there is one.
    Network,
    /// An Ethernet header.
    Ethernet,
}

impl Packet {
    /// Of what came from the kernel or from a file; `None` where that is nothing.
    pub fn new(begin: u16, length: u32, bytes: &[u8]) -> Option<Self> {
        let layer = match begin {
            start::NETWORK => Layer::Network,
            start::ETHERNET => Layer::Ethernet,
            _ => return None,
        };
        let possible = !bytes.is_empty() && bytes.len() as u64 <= u64::from(length);
        possible.then(|| Self {
            layer,
            length,
            bytes: bytes.to_vec(),
        })
    }

    /// The layer as the kernel side and files have it.
    pub fn begin(&self) -> u16 {
        match self.layer {
            Layer::Network => start::NETWORK,
            Layer::Ethernet => start::ETHERNET,
        }
    }
}
