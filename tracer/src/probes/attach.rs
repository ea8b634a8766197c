//! Loads the programs with what is known of this kernel, and attaches each
//! point by the first way that works.

use std::{collections::HashMap as StdHashMap, sync::Arc};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData},
    programs::{
        BtfTracePoint, FEntry, FExit, KProbe, ProgramError, RawTracePoint, kprobe::KProbeLinkId,
    },
};
use tracer_common::config::{Config, KIND_LEN, switch};
use tracing::{debug, info};

use super::{
    Attached, Missing,
    kinds::{KINDS, SIT_INNER},
    points::{DRIVER, DRIVER_LOST, FRAME_END, FRAME_START, FREE, POINTS, Point, REALLOC, Way},
};
use crate::kernel::{btf::Btf, host, offsets, symbols::Symbols};

/// The object that build.rs made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer-probes"));

/// Everything loaded and attached; dropping it detaches all.
pub struct Probes {
    pub ebpf: Ebpf,
    pub attached: Vec<Attached>,
    pub missing: Vec<Missing>,
    withheld: Vec<String>,
    /// Links to functions of modules, by function: they go with the module.
    drivers: StdHashMap<String, Driver>,
}

/// The probes of one driver function.
struct Driver {
    module: Option<String>,
    address: u64,
    entry: (&'static str, KProbeLinkId),
    exit: Option<(&'static str, KProbeLinkId)>,
}

impl Probes {
    /// Loads and attaches. `symbols` is awaited only after the programs are
    /// loaded; points named in `withheld` are left out.
    pub fn attach(
        btf: &Arc<Btf>,
        mut config: Config,
        withheld: &[String],
        symbols: impl FnOnce() -> Result<Symbols>,
    ) -> Result<(Self, Symbols)> {
        let (offsets, absent) = offsets::resolve(btf);
        if let Some(field) = offsets::essential_missing(&absent) {
            bail!("this kernel's BTF has no {field}: tracer cannot read its packets");
        }
        debug!(?absent, "fields this kernel does not have");
        config.kfree_skb_args = args(btf, "kfree_skb");
        config.consume_skb_args = args(btf, "consume_skb");
        config.stack_size = 16 << 10;

        let aya_btf = AyaBtf::from_sys_fs().context("cannot read the kernel's BTF")?;
        let ebpf = EbpfLoader::new()
            .btf(Some(&aya_btf))
            .override_global("OFFSETS", &offsets, true)
            .override_global("CONFIG", &config, true)
            .load(OBJECT)
            .context("the kernel refused tracer's maps")?;
        let mut probes = Self {
            ebpf,
            attached: Vec::new(),
            missing: Vec::new(),
            withheld: withheld.to_vec(),
            drivers: StdHashMap::new(),
        };
        probes.fill_kinds()?;
        for point in POINTS {
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
        let symbols = symbols()?;
        probes.follow_modules(&symbols);
        Ok((probes, symbols))
    }

    /// Is this point attached?
    pub fn has(&self, point: &str) -> bool {
        self.attached.iter().any(|attached| attached.point == point)
    }

    /// Can frames of any device be opened and closed?
    pub fn has_frames(&self) -> bool {
        (self.has(FRAME_START) && self.has(FRAME_END)) || !self.drivers.is_empty()
    }

    fn fill_kinds(&mut self) -> Result<()> {
        let map = self
            .ebpf
            .map_mut("KINDS")
            .context("the object has no map KINDS")?;
        let mut map: HashMap<&mut MapData, [u8; KIND_LEN], u32> = HashMap::try_from(map)?;
        for (n, kind) in KINDS.iter().enumerate() {
            let mut key = [0; KIND_LEN];
            key[..kind.name.len()].copy_from_slice(kind.name.as_bytes());
            map.insert(key, n as u32, 0)?;
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

    /// Tells the programs the UDP ports of this host's tunnels.
    pub fn set_ports(&mut self, ports: impl Iterator<Item = u16>) -> Result<()> {
        let map = self
            .ebpf
            .map_mut("PORTS")
            .context("the object has no map PORTS")?;
        let mut map: HashMap<&mut MapData, u16, u8> = HashMap::try_from(map)?;
        for port in ports {
            map.insert(port, 1, 0)?;
        }
        Ok(())
    }

    /// Attaches a point by the first way that works.
    fn point(&mut self, point: &Point, btf: &Btf, aya_btf: &AyaBtf) {
        let mut reasons = Vec::new();
        if self.withheld.iter().any(|name| name == point.name) {
            reasons.push("withheld".to_owned());
        } else {
            for way in point.ways {
                match self.take(way, btf, aya_btf) {
                    Ok(()) => {
                        self.attached.push(Attached {
                            point: point.name.to_owned(),
                            target: way.target().to_owned(),
                            way: way.name(),
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
            lost: point.lost,
        });
    }

    fn take(&mut self, way: &Way, btf: &Btf, aya_btf: &AyaBtf) -> Result<()> {
        match *way {
            Way::TpBtf {
                program,
                tracepoint,
                args,
            } => {
                match btf.tracepoint_args(tracepoint) {
                    None => bail!("this kernel has no such tracepoint"),
                    Some(has) if has < args => bail!("has {has} arguments, {args} are needed"),
                    Some(_) => {}
                }
                let program: &mut BtfTracePoint = self.program(program)?;
                program.load(tracepoint, aya_btf).map_err(brief)?;
                program.attach().map_err(brief)?;
            }
            Way::RawTp {
                program,
                tracepoint,
            } => {
                if btf.tracepoint_args(tracepoint).is_none() {
                    bail!("this kernel has no such tracepoint");
                }
                let program: &mut RawTracePoint = self.program(program)?;
                program.load().map_err(brief)?;
                program.attach(tracepoint).map_err(brief)?;
            }
            Way::Fentry { program, function } => {
                if !btf.has_func(function) {
                    bail!("no such function in this kernel's BTF");
                }
                let program: &mut FEntry = self.program(program)?;
                program.load(function, aya_btf).map_err(brief)?;
                program.attach().map_err(brief)?;
            }
            Way::Fexit {
                program,
                function,
                params,
            } => {
                match btf.func_params(function) {
                    None => bail!("no such function in this kernel's BTF"),
                    Some(has) if has.len() != params => {
                        bail!("has {} parameters, not {params}", has.len())
                    }
                    Some(_) => {}
                }
                let program: &mut FExit = self.program(program)?;
                program.load(function, aya_btf).map_err(brief)?;
                program.attach().map_err(brief)?;
            }
            Way::Kprobe { program, function } => {
                self.kprobe(program, function)?;
            }
            Way::Kretprobe {
                entry,
                program,
                function,
            } => {
                let entry = match entry {
                    Some(entry) => Some((entry, self.kprobe(entry, function)?)),
                    None => None,
                };
                if let Err(error) = self.kprobe(program, function) {
                    if let Some((entry, link)) = entry {
                        let program: &mut KProbe = self.program(entry)?;
                        let _ = program.detach(link);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Attaches a kprobe or kretprobe, loading the program the first time.
    fn kprobe(&mut self, program: &'static str, function: &str) -> Result<KProbeLinkId> {
        if !host::has_kprobes() {
            bail!("this kernel has no kprobes (CONFIG_KPROBES)");
        }
        let program: &mut KProbe = self.program(program)?;
        if program.fd().is_err() {
            program.load().map_err(brief)?;
        }
        program.attach(function, 0).map_err(brief)
    }

    fn program<'a, P>(&'a mut self, name: &str) -> Result<P>
    where
        P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
    {
        let program = self
            .ebpf
            .program_mut(name)
            .ok_or_else(|| anyhow!("the object has no program {name}"))?;
        P::try_from(program).map_err(brief)
    }

    /// Attaches to the drivers whose modules are there now, and lets go of
    /// those that went. Call it again when the modules change.
    pub fn follow_modules(&mut self, symbols: &Symbols) {
        let gone: Vec<String> = self
            .drivers
            .iter()
            .filter(|(name, driver)| {
                !symbols.find(name).any(|symbol| {
                    symbol.address == driver.address && symbol.module == driver.module.as_deref()
                })
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            info!("{name} went with its module");
            self.let_go(&name);
        }
        self.missing.retain(|missing| missing.point != DRIVER);
        for kind in KINDS {
            self.driver(kind.xmit, kind.module, symbols);
        }
        self.driver(SIT_INNER, "sit", symbols);
    }

    fn let_go(&mut self, name: &str) {
        let Some(driver) = self.drivers.remove(name) else {
            return;
        };
        for (program, link) in [Some(driver.entry), driver.exit].into_iter().flatten() {
            // The probe may have died with the module already.
            if let Ok(program) = self.program::<&mut KProbe>(program) {
                let _ = program.detach(link);
            }
        }
        self.attached
            .retain(|attached| !(attached.point == DRIVER && attached.target == name));
    }

    /// Attaches to a driver's function, if it is there and not attached yet.
    fn driver(&mut self, function: &str, module: &str, symbols: &Symbols) {
        let clones = symbols.clones(function);
        for found in clones.iter().filter(|clone| clone.entry) {
            let symbol = &found.symbol;
            // Other modules may have a function of the same name.
            if symbol.module.is_some_and(|of| of != module) {
                continue;
            }
            if self.drivers.contains_key(symbol.name) {
                continue;
            }
            let why = if self
                .withheld
                .iter()
                .any(|name| name == DRIVER || name == function)
            {
                Some("withheld".to_owned())
            } else {
                self.driver_probe(function, symbol.name, symbol.address, symbol.module)
                    .err()
                    .map(|error| format!("{error:#}"))
            };
            if let Some(why) = why {
                self.missing.push(Missing {
                    point: DRIVER.to_owned(),
                    why: format!("kprobe {}: {why}", symbol.name),
                    lost: DRIVER_LOST,
                });
            }
        }
    }

    fn driver_probe(
        &mut self,
        function: &str,
        symbol: &str,
        address: u64,
        module: Option<&str>,
    ) -> Result<()> {
        let mut ways = vec!["kprobe"];
        let (entry, exit) = if function == SIT_INNER {
            (("inner_xmit", self.kprobe("inner_xmit", symbol)?), None)
        } else {
            let entry = self.kprobe("driver_xmit", symbol)?;
            match self.kprobe("driver_xmit_return", symbol) {
                Ok(exit) => {
                    ways.push("kretprobe");
                    (("driver_xmit", entry), Some(("driver_xmit_return", exit)))
                }
                Err(error) => {
                    let program: &mut KProbe = self.program("driver_xmit")?;
                    let _ = program.detach(entry);
                    return Err(error);
                }
            }
        };
        info!("attached to {symbol}");
        self.drivers.insert(
            symbol.to_owned(),
            Driver {
                module: module.map(str::to_owned),
                address,
                entry,
                exit,
            },
        );
        for way in ways {
            self.attached.push(Attached {
                point: DRIVER.to_owned(),
                target: symbol.to_owned(),
                way,
                module: module.map(str::to_owned),
            });
        }
        Ok(())
    }
}

fn args(btf: &Btf, tracepoint: &str) -> u32 {
    btf.tracepoint_args(tracepoint).unwrap_or(0) as u32
}

/// One line for the user: the cause without the verifier's log, which goes to
/// the debug log.
fn brief(error: ProgramError) -> anyhow::Error {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            debug!("{verifier_log}");
            anyhow!("the kernel refused the program: {io_error}")
        }
        ProgramError::SyscallError(error) => anyhow!("{}: {}", error.call, error.io_error),
        other => anyhow!("{other}"),
    }
}
