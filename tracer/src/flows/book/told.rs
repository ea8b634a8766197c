//! What the book tells of what it knows: rows, ledgers, a report.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tracer_common::{
    flow::{ETH_P_IP, ETH_P_IPV6},
    record::Record,
    tally::{DeviceKey, TallyKey, outcome, route},
};

use super::{Book, RowKey, until_zero};
use crate::{
    devices::{Device, printable},
    flows::{Report, Row, Selected, Selection, Sent, ledger, selection::Share},
    judge::{self, Evidence, Place},
};

impl Book {
    /// What to call a namespace, unless it is the tracer's own.
    pub fn netns_label(&self, inode: u32) -> Option<String> {
        (inode != 0 && inode != self.own_netns).then(|| {
            self.netns
                .get(&inode)
                .cloned()
                .unwrap_or_else(|| format!("net:[{inode}]"))
        })
    }

    fn evidence(&self, key: TallyKey) -> (Evidence, Vec<Arc<Place>>) {
        let place = self.place(key.location).map(|place| (*place).clone());
        let seen = self.records.get(&key);
        let device = match seen {
            Some(seen) => seen.device.clone(),
            None => self.device(key.netns, key.ifindex, None).cloned(),
        };
        let kind = match (&device, seen) {
            (_, Some(seen)) if seen.record.kind[0] != 0 => printable(until_zero(&seen.record.kind)),
            (Some(device), _) => device.kind.clone(),
            _ => String::new(),
        };
        let evidence = Evidence {
            key,
            record: seen.map(|seen| Arc::clone(&seen.record)),
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
            noop_watched: self.watched.noop_queue,
            errors_watched: match key.flow.ethertype {
                ETH_P_IP => self.watched.icmp,
                ETH_P_IPV6 => self.watched.icmp6,
                _ => false,
            },
            blackholes_watched: self.watched.blackholes,
            names_reverse_path: self.names_reverse_path,
            names_duplicates: self.names_duplicates,
            names_local_source: self.names_local_source,
            names_backlog: self.names_backlog,
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

    /// Did the packets of this count vanish, by all that is known?
    pub fn is_drop(&self, key: &TallyKey) -> bool {
        judge::is_drop_anywhere(key.outcome) || judge::is_drop(&self.evidence(*key).0)
    }

    /// How many packets of a count vanished and are asked for.
    pub fn vanished(&self, key: &TallyKey) -> u64 {
        let Some(tally) = self.counts.tallies.get(key) else {
            return 0;
        };
        match self.is_drop(key) {
            true => self.share(key, tally.packets).packets,
            false => 0,
        }
    }

    /// The packet of a record alone, if it vanished and is asked for.
    pub fn row_of(&self, record: &Record) -> Option<Row> {
        let selection = self.selection.as_ref();
        if !selection.is_none_or(|selection| selection.wants(record)) {
            return None;
        }
        let (mut evidence, stack) = self.evidence(record.key);
        evidence.record = Some(Arc::new(*record));
        if !judge::is_drop(&evidence) {
            return None;
        }
        let (cause, confidence) = judge::judge(&evidence);
        Some(Row {
            path: self.path(&evidence),
            netns: self.netns_label(record.key.netns),
            evidence,
            cause,
            confidence,
            count: 1,
            last_ns: record.time_ns,
            rate: 0.0,
            stack,
        })
    }

    /// A device, as it was last seen.
    pub fn device_of(&self, netns: u32, ifindex: u32) -> Option<&Device> {
        self.devices.get(&(netns, ifindex)).map(Arc::as_ref)
    }

    /// Packets of what is asked for that were sent, by device; and how many more
    /// may be.
    pub fn selected_sent(&self) -> (BTreeMap<String, u64>, u64) {
        let (mut sent, mut undecided) = (BTreeMap::new(), 0);
        let alone = self.counts.devices.len() <= 1;
        for (key, packets) in self
            .counts
            .passed
            .iter()
            .filter(|(_, packets)| **packets > 0)
        {
            let selection = self.selection.as_ref();
            match selection.map_or(Some(true), |selection| selection.passes(key, alone)) {
                Some(true) => {
                    let device = self.name_of((key.netns, key.ifindex));
                    let netns = self.netns_label(key.netns);
                    let device = match netns {
                        Some(netns) => format!("{device} (netns {netns})"),
                        None => device,
                    };
                    *sent.entry(device).or_insert(0) += *packets;
                }
                Some(false) => {}
                None => undecided += *packets,
            }
        }
        (sent, undecided)
    }

    /// What was sent, by device and destination.
    pub fn sent(&self) -> Vec<Sent> {
        let passed = self.counts.passed.iter();
        passed
            .map(|(key, packets)| Sent {
                device: self.name_of((key.netns, key.ifindex)),
                netns: self.netns_label(key.netns),
                ethertype: key.ethertype,
                proto: key.proto,
                dst: key.dst,
                icmp_type: key.icmp_type,
                port: key.port,
                packets: *packets,
            })
            .collect()
    }

    /// How many packets of a count are asked for.
    fn share(&self, key: &TallyKey, packets: u64) -> Share {
        match &self.selection {
            None => Share {
                packets,
                undecided: 0,
            },
            Some(selection) => {
                let decided = self.records.get(key).map(|seen| &seen.decided);
                selection.share(key, packets, decided)
            }
        }
    }

    /// Packets that vanished, of which those asked for are counted; and how many
    /// of the rest may be asked for.
    fn rows(&self, share: impl Fn(&TallyKey, u64) -> Share) -> (BTreeMap<RowKey, Row>, u64) {
        let mut rows: BTreeMap<RowKey, Row> = BTreeMap::new();
        let mut undecided = 0;
        for (key, tally) in &self.counts.tallies {
            let (evidence, stack) = self.evidence(*key);
            if !judge::is_drop(&evidence) {
                continue;
            }
            let mut tally = *tally;
            // Counts know the time to within a jiffy.
            if let Some(record) = &evidence.record {
                tally.last_ns = tally.last_ns.max(record.time_ns);
            }
            let share = share(key, tally.packets);
            undecided += share.undecided;
            if share.packets == 0 {
                continue;
            }
            if share.packets < tally.packets {
                // The newest of all may be another's.
                let newest = evidence.record.as_ref().map(|record| record.time_ns);
                tally.last_ns = newest.unwrap_or(tally.last_ns);
                tally.packets = share.packets;
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
                        row.path = self.path(&evidence);
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
        (rows, undecided)
    }

    /// Everything known now.
    pub fn report(&mut self) -> Report {
        let whole = |_: &TallyKey, packets| Share {
            packets,
            undecided: 0,
        };
        let (mut rows, _) = self.rows(whole);
        let mut selected = None;
        // Devices are counted as wholes.
        let mut of_devices: Option<Vec<Row>> = None;
        if self.selection.is_some() {
            let of = rows.values().map(|row| row.count).sum();
            let all = std::mem::take(&mut rows);
            of_devices = Some(all.into_values().collect());
            let undecided;
            (rows, undecided) = self.rows(|key, packets| self.share(key, packets));
            selected = Some(Selected {
                of,
                undecided,
                devices_whole: self
                    .selection
                    .as_ref()
                    .is_some_and(Selection::divides_devices),
            });
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
        let mut of_device: HashMap<(u32, u32), Vec<&Row>> = HashMap::new();
        for row in of_devices.as_deref().unwrap_or(&rows) {
            let key = &row.evidence.key;
            let device = match key.outcome {
                outcome::LOST_LATER => (key.sender_netns, key.sender_ifindex),
                _ => (key.netns, key.ifindex),
            };
            of_device.entry(device).or_default().push(row);
        }
        let mut ledgers: Vec<_> = self
            .counts
            .devices
            .iter()
            .filter(|(key, _)| {
                let device = self.devices.get(&(key.netns, key.ifindex));
                self.selection
                    .as_ref()
                    .is_none_or(|selection| selection.has_device(**key, device.map(Arc::as_ref)))
            })
            .map(|(key, tally)| {
                let id = (key.netns, key.ifindex);
                let mut ledger = ledger::ledger(
                    *key,
                    *tally,
                    self.name_of(id),
                    self.netns_label(key.netns),
                    &self.counts,
                    of_device.get(&id).map_or(&[], Vec::as_slice),
                );
                if let Some(device) = self.devices.get(&id) {
                    ledger.kind.clone_from(&device.kind);
                    // A device made while tracing began with zeros.
                    let before = self.before.get(&id).copied().unwrap_or_default();
                    if self.counts.surveyed && !self.gone.contains(&id) {
                        ledger.counters = Some(device.counters.delta(&before));
                    }
                }
                ledger
            })
            .collect();
        ledgers.sort_by(|a, b| (&a.netns, &a.name).cmp(&(&b.netns, &b.name)));
        let mut lost = self.counts.lost;
        lost.tally = lost.tally.saturating_add(self.uncounted);
        Report {
            rows,
            ledgers,
            lost,
            records: self.record_count,
            duration: Duration::from_nanos(self.counts.time_ns.saturating_sub(self.started_ns)),
            frames: self.counts.frames,
            broken_off: false,
            selected,
        }
    }

    fn rates(&mut self, rows: &mut BTreeMap<RowKey, Row>) {
        let now = self.counts.time_ns;
        for (key, row) in rows.iter_mut() {
            let before = self.shown.get(key).copied();
            let (count, since) = before.unwrap_or((0, self.started_ns));
            let seconds = Duration::from_nanos(now.saturating_sub(since))
                .max(Duration::from_millis(1))
                .as_secs_f64();
            row.rate = row.count.saturating_sub(count) as f64 / seconds;
            self.shown.insert(*key, (row.count, now));
        }
        self.shown.retain(|key, _| rows.contains_key(key));
    }

    /// The name of a device, by netlink or by the newest record about it.
    pub fn name_of(&self, id: (u32, u32)) -> String {
        match (self.devices.get(&id), self.recorded.get(&id)) {
            (Some(device), _) => device.display_name(),
            (None, Some(name)) => printable(until_zero(name)),
            (None, None) => format!("if{}", id.1),
        }
    }

    /// Names of the devices of the frames around a drop.
    fn path(&self, evidence: &Evidence) -> Vec<String> {
        let Some(record) = &evidence.record else {
            return Vec::new();
        };
        let length = (record.path_len as usize).min(record.path.len());
        record.path[..length]
            .iter()
            .map(|DeviceKey { netns, ifindex }| self.name_of((*netns, *ifindex)))
            .collect()
    }
}
