//! Every way out: the summary comes where it can, and nothing stays attached.

use std::{
    io::{self, PipeReader, Read as _},
    process::{Child, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Output, Running,
    bpf::Loaded,
    can_trace,
    net::{CAUSE, Net},
    tracer, wait_for,
};

/// A tracer that watches this namespace, attached.
fn watch(net: &Net, options: &[&str]) -> Running {
    let own = ["watch", "-v", "--netns", &net.name];
    let running = Running::start(tracer(&[&own, options].concat()));
    wait_until_attached(&running, options);
    running
}

fn wait_until_attached(running: &Running, options: &[&str]) {
    if options.contains(&"json") {
        running.wait_for_stdout("\"start\"");
    } else {
        running.wait_for_stderr("attached");
    }
}

#[test]
fn interrupt_and_terminate_print_the_summary() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    for signal in [Signal::INT, Signal::TERM] {
        for format in ["table", "lines", "json"] {
            let running = watch(&net, &["--format", format]);
            let loaded = running.loaded();
            net.send(3, b"sender");
            running.wait_for_stdout(CAUSE);
            running.signal(signal);
            let output = running.finish();
            output.assert_code(1);
            if format == "json" {
                let lines = output.json();
                let end = lines.last().expect("lines");
                assert_eq!(end["type"], "end");
                assert_eq!(end["drops"], 3);
                assert_eq!(end["complete"], true);
            } else {
                let end = output.stdout.lines().last().expect("lines");
                assert!(end.contains("3 vanished; nothing was lost"), "{output:?}");
            }
            loaded.wait_until_gone();
        }
    }
}

#[test]
fn a_hang_up_ends_a_recording_as_a_request_does() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("rec");
    let path = file.to_str().expect("text");
    let running = Running::start(tracer(&["record", "-v", "-o", path, "--netns", &net.name]));
    running.wait_for_stderr("attached");
    net.send(3, b"sender");
    running.signal(Signal::HUP);
    running.finish().assert_code(1);
    let told = Output::of(tracer(&["report", "--format", "json", path]));
    told.assert_code(1);
    let end = told.json().pop().expect("lines");
    assert_eq!((&end["complete"], &end["drops"]), (&true.into(), &3.into()));
}

#[test]
fn a_time_that_never_comes() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    for time in ["18446744073709551615", "10000000000000000000", "99999999h"] {
        let own = [
            "run",
            "--netns",
            &net.name,
            "--duration",
            time,
            "--",
            "true",
        ];
        Output::of(tracer(&own)).assert_code(0);
    }
}

#[test]
fn interrupted_at_once() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let running = watch(&net, &["--format", "json"]);
    running.signal(Signal::INT);
    let output = running.finish();
    output.assert_code(0);
    assert_eq!(output.json().last().expect("lines")["type"], "end");
}

#[test]
fn killed() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let mut running = watch(&net, &[]);
    let loaded = running.loaded();
    running.signal(Signal::KILL);
    assert!(!running.wait().success());
    loaded.wait_until_gone();
}

#[test]
fn killed_while_its_command_runs_on() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let mut running = Running::start(tracer(&[
        "run",
        "--netns",
        &net.name,
        "--",
        "sh",
        "-c",
        "echo $$; exec sleep 1000",
    ]));
    let stdout = running.wait_for_stdout("\n");
    let command = Pid::from_raw(stdout.trim().parse().expect("an id")).expect("an id");
    let loaded = running.loaded();
    running.signal(Signal::KILL);
    assert!(!running.wait().success());
    // The command has none of the tracer's files.
    loaded.wait_until_gone();
    kill_process(command, Signal::KILL).expect("nobody told it to end");
}

/// A tracer whose output is read by this end of a pipe.
fn piped(arguments: &[&str]) -> (Child, PipeReader) {
    let (reader, writer) = io::pipe().expect("a pipe");
    let mut command = tracer(arguments);
    command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped());
    (command.spawn().expect("it runs"), reader)
}

