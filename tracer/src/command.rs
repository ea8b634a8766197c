//! The command of `tracer run`: started, told to end when the tracer ends, and
//! never left behind in silence.

use std::{ffi::OsString, fs::File, io, process::ExitStatus};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, getpgrp, kill_process};
use tokio::process::{Child, Command};

/// A command while it runs. Dropping it tells it to end.
pub struct Traced(Child);

impl Traced {
    /// Starts it with the tracer's own input, output and environment.
    pub fn start(command: &[OsString]) -> Result<Self> {
        let (program, arguments) = command
            .split_first()
            .context("no command given: tracer run -- CMD")?;
        Command::new(program)
            .args(arguments)
            .spawn()
            .map(Self)
            .with_context(|| format!("cannot run {}", program.display()))
    }

    /// Waits for its end. May be given up and called again.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.0.wait().await
    }

    /// Passes a Ctrl-C on, unless the terminal did: it sends one to every
    /// process in the foreground, and many commands take a second one for
    /// more than it was meant.
    pub fn interrupt(&self) {
        let foreground =
            File::open("/dev/tty").and_then(|tty| Ok(rustix::termios::tcgetpgrp(tty)?));
        if foreground.ok() != Some(getpgrp()) {
            self.tell(Signal::INT);
        }
    }

    /// Asks it to end, as `kill` and `timeout` do.
    pub fn terminate(&self) {
        self.tell(Signal::TERM);
    }

    fn tell(&self, signal: Signal) {
        // There is no id any more once it was waited for.
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, signal);
        }
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.0.id()?.try_into().ok()?)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(None)) {
            return;
        }
        if let Some(pid) = self.pid() {
            tracing::warn!("the command (process {pid}) still runs: told it to end (SIGTERM)");
        }
        self.terminate();
    }
}
