//! What would be attached, as far as that can be told without the privileges to do
//! it; and how to get back what is missing.

use super::{
    Attached, Missing, load,
    points::{POINTS, Way},
};
use crate::kernel::{btf::Btf, host, symbols::Symbols};

/// The way of each point that this kernel has what it names, and the points that it
/// has none for. Whether the kernel takes the programs is another matter.
pub fn would_attach(
    btf: &Btf,
    symbols: Option<&Symbols>,
    has_reasons: bool,
) -> (Vec<Attached>, Vec<Missing>) {
    let (mut attached, mut missing) = (Vec::new(), Vec::new());
    for point in POINTS {
        if point.without_reasons && has_reasons {
            continue;
        }
        let mut reasons = Vec::new();
        let way = point.ways.iter().find(|way| {
            let possible = possible(way, btf, symbols);
            let why = possible.as_ref().err();
            reasons.extend(why.map(|why| format!("{} {}: {why}", way.name(), way.target())));
            possible.is_ok()
        });
        match way {
            Some(way) => attached.push(Attached {
                point: point.name.to_owned(),
                target: way.target().to_owned(),
                way: way.name().into(),
                module: None,
            }),
            None => missing.push(Missing {
                point: point.name.to_owned(),
                why: reasons.join("; "),
                lost: point.lost.into(),
            }),
        }
    }
    (attached, missing)
}

fn possible(way: &Way, btf: &Btf, symbols: Option<&Symbols>) -> Result<(), String> {
    load::possible(way, btf).map_err(|error| error.to_string())?;
    if !load::is_kprobe(way) {
        return Ok(());
    }
    if !host::has_kprobes() {
        return Err("this kernel has no kprobes (CONFIG_KPROBES)".to_owned());
    }
    match symbols {
        Some(symbols) if symbols.find(way.target()).next().is_none() => {
            Err("no such function".to_owned())
        }
        _ => Ok(()),
    }
}

impl Missing {
    /// How to get it back, where that can be told from why it is missing.
    pub fn way_back(&self) -> Option<&'static str> {
        let why = self.why.as_str();
        let says = |text: &str| why.contains(text);
        if says("withheld") {
            Some("leave --withhold out")
        } else if says("no kprobes") {
            Some("boot a kernel with CONFIG_KPROBES=y")
        } else if says("Operation not permitted") || says("Permission denied") {
            Some(
                "boot a kernel that lets BPF programs on its functions: CONFIG_FUNCTION_TRACER=y, CONFIG_BPF_EVENTS=y, lockdown off",
            )
        } else if says("no such tracepoint") || says("arguments") {
            Some("a newer kernel has it")
        } else if says("no such function") || says("not in this kernel") {
            Some(
                "none on this kernel: the compiler has put the function into its callers, or it has another name",
            )
        } else {
            None
        }
    }
}
