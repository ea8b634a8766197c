//! Names come from the machine and can hold any bytes: none reaches a
//! terminal, a log or JSON as it is.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use rustix::process::Signal;

use crate::support::{
    Output, Running, can_trace,
    net::{CAUSE, Net},
    pty::{CTRL_C, Pty},
    tracer,
};

/// Reverse video, text from right to left, no UTF-8: the kernel takes it.
const DEV: &[u8] = b"\x1b[7m\xe2\x80\xaex\xff";
const DEV_SHOWN: &str = "\\x1b[7m\\xe2\\x80\\xaex\\xff";
/// Sets the title of a terminal.
const COMM: &[u8] = b"\x1b]0;owned\x07";
const COMM_SHOWN: &str = "\\x1b]0;owned\\x07";
/// Clears the screen.
const NETNS: &str = "-\x1b[2J";
const NETNS_SHOWN: &str = "-\\x1b[2J";

fn net() -> Option<Net> {
    Net::named(NETNS, DEV)
}

#[track_caller]
fn assert_clean(text: &str) {
    for char in ['\x1b', '\x07', '\u{202e}', '\u{fffd}'] {
        assert!(!text.contains(char), "{char:?} in {text:?}");
    }
}

fn watch(net: &Net, format: &str) -> Output {
    let mut command = tracer(&["-vv", "--netns", &net.name, "--format", format, "-i"]);
    command.arg(OsStr::from_bytes(DEV));
    let running = Running::start(command);
    if format == "json" {
        running.wait_for_stdout("\"start\"");
    } else {
        running.wait_for_stderr("attached");
    }
    net.send(2, COMM);
    running.wait_for_stdout(CAUSE);
    running.signal(Signal::INT);
    let output = running.finish();
    output.assert_code(1);
    assert_clean(&output.stdout);
    assert_clean(&output.stderr);
    output
}

#[test]
fn in_lines_and_tables() {
    if !can_trace() {
        return;
    }
    let Some(net) = net() else { return };
    for format in ["lines", "table"] {
        let output = watch(&net, format);
        for shown in [DEV_SHOWN, COMM_SHOWN, NETNS_SHOWN] {
            assert!(output.stdout.contains(shown), "no {shown} in {output:?}");
        }
    }
}

#[test]
fn in_json() {
    if !can_trace() {
        return;
    }
    let Some(net) = net() else { return };
    let lines = watch(&net, "json").json();
    let of = |kind: &str| {
        let line = lines.iter().find(|line| line["type"] == kind);
        line.unwrap_or_else(|| panic!("no {kind} in {lines:?}"))
    };
    let netns = of("device")["netns"].as_str().expect("a name");
    assert!(netns.ends_with(NETNS_SHOWN), "{netns}");
    assert_eq!(of("device")["dev"], DEV_SHOWN);
    assert_eq!(of("drop")["tunnel"]["dev"], DEV_SHOWN);
    assert_eq!(of("drop")["tunnel"]["netns"], netns);
    assert_eq!(of("drop")["process"]["comm"], COMM_SHOWN);
    // No name that is decoded from JSON does harm either.
    assert_clean(of("drop")["verdict"].as_str().expect("a sentence"));
}

#[test]
fn in_the_report() {
    if !can_trace() {
        return;
    }
    let Some(net) = net() else { return };
    let running = Running::start(tracer(&[
        "run",
        "--stack",
        "--netns",
        &net.name,
        "--",
        "sh",
        "-c",
        "echo began; exec sleep 1000",
    ]));
    running.wait_for_stdout("began");
    net.send(2, COMM);
    running.signal(Signal::TERM);
    let output = running.finish();
    output.assert_code(1);
    assert_clean(&output.stdout);
    for shown in [DEV_SHOWN, COMM_SHOWN, NETNS_SHOWN] {
        assert!(output.stdout.contains(shown), "no {shown} in {output:?}");
    }
}

#[test]
fn on_a_terminal() {
    if !can_trace() {
        return;
    }
    let Some(net) = net() else { return };
    let mut pty = Pty::start(40, 200, &["--netns", &net.name]);
    pty.wait_for_text("nothing vanished so far");
    net.send(2, COMM);
    pty.wait_for_text(DEV_SHOWN);
    pty.press(CTRL_C);
    let (status, screen) = pty.finish();
    assert_eq!(status.code(), Some(1), "{}", screen.contents());
    let bytes = pty.bytes();
    for name in [b"\x1b[7m", b"\x1b]0;", b"\x1b[2J", "\u{202e}".as_bytes()] {
        let there = bytes.windows(name.len()).any(|window| window == name);
        assert!(!there, "{:?}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn in_errors() {
    if !can_trace() {
        return;
    }
    let Some(net) = net() else { return };
    // Near enough to both names to be told them.
    let wrong = format!("{}x", net.name);
    let output = Output::of(tracer(&["--netns", &wrong]));
    output.assert_code(2);
    assert!(output.stderr.contains(NETNS_SHOWN), "{output:?}");
    assert_clean(&output.stderr);
    let mut command = tracer(&["--netns", &net.name, "-i"]);
    command.arg(OsStr::from_bytes(&DEV[..DEV.len() - 1]));
    let output = Output::of(command);
    output.assert_code(2);
    assert!(output.stderr.contains("did you mean"), "{output:?}");
    assert!(output.stderr.contains(DEV_SHOWN), "{output:?}");
    assert_clean(&output.stderr);
}
