//! Loads the programs with what is known of this kernel, and attaches each
//! point by the first way that works.

use std::{
    any::Any,
    collections::HashMap as StdHashMap,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Btf as AyaBtf, BtfError, Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData},
    programs::{KProbe, ProbeKind, Program, ProgramError},
};
use tracer_common::{
    config::{Config, KIND_LEN, kind, switch},
    filter::{Filter, needs},
};
use tracing::{debug, info, warn};

use super::{
    Attached, Missing,
    hooks::{self, DRIVER, Hook},
    kinds::KINDS,
    kprobe::{self, Link, Target},
    load::{self, brief},
    points::{CONSUME, FIRST_TUNNEL, FRAME_END, FRAME_START, FREE, POINTS, Point, REALLOC, Way},
};
use crate::{
    kernel::{btf::Btf, host, offsets, symbols::Symbols},
    memory,
};

/// The object that build.rs made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer-probes"));

/// Most tasks that transmit at a time on a PREEMPT_RT kernel.
const MAX_TASKS: u32 = 1024;
/// Most events between a first and a second program at a time, and those whose
/// second was left out.
const MAX_RAN: u32 = 8192;
/// What a second program is called, behind the name of the first.
const AGAIN: &str = "_again";
/// Most packets on their way whose outer header a filter can ask for.
const MAX_OUTERS: u32 = 16384;
/// Bytes of the ring buffer, where every drop's details are asked for: a tenth of
/// a second of 200,000 a second. Otherwise it is as it was built.
const ALL_RECORDS: u32 = 16 << 20;
/// Most tunnel devices whose name a filter can ask for.
const MAX_NAMES: u32 = 4096;

/// What aya reads of the kernel's types: the same megabytes for its loader and
/// for the programs, on threads of their own while we read ours.
pub struct Prepared {
    loader: thread::JoinHandle<EbpfLoader<'static>>,
    btf: thread::JoinHandle<Result<AyaBtf, BtfError>>,
}

impl Prepared {
    pub fn start() -> Self {
        Self {
            loader: thread::spawn(EbpfLoader::new),
            btf: thread::spawn(AyaBtf::from_sys_fs),
        }
    }
}

/// Everything loaded and attached; dropping it detaches all.
pub struct Probes {
    pub ebpf: Ebpf,
    pub attached: Vec<Attached>,
    pub missing: Vec<Missing>,
    withheld: Vec<String>,
    /// Programs that were loaded ahead in vain, until their point asks.
    refused: Vec<(&'static str, anyhow::Error)>,
    /// The points that are attached, each by its way; to functions that stay.
    held: Vec<Held>,
    /// Those of them that tell of tunnels only are not, for want of one.
    resting: bool,
    /// Tells of the first tunnel; attached only where something may rest.
    first_tunnel: Option<Links>,
    /// Runs that had been left out when counting began, and until it ended.
    missed_before: Missed,
    missed_until: Option<Missed>,
    /// Functions of modules that are watched, by symbol: they go with the
    /// module.
    hooked: StdHashMap<String, Hooked>,
}

/// A point that is attached, or was and will be again.
struct Held {
    point: &'static Point,
    way: &'static Way,
    links: Links,
}

/// What keeps a point attached.
#[derive(Default)]
struct Links {
    kprobes: Vec<Link>,
    /// aya's, which have no type in common.
    others: Vec<Box<dyn Any>>,
}

impl Links {
    fn of(link: impl Any) -> Self {
        Self {
            kprobes: Vec::new(),
            others: vec![Box::new(link)],
        }
    }
}

/// Runs of programs that the kernel left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Missed {
    /// Of those that count: frees, and the two ends of frames.
    pub counts: u64,
    /// Of those at `consume_skb`, which decide what became of few packets
    /// (`tracer_common::tally::lost::UNCERTAIN`).
    pub consume: u64,
    /// Of those that only tell why something vanished.
    pub evidence: u64,
}

/// The probes of one function.
struct Hooked {
    point: &'static str,
    module: Option<String>,
    address: u64,
    links: Vec<Link>,
}

