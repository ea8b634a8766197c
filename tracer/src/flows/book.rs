//! What is known so far: records by evidence, places by address, devices by
//! namespace and index. Gives a report whenever asked.

mod told;

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use tracer_common::{
    config::{IFNAMSIZ, payload},
    flow::{Flow, IPPROTO_GRE, IPPROTO_IPIP, IPPROTO_IPV6, IPPROTO_UDP},
    record::Record,
    tally::{DeviceKey, TallyKey},
};

use super::{Counts, Selection, selection::Decided};
use crate::{
    devices::{Counters, Device, Snapshot},
    event::{Event, Known, Sample, Start},
    judge::Place,
    kernel::reasons::Reasons,
    routing::{Finding, Question},
};

/// Most kinds of evidence whose newest record is kept; counts do not depend
/// on it.
const MAX_RECORDS: usize = 65536;
/// Most devices a packet is compared with.
const MAX_RECEIVERS: usize = 8;

/// Most devices, namespaces and places that are known at a time.
const MAX_KNOWN: usize = 65536;

/// The module of encapsulation in UDP.
pub const FOU: &str = "fou";

/// What makes two drops the same row.
type RowKey = (u32, u32, Flow, &'static str, u8);

#[derive(Clone)]
struct Seen {
    record: Arc<Record>,
    /// Was the encapsulation's module there when the record came?
    encap_module: Option<bool>,
    stack: Vec<Arc<Place>>,
    /// The tunnel device, and the one the packet stood on, as they were then:
    /// what is configured afterwards does not change what was.
    device: Option<Arc<Device>>,
    freed_device: Option<Arc<Device>>,
    receivers: Vec<Arc<Device>>,
    /// What it failed on, where netlink can tell why.
    question: Option<Question>,
    /// What the records of this kind say of what is asked for.
    decided: Decided,
}

/// What is known to be seen, so that its absence tells something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Watched {
    /// The queue of devices without carrier.
    pub noop_queue: bool,
    /// ICMP and ICMPv6 errors.
    #[serde(default = "yes")]
    pub icmp: bool,
    #[serde(default = "yes")]
    pub icmp6: bool,
    /// Routes that IPsec makes blackholes of.
    pub blackholes: bool,
    /// Look-ups of routes.
    pub routes: bool,
    /// The answers of single routing tables, of IPv4 and of IPv6.
    pub tables: bool,
    pub tables6: bool,
}

/// Recordings of before 0.1.0 do not say.
fn yes() -> bool {
    true
}

/// UDP ports of tunnels by default, for hosts that only forward them: L2TP, GTP-U,
/// ESP, VXLAN (IANA's and the kernel's), Geneve, MPLS, WireGuard (wg(8)).
const WELL_KNOWN: [(u16, u32); 8] = [
    (1701, payload::L2TP),
    (2152, payload::OPAQUE),
    (4500, payload::ESP),
    (4789, payload::VXLAN),
    (6081, payload::GENEVE),
    (6635, payload::OPAQUE),
    (8472, payload::VXLAN),
    (51820, payload::WIREGUARD),
];
/// So many other ports are kept; the programs have room for 1,024.
const MAX_LISTENERS: usize = 512;

/// See the module.
pub struct Book {
    reasons: Reasons,
    /// Does this kernel name what the reverse-path filter drops?
    names_reverse_path: bool,
    /// And fragments that are there already?
    names_duplicates: bool,
    /// And packets that a full queue refused?
    names_local_source: bool,
    names_backlog: bool,
    watched: Watched,
    /// Namespace to leave unnamed: our own.
    own_netns: u32,
    /// `CLOCK_MONOTONIC`, as all times.
    started_ns: u64,
    records: HashMap<TallyKey, Seen>,
    record_count: u64,
    counts: Counts,
    /// Counts that had no room.
    uncounted: u64,
    /// What was at an address when a packet was first freed there.
    places: HashMap<u64, Arc<Place>>,
    /// Why look-ups failed, as netlink said when they did.
    findings: HashMap<Question, Finding>,
    devices: HashMap<(u32, u32), Arc<Device>>,
    /// Counters at the start; a device that is not here came later.
    before: HashMap<(u32, u32), Counters>,
    /// Those of them that are not there any more.
    gone: HashSet<(u32, u32)>,
    netns: HashMap<u32, String>,
    /// Is [`FOU`] there? Unknown until somebody looked.
    fou: Option<bool>,
    /// UDP ports where tunnels listen whose devices do not say so.
    listeners: Vec<(u16, u32)>,
    /// Devices that were looked for and not found, not to look again; with
    /// their names, since indices are used again.
    sought: HashSet<(u32, u32, [u8; IFNAMSIZ])>,
    /// How many packets a row had, and when it was shown.
    shown: HashMap<RowKey, (u64, u64)>,
    /// Names of devices as records have them, for those that netlink did not show.
    recorded: HashMap<(u32, u32), [u8; IFNAMSIZ]>,
    /// What of it is asked for, if not all.
    selection: Option<Selection>,
}

