//! Running the tracer and looking at what it leaves behind.

pub mod bpf;
pub mod net;
pub mod pty;
mod running;

use std::{
    env,
    fmt::Display,
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{CapabilitySet, capabilities};

pub use running::{Output, Running};

/// How long anything may take: far more than it does, for a machine under load.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer.
pub fn wait_for<T>(what: impl Display, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The tracer, with these arguments.
pub fn tracer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracer"));
    command
        .args(arguments)
        .env_remove("RUST_BACKTRACE")
        // Not in the foreground of the terminal the tests may run in.
        .process_group(0);
    command
}

/// Is this root, with every capability? Says so where it is not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root()
        && capabilities(None).is_ok_and(|sets| {
            sets.effective
                .contains(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN)
        });
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// Is a program there that a test needs? Says so where it is not.
pub fn tool(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let there = env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !there {
        eprintln!("skipped: needs {program}");
    }
    there
}

/// Can the tracer do its work here? Says why not.
pub fn can_trace() -> bool {
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        eprintln!("skipped: this kernel has no BTF");
        return false;
    }
    is_root()
}