impl Probes {
    /// Loads and attaches; nothing is counted yet. `symbols` is awaited only after the programs are
    /// loaded; points named in `withheld` are left out.
    pub fn attach(
        btf: &Arc<Btf>,
        mut config: Config,
        filter: &Filter,
        withheld: &[String],
        prepared: Prepared,
        symbols: impl FnOnce() -> Result<Symbols>,
    ) -> Result<(Self, Symbols)> {
        let (offsets, absent) = offsets::resolve(btf);
        if let Some(field) = offsets::essential_missing(&absent) {
            bail!("this kernel's BTF has no {field}: tracer cannot read its packets");
        }
        debug!(?absent, "fields this kernel does not have");
        config.kfree_skb_args = args(btf, "kfree_skb");
        config.consume_skb_args = args(btf, "consume_skb");
        config.typed_task = btf.has_func("bpf_get_current_task_btf").into();
        config.stack_size = 16 << 10;
        let realtime = host::is_realtime();
        config.realtime = realtime.into();
        let twice = realtime && host::preempts_tracepoints();
        config.twice = twice.into();

        let died = |_| anyhow!("reading the kernel's BTF failed");
        let mut loader = prepared.loader.join().map_err(died)?;
        // The kernel makes every element of a map at the start.
        let only_if = |needed: bool, entries| if needed { entries } else { 1 };
        if config.all_records != 0 {
            loader.map_max_entries("RECORDS", ALL_RECORDS);
        }
        let ebpf = loader
            .map_max_entries("TASKS", only_if(realtime, MAX_TASKS))
            .map_max_entries("RAN", only_if(twice, MAX_RAN))
            .map_max_entries(
                "OUTERS",
                only_if(filter.needs & needs::OUTER != 0, MAX_OUTERS),
            )
            .map_max_entries(
                "NAMES",
                only_if(filter.needs & needs::NAMES != 0, MAX_NAMES),
            )
            .override_global("FILTER", filter, true)
            .override_global("OFFSETS", &offsets, true)
            .override_global("CONFIG", &config, true)
            .load(OBJECT)
            .context("the kernel refused tracer's maps")?;
        drop(loader);
        memory::give_back_file(OBJECT);
        let aya_btf = prepared.btf.join().map_err(died)?;
        let aya_btf = aya_btf.context("cannot read the kernel's BTF")?;
        let mut probes = Self {
            ebpf,
            attached: Vec::new(),
            missing: Vec::new(),
            withheld: withheld.to_vec(),
            refused: Vec::new(),
            held: Vec::new(),
            resting: false,
            first_tunnel: None,
            missed_before: Missed::default(),
            missed_until: None,
            hooked: StdHashMap::new(),
        };
        probes.fill_kinds()?;
        let reasons = config.kfree_skb_args >= 3;
        let points = || {
            POINTS
                .iter()
                .filter(|point| !(point.without_reasons && reasons))
        };
        let first = points()
            .filter(|point| !probes.withholds(point.name))
            .filter_map(|point| {
                let mut ways = point
                    .ways
                    .iter()
                    .filter(|way| !probes.withholds(way.name()));
                ways.find(|way| load::possible(way, btf).is_ok())
            });
        let first_tunnel = load::possible(&FIRST_TUNNEL, btf).is_ok();
        let first_tunnel = first_tunnel.then_some(&FIRST_TUNNEL);
        let first = first.chain(first_tunnel).collect();
        probes.refused = load::ahead(&mut probes.ebpf, first, &aya_btf);
        if twice {
            probes.load_seconds(&aya_btf)?;
        }
        for point in points() {
            probes.point(point, btf, &aya_btf);
        }
        if !probes.has(FREE) {
            let why = probes.missing.iter().find(|missing| missing.point == FREE);
            bail!(
                "cannot see packets being freed: {}",
                why.map_or("withheld", |missing| missing.why.as_str())
            );
        }
        if probes.has(REALLOC) {
            probes.switch(switch::REALLOC_WATCHED, 1)?;
        }
        if probes.is_bracketed() {
            probes.switch(switch::BRACKETED, 1)?;
        }
        let symbols = symbols()?;
        probes.follow_modules(&symbols);
        Ok((probes, symbols))
    }

    /// From here on, or no more, the programs look at what happens.
    pub fn count(&mut self, on: bool) -> Result<()> {
        if on {
            self.missed_before = self.left_out();
            self.switch(switch::READY, 1)
        } else {
            self.switch(switch::READY, 0)?;
            self.missed_until = Some(self.left_out());
            Ok(())
        }
    }

