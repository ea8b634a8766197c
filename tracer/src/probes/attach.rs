//! Loads the programs with what is known of this kernel, and attaches each
//! point by the first way that works.

use std::{any::Any, collections::HashMap as StdHashMap, os::fd::AsFd as _, sync::Arc, thread};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Btf as AyaBtf, BtfError, Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, MapError},
    programs::{ProbeKind, Program},
};
use tracer_common::{
    config::{Config, KIND_LEN, kind, switch},
    filter::{Filter, needs},
};
use tracing::debug;

use super::{
    Attached, Missing,
    hooks::DRIVER,
    kinds::KINDS,
    kprobe::{self, Link, Target},
    load::{self, brief},
    missed::Missed,
    modules::Hooked,
    points::{FRAME_END, FRAME_START, FREE, POINTS, Point, REALLOC, WAKERS, Way},
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
pub(super) const AGAIN: &str = "_again";
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
    pub(super) withheld: Vec<String>,
    /// Programs that were loaded ahead in vain, until their point asks.
    pub(super) refused: Vec<(&'static str, anyhow::Error)>,
    /// The points that are attached, each by its way; to functions that stay.
    pub(super) held: Vec<Held>,
    /// Those of them that tell of tunnels only are not, for want of a tunnel.
    pub(super) resting: bool,
    /// Tell of the first tunnel; attached only where something rests.
    pub(super) wakers: Vec<Links>,
    /// Runs that had been left out when counting began, and until it ended.
    pub(super) missed_before: Missed,
    pub(super) missed_until: Option<Missed>,
    /// Functions of modules that are watched, by symbol: they go with the
    /// module.
    pub(super) hooked: StdHashMap<String, Hooked>,
}

/// A point that is attached, or was and will be again.
pub(super) struct Held {
    pub(super) point: &'static Point,
    pub(super) way: &'static Way,
    pub(super) links: Links,
}

/// What keeps a point attached.
#[derive(Default)]
pub(super) struct Links {
    pub(super) kprobes: Vec<Link>,
    /// aya's, which have no type in common.
    others: Vec<Box<dyn Any + Send>>,
}

impl Links {
    fn of(link: impl Any + Send) -> Self {
        Self {
            kprobes: Vec::new(),
            others: vec![Box::new(link)],
        }
    }
}

impl Probes {
    /// Loads and attaches; nothing is counted yet. `symbols` is awaited only after the
    /// programs are loaded; points named in `withheld` are left out. Where `may_rest`
    /// is given and says that there is no tunnel, what tells of tunnels only waits for
    /// the first.
    pub fn attach(
        btf: &Arc<Btf>,
        mut config: Config,
        filter: &Filter,
        withheld: &[String],
        prepared: Prepared,
        may_rest: Option<&dyn Fn() -> bool>,
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
            wakers: Vec::new(),
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
        let wakers = WAKERS
            .iter()
            .filter(|way| may_rest.is_some() && load::possible(way, btf).is_ok());
        let first = first.chain(wakers).collect();
        probes.refused = load::ahead(&mut probes.ebpf, first, &aya_btf);
        if twice {
            probes.load_seconds(&aya_btf)?;
        }
        if let Some(may_rest) = may_rest {
            probes.rest_if(may_rest, btf);
        }
        for point in points() {
            probes.point(point, btf, &aya_btf);
        }
        if probes.resting && !probes.is_bracketed() {
            probes.wake()?;
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
            // Without: what the programs cost by being run.
            match self.withholds("counting") {
                true => Ok(()),
                false => self.switch(switch::READY, 1),
            }
        } else {
            self.switch(switch::READY, 0)?;
            self.missed_until = Some(self.left_out());
            Ok(())
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
    pub(super) fn is_bracketed(&self) -> bool {
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

    /// Was this point or way to be left out?
    pub(super) fn withholds(&self, name: &str) -> bool {
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

    pub(super) fn switch(&mut self, index: u32, value: u32) -> Result<()> {
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
            match map.insert(port, payload, 0) {
                Err(MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::E2BIG) =>
                {
                    tracing::info!(
                        "no room for UDP port {port}: packets of tunnels there are only known to the host that sends them"
                    );
                }
                inserted => inserted?,
            }
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
                match self.take(way, btf, aya_btf, self.waits(point)) {
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

    /// Takes a way; where it `waits`, nothing stays attached.
    fn take(&mut self, way: &Way, btf: &Btf, aya_btf: &AyaBtf, waits: bool) -> Result<Links> {
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
            if waits {
                return Ok(Links::default());
            }
        }
        let links = self.attach_way(way)?;
        // Whether a function can be probed shows only when it is.
        Ok(if waits { Links::default() } else { links })
    }

    /// Attaches the program of a way, which is loaded unless it is a kprobe's.
    pub(super) fn attach_way(&mut self, way: &Way) -> Result<Links> {
        attach(way, &mut self.ebpf.programs_mut().collect())
    }

    /// Attaches a kprobe or kretprobe, loading the program the first time.
    pub(super) fn kprobe(&mut self, name: &str, target: &Target<'_>) -> Result<Link> {
        attach_kprobe(name, target, &mut self.ebpf.programs_mut().collect())
    }
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

/// Programs by name.
pub(super) type Programs<'a> = StdHashMap<&'a str, &'a mut Program>;

/// Attaches a way's program, which is loaded unless it is a kprobe's, and the one
/// behind it.
pub(super) fn attach(way: &Way, programs: &mut Programs<'_>) -> Result<Links> {
    let name = way.program();
    match *way {
        Way::TpBtf { .. } | Way::RawTp { .. } | Way::Fentry { .. } | Way::Fexit { .. } => {
            let links = match find(name, programs)? {
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
                _ => bail!("{name} is a program of another type"),
            };
            let mut links = links.map_err(brief)?;
            // Behind it, where the kernel wants it.
            if let Ok(Program::BtfTracePoint(second)) = find(&format!("{name}{AGAIN}"), programs)
                && second.fd().is_ok()
            {
                let link = second.attach().and_then(|link| second.take_link(link));
                links.others.push(Box::new(link.map_err(brief)?));
            }
            Ok(links)
        }
        Way::Kprobe { program, function } => {
            let kprobes = vec![attach_kprobe(program, &Target::Name(function), programs)?];
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
            let target = Target::Name(function);
            let mut kprobes = vec![attach_kprobe(program, &target, programs)?];
            if let Some(entry) = entry {
                kprobes.push(attach_kprobe(entry, &target, programs)?);
            }
            Ok(Links {
                kprobes,
                ..Links::default()
            })
        }
    }
}

fn attach_kprobe(name: &str, target: &Target<'_>, programs: &mut Programs<'_>) -> Result<Link> {
    if !host::has_kprobes() {
        bail!("this kernel has no kprobes (CONFIG_KPROBES)");
    }
    let Program::KProbe(program) = find(name, programs)? else {
        bail!("{name} is a program of another type");
    };
    if program.fd().is_err() {
        program.load().map_err(brief)?;
    }
    let at_return = matches!(program.kind(), ProbeKind::Return);
    kprobe::attach(program.fd().map_err(brief)?.as_fd(), target, at_return)
}

fn find<'a>(name: &str, programs: &'a mut Programs<'_>) -> Result<&'a mut Program> {
    let program = programs.get_mut(name).map(|program| &mut **program);
    program.ok_or_else(|| anyhow!("the object has no program {name}"))
}

fn args(btf: &Btf, tracepoint: &str) -> u32 {
    btf.tracepoint_args(tracepoint).unwrap_or(0) as u32
}
