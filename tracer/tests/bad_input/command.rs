//! The command of `tracer run`: however it ends, the report comes; however the
//! tracer ends, the command is not left behind.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::{
    Running, can_trace,
    net::{CAUSE, Net},
    tracer, wait_for,
};

/// Runs a shell script under the tracer, watching an own namespace.
fn script<'a>(net: &'a Net, options: &[&'a str], script: &'a str) -> Running {
    let own = ["run", "--netns", &net.name];
    Running::start(tracer(
        &[&own, options, &["--", "sh", "-c", script]].concat(),
    ))
}

/// Waits for the script's `echo $$`.
fn command_pid(running: &Running) -> Pid {
    wait_for("the command's id", || {
        let stdout = running.wait_for_stdout("\n");
        let line = stdout.lines().find(|line| !line.starts_with('{'))?;
        Pid::from_raw(line.parse().ok()?)
    })
}

fn is_gone(pid: Pid) -> bool {
    test_kill_process(pid).is_err()
}

/// A script that only ends when told, and says what it was told.
const PATIENT: &str = "
    trap 'echo told INT; exit 7' INT
    trap 'echo told TERM; exit 7' TERM
    echo $$
    while :; do sleep 0.05; done
";

#[test]
fn its_failure_is_said_and_the_report_comes() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    for (end, said) in [
        ("kill -9 $$", "signal: 9 (SIGKILL)"),
        ("kill -SEGV $$", "signal: 11 (SIGSEGV)"),
        ("exit 3", "exit status: 3"),
    ] {
        let output = script(&net, &[], end).finish();
        // Nothing vanished: that is what the status is about.
        output.assert_code(0);
        output.assert_says(&["the command ended with", said]);
        assert!(output.stdout.contains("0 vanished"), "{output:?}");
    }
    let output = script(&net, &["--format", "json"], "exit 3").finish();
    output.assert_code(0);
    assert_eq!(output.json().last().expect("lines")["type"], "end");
}

#[test]
fn drops_decide_about_the_status() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    for end in ["exit 0", "exit 3"] {
        let script = format!("echo began; read line; {end}");
        let mut command = tracer(&["run", "--netns", &net.name, "--", "sh", "-c", &script]);
        command.stdin(Stdio::piped());
        let mut running = Running::start_with_input(command);
        running.wait_for_stdout("began");
        net.send(3, b"sender");
        running.close_input();
        let output = running.finish();
        output.assert_code(1);
        assert!(output.stdout.contains(CAUSE), "{output:?}");
        assert!(output.stdout.contains("3 vanished"), "{output:?}");
    }
}

#[test]
fn signals_reach_it() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    for (signal, told) in [(Signal::TERM, "told TERM"), (Signal::INT, "told INT")] {
        let running = script(&net, &[], PATIENT);
        let pid = command_pid(&running);
        net.send(2, b"sender");
        running.signal(signal);
        let loaded = running.loaded();
        let output = running.finish();
        output.assert_code(1);
        output.assert_says(&["the command ended with exit status: 7"]);
        assert!(output.stdout.contains(told), "{output:?}");
        assert!(output.stdout.contains("2 vanished"), "{output:?}");
        assert!(is_gone(pid));
        loaded.wait_until_gone();
    }
}

#[test]
fn it_is_told_when_the_time_is_up() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let output = script(&net, &["--duration", "500ms"], PATIENT).finish();
    output.assert_code(0);
    assert!(output.stdout.contains("told TERM"), "{output:?}");
    assert!(output.stdout.contains("0 vanished"), "{output:?}");
}

#[test]
fn one_that_does_not_listen_is_not_waited_for_twice() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let deaf = "trap '' INT TERM; echo $$; exec >&- 2>&-; exec sleep 1000";
    let mut running = script(&net, &["--format", "json"], deaf);
    let pid = command_pid(&running);
    running.signal(Signal::TERM);
    running.signal(Signal::INT);
    // Should one have come before the other was waited for, the grace ends it.
    running.wait_for_stderr("still runs");
    running.wait();
    let alive = !is_gone(pid);
    kill_process(pid, Signal::KILL).expect("it was deaf to the others");
    assert!(alive);
    let output = running.finish();
    output.assert_code(0);
    output.assert_says(&[&format!("(process {pid}) still runs"), "SIGTERM"]);
}

#[test]
fn one_that_ignores_ctrl_c_is_told_to_end() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let deaf = "trap '' INT; echo $$; exec >&- 2>&-; exec sleep 1000";
    let running = script(&net, &[], deaf);
    let pid = command_pid(&running);
    running.signal(Signal::INT);
    running.signal(Signal::INT);
    let output = running.finish();
    output.assert_code(0);
    output.assert_says(&[&format!("(process {pid}) still runs"), "SIGTERM"]);
    wait_for("the command to end", || is_gone(pid).then_some(()));
}

#[test]
fn it_does_not_begin_when_the_first_line_cannot_be_written() {
    if !can_trace() {
        return;
    }
    let mut command = tracer(&[
        "run",
        "--format",
        "json",
        "--",
        "sh",
        "-c",
        "echo began >&2",
    ]);
    let full = std::fs::File::options().write(true).open("/dev/full");
    command.stdout(full.expect("every Linux has it"));
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        stderr,
        "tracer: cannot write to stdout: No space left on device (os error 28)\n"
    );
}

#[test]
fn it_outlives_a_reader_that_left() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let home = tempfile::tempdir().expect("a directory");
    let done = home.path().join("done");
    let script = format!("read line; echo done > '{}'", done.display());
    let mut command = tracer(&["run", "--format", "json", "--netns", &net.name, "--"]);
    command.args(["sh", "-c", &script]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    command
        .stdin(Stdio::piped())
        .stdout(writer)
        .stderr(Stdio::piped());
    let child = command.spawn().expect("it runs");
    drop(command);
    let output = child.wait_with_output().expect("a child of ours");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stderr, b"", "{output:?}");
    assert!(done.exists());
}
