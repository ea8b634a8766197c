//! `tracer doctor`: what this kernel offers, what is attached by which way,
//! and what is lost.

use std::{fmt::Write as _, sync::Arc};

use anyhow::Result;
use tracer_common::config::Config;

use crate::{
    cli::{Format, Options},
    kernel::{btf::Btf, host, offsets, reasons::Reasons, symbols::Symbols},
    probes::{self, Attached, Missing, Prepared, Probes},
    terminal,
    view::json,
};

/// Prints what it can, with the privileges it has. Exit status 0 when tracing
/// would work.
pub fn run(options: &Options) -> Result<u8> {
    let filter = options.program()?;
    let (release, arch) = host::release();
    let mut out = String::new();
    let _ = writeln!(out, "kernel        {release} ({arch})");
    let btf = Btf::vmlinux();
    match &btf {
        Ok(btf) => {
            let (_, absent) = offsets::resolve(btf);
            let _ = writeln!(
                out,
                "types (BTF)   yes, {} fields of {} not on this kernel",
                absent.len(),
                tracer_common::offsets::Offsets::PATHS.len()
            );
            let _ = writeln!(
                out,
                "drop reasons  {}",
                if Reasons::from_btf(btf).exist() {
                    "named by this kernel"
                } else {
                    "none on this kernel (they came with 5.17): places and counters tell instead"
                }
            );
        }
        Err(error) => {
            let _ = writeln!(out, "types (BTF)   {error}");
        }
    }
    let _ = writeln!(
        out,
        "kprobes       {}",
        if host::has_kprobes() {
            "yes"
        } else {
            "no (CONFIG_KPROBES): tunnel drivers and route look-ups cannot be watched by function"
        }
    );
    let _ = writeln!(
        out,
        "modules       {}",
        if host::has_modules() {
            "yes"
        } else {
            "no: all drivers are built in"
        }
    );
    if host::is_realtime() {
        let _ = writeln!(out, "PREEMPT_RT    yes: frames are kept by task");
    }
    let _ = writeln!(
        out,
        "lockdown      {}",
        host::lockdown().unwrap_or_else(|| "no hindrance".to_owned())
    );
    let missing = host::missing_capabilities();
    let _ = writeln!(
        out,
        "privileges    {}",
        if missing.is_empty() {
            "enough".to_owned()
        } else {
            format!("missing {} (run as root)", missing.join(", "))
        }
    );
    let attempt = host::check().and_then(|()| {
        let btf = Arc::new(Btf::vmlinux()?);
        Probes::attach(
            &btf,
            Config::default(),
            &filter,
            &options.withhold,
            Prepared::start(),
            None,
            Symbols::load,
        )
    });
    let code = match attempt {
        Ok((probes, symbols)) => {
            let code = u8::from(!probes.has_frames()) * crate::COULD_NOT_TRACE;
            if options.format == Format::Json {
                let start = json::start(&release, &arch, &probes.attached, &probes.missing);
                terminal::print(&format!("{start}\n"))?;
                return Ok(code);
            }
            let _ = writeln!(
                out,
                "symbols       {}",
                match symbols.hidden() {
                    true =>
                        "hidden: functions have no names (CAP_SYSLOG shows them with kernel.kptr_restrict=1, or sysctl -w kernel.kptr_restrict=0)",
                    false => "shown by this kernel",
                }
            );
            let _ = writeln!(out, "frames        {}", probes.frames());
            points(&mut out, "attached", &probes.attached, &probes.missing);
            code
        }
        Err(error) => {
            let (would, mut missing) = match &btf {
                Ok(btf) => {
                    let symbols = Symbols::load().ok();
                    let has_reasons = Reasons::from_btf(btf).exist();
                    probes::would_attach(btf, symbols.as_ref(), has_reasons)
                }
                Err(_) => (Vec::new(), Vec::new()),
            };
            if options.format == Format::Json {
                missing.insert(
                    0,
                    Missing {
                        point: "all".to_owned(),
                        why: format!("{error:#}"),
                        lost: "everything".into(),
                    },
                );
                let start = json::start(&release, &arch, &would, &missing);
                terminal::print(&format!("{start}\n"))?;
                return Ok(crate::COULD_NOT_TRACE);
            }
            let _ = writeln!(out, "\ncannot trace: {error:#}");
            points(&mut out, "would be attached", &would, &missing);
            crate::COULD_NOT_TRACE
        }
    };
    terminal::print(&out)?;
    Ok(code)
}

/// Each point with its way; those that are missing with what that costs, and how to
/// get it back.
fn points(out: &mut String, title: &str, attached: &[Attached], missing: &[Missing]) {
    if !attached.is_empty() {
        let _ = writeln!(out, "\n{title}");
    }
    for attached in attached {
        let module = attached
            .module
            .as_ref()
            .map_or(String::new(), |m| format!(" [{m}]"));
        let _ = writeln!(
            out,
            "  {:24} {:10} {}{module}",
            attached.point, attached.way, attached.target
        );
    }
    if !missing.is_empty() {
        out.push_str("\nmissing\n");
    }
    for missing in missing {
        let _ = writeln!(
            out,
            "  {:24} {}\n  {:24} lost: {}",
            missing.point, missing.why, "", missing.lost
        );
        if let Some(back) = missing.way_back() {
            let _ = writeln!(out, "  {:24} back: {back}", "");
        }
    }
}
