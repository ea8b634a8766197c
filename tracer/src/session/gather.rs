//! What comes out of the kernel and from netlink, made into events.

use std::{os::unix::ffi::OsStrExt as _, time::Duration};

use anyhow::Result;
use tracer_common::{config::IFNAMSIZ, record::notice, tally::DeviceKey};

use super::{Session, watched};
use crate::{
    devices::{self, Device, Snapshot},
    event::{Event, Sample, Start},
    flows::{Counts, FOU},
    judge::Place,
    kernel::symbols::Symbols,
    probes::kinds,
    record::Recorder,
    stream::Lost,
};

/// How long a report waits for netlink's word on what it tells, while tracing.
const SOON: Duration = Duration::from_millis(100);
/// Most records taken between two looks at everything else.
const BATCH: usize = 4096;
/// Most batches of them taken at one go.
const BATCHES: usize = 8;

impl Session<'_> {
    /// Tells what happened.
    pub(super) fn tell(&mut self, event: Event) -> Result<()> {
        if let Some(recorder) = &mut self.recorder {
            recorder.append(&event)?;
        }
        if let Some(pair) = &mut self.pair {
            pair.take(&event);
        }
        self.story.take(&event);
        Ok(())
    }

    /// Goes on in another file where the size is limited.
    pub(super) fn rotate_if_full(&mut self) -> Result<()> {
        if !self.recorder.as_ref().is_some_and(Recorder::is_full) {
            return Ok(());
        }
        // The file's own end, and the beginning of the next.
        self.learn(devices::snapshot(None), false)?;
        self.count(true)?;
        let book = self.story.book();
        let start = Start {
            attached: self.probes.attached.clone(),
            missing: self.probes.missing.clone(),
            time_ns: book.counts().time_ns,
            ..self.story.start().clone()
        };
        if let Some(recorder) = &mut self.recorder {
            recorder.rotate(&start, &book.known(), book.counts())?;
        }
        Ok(())
    }

    /// Takes the records that are there; what comes meanwhile waits for the
    /// next time, so that under a storm the rest has its turn too.
    pub(super) fn take(&mut self) -> Result<()> {
        for _ in 0..BATCHES {
            let records = self.stream.records(BATCH);
            let noticed = self.stream.noticed();
            if self.probes.is_resting() {
                // Of a tunnel that nobody had heard of, too.
                let is_there = noticed.contains(&notice::TUNNEL)
                    || records.iter().any(|(record, _)| record.key.ifindex != 0);
                if is_there || !noticed.is_empty() && kinds::are_expected() {
                    self.wake()?;
                }
            }
            if records.is_empty() {
                return Ok(());
            }
            let samples: Vec<Sample> = records
                .into_iter()
                .map(|(record, packet)| Sample {
                    stack: self.stream.stack(record.stack),
                    record,
                    packet,
                })
                .collect();
            self.name_places(
                samples.iter().map(|sample| sample.record.key.location),
                samples
                    .iter()
                    .flat_map(|sample| sample.stack.iter().copied()),
            )?;
            let records = samples.iter().map(|sample| &sample.record);
            let unknown: Vec<_> = records
                .clone()
                .filter(|record| self.story.book().is_unknown(record))
                .map(|record| (record.key.netns, record.key.ifindex, record.dev))
                .collect();
            self.seek(unknown)?;
            if records
                .clone()
                .any(|record| self.story.book().has_encap(record))
            {
                let loaded = Symbols::module_loaded(FOU);
                if self.story.book().fou() != Some(loaded) {
                    let name = FOU.to_owned();
                    self.tell(Event::Module { name, loaded })?;
                }
            }
            for sample in &samples {
                if let Some(question) = self.story.book().question(&sample.record) {
                    self.inquiry.ask(question);
                }
            }
            self.tell(Event::Records(samples))?;
        }
        self.stream.more();
        Ok(())
    }

    /// Says what is at these addresses, while it is known: `frees` are certainly
    /// in the kernel's code, `others` may be.
    fn name_places(
        &mut self,
        frees: impl Iterator<Item = u64>,
        others: impl Iterator<Item = u64>,
    ) -> Result<()> {
        let book = self.story.book();
        let unknown = |address: &u64| !book.knows_place(*address);
        let frees: Vec<u64> = frees.filter(unknown).collect();
        let mut addresses: Vec<u64> = others.filter(unknown).collect();
        // A module that came since the last look has addresses in them.
        if !frees.is_empty() {
            self.follow_modules()?;
        }
        addresses.extend(frees);
        addresses.sort_unstable();
        addresses.dedup();
        let places: Vec<(u64, Place)> = addresses
            .into_iter()
            .filter_map(|address| {
                let found = self.symbols.resolve(address)?;
                let place = Place {
                    function: found.function.to_owned(),
                    offset: found.offset,
                    module: found.module.map(str::to_owned),
                };
                Some((address, place))
            })
            .collect();
        match places.is_empty() {
            true => Ok(()),
            false => self.tell(Event::Places(places)),
        }
    }

    /// Asks netlink for devices that have not been heard of.
    fn seek(&mut self, unknown: Vec<(u32, u32, [u8; IFNAMSIZ])>) -> Result<()> {
        if unknown.is_empty() {
            return Ok(());
        }
        self.learn(devices::snapshot(None), false)?;
        self.story.book_mut().sought(unknown);
        Ok(())
    }

    /// Takes a snapshot in, and tells the programs the ports that are in it.
    pub(super) fn learn(&mut self, snapshot: Snapshot, at_start: bool) -> Result<()> {
        self.story.book_mut().listens_at(&snapshot.ports);
        for event in self.story.book().news(snapshot, at_start) {
            self.tell(event)?;
        }
        if let Err(error) = self.probes.set_ports(self.story.book().ports()) {
            tracing::warn!("cannot tell the programs the tunnels' ports: {error:#}");
        }
        Ok(())
    }

    /// Attaches what rests, and finds out what tunnels got before that.
    fn wake(&mut self) -> Result<()> {
        self.probes.wake()?;
        let snapshot = devices::snapshot(None);
        let followed = self.stream.devices()?;
        let asked = self.options.dev.as_ref().map(|dev| dev.as_bytes());
        let wanted = |device: &&Device| {
            asked.is_none_or(|name| name == device.name)
                && (self.netns == 0 || self.netns == device.netns)
        };
        // Nothing rests where there is a tunnel: these are new.
        let tunnels = snapshot.devices.values();
        for device in tunnels.filter(|device| device.is_tunnel()).filter(wanted) {
            let counters = &device.counters;
            let all = counters.tx_packets + counters.tx_errors.max(counters.tx_dropped);
            let key = DeviceKey {
                netns: device.netns,
                ifindex: device.ifindex,
            };
            let followed = followed.get(&key).map_or(0, |tally| tally.packets_in);
            self.unfollowed += all.saturating_sub(followed);
        }
        // What was there when it was loaded may turn out not to be.
        self.story.book_mut().watch(watched(&self.probes));
        self.learn(snapshot, false)
    }

    /// Reads the symbols again if modules came or went.
    fn follow_modules(&mut self) -> Result<()> {
        // First: reading the symbols takes its time.
        if self.probes.is_resting() && kinds::are_expected() {
            self.wake()?;
        }
        match self.symbols.reload_if_changed() {
            Ok(true) => self.probes.follow_modules(&self.symbols),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!("cannot read the kernel's symbols again: {error:#}");
            }
        }
        Ok(())
    }

    /// Modules that came or went, devices that came.
    pub(super) fn look_around(&mut self) -> Result<()> {
        self.follow_modules()?;
        let unknown = self
            .stream
            .devices()?
            .into_keys()
            .filter(|key| self.story.book().is_unheard_of(key))
            .map(|key| (key.netns, key.ifindex, [0; IFNAMSIZ]))
            .collect();
        self.seek(unknown)
    }

    /// Reads all counts, and the records that were there at that time. `surveyed`:
    /// right before, all devices were looked at.
    pub(super) fn count(&mut self, surveyed: bool) -> Result<()> {
        let mut counts = Counts {
            // Before them: a record of that time may be of one they do not have.
            time_ns: monotonic(),
            lost: Lost::default(),
            tallies: self.stream.tallies()?,
            passed: self.stream.passed()?,
            likes: self.stream.likes()?,
            devices: self.stream.devices()?,
            frames: self.probes.has_frames(),
            surveyed,
        };
        // After the counts: what is told once, when it was counted, is told with
        // its details.
        self.take()?;
        let book = self.story.book();
        let vanished = counts.tallies.keys().any(|key| book.is_drop(key));
        counts.lost = self.stream.lost(self.probes.missed(), vanished)?;
        counts.lost.frames += self.unfollowed;
        book.counts().only_news(&mut counts);
        let frees = counts.tallies.keys().map(|key| key.location);
        self.name_places(frees, [].into_iter())?;
        self.answers(SOON)?;
        self.tell(Event::Counts(counts))?;
        match &mut self.recorder {
            Some(recorder) => recorder.flush(),
            None => Ok(()),
        }
    }

    /// Tells what netlink says of what was asked; waits for it no longer than
    /// this.
    pub(super) fn answers(&mut self, patience: Duration) -> Result<()> {
        for (question, finding) in self.inquiry.answers(patience) {
            self.tell(Event::Answer { question, finding })?;
        }
        Ok(())
    }
}

/// `CLOCK_MONOTONIC`, which `bpf_ktime_get_ns` reads.
pub(super) fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
