//! On a terminal: the live table stays in its lines, and the terminal is given
//! back as it was.

use rustix::process::{Pid, Signal, test_kill_process};

use crate::support::{
    can_trace,
    net::{CAUSE, Net},
    pty::{CTRL_C, Pty},
    wait_for,
};

/// Asserts that the terminal is as it was before.
#[track_caller]
fn assert_given_back(screen: &vt100::Screen) {
    assert!(!screen.alternate_screen(), "{}", screen.contents());
    assert!(!screen.hide_cursor(), "{}", screen.contents());
}

#[test]
fn forty_columns() {
    if !can_trace() {
        return;
    }
    // The longest name, and the name of the namespace is not short either.
    let Some(net) = Net::new("vx-fifteen-long") else {
        return;
    };
    for (rows, columns) in [(24, 40), (8, 40), (24, 20)] {
        let mut pty = Pty::start(rows, columns, &["--netns", &net.name]);
        let screen = pty.wait_for_text("nothing vanished so far");
        assert!(screen.alternate_screen());
        assert!(screen.hide_cursor());
        let loaded = pty.loaded();
        // Another socket each time, and so another row.
        for _ in 0..rows {
            net.send(1, b"sender");
        }
        // The last line is cut at the edge, and whole up to there.
        let sum = format!("{rows} packets into tunnels, {rows} accounted for");
        let screen = pty.wait_for_text(&sum[..sum.len().min(columns.into())]);
        let contents = screen.contents();
        if columns >= 40 {
            // In the first row, as nothing scrolled.
            let first = contents.lines().next().unwrap_or_default();
            assert!(first.contains("FLOW"), "{contents}");
            assert!(first.contains("TUNNEL"), "{contents}");
        }
        for row in 0..rows {
            assert!(!screen.row_wrapped(row), "row {row} of {contents}");
        }
        pty.press(CTRL_C);
        let (status, screen) = pty.finish();
        assert_eq!(status.code(), Some(1), "{}", screen.contents());
        assert_given_back(&screen);
        loaded.wait_until_gone();
    }
}

#[test]
fn every_signal_gives_the_terminal_back() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    for signal in [Signal::INT, Signal::TERM] {
        let mut pty = Pty::start(40, 120, &["--netns", &net.name]);
        pty.wait_for_text("nothing vanished so far");
        net.send(3, b"sender");
        // A row of the table, redrawn in place.
        pty.wait_for_text("FLOW");
        pty.signal(signal);
        let (status, screen) = pty.finish();
        assert_eq!(status.code(), Some(1), "{}", screen.contents());
        assert_given_back(&screen);
        // The summary is below what was there before, and stays.
        let contents = screen.contents();
        assert!(contents.contains(CAUSE), "{contents}");
        assert!(contents.contains("3 vanished"), "{contents}");
    }
}

#[test]
fn a_terminal_that_goes_away_ends_it() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let mut pty = Pty::start(24, 80, &["--netns", &net.name]);
    pty.wait_for_text("nothing vanished so far");
    let loaded = pty.loaded();
    pty.signal(Signal::HUP);
    // As if it had been asked to end: nothing vanished.
    let (status, screen) = pty.finish();
    assert_eq!(status.code(), Some(0), "{}", screen.contents());
    assert_given_back(&screen);
    loaded.wait_until_gone();
}

/// Runs a script in the foreground of a terminal; it prints its id first.
fn run(net: &Net, script: &str) -> (Pty, Pid) {
    let pty = Pty::start(
        40,
        120,
        &["run", "--netns", &net.name, "--", "sh", "-c", script],
    );
    let id = wait_for("the command's id", || {
        let contents = pty.wait_for_text("id ").contents();
        let id = contents.lines().find_map(|line| line.strip_prefix("id "))?;
        Pid::from_raw(id.strip_suffix('.')?.parse().ok()?)
    });
    (pty, id)
}

#[test]
fn ctrl_c_ends_the_command_and_sums_up() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let (mut pty, command) = run(&net, "echo id $$.; exec sleep 1000");
    let loaded = pty.loaded();
    net.send(3, b"sender");
    pty.press(CTRL_C);
    let (status, screen) = pty.finish();
    let contents = screen.contents();
    assert_eq!(status.code(), Some(1), "{contents}");
    assert!(contents.contains("signal: 2 (SIGINT)"), "{contents}");
    assert!(contents.contains("3 vanished"), "{contents}");
    assert!(test_kill_process(command).is_err());
    loaded.wait_until_gone();
}

#[test]
fn ctrl_c_reaches_the_command_once() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    // Counts what it is told, for a while after the first. `wait` is left for
    // each signal at once, so that two do not pass for one.
    let script = "
        n=0
        trap 'n=$((n + 1)); echo told $n' INT
        sleep 1000 &
        echo id $$.
        while [ $n = 0 ]; do wait $!; done
        kill $!
        sleep 1 &
        while kill -0 $! 2>/dev/null; do wait $!; done
    ";
    let (mut pty, _) = run(&net, script);
    pty.press(CTRL_C);
    let (status, screen) = pty.finish();
    let contents = screen.contents();
    assert_eq!(status.code(), Some(0), "{contents}");
    assert!(contents.contains("told 1"), "{contents}");
    assert!(!contents.contains("told 2"), "{contents}");
    assert!(contents.contains("0 vanished"), "{contents}");
}

#[test]
fn a_second_ctrl_c_is_for_the_tracer() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let (mut pty, command) = run(&net, "trap '' INT; echo id $$.; exec sleep 1000");
    pty.press(CTRL_C);
    pty.press(CTRL_C);
    let (status, screen) = pty.finish();
    let contents = screen.contents();
    assert_eq!(status.code(), Some(0), "{contents}");
    assert!(contents.contains("still runs"), "{contents}");
    assert!(contents.contains("0 vanished"), "{contents}");
    wait_for("the command to end", || {
        test_kill_process(command).is_err().then_some(())
    });
}
