//! Loading: the verifier's work is most of the start, and one program does not
//! wait for another.

use std::{
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Result, anyhow, bail};
use aya::{
    Btf as AyaBtf, Ebpf,
    programs::{Program, ProgramError},
};
use tracing::debug;

use super::points::Way;
use crate::kernel::btf::Btf;

/// How many programs are loaded at a time.
const LOADERS: usize = 2;
/// The programs that take the verifier longest.
const LONGEST: [&str; 4] = [
    "consume_skb_btf",
    "kfree_skb_btf",
    "frame_start_btf",
    "frame_end_btf",
];

/// Does this kernel have what the way names, as far as its BTF says?
pub fn possible(way: &Way, btf: &Btf) -> Result<()> {
    match *way {
        Way::TpBtf {
            tracepoint, args, ..
        } => match btf.tracepoint_args(tracepoint) {
            None => bail!("this kernel has no such tracepoint"),
            Some(has) if has < args => bail!("has {has} arguments, {args} are needed"),
            Some(_) => Ok(()),
        },
        Way::RawTp { tracepoint, .. } => match btf.tracepoint_args(tracepoint) {
            None => bail!("this kernel has no such tracepoint"),
            Some(_) => Ok(()),
        },
        Way::Fentry { function, .. } if !btf.has_func(function) => {
            bail!("no such function in this kernel's BTF")
        }
        Way::Fexit {
            function, params, ..
        } => match btf.func_params(function) {
            None => bail!("no such function in this kernel's BTF"),
            Some(has) if has.len() != params => {
                bail!("has {} parameters, not {params}", has.len())
            }
            Some(_) => Ok(()),
        },
        Way::Fentry { .. } | Way::Kprobe { .. } | Way::Kretprobe { .. } => Ok(()),
    }
}

/// Is it loaded only when it is attached?
pub fn is_kprobe(way: &Way) -> bool {
    matches!(way, Way::Kprobe { .. } | Way::Kretprobe { .. })
}

/// Loads the programs of these ways side by side (but kprobes, whose function
/// may turn out not to be there); gives those that the kernel refused.
pub fn ahead(
    ebpf: &mut Ebpf,
    ways: Vec<&'static Way>,
    btf: &AyaBtf,
) -> Vec<(&'static str, anyhow::Error)> {
    let mut jobs: Vec<(usize, &'static Way, &mut Program)> = ebpf
        .programs_mut()
        .filter_map(|(name, program)| {
            let mut ways = ways.iter().enumerate();
            let (n, way) = ways.find(|(_, way)| !is_kprobe(way) && way.program() == name)?;
            Some((n, *way, program))
        })
        .collect();
    // Begun last, all would wait for a long one.
    jobs.sort_by_key(|(n, way, _)| {
        let long = LONGEST.iter().position(|long| *long == way.program());
        (long.unwrap_or(LONGEST.len()), *n)
    });
    let jobs = Mutex::new(jobs.into_iter());
    let refused = Mutex::new(Vec::new());

    thread::scope(|scope| {
        for _ in 0..LOADERS {
            scope.spawn(|| {
                loop {
                    let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((_, way, program)) = job else {
                        return;
                    };
                    if let Err(error) = load(program, way, btf) {
                        refused
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push((way.program(), error));
                    }
                }
            });
        }
    });
    refused.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Loads the program of a way unless it is loaded already.
pub fn load(program: &mut Program, way: &Way, btf: &AyaBtf) -> Result<()> {
    if program.fd().is_ok() {
        return Ok(());
    }
    match program {
        Program::BtfTracePoint(program) => program.load(way.target(), btf),
        Program::FEntry(program) => program.load(way.target(), btf),
        Program::FExit(program) => program.load(way.target(), btf),
        Program::RawTracePoint(program) => program.load(),
        Program::KProbe(program) => program.load(),
        _ => bail!("{} is a program of another type", way.program()),
    }
    .map_err(brief)
}

/// One line for the user: the cause without the verifier's log, which goes to
/// the debug log.
pub fn brief(error: ProgramError) -> anyhow::Error {
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
