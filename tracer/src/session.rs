//! One run of the tracer: attach, follow, show, sum up.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fmt,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
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
use tracer_common::{
    config::{Config, IFNAMSIZ},
    flow::Flow,
};

use crate::{
    cli::{Format, Options},
    command::Traced,
    devices::{
        self, FindError, Snapshot,
        netns::{self, Netns},
    },
    flows::{Book, Report, Row, Watched},
    kernel::{btf::Btf, host, reasons::Reasons, symbols::Symbols},
    probes::{Prepared, Probes},
    routing::Inquiry,
    stream::Stream,
    terminal::{self, Screen},
    view::{json, lines, summary, table},
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
/// Most batches of them taken at one go.
const BATCHES: usize = 8;

/// `tracer watch`.
pub fn watch(options: &Options) -> Result<u8> {
    // Opening needs the event loop already: the ring buffer is waited on.
    runtime()?.block_on(async { Session::open(options)?.follow(None).await })
}

/// `tracer run -- CMD`.
pub fn run(options: &Options, command: &[OsString]) -> Result<u8> {
    runtime()?.block_on(async { Session::open(options)?.follow(Some(command)).await })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
}

struct Session<'a> {
    options: &'a Options,
    probes: Probes,
    stream: Stream,
    book: Book,
    inquiry: Inquiry,
    /// What to add to `CLOCK_MONOTONIC` to get the time of day, in nanoseconds.
    clock: i128,
    /// How many packets of a row were told already.
    told: HashMap<(u32, u32, Flow, &'static str, u8), u64>,
    /// Whoever read our output has left: the exit status is all that is told.
    unread: bool,
}

impl<'a> Session<'a> {
    /// Checks what was asked for, then attaches.
    fn open(options: &'a Options) -> Result<Self> {
        let filter = options.program()?;
        host::check()?;
        let prepared = Prepared::start();
        // The kernel takes its time to print its symbols: meanwhile, load.
        let symbols = thread::spawn(Symbols::load);
        let btf = Arc::new(Btf::vmlinux()?);
        let mut config = Config {
            all_drops: options.all_drops.into(),
            stack: options.stack.into(),
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
            routes: probes.has("ip_route_output_flow") && probes.has("dst_cache_get_ip4"),
            tables: probes.has("fib_table_lookup"),
            tables6: probes.has("fib6_table_lookup"),
        };
        let book = Book::new(symbols, reasons, watched, own, snapshot);
        probes.set_ports(book.ports())?;
        Ok(Self {
            options,
            probes,
            stream,
            book,
            inquiry: Inquiry::start().context("cannot start a thread")?,
            clock: clock(),
            told: HashMap::new(),
            unread: false,
        })
    }

    /// Follows until the command ends, the time is up, or a signal says stop.
    async fn follow(mut self, command: Option<&[OsString]>) -> Result<u8> {
        let watching = command.is_none();
        // Before the first line: whoever reads it may answer with a signal.
        let mut interrupt = Interrupts::listen()?;
        if self.options.format == Format::Json {
            let (release, arch) = host::release();
            let start = json::start(&release, &arch, &self.probes.attached, &self.probes.missing);
            self.print(&start)?;
        } else if watching && !terminal::is_terminal() {
            tracing::info!("attached, waiting for drops");
        }
        let mut command = command.map(Traced::start).transpose()?;
        let screen = (watching && self.options.format == Format::Table && terminal::is_terminal())
            .then(Screen::open)
            .transpose()?;
        let mut follow = ticks(FOLLOW);
        let mut refresh = ticks(self.options.interval.unwrap_or(REFRESH));
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
                _ = refresh.tick(), if watching => { self.refresh(screen.as_ref())?; None }
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
            if watching && (self.unread || terminal::is_unread()) {
                self.unread = true;
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
        self.conclude(watching)
    }

    /// Takes the records that are there; what comes meanwhile waits for the
    /// next time, so that under a storm the rest has its turn too.
    fn take(&mut self) -> Result<()> {
        for _ in 0..BATCHES {
            let records = self.stream.records(BATCH);
            if records.is_empty() {
                return Ok(());
            }
            // A module that came since the last look has addresses in them.
            if !self
                .book
                .knows_places(records.iter().map(|record| record.key.location))
            {
                self.follow_modules();
            }
            let unknown: Vec<_> = records
                .iter()
                .filter(|record| self.book.is_unknown(record))
                .map(|record| (record.key.netns, record.key.ifindex, record.dev))
                .collect();
            self.learn(unknown);
            for record in &records {
                let stack = self.stream.stack(record.stack);
                if let Some(question) = self.book.record(record, &stack) {
                    self.inquiry.ask(question);
                }
            }
        }
        self.stream.more();
        Ok(())
    }

    /// Asks netlink for devices that have not been heard of.
    fn learn(&mut self, unknown: Vec<(u32, u32, [u8; IFNAMSIZ])>) {
        if unknown.is_empty() {
            return;
        }
        self.book.learn(devices::snapshot(None), unknown);
        if let Err(error) = self.probes.set_ports(self.book.ports()) {
            tracing::warn!("cannot tell the programs the tunnels' ports: {error:#}");
        }
    }

    fn follow_modules(&mut self) {
        if self.book.follow_modules() {
            self.probes.follow_modules(self.book.symbols());
        }
    }

    /// Modules that came or went, devices that came.
    fn look_around(&mut self) -> Result<()> {
        self.follow_modules();
        let unknown = self
            .stream
            .devices()?
            .iter()
            .filter(|(key, _)| self.book.is_unheard_of(key))
            .map(|(key, _)| (key.netns, key.ifindex, [0; IFNAMSIZ]))
            .collect();
        self.learn(unknown);
        Ok(())
    }

    fn report(&mut self) -> Result<Report> {
        let lost = self.stream.lost(self.probes.missed())?;
        let tallies = self.stream.tallies()?;
        let passed = self.stream.passed()?;
        let devices = self.stream.devices()?;
        // After the counts: what is told once, when it was counted, is told with
        // its details.
        self.take()?;
        for (question, finding) in self.inquiry.answers(SOON) {
            self.book.found(question, finding);
        }
        Ok(self.book.report(&tallies, &passed, &devices, lost))
    }

    /// Shows what is new while watching.
    fn refresh(&mut self, screen: Option<&Screen>) -> Result<()> {
        let report = self.report()?;
        match (screen, self.options.format) {
            (Some(screen), _) => {
                let (width, height) = terminal::size();
                let now = monotonic();
                let age = |row: &Row| now.saturating_sub(row.last_ns) / 1_000_000_000;
                screen.draw(&table::render(&report, width, height, age), height)?;
            }
            (None, Format::Json) => {
                self.rows(&report)?;
                if self.options.interval.is_some() {
                    for ledger in &report.ledgers {
                        self.print(&json::device(ledger))?;
                    }
                }
            }
            (None, _) => self.rows(&report)?,
        }
        Ok(())
    }

    /// Prints the rows that have packets nobody was told of yet.
    fn rows(&mut self, report: &Report) -> Result<()> {
        for row in &report.rows {
            let key = &row.evidence.key;
            let id = (key.netns, key.ifindex, key.flow, row.cause.id, key.outcome);
            let before = self.told.insert(id, row.count).unwrap_or(0);
            let new = row.count.saturating_sub(before);
            if new == 0 {
                continue;
            }
            let time = self.time(row.last_ns);
            let line = match self.options.format {
                Format::Json => json::drop(row, new, &time),
                _ => lines::row(row, new, &time),
            };
            self.print(&line)?;
        }
        Ok(())
    }

    /// The end: everything that is left to say, and the exit status.
    fn conclude(mut self, watching: bool) -> Result<u8> {
        self.book.learn(devices::snapshot(None), []);
        for (question, finding) in self.inquiry.answers(LAST) {
            self.book.found(question, finding);
        }
        let report = self.report()?;
        match self.options.format {
            Format::Json => {
                self.rows(&report)?;
                for ledger in &report.ledgers {
                    self.print(&json::device(ledger))?;
                }
                self.print(&json::end(&report))?;
            }
            Format::Lines => {
                self.rows(&report)?;
                self.print(summary::devices(&report).trim_end())?;
            }
            Format::Table if watching && !terminal::is_terminal() => {
                self.rows(&report)?;
                self.print(summary::devices(&report).trim_end())?;
            }
            Format::Table => {
                self.print(summary::render(&report, self.options.stack).trim_end())?;
            }
        }
        Ok(if report.drops() > 0 {
            1
        } else if report.is_complete() && report.unexplained() == 0 && self.probes.has_frames() {
            0
        } else {
            crate::COULD_NOT_TRACE
        })
    }

    fn print(&mut self, line: &str) -> Result<()> {
        if self.unread {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.unread = true;
                Ok(())
            }
            result => result.context("cannot write to stdout"),
        }
    }

    /// The time of day of a kernel time, RFC 3339.
    fn time(&self, monotonic_ns: u64) -> String {
        let nanoseconds = self.clock + i128::from(monotonic_ns);
        jiff::Timestamp::from_nanosecond(nanoseconds)
            .map(|time| format!("{time:.6}"))
            .unwrap_or_default()
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

fn clock() -> i128 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.as_nanos() as i128 - i128::from(monotonic())
}
