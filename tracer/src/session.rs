//! One run of the tracer: attach, follow, show, sum up.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    io::{self, Write},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::ExitStatus,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tracer_common::config::{Config, IFNAMSIZ};

use crate::{
    cli::{Format, Options},
    command::Traced,
    compare::{Asked, Pair},
    devices::{
        self, FindError, Snapshot,
        netns::{self, Netns},
    },
    event::{Event, Sample, Start},
    filter::Host,
    flows::{Counts, FOU, Row, Watched},
    judge::Place,
    kernel::{btf::Btf, host, reasons::Reasons, symbols::Symbols},
    memory,
    probes::{Prepared, Probes, kinds},
    record::{Limits, Output, Recorder, Scope},
    routing::Inquiry,
    story::{Manner, Story},
    stream::{Lost, Stream},
    terminal::{self, Screen},
    view::{about::About, table},
};

/// Wrong usage: exit status 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// How often modules and devices are looked at.
const FOLLOW: Duration = Duration::from_millis(250);
/// How often the view is refreshed unless told otherwise.
const REFRESH: Duration = Duration::from_secs(1);
/// How long after the end packets on their way may still vanish.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a report waits for netlink's word on what it tells: while tracing,
/// and for the last time.
const SOON: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(5);
/// How long a command that was told to end is waited for.
const GRACE: Duration = Duration::from_secs(5);
/// Longest name of a device in the kernel, in bytes.
const MAX_DEV: usize = 15;
/// Most records taken between two looks at everything else.
const BATCH: usize = 4096;
/// So many sorts of drop are many: their memory is worth giving back.
const MANY: usize = 2048;
/// Most batches of them taken at one go.
const BATCHES: usize = 8;

/// `tracer watch`.
pub fn watch(options: &Options) -> Result<u8> {
    // Opening needs the event loop already: the ring buffer is waited on.
    let out = Box::new(io::stdout());
    runtime()?.block_on(async {
        Session::open(options, &[], true, 0, out)?
            .follow(None)
            .await
    })
}

/// `tracer run -- CMD`.
pub fn run(options: &Options, command: &[OsString]) -> Result<u8> {
    let out = Box::new(io::stdout());
    runtime()?.block_on(async {
        let session = Session::open(options, command, false, 0, out)?;
        session.follow(Some(command)).await
    })
}

/// `tracer compare -- CMD`.
pub fn compare(options: &Options, asked: &Asked, command: &[OsString]) -> Result<u8> {
    runtime()?.block_on(async {
        // What is told is where they part.
        let mut session = Session::open(options, command, false, 0, Box::new(io::sink()))?;
        let mut pair = Pair::new(session.story.start(), asked, &Host)?;
        for event in session.story.book().known() {
            pair.take(&event);
        }
        session.pair = Some(pair);
        session.follow(Some(command)).await
    })
}

