//! What is known so far: records by evidence, places by address, devices by
//! namespace and index. Gives a report whenever asked.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use tracer_common::{
    config::{IFNAMSIZ, payload},
    record::Record,
    tally::{DeviceKey, DeviceTally, PassedKey, Tally, TallyKey, route},
};

use super::{Report, Row, ledger};
use crate::{
    devices::{Counters, Device, Snapshot, printable},
    judge::{self, Evidence, Place},
    kernel::{reasons::Reasons, symbols::Symbols},
    routing::{Finding, Question},
    stream::Lost,
};

/// Most kinds of evidence whose newest record is kept; counts do not depend
/// on it.
const MAX_RECORDS: usize = 65536;
/// Most devices a packet is compared with.
const MAX_RECEIVERS: usize = 8;

/// What makes two drops the same row.
type RowKey = (u32, u32, tracer_common::flow::Flow, &'static str, u8);

#[derive(Clone)]
struct Seen {
    record: Record,
    /// Was the encapsulation's module there when the record came?
    encap_module: Option<bool>,
    stack: Vec<Place>,
    /// The tunnel device, and the one the packet stood on, as they were then:
    /// what is configured afterwards does not change what was.
    device: Option<Device>,
    freed_device: Option<Device>,
    receivers: Vec<Device>,
    /// What it failed on, where netlink can tell why.
    question: Option<Question>,
}

/// What is known to be seen, so that its absence tells something.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// Look-ups of routes.
    pub routes: bool,
    /// The answers of single routing tables, of IPv4 and of IPv6.
    pub tables: bool,
    pub tables6: bool,
}

/// See the module.
pub struct Book {
    symbols: Symbols,
    reasons: Reasons,
    watched: Watched,
    /// Namespace to leave unnamed: our own.
    own_netns: u32,
    started: Instant,
    records: HashMap<TallyKey, Seen>,
    record_count: u64,
    places: HashMap<u64, Option<Place>>,
    /// Why look-ups failed, as netlink said when they did.
    findings: HashMap<Question, Finding>,
    devices: HashMap<(u32, u32), Device>,
    /// Counters at the start; a device that is not here came later.
    before: HashMap<(u32, u32), Counters>,
    netns: HashMap<u32, String>,
    /// Devices that were looked for and not found, not to look again; with
    /// their names, since indices are used again.
    sought: HashSet<(u32, u32, [u8; IFNAMSIZ])>,
    shown: HashMap<RowKey, (u64, Instant)>,
}

