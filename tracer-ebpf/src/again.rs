//! Second programs, for what the first ones are not run for.
//!
//! The kernel does not run a program on a CPU where it is at work already. Since
//! 7.0 a task can be preempted in a program at a tracepoint, and on PREEMPT_RT
//! also where it transmits: what the next task does there meanwhile would be
//! missed. So there is a second program behind the first at the points that
//! counts depend on, and it does what the first was not run for. Only where the
//! kernel is PREEMPT_RT: elsewhere transmitting is not preempted, and each program
//! costs every packet something.

use tracer_common::{config::switch, tally::lost};

use crate::{frame, globals::config, maps::RAN, tally};

/// Which tracepoint an event is of.
#[derive(Clone, Copy)]
pub enum Event {
    Freed = 0,
    FrameStart = 1,
    FrameEnd = 2,
}

/// The first program ran for this event, of a packet that lives or a task.
#[inline(always)]
pub fn ran(event: Event, of: u64) {
    if config!(twice) != 0 && RAN.insert(&[of, event as u64], &1, 0).is_err() {
        // It will be done twice.
        tally::lose(lost::TALLY);
    }
}

/// The second program runs: did the first not?
#[inline(always)]
pub fn was_left_out(event: Event, of: u64) -> bool {
    if RAN.remove(&[of, event as u64]).is_ok() {
        return false;
    }
    // Before, nothing is looked at.
    if frame::switched(switch::READY) {
        tally::lose(lost::TAKEN);
    }
    true
}
