//! Functions of modules, which come and go with them.

use anyhow::Result;
use tracing::{debug, info};

use super::{
    Attached, Missing,
    attach::Probes,
    hooks::{self, DRIVER, Hook},
    kprobe::{self, Link, Target},
};
use crate::kernel::symbols::Symbols;

/// The probes of one function.
pub(super) struct Hooked {
    pub(super) point: &'static str,
    module: Option<String>,
    address: u64,
    pub(super) links: Vec<Link>,
}

impl Probes {
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