    /// How many events the kernel did not run our programs for while they counted.
    pub fn missed(&self) -> Missed {
        let until = self.missed_until.unwrap_or_else(|| self.left_out());
        let before = self.missed_before;
        Missed {
            counts: until.counts.saturating_sub(before.counts),
            consume: until.consume.saturating_sub(before.consume),
            evidence: until.evidence.saturating_sub(before.evidence),
        }
    }

    /// Loads the programs that follow another at its tracepoint.
    fn load_seconds(&mut self, aya_btf: &AyaBtf) -> Result<()> {
        for way in POINTS.iter().flat_map(|point| point.ways) {
            let second = format!("{}{AGAIN}", way.program());
            if let Some(program) = self.ebpf.program_mut(&second) {
                load::load(program, way, aya_btf)
                    .with_context(|| format!("cannot load {second}"))?;
            }
        }
        Ok(())
    }

    /// Is this point attached?
    pub fn has(&self, point: &str) -> bool {
        self.attached.iter().any(|attached| attached.point == point)
    }

    /// Do the tracepoints bracket every driver?
    fn is_bracketed(&self) -> bool {
        self.has(FRAME_START) && self.has(FRAME_END)
    }

    /// Which of the two ways opens and closes frames. The tracepoints are taken
    /// where they are there: they cost two runs of a program where a driver's
    /// function costs a kprobe and a kretprobe, and see every driver.
    pub fn frames(&self) -> &'static str {
        if self.is_bracketed() {
            "by the transmit tracepoints, the less dear way; drivers' functions are noted where there are kprobes"
        } else if self.has_frames() {
            "by the drivers' own functions, a kprobe and a kretprobe each: dearer than the transmit tracepoints"
        } else {
            "none: what happens in a tunnel's driver is not seen"
        }
    }

    /// Can frames of any device be opened and closed?
    pub fn has_frames(&self) -> bool {
        self.is_bracketed() || self.hooked.values().any(|hooked| hooked.point == DRIVER)
    }

    /// How many events the kernel did not run our programs for until now, because they
    /// came while one of them was running on that CPU (`recursion_misses`).
    fn left_out(&self) -> Missed {
        let missed_by = |program: &Program| {
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let count = info
                .lines()
                .find_map(|line| line.strip_prefix("recursion_misses:"))?;
            count.trim().parse::<u64>().ok()
        };
        let mut all = Missed::default();
        for (name, program) in self.ebpf.programs() {
            let missed = missed_by(program).unwrap_or(0);
            if missed != 0 {
                debug!("the kernel left {missed} runs of {name} out");
            }
            if name.ends_with(AGAIN) {
                // What it was left out of, the first one did.
            } else if name.starts_with(CONSUME) {
                all.consume += missed;
            } else if self.counts(name) {
                all.counts += missed;
            } else {
                all.evidence += missed;
            }
        }
        all
    }

    /// Is anything counted by this program, rather than told of what is?
    fn counts(&self, program: &str) -> bool {
        let is_drivers = program.starts_with("driver_xmit");
        let counting = POINTS
            .iter()
            .filter(|point| [FREE, FRAME_START, FRAME_END].contains(&point.name));
        (is_drivers && !self.is_bracketed())
            || counting
                .flat_map(|point| point.ways)
                .any(|way| way.program() == program)
    }

    /// Was this point or way to be left out?
    fn withholds(&self, name: &str) -> bool {
        self.withheld.iter().any(|withheld| withheld == name)
    }

    fn fill_kinds(&mut self) -> Result<()> {
        let map = self
            .ebpf
            .map_mut("KINDS")
            .context("the object has no map KINDS")?;
        let mut map: HashMap<&mut MapData, [u8; KIND_LEN], u32> = HashMap::try_from(map)?;
        for known in KINDS {
            let mut key = [0; KIND_LEN];
            key[..known.name.len()].copy_from_slice(known.name.as_bytes());
            let facts = if known.consumes {
                kind::CONSUMES_DROPS
            } else {
                0
            };
            map.insert(key, facts, 0)?;
        }
        Ok(())
    }

    fn switch(&mut self, index: u32, value: u32) -> Result<()> {
        let map = self
            .ebpf
            .map_mut("SWITCHES")
            .context("the object has no map SWITCHES")?;
        Array::<&mut MapData, u32>::try_from(map)?.set(index, value, 0)?;
        Ok(())
    }

    /// Tells the programs the UDP ports of this host's tunnels, and what
    /// follows the UDP header there (`config::payload`).
    pub fn set_ports(&mut self, ports: impl Iterator<Item = (u16, u32)>) -> Result<()> {
        let map = self
            .ebpf
            .map_mut("PORTS")
            .context("the object has no map PORTS")?;
        let mut map: HashMap<&mut MapData, u16, u32> = HashMap::try_from(map)?;
        for (port, payload) in ports {
            map.insert(port, payload, 0)?;
        }
        Ok(())
    }

    /// Attaches a point by the first way that works.
    fn point(&mut self, point: &'static Point, btf: &Btf, aya_btf: &AyaBtf) {
        let mut reasons = Vec::new();
        if self.withholds(point.name) {
            reasons.push("withheld".to_owned());
        } else if let Some(way) = self.told_already(point) {
            self.attached.push(Attached {
                point: point.name.to_owned(),
                target: way.target().to_owned(),
                way: way.name().into(),
                module: None,
            });
            return;
        } else {
            for way in point.ways {
                if self.withholds(way.name()) {
                    reasons.push(format!("{} {}: withheld", way.name(), way.target()));
                    continue;
                }
                match self.take(way, btf, aya_btf) {
                    Ok(links) => {
                        self.held.push(Held { point, way, links });
                        self.attached.push(Attached {
                            point: point.name.to_owned(),
                            target: way.target().to_owned(),
                            way: way.name().into(),
                            module: None,
                        });
                        return;
                    }
                    Err(error) => {
                        debug!(
                            "{} by {} {}: {error:#}",
                            point.name,
                            way.name(),
                            way.target()
                        );
                        reasons.push(format!("{} {}: {error:#}", way.name(), way.target()));
                    }
                }
            }
        }
        self.missing.push(Missing {
            point: point.name.to_owned(),
            why: reasons.join("; "),
            lost: point.lost.into(),
        });
    }

    /// How another point got to the tracepoint of this one, for want of a better
    /// way: its program tells of both, since each run of a program costs more than
    /// what is in it.
    fn told_already(&self, point: &Point) -> Option<&'static Way> {
        let [way @ Way::TpBtf { tracepoint, .. }] = point.ways else {
            return None;
        };
        let is_there = |held: &&Held| match held.way {
            Way::TpBtf { .. } | Way::RawTp { .. } => held.way.target() == *tracepoint,
            _ => false,
        };
        let held = self.held.iter().find(is_there)?;
        (!self.withholds(way.name())).then_some(held.way)
    }

    fn take(&mut self, way: &Way, btf: &Btf, aya_btf: &AyaBtf) -> Result<Links> {
        load::possible(way, btf)?;
        let refused = self
            .refused
            .iter()
            .position(|(name, _)| *name == way.program());
        if let Some(refused) = refused {
            return Err(self.refused.swap_remove(refused).1);
        }
        if !load::is_kprobe(way) {
            let program = self.ebpf.program_mut(way.program());
            let program =
                program.ok_or_else(|| anyhow!("the object has no program {}", way.program()))?;
            load::load(program, way, aya_btf)?;
        }
        self.attach_way(way)
    }

    /// Attaches the program of a way, which is loaded unless it is a kprobe's.
    fn attach_way(&mut self, way: &Way) -> Result<Links> {
        match *way {
            Way::TpBtf { .. } | Way::RawTp { .. } | Way::Fentry { .. } | Way::Fexit { .. } => {
                let program = self.ebpf.program_mut(way.program());
                let program = program
                    .ok_or_else(|| anyhow!("the object has no program {}", way.program()))?;
                let links = match program {
                    Program::BtfTracePoint(program) => program
                        .attach()
                        .and_then(|link| program.take_link(link))
                        .map(Links::of),
                    Program::FEntry(program) => program
                        .attach()
                        .and_then(|link| program.take_link(link))
                        .map(Links::of),
                    Program::FExit(program) => program
                        .attach()
                        .and_then(|link| program.take_link(link))
                        .map(Links::of),
                    Program::RawTracePoint(program) => program
                        .attach(way.target())
                        .and_then(|link| program.take_link(link))
                        .map(Links::of),
                    _ => bail!("{} is a program of another type", way.program()),
                };
                let mut links = links.map_err(brief)?;
                // Behind it, where the kernel wants it.
                let second = self.ebpf.program_mut(&format!("{}{AGAIN}", way.program()));
                if let Some(Program::BtfTracePoint(second)) = second
                    && second.fd().is_ok()
                {
                    let link = second.attach().and_then(|link| second.take_link(link));
                    links.others.push(Box::new(link.map_err(brief)?));
                }
                Ok(links)
            }
            Way::Kprobe { program, function } => {
                let kprobes = vec![self.kprobe(program, &Target::Name(function))?];
                Ok(Links {
                    kprobes,
                    ..Links::default()
                })
            }
            Way::Kretprobe {
                entry,
                program,
                function,
            } => {
                // The return first: a return without an entry is nothing.
                let mut kprobes = vec![self.kprobe(program, &Target::Name(function))?];
                if let Some(entry) = entry {
                    kprobes.push(self.kprobe(entry, &Target::Name(function))?);
                }
                Ok(Links {
                    kprobes,
                    ..Links::default()
                })
            }
        }
    }

    /// Has the kernel tell of the first tunnel, if it can: only then may
    /// anything rest. Where the frames are not the tracepoints', they are the
    /// modules' functions, which come with the tunnels anyway.
    pub fn watch_for_tunnels(&mut self) -> Result<()> {
        if !self.is_bracketed() || self.withholds("rest") {
            bail!("withheld");
        }
        self.first_tunnel = Some(self.attach_way(&FIRST_TUNNEL)?);
        self.switch(switch::RESTING, 1)
    }

    /// Nothing that only tells of tunnels is attached until one comes up. Only
    /// for who was told by [`Self::watch_for_tunnels`], and has looked since.
    pub fn rest(&mut self) {
        if self.first_tunnel.is_none() || self.resting {
            return;
        }
        self.resting = true;
        let mut kprobes = Vec::new();
        let mut count = 0;
        for held in &mut self.held {
            if may_wait(held.point, held.way) {
                let links = std::mem::take(&mut held.links);
                kprobes.extend(links.kprobes);
                count += 1;
            }
        }
        kprobe::detach(kprobes);
        info!("no tunnel on this host: {count} points wait for the first");
    }

    pub fn is_resting(&self) -> bool {
        self.resting
    }

    /// There is a tunnel: attaches again what rests.
    pub fn wake(&mut self) -> Result<()> {
        // Once is enough.
        if self.first_tunnel.take().is_some() {
            self.switch(switch::RESTING, 0)?;
        }
        if !std::mem::take(&mut self.resting) {
            return Ok(());
        }
        // The beginning of frames last: what they are to see is attached by then.
        let mut all: Vec<usize> = (0..self.held.len()).collect();
        all.sort_by_key(|n| self.held[*n].point.name == FRAME_START);
        for n in all {
            let Held { point, way, .. } = self.held[n];
            if !may_wait(point, way) {
                continue;
            }
            match self.attach_way(way) {
                Ok(links) => self.held[n].links = links,
                Err(error) => {
                    warn!("{} cannot be attached again: {error:#}", point.name);
                    self.attached.retain(|known| known.point != point.name);
                    self.missing.push(Missing {
                        point: point.name.to_owned(),
                        why: format!("{} {}: {error:#}", way.name(), way.target()),
                        lost: point.lost.into(),
                    });
                }
            }
        }
        info!("a tunnel came: all points are attached");
        Ok(())
    }

    /// Attaches a kprobe or kretprobe, loading the program the first time.
    fn kprobe(&mut self, name: &'static str, target: &Target<'_>) -> Result<Link> {
        if !host::has_kprobes() {
            bail!("this kernel has no kprobes (CONFIG_KPROBES)");
        }
        let program: &mut KProbe = self.program(name)?;
        if program.fd().is_err() {
            program.load().map_err(brief)?;
        }
        let at_return = matches!(program.kind(), ProbeKind::Return);
        kprobe::attach(program.fd().map_err(brief)?.as_fd(), target, at_return)
    }

    fn program<'a, P>(&'a mut self, name: &str) -> Result<P>
    where
        P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let program = self
            .ebpf
            .program_mut(name)
            .ok_or_else(|| anyhow!("the object has no program {name}"))?;
        P::try_from(program).map_err(brief)
    }

    /// Watches the functions of modules that are there now, and lets go of
    /// those that went. Call it again when the modules change.
    pub fn follow_modules(&mut self, symbols: &Symbols) {
        let gone: Vec<String> = self
            .hooked
            .iter()
            .filter(|(name, hooked)| {
                !symbols.find(name).any(|symbol| {
                    symbol.address == hooked.address && symbol.module == hooked.module.as_deref()
                })
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            info!("{name} went with its module");
            self.let_go(&name);
        }
        self.missing
            .retain(|missing| !hooks::is_hook(&missing.point));
        // The tracepoints bracket every driver: its own return tells no more.
        let bracketed = self.is_bracketed();
        for mut hook in hooks::all() {
            if bracketed && hook.point == DRIVER {
                hook.exit = None;
            }
            self.hook(&hook, symbols);
        }
    }

    fn let_go(&mut self, name: &str) {
        let Some(hooked) = self.hooked.remove(name) else {
            return;
        };
        kprobe::detach(hooked.links);
        self.attached
            .retain(|attached| !(hooks::is_hook(&attached.point) && attached.target == name));
    }

    /// Watches a function, if it is there and not watched yet.
    fn hook(&mut self, hook: &Hook, symbols: &Symbols) {
        let clones = symbols.clones(hook.function);
        for found in clones.iter().filter(|clone| clone.entry) {
            let symbol = &found.symbol;
            match symbol.module {
                // Other modules may have a function of the same name.
                Some(module) if module != hook.module => continue,
                // Built in; or nobody is there yet who would ask.
                None if hook.point != DRIVER && !Symbols::module_loaded(hook.module) => continue,
                _ => {}
            }
            if self.hooked.contains_key(symbol.name) {
                continue;
            }
            let why = if self.withholds(hook.point) || self.withholds(hook.function) {
                Some("withheld".to_owned())
            } else {
                self.watch(hook, symbol.name, symbol.address, symbol.module)
                    .err()
                    .map(|error| format!("{error:#}"))
            };
            if let Some(why) = why {
                self.missing.push(Missing {
                    point: hook.point.to_owned(),
                    why: format!("kprobe {}: {why}", symbol.name),
                    lost: hook.lost.into(),
                });
            }
        }
    }

    fn watch(
        &mut self,
        hook: &Hook,
        symbol: &str,
        address: u64,
        module: Option<&str>,
    ) -> Result<()> {
        let target = if address == 0 {
            Target::Name(symbol)
        } else {
            Target::Address(address)
        };
        let mut links = Vec::new();
        // The return first: a return without an entry is nothing.
        for program in [hook.exit, hook.entry].into_iter().flatten() {
            links.push(self.kprobe(program, &target)?);
        }
        debug!("attached to {symbol}");
        self.hooked.insert(
            symbol.to_owned(),
            Hooked {
                point: hook.point,
                module: module.map(str::to_owned),
                address,
                links,
            },
        );
        let ways = [hook.entry.map(|_| "kprobe"), hook.exit.map(|_| "kretprobe")];
        for way in ways.into_iter().flatten() {
            self.attached.push(Attached {
                point: hook.point.to_owned(),
                target: symbol.to_owned(),
                way: way.into(),
                module: module.map(str::to_owned),
            });
        }
        Ok(())
    }
}

/// May it be let go of until there is a tunnel? A program at a function's entry or
/// return is attached once only by some kernels (5.10: ENOENT afterwards).
fn may_wait(point: &Point, way: &Way) -> bool {
    point.of_tunnels && !matches!(way, Way::Fentry { .. } | Way::Fexit { .. })
}

impl Drop for Probes {
    fn drop(&mut self) {
        let held = self.held.drain(..);
        let mut links: Vec<Link> = held.flat_map(|held| held.links.kprobes).collect();
        links.extend(
            self.hooked
                .drain()
                .flat_map(|(_, hooked)| hooked.links.into_iter()),
        );
        kprobe::detach(links);
    }
}

fn args(btf: &Btf, tracepoint: &str) -> u32 {
    btf.tracepoint_args(tracepoint).unwrap_or(0) as u32
}