impl Book {
    pub fn new(start: &Start) -> Self {
        Self {
            reasons: start.reasons.clone(),
            names_reverse_path: start.reasons.has("IP_RPFILTER"),
            names_duplicates: start.reasons.has("DUP_FRAG"),
            names_local_source: start.reasons.has("IP_LOCAL_SOURCE"),
            names_backlog: start.reasons.has("CPU_BACKLOG"),
            watched: start.watched,
            own_netns: start.own_netns,
            started_ns: start.time_ns,
            records: HashMap::new(),
            record_count: 0,
            counts: Counts::default(),
            uncounted: 0,
            places: HashMap::new(),
            findings: HashMap::new(),
            devices: HashMap::new(),
            before: HashMap::new(),
            gone: HashSet::new(),
            netns: HashMap::new(),
            fou: None,
            listeners: Vec::new(),
            sought: HashSet::new(),
            shown: HashMap::new(),
            recorded: HashMap::new(),
            selection: None,
        }
    }

    /// Asks for a part of what is still to come.
    pub fn select(&mut self, selection: Selection) {
        self.selection = (!selection.is_all()).then_some(selection);
    }

    /// Takes in what came next.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Devices(devices) => {
                for known in devices {
                    self.device_is(known);
                }
            }
            Event::Netns(names) => {
                for (inode, name) in names {
                    keep(&mut self.netns, *inode, name);
                }
            }
            Event::Places(places) => {
                for (address, place) in places {
                    if self.places.len() < MAX_KNOWN {
                        // What was there when the packet was freed stays.
                        let known = self.places.entry(*address);
                        known.or_insert_with(|| Arc::new(place.clone()));
                    }
                }
            }
            Event::Module { name, loaded } => {
                if name == FOU {
                    self.fou = Some(*loaded);
                }
            }
            Event::Answer { question, finding } => match finding {
                Some(finding) => keep(&mut self.findings, *question, finding),
                None => {
                    self.findings.remove(question);
                }
            },
            Event::Records(samples) => {
                for sample in samples {
                    self.record(sample);
                }
            }
            Event::Counts(counts) => self.uncounted += self.counts.update(counts),
        }
    }

    /// What is known by now, as the events that tell it to a book that begins
    /// here.
    pub fn known(&self) -> Vec<Event> {
        let known = |device: &Arc<Device>| Known {
            device: (**device).clone(),
            before: Some(device.counters),
            gone: self.gone.contains(&(device.netns, device.ifindex)),
        };
        let places = self.places.iter();
        let netns = self.netns.iter();
        let mut events = vec![
            Event::Netns(netns.map(|(inode, name)| (*inode, name.clone())).collect()),
            Event::Devices(self.devices.values().map(known).collect()),
            Event::Places(places.map(|(at, place)| (*at, (**place).clone())).collect()),
        ];
        let findings = self.findings.iter();
        events.extend(findings.map(|(question, finding)| Event::Answer {
            question: *question,
            finding: Some(finding.clone()),
        }));
        events.extend(self.fou.map(|loaded| Event::Module {
            name: FOU.to_owned(),
            loaded,
        }));
        events
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn fou(&self) -> Option<bool> {
        self.fou
    }

    /// Is the tunnel device of a record one the book has not heard of, or has
    /// another one in its place?
    pub fn is_unknown(&self, record: &Record) -> bool {
        let key = &record.key;
        if key.ifindex == 0 || self.sought.contains(&(key.netns, key.ifindex, record.dev)) {
            return false;
        }
        match self.devices.get(&(key.netns, key.ifindex)) {
            None => true,
            Some(device) => {
                record.dev[0] != 0
                    && (device.name != until_zero(&record.dev)
                        || !same_kind(device, until_zero(&record.kind)))
            }
        }
    }

    /// A device of which only counts are known.
    pub fn is_unheard_of(&self, device: &DeviceKey) -> bool {
        let DeviceKey { netns, ifindex } = *device;
        !self.devices.contains_key(&(netns, ifindex))
            && !self.sought.contains(&(netns, ifindex, [0; IFNAMSIZ]))
    }

    /// What a newer snapshot says that the book does not. `at_start`: tracing
    /// has not begun yet.
    pub fn news(&self, snapshot: Snapshot, at_start: bool) -> [Event; 2] {
        let Snapshot {
            devices,
            names,
            ports: _,
            problems,
        } = snapshot;
        // Where not all could be read, what is not there may be.
        let whole = !at_start && problems.is_empty();
        let gone: Vec<Known> = self
            .devices
            .iter()
            .filter(|(key, _)| whole && !devices.contains_key(key) && !self.gone.contains(key))
            .map(|(_, device)| Known {
                device: (**device).clone(),
                before: None,
                gone: true,
            })
            .collect();
        let devices = devices
            .into_iter()
            .filter(|(key, device)| {
                at_start
                    || self.gone.contains(key)
                    || self.devices.get(key).map(|known| &**known) != Some(device)
            })
            .map(|(_, device)| Known {
                before: at_start.then_some(device.counters),
                device,
                gone: false,
            })
            .chain(gone);
        let names = names
            .into_iter()
            .filter(|(inode, name)| self.netns.get(inode) != Some(name));
        [
            Event::Netns(names.collect()),
            Event::Devices(devices.collect()),
        ]
    }

    /// These were looked for.
    pub fn sought(&mut self, sought: impl IntoIterator<Item = (u32, u32, [u8; IFNAMSIZ])>) {
        self.sought.extend(sought);
    }

    /// What is gone stays as it was last seen.
    fn device_is(&mut self, known: &Known) {
        let Known {
            device,
            before,
            gone,
        } = known;
        let key = (device.netns, device.ifindex);
        if *gone && self.gone.len() < MAX_KNOWN {
            self.gone.insert(key);
        } else if self.gone.remove(&key) {
            // Another one, at its place.
            self.before.remove(&key);
        }
        let other = self
            .devices
            .get(&key)
            .is_some_and(|old| old.kind != device.kind);
        if other {
            // Another device by now: it began with zeros.
            self.before.remove(&key);
        }
        if let Some(before) = before {
            keep(&mut self.before, key, before);
        }
        keep(&mut self.devices, key, &Arc::new(device.clone()));
        if let Some(selection) = &mut self.selection {
            selection.device_is(device);
        }
    }

    /// Has this address a name by now?
    pub fn knows_place(&self, address: u64) -> bool {
        address == 0 || self.places.contains_key(&address)
    }

    /// Is the tunnel of this record encapsulated in UDP?
    pub fn has_encap(&self, record: &Record) -> bool {
        self.device(record.key.netns, record.key.ifindex, Some(record))
            .is_some_and(|device| device.encap.is_some())
    }

    /// From here on, this is known to be seen.
    pub fn watch(&mut self, watched: Watched) {
        self.watched = watched;
    }

    /// UDP ports that tunnels of this host use, and what follows the UDP header
    /// there (`config::payload`).
    pub fn ports(&self) -> impl Iterator<Item = (u16, u32)> {
        // What is said of a port later holds.
        let devices = self.devices.values();
        let known = WELL_KNOWN.iter().chain(&self.listeners);
        known.copied().chain(Self::own_ports(devices))
    }

    /// Ports where tunnels listen, beside those of their devices. The programs do not
    /// forget any.
    pub fn listens_at(&mut self, ports: &[(u16, u32)]) {
        for known in ports {
            if self.listeners.len() < MAX_LISTENERS && !self.listeners.contains(known) {
                self.listeners.push(*known);
            }
        }
    }

    fn own_ports<'a>(
        devices: impl Iterator<Item = &'a Arc<Device>>,
    ) -> impl Iterator<Item = (u16, u32)> {
        devices
            .filter(|device| device.is_tunnel())
            .flat_map(|device| {
                let encap = match (device.encap.as_deref(), device.kind.as_str()) {
                    (Some("gue"), _) => payload::GUE,
                    (Some("fou"), "sit" | "ipip" | "ip6tnl") => payload::FOU_IP,
                    (Some("fou"), "gre" | "gretap" | "ip6gre" | "ip6gretap") => payload::FOU_GRE,
                    _ => payload::OPAQUE,
                };
                let own = match device.kind.as_str() {
                    "vxlan" => payload::VXLAN,
                    "geneve" => payload::GENEVE,
                    "wireguard" => payload::WIREGUARD,
                    _ => payload::OPAQUE,
                };
                [
                    device.encap_dport.map(|port| (port, encap)),
                    device.port.map(|port| (port, own)),
                ]
            })
            .flatten()
    }

    fn record(&mut self, sample: &Sample) {
        let Sample { record, stack, .. } = sample;
        self.record_count += 1;
        if record.dev[0] != 0 {
            let id = (record.key.netns, record.key.ifindex);
            keep(&mut self.recorded, id, &record.dev);
        }
        if self.records.len() >= MAX_RECORDS && !self.records.contains_key(&record.key) {
            return;
        }
        let mut decided = self
            .records
            .get(&record.key)
            .map(|seen| seen.decided)
            .unwrap_or_default();
        if let Some(selection) = &mut self.selection {
            // What was recorded in an earlier file too may have been counted there.
            if record.time_ns >= self.started_ns {
                selection.decide(record, &mut decided);
            }
            // What is shown is a packet that was asked for.
            if !decided.shows(selection.wants(record))
                && let Some(seen) = self.records.get_mut(&record.key)
            {
                seen.decided = decided;
                return;
            }
        }
        let stack = stack.iter().filter_map(|address| self.place(*address));
        let receivers = match self.records.get(&record.key) {
            Some(seen) => seen.receivers.clone(),
            None => self.receivers(record),
        };
        let device = self.device(record.key.netns, record.key.ifindex, Some(record));
        let seen = Seen {
            record: Arc::new(*record),
            encap_module: device
                .and_then(|device| device.encap.as_ref())
                .and(self.fou),
            stack: stack.collect(),
            device: device.cloned(),
            freed_device: self
                .devices
                .get(&(record.freed_netns, record.freed_ifindex))
                .cloned(),
            receivers,
            question: self.question(record),
            decided,
        };
        self.records.insert(record.key, seen);
    }

    /// The question to ask netlink about a record.
    pub fn question(&self, record: &Record) -> Option<Question> {
        let device = self.device(record.key.netns, record.key.ifindex, Some(record));
        Question::of(record, device.map(|device| &**device))
    }

    /// The devices a received outer packet could be for.
    fn receivers(&self, record: &Record) -> Vec<Arc<Device>> {
        if record.outer.ethertype == 0 || record.freed_ifindex == 0 {
            return Vec::new();
        }
        // In fou or gue is what other tunnels send without them.
        let port = |(port, _): &(u16, u32)| *port == record.outer.dport;
        let over_udp = record.outer.proto == IPPROTO_UDP;
        let payload = self.ports().filter(port).last().filter(|_| over_udp);
        let protocols: &[u8] = match payload {
            Some((_, payload::FOU_IP)) => &[IPPROTO_IPIP, IPPROTO_IPV6],
            Some((_, payload::FOU_GRE)) => &[IPPROTO_GRE],
            Some((_, payload::GUE)) => &[IPPROTO_IPIP, IPPROTO_IPV6, IPPROTO_GRE],
            _ => &[record.outer.proto],
        };
        let is_for = |device: &Device| {
            protocols.iter().any(|proto| {
                device.receives(&Flow {
                    proto: *proto,
                    ..record.outer
                })
            })
        };
        let mut receivers: Vec<_> = self
            .devices
            .iter()
            .filter(|((netns, _), device)| *netns == record.freed_netns && is_for(device))
            .collect();
        receivers.sort_by_key(|(key, _)| **key);
        receivers
            .into_iter()
            .take(MAX_RECEIVERS)
            .map(|(_, device)| Arc::clone(device))
            .collect()
    }

    fn place(&self, address: u64) -> Option<Arc<Place>> {
        self.places.get(&address).cloned()
    }

    /// The device by netlink, unless the kernel's word in a record says that it
    /// is another one by now.
    fn device(&self, netns: u32, ifindex: u32, record: Option<&Record>) -> Option<&Arc<Device>> {
        let device = self.devices.get(&(netns, ifindex))?;
        let same = record.is_none_or(|record| same_kind(device, until_zero(&record.kind)));
        same.then_some(device)
    }
}

/// Inserts, if there is room or the key is known.
fn keep<K: std::hash::Hash + Eq, V: Clone>(map: &mut HashMap<K, V>, key: K, value: &V) {
    let full = map.len() >= MAX_KNOWN;
    match map.entry(key) {
        Entry::Occupied(mut known) => {
            known.insert(value.clone());
        }
        Entry::Vacant(_) if full => {}
        Entry::Vacant(new) => {
            new.insert(value.clone());
        }
    }
}

/// Is the device of the kind that the kernel says? Some devices have none.
fn same_kind(device: &Device, kind: &[u8]) -> bool {
    kind.is_empty() || device.kind.is_empty() || device.kind.as_bytes() == kind
}

/// The bytes of a name before its terminating zero.
pub fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}