/// Waits for its end, and asserts that it had nothing to complain about.
#[track_caller]
fn ended_quietly(mut child: Child, code: i32) {
    let status = wait_for("the end of the tracer", || {
        child.try_wait().expect("a child of ours")
    });
    let mut stderr = String::new();
    let mut pipe = child.stderr.take().expect("piped");
    pipe.read_to_string(&mut stderr).expect("text");
    assert_eq!(stderr, "");
    assert_eq!(status.code(), Some(code));
}

#[test]
fn a_reader_that_leaves_ends_it() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let own = ["--netns", &net.name, "--format", "json"];
    // With something to say and without: it must not take a drop to notice.
    for drops in [0, 2] {
        let (child, mut reader) = piped(&own);
        let mut begin = [0; 10];
        reader.read_exact(&mut begin).expect("the first line");
        let loaded = Loaded::by(Pid::from_child(&child));
        if drops > 0 {
            net.send(drops, b"sender");
            let mut seen = Vec::new();
            while !String::from_utf8_lossy(&seen).contains(CAUSE) {
                let mut bytes = [0; 4096];
                let length = reader.read(&mut bytes).expect("more lines");
                assert_ne!(length, 0);
                seen.extend_from_slice(&bytes[..length]);
            }
        }
        drop(reader);
        ended_quietly(child, i32::from(drops > 0));
        loaded.wait_until_gone();
    }
}

#[test]
fn nobody_reads_from_the_start() {
    let (old, new) = (
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/recordings/seed-5.10.rec"
        ),
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/seed-6.1.rec"),
    );
    for (arguments, code) in [
        (&["explain"][..], 0),
        (&["--help"], 0),
        (&["diff", old, new], 1),
        (&["diff", "--format", "json", old, new], 1),
        (&["compare", "--a", "inner ip6", "--b", "inner ip", new], 0),
        (&["report", old], 1),
    ] {
        let (child, reader) = piped(arguments);
        drop(reader);
        ended_quietly(child, code);
    }
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    for arguments in [
        &["doctor"][..],
        &["doctor", "--format", "json"],
        &["watch", "--netns", &net.name],
        &["run", "--netns", &net.name, "--", "true"],
    ] {
        let (child, reader) = piped(arguments);
        drop(reader);
        ended_quietly(child, 0);
    }
}

#[test]
fn nobody_reads_the_errors() {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let mut command = tracer(&["explain", "no-such-cause"]);
    command.stderr(writer);
    assert_eq!(command.status().expect("it runs").code(), Some(2));
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let mut command = tracer(&["-vv", "run", "--netns", &net.name, "--", "false"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(writer);
    assert_eq!(command.status().expect("it runs").code(), Some(0));
}

#[test]
fn two_at_once_see_the_same() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let start = || Running::start(tracer(&["--netns", &net.name, "--format", "json"]));
    let both = [start(), start()];
    for running in &both {
        wait_until_attached(running, &["json"]);
    }
    let loaded = both.each_ref().map(Running::loaded);
    net.send(5, b"sender");
    for running in &both {
        running.wait_for_stdout(CAUSE);
        running.signal(Signal::INT);
    }
    let outputs = both.map(Running::finish);
    let [one, other] = outputs.each_ref().map(drops);
    assert_eq!(one, other);
    assert_eq!(one.1, 5);
    for loaded in loaded {
        loaded.wait_until_gone();
    }
}

/// What was told of the one flow that vanished, and how many packets of it:
/// these may come in more than one line.
fn drops(output: &Output) -> ([serde_json::Value; 4], u64) {
    output.assert_code(1);
    let mut lines = output.json();
    lines.retain(|line| line["type"] == "drop");
    let mut told: Vec<_> = lines
        .iter()
        .map(|line| ["cause", "tunnel", "inner", "process"].map(|key| line[key].clone()))
        .collect();
    told.dedup();
    let [flow] = &told[..] else {
        panic!("not one flow: {output:?}")
    };
    let packets = lines.iter().filter_map(|line| line["count"].as_u64());
    (flow.clone(), packets.sum())
}
