//! Attaching kprobes by address.
//!
//! By name the kernel looks the symbol up itself: before 6.2 it decompresses
//! all of its symbols for each, and a name that several modules have is taken
//! from the first or refused (since 6.7). We have the addresses already.

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    thread,
};

use anyhow::{Context as _, Result};
use perf_event_open_sys::{
    bindings::{PERF_FLAG_FD_CLOEXEC, perf_event_attr},
    ioctls, perf_event_open,
};

/// Type of the events that are kprobes.
const PMU: &str = "/sys/bus/event_source/devices/kprobe/type";
/// Bit of `config` that makes a kretprobe (`…/kprobe/format/retprobe`).
const RETPROBE: u64 = 1;
/// How many probes are taken away at a time: each waits for the other CPUs.
const DETACHERS: usize = 8;

/// Where to.
pub enum Target<'a> {
    Name(&'a str),
    Address(u64),
}

/// An attached probe, as long as it lives.
#[derive(Debug)]
pub struct Link {
    _event: OwnedFd,
}

/// Has `program` run at the function's entry, or its return.
pub fn attach(program: BorrowedFd<'_>, target: &Target<'_>, at_return: bool) -> Result<Link> {
    let kind = fs::read_to_string(PMU).context("this kernel has no kprobes (CONFIG_KPROBES)")?;
    let mut event = perf_event_attr {
        type_: kind.trim().parse().context(PMU)?,
        size: size_of::<perf_event_attr>() as u32,
        config: if at_return { RETPROBE } else { 0 },
        ..perf_event_attr::default()
    };
    let name;
    match target {
        Target::Name(function) => {
            name = CString::new(*function)?;
            event.kprobe_func = name.as_ptr() as u64;
        }
        Target::Address(address) => event.kprobe_addr = *address,
    }
    // SAFETY: the attributes are initialized, and the name lives until the call
    // is over.
    let fd = unsafe { perf_event_open(&raw mut event, -1, 0, -1, PERF_FLAG_FD_CLOEXEC.into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("perf_event_open");
    }
    // SAFETY: just opened, and nobody else's.
    let event = unsafe { OwnedFd::from_raw_fd(fd) };
    let link = Link { _event: event };
    // SAFETY: both are open files of the kinds that the calls are for.
    let set = unsafe { ioctls::SET_BPF(fd, program.as_raw_fd() as u32) };
    if set < 0 {
        return Err(io::Error::last_os_error()).context("PERF_EVENT_IOC_SET_BPF");
    }
    // SAFETY: as above.
    if unsafe { ioctls::ENABLE(fd, 0) } < 0 {
        return Err(io::Error::last_os_error()).context("PERF_EVENT_IOC_ENABLE");
    }
    Ok(link)
}

/// Takes many probes away, some at a time.
pub fn detach(links: Vec<Link>) {
    let mut shares: Vec<Vec<Link>> = Vec::new();
    shares.resize_with(DETACHERS.min(links.len()), Vec::new);
    let count = shares.len();
    for (n, link) in links.into_iter().enumerate() {
        shares[n % count].push(link);
    }
    thread::scope(|scope| {
        for share in shares {
            scope.spawn(move || drop(share));
        }
    });
}
