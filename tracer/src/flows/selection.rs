//! Which of the packets that vanished are asked for after they were counted:
//! `tracer report --filter`, `tracer compare`.
//!
//! Counts are kept by what is in a [`TallyKey`], which is less than a filter
//! may ask for; records have everything, but in a storm not every packet has
//! one. So a packet with a record is decided by it. One that was only counted
//! is decided like those of its count that have records, if what the filter
//! asks for is the same for all of them: flow, headers, devices. What differs
//! from sender to sender (mark, user, process) is not taken from one packet to
//! another. What is left is undecided, and said to be.

use std::collections::HashMap;

use tracer_common::{
    config::{IFNAMSIZ, KIND_LEN},
    filter::{Filter, MAX_OPS, Named, Op, code, end, header, matches},
    flow::{
        IPPROTO_AH, IPPROTO_ESP, IPPROTO_GRE, IPPROTO_IPIP, IPPROTO_IPV6, IPPROTO_L2TP,
        IPPROTO_MPLS, IPPROTO_UDP,
    },
    record::Record,
    tally::{DeviceKey, PassedKey, TallyKey, outcome},
};

use crate::{
    devices::Device,
    filter::{Partly, of_dev, of_netns},
};

/// Most devices whose names are kept for the program.
const MAX_NAMES: usize = 65536;

/// See the module.
#[derive(Clone, Default)]
pub struct Selection {
    /// All of them have to match.
    programs: Vec<Partly>,
    /// Devices that a ledger may be of.
    dev: Option<Vec<u8>>,
    netns: Option<u32>,
    /// Names of devices on the way of packets.
    names: HashMap<DeviceKey, Named>,
}

/// What is known of the packets of one count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// Packets with records that match, and that do not.
    matching: u64,
    others: u64,
    /// What those say of the ones without: `None` before the first.
    rest: Option<Option<bool>>,
}

/// How many packets of a count are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub packets: u64,
    /// Not known to be, and not known not to be.
    pub undecided: u64,
}

impl Selection {
    /// What matches the program.
    pub fn by_filter(mut self, filter: Filter) -> Self {
        if filter.len > 0 {
            self.programs.push(Partly::new(filter));
        }
        self
    }

    /// What is of the device; `None` if no device can be called so.
    pub fn by_dev(mut self, name: &[u8]) -> Option<Self> {
        self.programs.push(Partly::new(of_dev(name)?));
        self.dev = Some(name.to_vec());
        Some(self)
    }

    pub fn by_netns(mut self, inode: u32) -> Self {
        self.programs.push(Partly::new(of_netns(inode)));
        self.netns = Some(inode);
        self
    }

    /// Does it leave nothing out?
    pub fn is_all(&self) -> bool {
        self.programs.is_empty()
    }

    /// Does it ask for more than whole devices?
    pub fn divides_devices(&self) -> bool {
        let whole = usize::from(self.dev.is_some()) + usize::from(self.netns.is_some());
        self.programs.len() > whole
    }

    /// Are packets of this device asked for at all?
    pub fn has_device(&self, key: DeviceKey, device: Option<&Device>) -> bool {
        let named = |name: &Vec<u8>| match device {
            Some(device) => device.is_named(name),
            None => self.name_of(&key) == Some(name.as_slice()),
        };
        self.netns.is_none_or(|netns| netns == key.netns) && self.dev.as_ref().is_none_or(named)
    }

    fn name_of(&self, key: &DeviceKey) -> Option<&[u8]> {
        self.names
            .get(key)
            .map(|named| super::until_zero(&named.name))
    }

    /// A device is called so.
    pub fn device_is(&mut self, device: &Device) {
        let key = DeviceKey {
            netns: device.netns,
            ifindex: device.ifindex,
        };
        self.named(key, &device.name, device.kind.as_bytes());
    }

    fn named(&mut self, key: DeviceKey, name: &[u8], kind: &[u8]) {
        if self.names.len() >= MAX_NAMES && !self.names.contains_key(&key) {
            return;
        }
        let mut named = Named::default();
        // As the kernel keeps them: cut, with a zero behind.
        let length = name.len().min(IFNAMSIZ - 1);
        named.name[..length].copy_from_slice(&name[..length]);
        let length = kind.len().min(KIND_LEN - 1);
        named.kind[..length].copy_from_slice(&kind[..length]);
        self.names.insert(key, named);
    }

    /// Takes in what a record says of its count.
    pub fn decide(&mut self, record: &Record, decided: &mut Decided) {
        if record.dev[0] != 0 {
            let key = DeviceKey {
                netns: record.key.netns,
                ifindex: record.key.ifindex,
            };
            let (name, kind) = (record.dev, record.kind);
            let (name, kind) = (super::until_zero(&name), super::until_zero(&kind));
            self.named(key, name, kind);
        }
        match self.wants(record) {
            true => decided.matching += 1,
            false => decided.others += 1,
        }
        let like = self.programs_say(|alone| match is_of_sender(alone) {
            true => None,
            false => Some(self.runs(alone, record)),
        });
        decided.rest = Some(match decided.rest {
            Some(before) if before != like => None,
            _ => like,
        });
    }

