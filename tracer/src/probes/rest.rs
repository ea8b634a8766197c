//! Where there is no tunnel, what only tells of tunnels waits for the first.

use std::{
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::Result;
use tracer_common::config::switch;
use tracing::{debug, info, warn};

use super::{
    Missing,
    attach::{AGAIN, Held, Links, Probes, Programs, attach},
    load,
    points::{FRAME_START, MODULE_LOAD, Point, WAKERS, Way},
};
use crate::kernel::btf::Btf;

/// How many points are attached at a time.
const ATTACHERS: usize = 4;

impl Probes {
    /// Lets what only tells of tunnels wait, if the kernel can tell of the first one
    /// and `may_rest` says that there is none. Where the frames are not the
    /// tracepoints', they are the modules' functions, which come with the tunnels
    /// anyway.
    pub(super) fn rest_if(&mut self, may_rest: &dyn Fn() -> bool, btf: &Btf) {
        // A kernel without modules has no such tracepoint.
        let ways = WAKERS
            .iter()
            .filter(|way| way.target() != MODULE_LOAD || load::possible(way, btf).is_ok());
        // Asked after they are attached: what comes meanwhile is told.
        let wakers: Result<Vec<Links>> = ways.map(|way| self.attach_way(way)).collect();
        match wakers {
            Ok(wakers) => self.wakers = wakers,
            Err(error) => {
                debug!("the first tunnel would not be noticed: {error:#}");
                return;
            }
        }
        self.resting = self.switch(switch::RESTING, 1).is_ok() && may_rest();
        if self.resting {
            info!("no tunnel on this host: what only tells of tunnels waits for the first");
        } else {
            self.wakers.clear();
        }
    }

    /// Does the point wait for the first tunnel?
    pub(super) fn waits(&self, point: &Point) -> bool {
        self.resting && point.of_tunnels
    }

    pub fn is_resting(&self) -> bool {
        self.resting
    }

    /// There is a tunnel, or one comes: attaches what rests, at once.
    pub fn wake(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.resting) {
            return Ok(());
        }
        let mut programs: Programs<'_> = self.ebpf.programs_mut().collect();
        // The beginning of frames last: what they are to see is attached by then.
        let (mut first, mut alone, mut last) = (Vec::new(), Vec::new(), Vec::new());
        for held in self.held.iter_mut().filter(|held| held.point.of_tunnels) {
            if load::is_kprobe(held.way) {
                alone.push(held);
            } else {
                let names = [
                    held.way.program(),
                    &format!("{}{AGAIN}", held.way.program()),
                ];
                let own: Programs<'_> = names
                    .iter()
                    .filter_map(|name| programs.remove_entry(*name))
                    .collect();
                let jobs = match held.point.name {
                    FRAME_START => &mut last,
                    _ => &mut first,
                };
                jobs.push((held, own));
            }
        }
        let failed = Mutex::new(Vec::new());
        let job = |held: &mut Held, programs: &mut Programs<'_>| match attach(held.way, programs) {
            Ok(links) => held.links = links,
            Err(error) => {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.push((held.point, held.way, error));
            }
        };
        // Each waits for all CPUs, most of its time.
        let first = Mutex::new(first.into_iter());
        thread::scope(|scope| {
            for _ in 0..ATTACHERS {
                scope.spawn(|| {
                    loop {
                        let next = first.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((held, mut own)) = next else { return };
                        job(held, &mut own);
                    }
                });
            }
        });
        for held in alone {
            job(held, &mut programs);
        }
        for (held, mut own) in last {
            job(held, &mut own);
        }
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (point, way, error) in failed {
            debug!("{} by {}: {error:#}", point.name, way.name());
            self.next_way(point, way, &error);
        }
        if !self.is_bracketed() {
            self.switch(switch::BRACKETED, 0)?;
        }
        // Once was enough.
        self.switch(switch::RESTING, 0)?;
        self.wakers.clear();
        info!("a tunnel comes: all points are attached");
        Ok(())
    }

    /// Takes the first kprobe behind a way that was loaded and could not be attached.
    fn next_way(&mut self, point: &'static Point, refused: &Way, error: &anyhow::Error) {
        let mut reasons = format!("{} {}: {error:#}", refused.name(), refused.target());
        for way in point.ways.iter().filter(|way| load::is_kprobe(way)) {
            if self.withholds(way.name()) {
                continue;
            }
            match self.attach_way(way) {
                Ok(links) => {
                    self.held.retain(|held| held.point.name != point.name);
                    self.held.push(Held { point, way, links });
                    for known in &mut self.attached {
                        if known.point == point.name {
                            known.way = way.name().into();
                            known.target = way.target().to_owned();
                        }
                    }
                    return;
                }
                Err(error) => {
                    let _ = write!(reasons, "; {} {}: {error:#}", way.name(), way.target());
                }
            }
        }
        warn!("{} cannot be attached: {reasons}", point.name);
        self.attached.retain(|known| known.point != point.name);
        self.missing.push(Missing {
            point: point.name.to_owned(),
            why: reasons,
            lost: point.lost.into(),
        });
    }
}
