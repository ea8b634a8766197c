//! One run of QEMU: boot, carry output, notice the end, whichever way it comes.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::{initramfs::STATUS_MARK, paths};

/// Emulation: slower than KVM, and the same on every host.
const ACCELERATOR: &str = "tcg,thread=multi";
/// Without cx16, which QEMU 7.2 emulates wrongly (guests since 6.12 crash in
/// the allocator), and with four levels of pages (five break user space there).
const CPU: &str = "max,la57=off,-cx16";
const COMMAND_LINE: &str = "console=ttyS0 quiet noapic panic=-1";

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Machine {
    pub cpus: u32,
    /// Mebibytes.
    pub memory: u32,
    pub timeout: Duration,
    /// The console is our terminal, rather than a log.
    pub on_terminal: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            cpus: 2,
            memory: 1024,
            timeout: Duration::from_secs(600),
            on_terminal: false,
        }
    }
}

/// How a machine ended that ended well.
#[derive(Debug)]
pub struct Ended {
    pub output: Vec<u8>,
    pub status: i32,
    pub console: String,
}

/// Boots and waits for the end; `live` sees the output as it comes.
pub fn boot(
    image: &Path,
    initrd: &[u8],
    machine: &Machine,
    mut live: impl FnMut(&[u8]),
) -> anyhow::Result<Ended> {
    let work = Work::new()?;
    let initrd_file = work.0.join("initrd");
    fs::write(&initrd_file, initrd).context("cannot write the guest's file system")?;
    let log = work.0.join("log");
    let mut child = start(image, &initrd_file, machine, &log)?;

    let (sender, receiver) = mpsc::channel();
    if let Some(mut stdout) = child.0.stdout.take() {
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
    } else {
        drop(sender);
    }

    let deadline = Instant::now() + machine.timeout;
    let mut output = Vec::new();
    let mut shown = 0;
    let mut why = None;
    let exit = loop {
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok(bytes) => {
                output.extend(bytes);
                let end = shown + before_mark(&output[shown..]);
                live(&output[shown..end]);
                shown = end;
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            // The channel is shut when QEMU ends, or was never open.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(50)),
        }
        if let Some(exit) = child.0.try_wait()? {
            break exit;
        }
        if why.is_none() && Instant::now() > deadline {
            why = Some(format!(
                "still running after {} s",
                machine.timeout.as_secs()
            ));
            child.0.kill()?;
        }
    };
    while let Ok(bytes) = receiver.try_recv() {
        output.extend(bytes);
    }

    let logged = fs::read(&log).unwrap_or_default();
    let console = if machine.on_terminal {
        output = logged;
        String::new()
    } else {
        String::from_utf8_lossy(&logged).replace('\r', "")
    };
    let mark = find(&output, STATUS_MARK.as_bytes());
    let status = mark.and_then(|at| status(&output[at..]));
    if let Some(at) = mark {
        output.truncate(at);
    }
    if !machine.on_terminal {
        live(output.get(shown..).unwrap_or_default());
    }
    if let Some(line) = console.lines().find(|line| is_fatal(line)) {
        why = Some(format!("the kernel died: {}", line.trim()));
    }
    match (why, status) {
        (None, Some(status)) => Ok(Ended {
            output,
            status,
            console,
        }),
        (why, _) => {
            let why = why.unwrap_or_else(|| format!("no status came back, QEMU: {exit}"));
            bail!(
                "the virtual machine failed: {why}\n--- end of its console\n{}\n\
                 --- end of its output\n{}",
                tail(&console),
                tail(&String::from_utf8_lossy(&output)),
            );
        }
    }
}

fn start(image: &Path, initrd: &Path, machine: &Machine, log: &Path) -> anyhow::Result<Running> {
    let accelerator = std::env::var("TRACER_VM_ACCEL").unwrap_or_else(|_| ACCELERATOR.to_owned());
    let file = format!("file:{}", log.display());
    let (first, second) = if machine.on_terminal {
        ("stdio", file.as_str())
    } else {
        (file.as_str(), "stdio")
    };
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(["-accel", &accelerator, "-cpu", CPU])
        .args([
            "-smp",
            &machine.cpus.to_string(),
            "-m",
            &format!("{}M", machine.memory),
        ])
        .args(["-serial", first, "-serial", second])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", COMMAND_LINE]);
    if machine.on_terminal {
        command.stdin(Stdio::inherit()).stdout(Stdio::inherit());
    } else {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
    }
    let child = command
        .spawn()
        .context("cannot start qemu-system-x86_64; `cargo xtask setup --vm` brings it")?;
    Ok(Running(child))
}

/// Lines after which nothing good comes.
fn is_fatal(line: &str) -> bool {
    [
        "Kernel panic - not syncing",
        "Oops:",
        "kernel BUG at",
        "double fault:",
        "general protection fault",
    ]
    .iter()
    .any(|text| line.contains(text))
}

/// The number after the mark.
fn status(marked: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(marked.get(STATUS_MARK.len()..)?).ok()?;
    text.lines().next()?.trim().parse().ok()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// How much certainly comes before the mark, of which a part may have arrived.
fn before_mark(text: &[u8]) -> usize {
    let mark = STATUS_MARK.as_bytes();
    find(text, mark).unwrap_or_else(|| {
        let begun = (1..mark.len())
            .rev()
            .find(|length| text.ends_with(&mark[..*length]));
        text.len() - begun.unwrap_or(0)
    })
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// A QEMU that does not outlive us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has usually ended by now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory for one run.
struct Work(PathBuf);

impl Work {
    fn new() -> anyhow::Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = paths::vm().join(format!("{}-{number}", std::process::id()));
        paths::make(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Left behind it costs space, nothing else.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_follows_its_mark() {
        let output = format!("text\n{STATUS_MARK}3\n");
        let at = find(output.as_bytes(), STATUS_MARK.as_bytes()).unwrap();
        assert_eq!(at, 5);
        assert_eq!(status(&output.as_bytes()[at..]), Some(3));
        assert_eq!(status(STATUS_MARK.as_bytes()), None);
    }

    #[test]
    fn a_mark_that_comes_in_parts_is_not_shown() {
        let whole = format!("text{STATUS_MARK}3\n");
        for length in 4..whole.len() {
            assert_eq!(before_mark(&whole.as_bytes()[..length]), 4);
        }
        assert_eq!(before_mark(b"text"), 4);
    }

    #[test]
    fn a_panic_is_seen() {
        assert!(is_fatal(
            "[    1.2] Kernel panic - not syncing: Attempted to kill init!"
        ));
        assert!(!is_fatal(
            "[    1.2] sit: IPv6, IPv4 and MPLS over IPv4 tunneling driver"
        ));
    }
}