impl Book {
    pub fn new(
        symbols: Symbols,
        reasons: Reasons,
        watched: Watched,
        own_netns: u32,
        start: Snapshot,
    ) -> Self {
        let before = start
            .devices
            .iter()
            .map(|(key, device)| (*key, device.counters))
            .collect();
        Self {
            symbols,
            reasons,
            watched,
            own_netns,
            started: Instant::now(),
            records: HashMap::new(),
            record_count: 0,
            places: HashMap::new(),
            findings: HashMap::new(),
            devices: start.devices,
            before,
            netns: start.names,
            sought: HashSet::new(),
            shown: HashMap::new(),
        }
    }

    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Reads the symbols again if modules came or went. Places already known
    /// stay as they were when the packet was freed.
    pub fn follow_modules(&mut self) -> bool {
        match self.symbols.reload_if_changed() {
            Ok(changed) => changed,
            Err(error) => {
                tracing::warn!("cannot read the kernel's symbols again: {error:#}");
                false
            }
        }
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

    /// Takes a newer snapshot in. What is gone stays as it was last seen.
    pub fn learn(
        &mut self,
        snapshot: Snapshot,
        sought: impl IntoIterator<Item = (u32, u32, [u8; IFNAMSIZ])>,
    ) {
        for (key, device) in snapshot.devices {
            if self
                .devices
                .get(&key)
                .is_some_and(|known| known.kind != device.kind)
            {
                // Another device by now: it began with zeros.
                self.before.remove(&key);
            }
            self.devices.insert(key, device);
        }
        self.netns.extend(snapshot.names);
        self.sought.extend(sought);
    }

    /// Do all of these addresses have names by now?
    pub fn knows_places(&self, addresses: impl Iterator<Item = u64>) -> bool {
        addresses
            .into_iter()
            .all(|address| address == 0 || self.places.contains_key(&address))
    }

    /// UDP ports that tunnels of this host use, and what follows the UDP header
    /// there (`config::payload`).
    pub fn ports(&self) -> impl Iterator<Item = (u16, u32)> {
        self.devices
            .values()
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
                    _ => payload::OPAQUE,
                };
                [
                    device.encap_dport.map(|port| (port, encap)),
                    device.port.map(|port| (port, own)),
                ]
            })
            .flatten()
    }

    /// Takes in what netlink says of a question, for what came and what comes.
    pub fn found(&mut self, question: Question, finding: Option<Finding>) {
        match finding {
            Some(finding) => {
                self.findings.insert(question, finding);
            }
            None => {
                self.findings.remove(&question);
            }
        }
    }

    /// Takes a record in, with the addresses of its stack. Gives the question
    /// to ask netlink about it.
    pub fn record(&mut self, record: &Record, stack: &[u64]) -> Option<Question> {
        self.record_count += 1;
        self.place(record.key.location);
        let stack = stack
            .iter()
            .filter_map(|address| self.place(*address))
            .collect();
        if self.records.len() >= MAX_RECORDS && !self.records.contains_key(&record.key) {
            return None;
        }
        let device = self.device(record.key.netns, record.key.ifindex, Some(record));
        let question = Question::of(record, device.as_ref());
        let encap_module = device
            .as_ref()
            .and_then(|device| device.encap.as_ref())
            .map(|_| Symbols::module_loaded("fou"));
        let freed_device = self
            .devices
            .get(&(record.freed_netns, record.freed_ifindex))
            .cloned();
        let receivers = match self.records.get(&record.key) {
            Some(seen) => seen.receivers.clone(),
            None => self.receivers(record),
        };
        self.records.insert(
            record.key,
            Seen {
                record: *record,
                encap_module,
                stack,
                device,
                freed_device,
                receivers,
                question,
            },
        );
        question
    }

    fn place(&mut self, address: u64) -> Option<Place> {
        if address == 0 {
            return None;
        }
        if let Some(known) = self.places.get(&address) {
            return known.clone();
        }
        let place = self.symbols.resolve(address).map(|found| Place {
            function: found.function.to_owned(),
            offset: found.offset,
            module: found.module.map(str::to_owned),
        });
        // A module that just came may have it: asked again next time.
        if place.is_some() {
            self.places.insert(address, place.clone());
        }
        place
    }

    /// The device by netlink, unless the kernel's word in a record says that it
    /// is another one by now.
    fn device(&self, netns: u32, ifindex: u32, record: Option<&Record>) -> Option<Device> {
        let device = self.devices.get(&(netns, ifindex))?;
        let same = record.is_none_or(|record| same_kind(device, until_zero(&record.kind)));
        same.then(|| device.clone())
    }

    /// The devices a received outer packet could be for.
    fn receivers(&self, record: &Record) -> Vec<Device> {
        if record.outer.ethertype == 0 || record.freed_ifindex == 0 {
            return Vec::new();
        }
        let mut receivers: Vec<_> = self
            .devices
            .iter()
            .filter(|((netns, _), device)| {
                *netns == record.freed_netns && device.receives(&record.outer)
            })
            .collect();
        receivers.sort_by_key(|(key, _)| **key);
        receivers
            .into_iter()
            .take(MAX_RECEIVERS)
            .map(|(_, device)| device.clone())
            .collect()
    }

    fn netns_label(&self, inode: u32) -> Option<String> {
        (inode != 0 && inode != self.own_netns).then(|| {
            self.netns
                .get(&inode)
                .cloned()
                .unwrap_or_else(|| format!("net:[{inode}]"))
        })
    }

    fn evidence(&mut self, key: TallyKey) -> (Evidence, Vec<Place>) {
        let place = self.place(key.location);
        let seen = self.records.get(&key);
        let device = match seen {
            Some(seen) => seen.device.clone(),
            None => self.device(key.netns, key.ifindex, None),
        };
        let kind = match (&device, seen) {
            (_, Some(seen)) if seen.record.kind[0] != 0 => printable(until_zero(&seen.record.kind)),
            (Some(device), _) => device.kind.clone(),
            _ => String::new(),
        };
        let evidence = Evidence {
            key,
            record: seen.map(|seen| seen.record),
            place,
            reason: (key.reason != 0).then(|| {
                let name = self.reasons.name(key.reason).map(str::to_owned);
                let subsystem = self.reasons.subsystem(key.reason);
                name.unwrap_or_else(|| match subsystem {
                    Some(subsystem) => format!("{subsystem} {:#x}", key.reason),
                    None => format!("{:#x}", key.reason),
                })
            }),
            device,
            freed_device: seen.and_then(|seen| seen.freed_device.clone()),
            kind,
            receivers: seen.map(|seen| seen.receivers.clone()).unwrap_or_default(),
            routes_watched: self.watched.routes,
            tables_watched: if key.route & route::IPV6 == 0 {
                self.watched.tables
            } else {
                self.watched.tables6
            },
            finding: seen
                .and_then(|seen| self.findings.get(&seen.question?))
                .cloned(),
            encap_module: seen.and_then(|seen| seen.encap_module),
        };
        let stack = seen.map(|seen| seen.stack.clone()).unwrap_or_default();
        (evidence, stack)
    }

    /// Everything known now.
    pub fn report(
        &mut self,
        tallies: &[(TallyKey, Tally)],
        passed: &[(PassedKey, u64)],
        devices: &[(DeviceKey, DeviceTally)],
        lost: Lost,
    ) -> Report {
        let mut rows: BTreeMap<RowKey, Row> = BTreeMap::new();
        for (key, tally) in tallies {
            let (evidence, stack) = self.evidence(*key);
            if !judge::is_drop(&evidence) {
                continue;
            }
            let (cause, confidence) = judge::judge(&evidence);
            let row_key = (key.netns, key.ifindex, key.flow, cause.id, key.outcome);
            match rows.get_mut(&row_key) {
                Some(row) => {
                    row.count += tally.packets;
                    // The detail shown is that of the newest packet that has
                    // any; the confidence is that of the weakest.
                    row.confidence = row.confidence.max(confidence);
                    if evidence.record.is_some()
                        && (row.evidence.record.is_none() || tally.last_ns > row.last_ns)
                    {
                        row.evidence = evidence;
                        row.stack = stack;
                    }
                    row.last_ns = row.last_ns.max(tally.last_ns);
                }
                None => {
                    let row = Row {
                        path: self.path(&evidence),
                        netns: self.netns_label(key.netns),
                        evidence,
                        cause,
                        confidence,
                        count: tally.packets,
                        last_ns: tally.last_ns,
                        rate: 0.0,
                        stack,
                    };
                    rows.insert(row_key, row);
                }
            }
        }
        self.rates(&mut rows);
        let mut rows: Vec<Row> = rows.into_values().collect();
        rows.sort_by_key(|row| {
            (
                row.evidence.key.outcome,
                !row.is_users(),
                std::cmp::Reverse(row.last_ns),
            )
        });
        let mut ledgers: Vec<_> = devices
            .iter()
            .map(|(key, tally)| {
                let id = (key.netns, key.ifindex);
                let mut ledger = ledger::ledger(
                    *key,
                    *tally,
                    self.name(id, &rows),
                    self.netns_label(key.netns),
                    passed,
                    &rows,
                );
                if let Some(device) = self.devices.get(&id) {
                    ledger.kind.clone_from(&device.kind);
                    // A device made while tracing began with zeros.
                    let before = self.before.get(&id).copied().unwrap_or_default();
                    ledger.counters = device.counters.delta(&before);
                }
                ledger
            })
            .collect();
        ledgers.sort_by(|a, b| (&a.netns, &a.name).cmp(&(&b.netns, &b.name)));
        Report {
            rows,
            ledgers,
            lost,
            records: self.record_count,
            duration: self.started.elapsed(),
        }
    }

    fn rates(&mut self, rows: &mut BTreeMap<RowKey, Row>) {
        let now = Instant::now();
        for (key, row) in rows.iter_mut() {
            let (count, since) = self.shown.get(key).copied().unwrap_or((0, self.started));
            let seconds = now
                .duration_since(since)
                .max(Duration::from_millis(1))
                .as_secs_f64();
            row.rate = row.count.saturating_sub(count) as f64 / seconds;
            self.shown.insert(*key, (row.count, now));
        }
        self.shown.retain(|key, _| rows.contains_key(key));
    }

    /// The name of a device, by netlink or by the newest record about it.
    fn name(&self, id: (u32, u32), rows: &[Row]) -> String {
        if let Some(device) = self.devices.get(&id) {
            return device.display_name();
        }
        rows.iter()
            .filter(|row| (row.evidence.key.netns, row.evidence.key.ifindex) == id)
            .find_map(|row| row.evidence.record)
            .map_or_else(
                || format!("if{}", id.1),
                |record| printable(until_zero(&record.dev)),
            )
    }

    /// Names of the devices of the frames around a drop.
    fn path(&self, evidence: &Evidence) -> Vec<String> {
        let Some(record) = &evidence.record else {
            return Vec::new();
        };
        let length = (record.path_len as usize).min(record.path.len());
        record.path[..length]
            .iter()
            .map(|DeviceKey { netns, ifindex }| {
                self.devices
                    .get(&(*netns, *ifindex))
                    .map_or_else(|| format!("if{ifindex}"), Device::display_name)
            })
            .collect()
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