/// `tracer record -o FILE`.
pub fn record(
    options: &Options,
    path: &Path,
    limits: Limits,
    force: bool,
    snaplen: u32,
    command: &[OsString],
) -> Result<u8> {
    // Before anything is attached: it may not be possible.
    let output = Output::open(path, limits, force)?;
    runtime()?.block_on(async {
        // What is recorded is shown later.
        let mut session = Session::open(options, command, false, snaplen, Box::new(io::sink()))?;
        session.record_to(output)?;
        session
            .follow(Some(command).filter(|command| !command.is_empty()))
            .await
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
}

struct Session<'a> {
    options: &'a Options,
    /// What is asked for.
    scope: Scope,
    probes: Probes,
    stream: Stream,
    symbols: Symbols,
    story: Story<Box<dyn Write>>,
    inquiry: Inquiry,
    recorder: Option<Recorder>,
    /// Two selections of what happens.
    pair: Option<Pair>,
}

impl<'a> Session<'a> {
    /// Checks what was asked for, then attaches. `watching`: drops are told as
    /// they happen. `snaplen`: so many bytes of each packet are kept.
    fn open(
        options: &'a Options,
        command: &[OsString],
        watching: bool,
        snaplen: u32,
        out: Box<dyn Write>,
    ) -> Result<Self> {
        let filter = options.program()?;
        host::check()?;
        let prepared = Prepared::start();
        // The kernel takes its time to print its symbols: meanwhile, load.
        let symbols = thread::spawn(Symbols::load);
        let btf = Arc::new(Btf::vmlinux()?);
        let mut config = Config {
            all_drops: options.all_drops.into(),
            all_records: options.all_records.into(),
            stack: options.stack.into(),
            snaplen,
            ..Config::default()
        };
        let netns = match &options.netns {
            None => None,
            Some(spec) => Some(netns::find(spec).map_err(|error| Usage(error.to_string()))?),
        };
        config.netns = netns.as_ref().map_or(0, |netns| netns.inode);
        let snapshot = devices::snapshot(netns.as_ref());
        for problem in &snapshot.problems {
            tracing::info!("{problem}");
        }
        if let Some(name) = &options.dev {
            let name = device(name, &snapshot, netns.as_ref())?;
            config.dev[..name.len()].copy_from_slice(&name);
        }
        let mut reasons = Reasons::from_btf(&btf);
        let (mut probes, symbols) =
            Probes::attach(&btf, config, &filter, &options.withhold, prepared, || {
                symbols
                    .join()
                    .map_err(|_| anyhow!("reading the kernel's symbols failed"))?
            })?;
        if symbols.hidden() {
            tracing::warn!(
                "the kernel hides its symbols: functions have no names; CAP_SYSLOG shows them (kernel.kptr_restrict=1), or sysctl -w kernel.kptr_restrict=0"
            );
        }
        for module in ["openvswitch", "mac80211"] {
            if Symbols::module_loaded(module)
                && let Ok(types) = Btf::module(module, &btf)
            {
                reasons.add_module(&types);
            }
        }
        let stream = Stream::open(&mut probes.ebpf)?;
        let own = netns::own().map_or(0, |netns| netns.inode);
        let watched = Watched {
            noop_queue: probes.has("noop_enqueue"),
            routes: probes.has("ip_route_output_flow") && probes.has("dst_cache_get_ip4"),
            tables: probes.has("fib_table_lookup"),
            tables6: probes.has("fib6_table_lookup"),
        };
        let (kernel, arch) = host::release();
        let start = Start {
            kernel,
            arch,
            config: host::config(),
            attached: probes.attached.clone(),
            missing: probes.missing.clone(),
            watched,
            reasons,
            own_netns: own,
            time_ns: monotonic(),
            clock_ns: clock(),
        };
        let manner = Manner {
            format: options.format,
            stack: options.stack,
            appended: watching && !terminal::is_terminal(),
            ledgers: options.interval.is_some(),
        };
        let scope = Scope {
            dev: options
                .dev
                .as_ref()
                .map(|dev| devices::printable(dev.as_bytes())),
            netns: options.netns.clone(),
            filter: options.filter.clone(),
            all_drops: options.all_drops,
            stack: options.stack,
            command: Vec::new(),
        }
        .of_command(command);
        let about = About {
            scope: scope.clone(),
            ..About::default()
        };
        let mut session = Self {
            options,
            scope,
            probes,
            stream,
            symbols,
            story: Story::new(start, manner, about, out),
            inquiry: Inquiry::start().context("cannot start a thread")?,
            recorder: None,
            pair: None,
        };
        session.learn(snapshot, true)?;
        session.probes.set_ports(session.story.book().ports())?;
        memory::give_back();
        Ok(session)
    }

    /// From here on, everything that happens is recorded.
    fn record_to(&mut self, output: Output) -> Result<()> {
        let mut recorder = output.begin(self.story.start(), self.scope.clone())?;
        for event in self.story.book().known() {
            recorder.append(&event)?;
        }
        recorder.flush()?;
        self.recorder = Some(recorder);
        Ok(())
    }

    /// Follows until the command ends, the time is up, or a signal says stop.
    async fn follow(mut self, command: Option<&[OsString]>) -> Result<u8> {
        let recording = self.recorder.is_some();
        let watching = command.is_none() && !recording;
        // Before the first line: whoever reads it may answer with a signal.
        let mut interrupt = Interrupts::listen()?;
        self.story.begin()?;
        if command.is_none() && self.options.rest {
            self.rest()?;
        }
        if recording {
            tracing::info!("attached, recording");
        } else if watching && self.options.format != Format::Json && !terminal::is_terminal() {
            tracing::info!("attached, waiting for drops");
        }
        let mut command = command.map(Traced::start).transpose()?;
        let screen = (watching && self.options.format == Format::Table && terminal::is_terminal())
            .then(Screen::open)
            .transpose()?;
        let mut follow = ticks(FOLLOW);
        let refresh = self.options.interval.unwrap_or(REFRESH);
        // A recording that breaks off lacks no more than that.
        let mut refresh = ticks(if recording {
            refresh.min(REFRESH)
        } else {
            refresh
        });
        let deadline = self
            .options
            .duration
            .map(|duration| Instant::now() + duration);
        // Until when a command that was told to end is waited for.
        let mut grace = None;
        loop {
            let stop = tokio::select! {
                ready = self.stream.ready() => { ready?; self.take()?; None }
                _ = follow.tick() => { self.look_around()?; None }
                _ = refresh.tick(), if watching || recording => {
                    self.refresh(screen.as_ref())?;
                    None
                }
                status = ended(command.as_mut()) => {
                    let status = status.context("cannot wait for the command")?;
                    if !status.success() {
                        tracing::warn!("the command ended with {status}");
                    }
                    break;
                }
                () = until(deadline), if grace.is_none() => Some(Stop::Terminate),
                () = until(grace) => break,
                stop = interrupt.next() => Some(stop),
            };
            self.rotate_if_full()?;
            if watching && (self.story.is_unread() || terminal::is_unread()) {
                self.story.unread();
                break;
            }
            match (stop, &command) {
                (None, _) => {}
                // Told for the second time: that is for the tracer.
                (Some(_), Some(_)) if grace.is_some() => break,
                (Some(stop), Some(command)) => {
                    grace = Some(Instant::now() + GRACE);
                    match stop {
                        Stop::Interrupt => command.interrupt(),
                        Stop::Terminate => command.terminate(),
                    }
                }
                (Some(_), None) => break,
            }
        }
        drop(command);
        sleep(SETTLE).await;
        self.take()?;
        self.look_around()?;
        drop(screen);
        self.learn(devices::snapshot(None), false)?;
        self.answers(LAST)?;
        self.count()?;
        let recorder = self.recorder.take();
        let recorded = recorder.map(Recorder::finish).transpose()?;
        if let Some(pair) = self.pair.take() {
            return pair.conclude(self.options.format);
        }
        let ending = self.story.conclude()?;
        if let Some((path, bytes)) = recorded {
            let _ = writeln!(
                io::stderr(),
                "tracer: recorded {path}: {bytes} bytes, {} packets vanished{}; tracer report shows them",
                ending.drops,
                if ending.complete { "" } else { ", incomplete" },
            );
        }
        Ok(ending.exit_status)
    }

    /// Where there is no tunnel, what only tells of tunnels is not attached until
    /// one comes up; a packet that it gets within moments is in no frame then.
    /// Never where a command runs: what it does is seen from the first packet on.
    fn rest(&mut self) -> Result<()> {
        // Most hosts that are looked at have one: nothing to prepare there.
        if !self.may_rest(&devices::snapshot(None)) {
            return Ok(());
        }
        if let Err(error) = self.probes.watch_for_tunnels() {
            // All stays attached.
            tracing::debug!("the first tunnel would not be noticed: {error:#}");
            return Ok(());
        }
        // Once more: one that came since is told from here on.
        let snapshot = devices::snapshot(None);
        match self.may_rest(&snapshot) {
            true => self.probes.rest(),
            false => self.probes.wake()?,
        }
        self.learn(snapshot, false)
    }

    /// Is there no tunnel that can be seen, and none to be expected?
    fn may_rest(&self, snapshot: &Snapshot) -> bool {
        snapshot.has_no_tunnels() && !self.expects_tunnels()
    }

    /// Was a tunnel's driver loaded? A device of it usually comes next, and its
    /// first packet with it. Those of l2tp do not even say that they are tunnels.
    fn expects_tunnels(&self) -> bool {
        kinds::KINDS.iter().any(|kind| {
            let mut functions = self.symbols.find(kind.xmit);
            functions.any(|function| function.module.is_some() || kind.name == "l2tp")
        })
    }

    /// Tells what happened.
    fn tell(&mut self, event: Event) -> Result<()> {
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
    fn rotate_if_full(&mut self) -> Result<()> {
        if !self.recorder.as_ref().is_some_and(Recorder::is_full) {
            return Ok(());
        }
        // The file's own end, and the beginning of the next.
        self.learn(devices::snapshot(None), false)?;
        self.count()?;
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
    fn take(&mut self) -> Result<()> {
        for _ in 0..BATCHES {
            let records = self.stream.records(BATCH);
            // Of a tunnel that nobody had heard of, too.
            if self.stream.noticed()
                || self.probes.is_resting()
                    && records.iter().any(|(record, _)| record.key.ifindex != 0)
            {
                self.probes.wake()?;
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
            self.follow_modules();
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
        if let Err(error) = self.probes.set_ports(self.story.book().ports()) {
            tracing::warn!("cannot tell the programs the tunnels' ports: {error:#}");
        }
        Ok(())
    }

    /// Takes a snapshot in.
    fn learn(&mut self, snapshot: Snapshot, at_start: bool) -> Result<()> {
        for event in self.story.book().news(snapshot, at_start) {
            self.tell(event)?;
        }
        Ok(())
    }

    /// Reads the symbols again if modules came or went.
    fn follow_modules(&mut self) {
        match self.symbols.reload_if_changed() {
            Ok(true) => {
                self.probes.follow_modules(&self.symbols);
                if self.probes.is_resting()
                    && self.expects_tunnels()
                    && let Err(error) = self.probes.wake()
                {
                    tracing::warn!("cannot attach to what a tunnel needs: {error:#}");
                }
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!("cannot read the kernel's symbols again: {error:#}");
            }
        }
    }

    /// Modules that came or went, devices that came.
    fn look_around(&mut self) -> Result<()> {
        self.follow_modules();
        let unknown = self
            .stream
            .devices()?
            .into_keys()
            .filter(|key| self.story.book().is_unheard_of(key))
            .map(|key| (key.netns, key.ifindex, [0; IFNAMSIZ]))
            .collect();
        self.seek(unknown)
    }

    /// Reads all counts, and the records that were there at that time.
    fn count(&mut self) -> Result<()> {
        let mut counts = Counts {
            // Before them: a record of that time may be of one they do not have.
            time_ns: monotonic(),
            lost: Lost::default(),
            tallies: self.stream.tallies()?,
            passed: self.stream.passed()?,
            likes: self.stream.likes()?,
            devices: self.stream.devices()?,
            frames: self.probes.has_frames(),
        };
        // After the counts: what is told once, when it was counted, is told with
        // its details.
        self.take()?;
        let book = self.story.book();
        let vanished = counts.tallies.keys().any(|key| book.is_drop(key));
        counts.lost = self.stream.lost(self.probes.missed(), vanished)?;
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
    fn answers(&mut self, patience: Duration) -> Result<()> {
        for (question, finding) in self.inquiry.answers(patience) {
            self.tell(Event::Answer { question, finding })?;
        }
        Ok(())
    }

    /// Shows what is new while watching.
    fn refresh(&mut self, screen: Option<&Screen>) -> Result<()> {
        self.count()?;
        if self.recorder.is_some() {
            return Ok(());
        }
        match screen {
            None => self.story.refresh()?,
            Some(screen) => {
                let report = self.story.report();
                let (width, height) = terminal::size();
                let now = monotonic();
                let age = |row: &Row| now.saturating_sub(row.last_ns) / 1_000_000_000;
                screen.draw(&table::render(&report, width, height, age), height)?;
            }
        }
        // As much again as what is known was needed to show it.
        if self.story.book().counts().tallies.len() > MANY {
            memory::give_back();
        }
        Ok(())
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// The name, as packets carry it, of the device the user means.
fn device(asked: &OsStr, snapshot: &Snapshot, netns: Option<&Netns>) -> Result<Vec<u8>> {
    let asked = asked.as_bytes();
    match snapshot.find_dev(asked, netns.map(|netns| netns.inode)) {
        // It may have been asked for by an alternative name.
        Ok(device) => Ok(device.name.clone()),
        // One name in several namespaces: all of them.
        Err(FindError::Ambiguous { .. }) if asked.len() <= MAX_DEV => Ok(asked.to_vec()),
        Err(error) => {
            // It may be where we may not look.
            for problem in &snapshot.problems {
                tracing::warn!("{problem}");
            }
            Err(Usage(error.to_string()).into())
        }
    }
}

/// What ends a run before its command does.
#[derive(Clone, Copy)]
enum Stop {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM, or the time is up.
    Terminate,
}

/// The signals that end a run.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }
}

/// The command's end; never, without one.
async fn ended(command: Option<&mut Traced>) -> io::Result<ExitStatus> {
    match command {
        Some(command) => command.ended().await,
        None => std::future::pending().await,
    }
}

/// That time; never, without one.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// `CLOCK_MONOTONIC`, which `bpf_ktime_get_ns` reads.
fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// What to add to it to get the time of day.
fn clock() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.as_nanos() as i64 - monotonic() as i64
}
