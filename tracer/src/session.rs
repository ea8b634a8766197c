//! One run of the tracer: attach, follow, show, sum up.

mod ending;
mod gather;

use std::{
    ffi::{OsStr, OsString},
    fmt,
    io::{self, Write},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow};
use tokio::time::{Instant, sleep};
use tracer_common::config::Config;

use self::{
    ending::{Interrupts, Stop, ended, ticks, until},
    gather::monotonic,
};
use crate::{
    cli::{Format, Options},
    command::Traced,
    compare::{Asked, Pair},
    devices::{
        self, FindError, Snapshot,
        netns::{self, Netns},
    },
    event::Start,
    filter::Host,
    flows::{Row, Watched},
    kernel::{btf::Btf, host, reasons::Reasons, symbols::Symbols},
    memory,
    probes::{Prepared, Probes, kinds},
    record::{Limits, Output, Recorder, Scope},
    routing::Inquiry,
    story::{Manner, Story},
    stream::Stream,
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
/// How long the last report waits for netlink's word on what it tells.
const LAST: Duration = Duration::from_secs(5);
/// How long a command that was told to end is waited for.
const GRACE: Duration = Duration::from_secs(5);
/// Longest name of a device in the kernel, in bytes.
const MAX_DEV: usize = 15;
/// So many sorts of drop are many: their memory is worth giving back.
const MANY: usize = 2048;

/// `tracer watch`.
pub fn watch(options: &Options) -> Result<u8> {
    // Opening needs the event loop already: the ring buffer is waited on.
    let out = Box::new(io::stdout());
    runtime()?.block_on(async {
        let interrupts = Interrupts::listen()?;
        Session::open(options, &[], true, 0, out)?
            .follow(None, interrupts)
            .await
    })
}

/// `tracer run -- CMD`.
pub fn run(options: &Options, command: &[OsString]) -> Result<u8> {
    let out = Box::new(io::stdout());
    runtime()?.block_on(async {
        let interrupts = Interrupts::listen()?;
        let session = Session::open(options, command, false, 0, out)?;
        session.follow(Some(command), interrupts).await
    })
}

/// `tracer compare -- CMD`.
pub fn compare(options: &Options, asked: &Asked, command: &[OsString]) -> Result<u8> {
    runtime()?.block_on(async {
        let interrupts = Interrupts::listen()?;
        // What is told is where they part.
        let mut session = Session::open(options, command, false, 0, Box::new(io::sink()))?;
        let mut pair = Pair::new(session.story.start(), asked, &Host)?;
        for event in session.story.book().known() {
            pair.take(&event);
        }
        session.pair = Some(pair);
        session.follow(Some(command), interrupts).await
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
    runtime()?.block_on(async {
        let interrupts = Interrupts::listen()?;
        // Before anything is attached: it may not be possible.
        let output = Output::open(path, limits, force)?;
        // What is recorded is shown later.
        let mut session = Session::open(options, command, false, snaplen, Box::new(io::sink()))?;
        session.record_to(output)?;
        let command = Some(command).filter(|command| !command.is_empty());
        session.follow(command, interrupts).await
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
    /// Packets that tunnels got while what tells of tunnels was not attached.
    unfollowed: u64,
    /// The one network namespace that is asked for, 0: all.
    netns: u32,
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
        if let Some(name) = &options.dev {
            let name = device(name, &devices::snapshot(netns.as_ref()), netns.as_ref())?;
            config.dev[..name.len()].copy_from_slice(&name);
        }
        let mut reasons = Reasons::from_btf(&btf);
        // What a command does is seen from the first packet on.
        let may_rest = || {
            !kinds::are_expected()
                && !btf.has_func(kinds::UNNAMED)
                && devices::snapshot(None).has_no_tunnels()
        };
        let (mut probes, symbols) = Probes::attach(
            &btf,
            config,
            &filter,
            &options.withhold,
            prepared,
            (command.is_empty() && !options.withhold.iter().any(|name| name == "rest"))
                .then_some(&may_rest),
            || {
                symbols
                    .join()
                    .map_err(|_| anyhow!("reading the kernel's symbols failed"))?
            },
        )?;
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
        let (kernel, arch) = host::release();
        let start = Start {
            kernel,
            arch,
            config: host::config(),
            attached: probes.attached.clone(),
            missing: probes.missing.clone(),
            watched: watched(&probes),
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
            unfollowed: 0,
            netns: netns.as_ref().map_or(0, |netns| netns.inode),
            pair: None,
        };
        // As late as can be: counters of devices move on.
        let snapshot = devices::snapshot(netns.as_ref());
        for problem in &snapshot.problems {
            tracing::info!("{problem}");
        }
        session.learn(snapshot, true)?;
        session.probes.count(true)?;
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
    async fn follow(
        mut self,
        command: Option<&[OsString]>,
        mut interrupt: Interrupts,
    ) -> Result<u8> {
        let recording = self.recorder.is_some();
        let watching = command.is_none() && !recording;
        self.story.begin()?;
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
        // What is too far away does not come.
        let duration = self.options.duration;
        let deadline = duration.and_then(|duration| Instant::now().checked_add(duration));
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
        self.answers(LAST)?;
        // The devices' counters and ours, of one moment.
        self.probes.count(false)?;
        self.learn(devices::snapshot(None), false)?;
        self.count(true)?;
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

    /// Shows what is new while watching.
    fn refresh(&mut self, screen: Option<&Screen>) -> Result<()> {
        self.count(false)?;
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

/// What is known to be seen.
fn watched(probes: &Probes) -> Watched {
    Watched {
        noop_queue: probes.has("noop_enqueue"),
        icmp: probes.has("icmp_send"),
        icmp6: probes.has("icmp6_send"),
        blackholes: probes.has("ipv4_blackhole_route") && probes.has("ip6_blackhole_route"),
        routes: probes.has("ip_route_output_flow") && probes.has("dst_cache_get_ip4"),
        tables: probes.has("fib_table_lookup"),
        tables6: probes.has("fib6_table_lookup"),
    }
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

/// What to add to it to get the time of day.
fn clock() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.as_nanos() as i64 - monotonic() as i64
}