    /// Does the packet of this record match?
    pub fn wants(&self, record: &Record) -> bool {
        let mut programs = self.programs.iter();
        programs.all(|program| self.runs(program.whole(), record))
    }

    /// Of so many packets with this key, how many are asked for?
    pub fn share(&self, key: &TallyKey, packets: u64, decided: Option<&Decided>) -> Share {
        let decided = decided.copied().unwrap_or_default();
        // The records may be ahead of the counts.
        let matching = decided.matching.min(packets);
        let others = decided.others.min(packets - matching);
        let rest = packets - matching - others;
        match decided.rest.unwrap_or_else(|| self.by_key(key)) {
            Some(true) => Share {
                packets: matching + rest,
                undecided: 0,
            },
            Some(false) => Share {
                packets: matching,
                undecided: 0,
            },
            None => Share {
                packets: matching,
                undecided: rest,
            },
        }
    }

    /// What a key alone says: what matches in it does, but what does not may
    /// match in what it has not.
    fn by_key(&self, key: &TallyKey) -> Option<bool> {
        let mut record = blank();
        record.key = *key;
        let device = DeviceKey {
            netns: key.netns,
            ifindex: key.ifindex,
        };
        if let Some(named) = self.names.get(&device) {
            (record.dev, record.kind) = (named.name, named.kind);
        }
        // Where there was no room for each flow, they were counted together.
        let coarse = key.flow.src == [0; 16] && key.flow.dst == [0; 16];
        self.programs_say(|alone| {
            let unknown = match alone.ops[0].code {
                code::ADDRESS | code::PORT => coarse,
                _ => is_of_sender(alone),
            };
            (!unknown && self.runs(alone, &record)).then_some(true)
        })
    }

    /// Are packets with this key, which passed, asked for? Of them, destination,
    /// family and protocol are kept. `alone`: no other tunnel is there that
    /// they could have been in before.
    pub fn passes(&self, key: &PassedKey, alone: bool) -> Option<bool> {
        let mut record = blank();
        record.key.flow.dst = key.dst;
        record.key.flow.ethertype = key.ethertype;
        record.key.flow.proto = key.proto;
        record.key.netns = key.netns;
        record.key.ifindex = key.ifindex;
        record.key.outcome = outcome::DROPPED;
        let device = DeviceKey {
            netns: key.netns,
            ifindex: key.ifindex,
        };
        let named = self.names.get(&device);
        if let Some(named) = named {
            (record.dev, record.kind) = (named.name, named.kind);
        }
        // What carries another packet may have been put around it by a tunnel.
        let nested = !alone && carries(key.proto);
        let all_dst = key.dst != [0; 16];
        self.programs_say(|alone| {
            let test = &alone.ops[0];
            let inner_only = test.headers == header::INNER;
            let (yes, no) = match test.code {
                code::HEADER => (true, inner_only && !nested),
                code::ADDRESS => (
                    all_dst && test.ends & end::DST != 0,
                    all_dst && test.ends == end::DST && inner_only && !nested,
                ),
                code::NETNS => (true, !nested),
                code::DEV | code::KIND => (named.is_some(), named.is_some() && !nested),
                _ => (false, false),
            };
            // The source is not kept: it must not be what matches.
            let dst_only = Filter {
                ops: with_ends(alone, test.ends & end::DST),
                ..*alone
            };
            let program = if test.code == code::ADDRESS {
                &dst_only
            } else {
                alone
            };
            match self.runs(program, &record) {
                true => yes.then_some(true),
                false => no.then_some(false),
            }
        })
    }

    fn programs_say(&self, test: impl Fn(&Filter) -> Option<bool>) -> Option<bool> {
        let mut all = Some(true);
        for program in &self.programs {
            match program.decide(&test) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }

    fn runs(&self, program: &Filter, record: &Record) -> bool {
        matches(program, record, |key| self.names.get(key), &mut 0)
    }
}

impl Decided {
    /// Is the record that was looked at last one to show, if `wanted` it is?
    pub fn shows(&self, wanted: bool) -> bool {
        wanted || self.matching == 0
    }
}

/// Does this one test ask for what two packets of a flow can differ in?
fn is_of_sender(alone: &Filter) -> bool {
    let asked = alone.ops[0].code;
    matches!(asked, code::MARK | code::UID | code::PID | code::COMM)
}

/// Is it a protocol that other packets travel in?
fn carries(proto: u8) -> bool {
    matches!(
        proto,
        IPPROTO_IPIP
            | IPPROTO_UDP
            | IPPROTO_IPV6
            | IPPROTO_GRE
            | IPPROTO_ESP
            | IPPROTO_AH
            | IPPROTO_L2TP
            | IPPROTO_MPLS
    )
}

/// The one test, of these ends.
fn with_ends(alone: &Filter, ends: u32) -> [Op; MAX_OPS] {
    let mut ops = alone.ops;
    ops[0].ends = ends;
    ops
}

/// A record that says nothing.
fn blank() -> Record {
    // SAFETY: integers and arrays of them.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests;
