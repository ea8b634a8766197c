//! What a run waits for and what ends it.

use std::{io, process::ExitStatus, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::command::Traced;

/// A file would become larger than allowed (`ulimit -f`).
const SIGXFSZ: i32 = 25;

pub fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// What ends a run before its command does.
#[derive(Clone, Copy)]
pub enum Stop {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM, the terminal is gone, or the time is up.
    Terminate,
}

/// The signals that end a run.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    /// Taken so that writing fails instead, which is told.
    _file_size: Signal,
}

impl Interrupts {
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            _file_size: signal(SignalKind::from_raw(SIGXFSZ))?,
        })
    }

    pub async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
            _ = self.hang_up.recv() => Stop::Terminate,
        }
    }
}

/// The command's end; never, without one.
pub async fn ended(command: Option<&mut Traced>) -> io::Result<ExitStatus> {
    match command {
        Some(command) => command.ended().await,
        None => std::future::pending().await,
    }
}

/// That time; never, without one.
pub async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
