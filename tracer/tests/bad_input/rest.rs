//! A host without tunnels: what only tells of tunnels is not attached, until one
//! comes up.

use rustix::process::Signal;

use crate::support::{
    Output, Running, can_trace,
    net::{CAUSE, Net},
    tracer,
};

/// What is said where points wait, and when they are attached.
const RESTS: &str = "no tunnel on this host";
const WAKES: &str = "a tunnel comes";

#[test]
fn the_first_tunnel_wakes_it() {
    if !can_trace() {
        return;
    }
    // Tests may run where not every process can be looked at.
    let watch = ["watch", "-v", "--format", "lines"];
    let running = Running::start(tracer(&watch));
    let said = running.wait_for_stderr("attached, waiting for drops");
    let Some(net) = Net::new("first") else { return };
    if said.contains(RESTS) {
        running.wait_for_stderr(WAKES);
    } else {
        // Other tests have tunnels of their own meanwhile.
        eprintln!("skipped in part: there are other tunnels on this host");
    }
    net.send(1, b"sender");
    running.wait_for_stdout(CAUSE);
    running.signal(Signal::INT);
    let output = running.finish();
    output.assert_code(1);
    let mut lines = output.stdout.lines();
    let ledger = lines.find(|line| line.starts_with("first (vxlan"));
    assert!(
        ledger.is_some_and(|line| line.contains("1 in = 0 sent + 1 dropped + 0 unexplained")),
        "{output:?}"
    );
}

#[test]
fn what_a_command_does_is_seen_from_the_first_packet_on() {
    if !can_trace() {
        return;
    }
    let output = Output::of(tracer(&["run", "-v", "--", "true"]));
    assert!(!output.stderr.contains(RESTS), "{output:?}");
}
