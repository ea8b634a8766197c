//! Recordings: where they may be written, what stops them, and files that are
//! none.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use rustix::process::Signal;

use crate::support::{
    Output, Running, can_trace,
    net::{CAUSE, Net},
    tracer, wait_for,
};

/// One that was made on Debian 5.10, of the packets that began it all.
const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/recordings/seed-5.10.rec"
);

fn text(path: &Path) -> &str {
    path.to_str().expect("our own path")
}

fn report(path: &Path, options: &[&str]) -> Output {
    Output::of(tracer(&[&["report", text(path)], options].concat()))
}

#[test]
fn any_view_on_any_machine() {
    for format in ["table", "lines", "json", "markdown", "html"] {
        let output = report(Path::new(RECORDING), &["--format", format]);
        output.assert_code(1);
        let cause = "route-type-not-accepted";
        assert!(output.stdout.contains(cause), "{output:?}");
        assert_eq!(output.stderr, "");
    }
}

#[test]
fn what_is_before_a_cut_is_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let whole = fs::read(RECORDING).expect("committed");
    let cut = directory.path().join("cut");
    fs::write(&cut, &whole[..whole.len() - 1]).expect("room");
    let output = report(&cut, &["--format", "json"]);
    output.assert_code(1);
    output.assert_says(&[text(&cut), "was cut", "shown is what is before"]);
    let end = output.json().pop().expect("lines");
    assert_eq!(
        (&end["type"], &end["complete"], &end["broken_off"]),
        (&"end".into(), &false.into(), &true.into())
    );
    // Before anything was counted.
    let stored = u32::from_le_bytes(whole[20..24].try_into().expect("four"));
    fs::write(&cut, &whole[..32 + stored as usize]).expect("room");
    let output = report(&cut, &[]);
    output.assert_code(125);
    output.assert_says(&[text(&cut), "was cut"]);
}

#[test]
fn what_is_no_recording() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("x");
    let mut newer = fs::read(RECORDING).expect("committed");
    newer[8] = 9;
    let mut damaged = fs::read(RECORDING).expect("committed");
    damaged[100] ^= 1;
    for (content, word) in [
        (&b""[..], "no recording"),
        (b"#!/bin/sh\n", "no recording"),
        (&newer, "newer tracer (format 9"),
        (&damaged, "damaged"),
    ] {
        fs::write(&file, content).expect("room");
        let output = report(&file, &[]);
        output.assert_code(125);
        output.assert_says(&[text(&file), word]);
        assert_eq!(output.stdout, "");
    }
    let output = report(directory.path(), &[]);
    output.assert_code(125);
    output.assert_says(&[text(directory.path()), "directory"]);
    let output = report(&directory.path().join("none"), &[]);
    output.assert_code(125);
    output.assert_says(&["none", "No such file"]);
}

#[test]
fn recordings_are_compared() {
    let newer = RECORDING.replace("seed-5.10", "seed-6.1");
    let diff = |a: &str, b: &str, options: &[&str]| {
        Output::of(tracer(&[&["diff", a, b], options].concat()))
    };
    diff(RECORDING, RECORDING, &[]).assert_code(0);
    let output = diff(RECORDING, &newer, &[]);
    output.assert_code(1);
    assert!(output.stdout.contains("dropped in A, sent, then lost in B"));

    let directory = tempfile::tempdir().expect("a directory");
    let whole = fs::read(RECORDING).expect("committed");
    let cut = directory.path().join("cut");
    fs::write(&cut, &whole[..whole.len() / 2]).expect("room");
    let output = diff(text(&cut), &newer, &[]);
    output.assert_code(125);
    assert!(
        output.stderr.contains("compared is what is before"),
        "{output:?}"
    );
    diff(&newer, "/nowhere/x.rec", &[]).assert_code(125);
    diff(&newer, text(directory.path()), &[]).assert_code(125);
    diff(&newer, "/dev/null", &[]).assert_code(125);
    diff(&newer, &newer, &["--dev", "t0"]).assert_code(2);
}

#[test]
fn selections_are_compared() {
    let newer = RECORDING.replace("seed-5.10", "seed-6.1");
    let compare = |a: &str, b: &str, options: &[&str]| {
        Output::of(tracer(
            &[&["compare", "--a", a, "--b", b], options].concat(),
        ))
    };
    let output = compare("inner ip6", "inner ip", &[&newer]);
    output.assert_code(0);
    assert!(output.stdout.contains("do not part"), "{output:?}");
    let output = compare("inner ip6", "arp", &[&newer, "--format", "json"]);
    output.assert_code(125);
    assert_eq!(output.json()[0]["type"], "compare");
    let output = compare("inner ip6", "ip7", &[&newer]);
    output.assert_code(2);
    assert!(
        output.stderr.contains("--b: unknown word 'ip7'"),
        "{output:?}"
    );
    compare("ip", "ip6", &[]).assert_code(2);
    compare("ip", "ip6", &[&newer, "--", "true"]).assert_code(2);
    compare("ip", "ip6", &["/no/such.rec"]).assert_code(125);
    compare("ip", "ip6", &[&newer, "--format", "html"]).assert_code(2);
    compare("ip", "ip6", &[&newer, "--dev", "x"]).assert_code(2);
}

#[test]
fn selections_of_what_a_command_sends() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let send = "for port in 9 9 10; do echo x > /dev/udp/192.168.9.2/$port; done";
    let own = ["compare", "--a", "inner port 9", "--b", "inner port 10"];
    let command = ["--", "ip", "netns", "exec", &net.name, "bash", "-c", send];
    let scope = ["--netns", &net.name];
    let output = Output::of(tracer(&[&own[..], &scope, &command].concat()));
    output.assert_code(0);
    for words in [
        "A: inner port 9: 2 vanished",
        "B: inner port 10: 1 vanished",
        CAUSE,
        "do not part",
    ] {
        assert!(output.stdout.contains(words), "{output:?}");
    }
}

#[test]
fn a_report_does_not_trace() {
    for options in [&["--duration", "1s"][..], &["--all-drops"]] {
        let output = report(Path::new(RECORDING), options);
        output.assert_code(2);
        output.assert_says(&[options[0], "tracer record"]);
    }
}

#[test]
fn a_part_of_a_recording() {
    let path = RECORDING.replace("seed-5.10", "seed-6.1");
    let parts = |options: &[&str]| {
        let output = report(Path::new(&path), &[&["--format", "json"], options].concat());
        assert_eq!(output.stderr, "");
        let end = output.json().pop().expect("lines");
        assert_eq!(
            (&end["complete"], &end["undecided"]),
            (&true.into(), &0.into())
        );
        let code = i32::from(end["drops"] != 0);
        output.assert_code(code);
        let number = |key: &str| end[key].as_u64().expect("a number");
        (number("drops"), number("selected_of"))
    };
    let (all, of) = parts(&["--filter", "ip or ip6"]);
    assert_eq!(all, of);
    let (ip6, _) = parts(&["--filter", "inner ip6"]);
    let (others, _) = parts(&["--filter", "not inner ip6"]);
    assert!(ip6 > 0);
    assert_eq!(ip6 + others, of);
    assert_eq!(parts(&["--filter", "uid 4242"]).0, 0);
    assert_eq!(parts(&["--dev", "fou_test"]).0, all);

    for (wrong, said) in [
        (["--dev", "fou_tset"], "did you mean fou_test?"),
        (["--netns", "1"], "no network namespace 'net:[1]'"),
    ] {
        let output = report(Path::new(&path), &wrong);
        output.assert_code(2);
        output.assert_says(&[wrong[0], said]);
    }

    let output = report(Path::new(&path), &["--filter", "inner ip6"]);
    output.assert_code(1);
    for words in [
        format!("{ip6} of the {of} that vanished were asked for"),
        "counts are of all their packets".to_owned(),
    ] {
        assert!(output.stdout.contains(&words), "{output:?}");
    }
}

#[test]
fn names_in_a_filter_are_those_of_the_recording() {
    for (options, words) in [
        (
            &["--filter", "ip6 and uid nobody"][..],
            &["users by number", "^^^^^^"][..],
        ),
        (&["--filter", "netns no-such"], &["no-such", "^^^^^^^"]),
        (&["--netns", "no-such"], &["--netns", "no-such"]),
        (&["--filter", "ip7"], &["--filter", "^^^"]),
        (&["--dev", "longer than a name"], &["--dev", "longer"]),
    ] {
        let output = report(Path::new(RECORDING), options);
        output.assert_code(2);
        for word in words {
            assert!(output.stderr.contains(word), "{output:?}");
        }
        assert_eq!(output.stdout, "");
    }
    report(Path::new(RECORDING), &["--filter", "uid root"]).assert_code(1);
}

/// Records while a command runs that does nothing.
fn record(path: &Path, options: &[&str]) -> Output {
    let own = ["record", "-o", text(path)];
    Output::of(tracer(&[&own, options, &["--", "true"]].concat()))
}

#[test]
fn what_must_not_be_written_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = record(directory.path(), &[]);
    output.assert_code(2);
    output.assert_says(&[text(directory.path()), "is a directory", "-o "]);
    let file = directory.path().join("thesis");
    fs::write(&file, "three years of work").expect("room");
    for options in [&[][..], &["--force"]] {
        let output = record(&file, options);
        output.assert_code(2);
        output.assert_says(&[text(&file), "no recording", "another file"]);
    }
    assert_eq!(fs::read(&file).expect("there"), b"three years of work");
    let earlier = directory.path().join("earlier");
    fs::copy(RECORDING, &earlier).expect("room");
    let output = record(&earlier, &[]);
    output.assert_code(2);
    output.assert_says(&[text(&earlier), "exists", "--force"]);
    assert_eq!(fs::read(&earlier).ok(), fs::read(RECORDING).ok());
    // Nor what a later file would be renamed to.
    let later = directory.path().join("later");
    fs::write(directory.path().join("later.1"), "mine").expect("room");
    let output = record(&later, &["--max-size", "1M"]);
    output.assert_code(2);
    output.assert_says(&["later.1", "no recording"]);
    let output = record(&directory.path().join("no/such"), &[]);
    output.assert_code(125);
    output.assert_says(&["no/such", "No such file"]);
    let output = record(Path::new("/dev/null"), &[]);
    output.assert_code(2);
    output.assert_says(&["/dev/null", "another file"]);
}

#[test]
fn a_file_that_nothing_came_into_is_taken_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("rec");
    let output = record(&file, &["--netns", "no-such-namespace"]);
    assert_ne!(output.status.code(), Some(0));
    assert!(!file.exists());
}

#[test]
fn what_run_tells_is_what_report_tells() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("rec");
    // Two tracers of the same packets.
    let own = ["--netns", &net.name, "--stack", "-v"];
    let recording = ["record", "-o", text(&file)];
    let recorded = Running::start(tracer(&[&recording[..], &own].concat()));
    recorded.wait_for_stderr("attached");
    let watched = ["--format", "json"];
    let watching = Running::start(tracer(&[&watched[..], &own].concat()));
    watching.wait_for_stdout("\"start\"");
    let loaded = recorded.loaded();
    net.send(5, b"sender");
    watching.wait_for_stdout(CAUSE);
    recorded.signal(Signal::INT);
    watching.signal(Signal::INT);
    let recorded = recorded.finish();
    recorded.assert_code(1);
    assert!(
        recorded.stderr.contains("5 packets vanished"),
        "{recorded:?}"
    );
    assert_eq!(recorded.stdout, "");
    loaded.wait_until_gone();
    let mode = file.metadata().expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let live = watching.finish();
    let replayed = report(
        &file,
        &["--format", "json", "--stack", "--interval", "10ms"],
    );
    replayed.assert_code(1);
    let lines = |output: &Output| -> Vec<serde_json::Value> {
        let mut lines = output.json();
        for line in &mut lines {
            if let Some(line) = line.as_object_mut() {
                // One of them was there a little longer.
                line.remove("duration");
            }
        }
        // It depends on when the counts were read.
        lines.retain(|line| line["type"] != "device");
        lines
    };
    let mut packets = [&live, &replayed].map(|output| {
        let mut lines = lines(output);
        lines.retain(|line| line["type"] == "drop");
        let counts = lines.iter().filter_map(|line| line["count"].as_u64());
        counts.sum::<u64>()
    });
    packets.sort_unstable();
    assert_eq!(packets, [5, 5]);
    let [a, b] = [&live, &replayed].map(|output| {
        let mut first = lines(output).swap_remove(1);
        let first = first.as_object_mut().expect("an object");
        for varies in ["time", "count"] {
            first.remove(varies);
        }
        // Each has its own programs on the stack.
        let stack = first
            .get_mut("stack")
            .and_then(|stack| stack.as_array_mut());
        stack.expect("asked for").retain(|place| {
            let place = place.as_str().expect("a text");
            !place.ends_with("[bpf]")
        });
        first.clone()
    });
    assert_eq!(a, b);
}

#[test]
fn killed_while_it_records() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("rec");
    let own = ["record", "-v", "--netns", &net.name, "-o", text(&file)];
    let mut running = Running::start(tracer(&own));
    running.wait_for_stderr("attached");
    let loaded = running.loaded();
    net.send(4, b"sender");
    // While it is written, it is like one that was cut.
    let output = wait_for("the packets in the file", || {
        let output = report(&file, &[]);
        output.stdout.contains("4 vanished").then_some(output)
    });
    output.assert_code(1);
    running.signal(Signal::KILL);
    assert!(!running.wait().success());
    loaded.wait_until_gone();
    let output = report(&file, &[]);
    output.assert_code(1);
    output.assert_says(&["was killed"]);
    assert!(output.stdout.contains("4 vanished"), "{output:?}");
    let again = record(&file, &["--force", "--netns", &net.name]);
    again.assert_code(0);
    report(&file, &[]).assert_code(0);
}

/// A recording of more drops than one file of this size holds.
fn storm(net: &Net, file: &Path, options: &[&str]) -> Running {
    let own = ["record", "-v", "--netns", &net.name, "-o", text(file)];
    let running = Running::start(tracer(&[&own, options].concat()));
    running.wait_for_stderr("attached");
    running
}

#[test]
fn files_that_follow_one_another_add_up() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("rec");
    let running = storm(&net, &file, &["--max-size", "64K", "--keep", "100"]);
    let mut sent = 0;
    wait_for("the second file", || {
        // Each from a port of its own.
        for _ in 0..200 {
            net.send(1, b"sender");
        }
        sent += 200;
        directory.path().join("rec.2").exists().then_some(())
    });
    running.signal(Signal::INT);
    let output = running.finish();
    output.assert_code(1);
    let vanished = format!("{sent} packets vanished");
    assert!(output.stderr.contains(&vanished), "{sent}: {output:?}");
    let mut drops = 0;
    for entry in fs::read_dir(directory.path()).expect("there") {
        let output = report(&entry.expect("there").path(), &["--format", "json"]);
        assert_eq!(output.stderr, "");
        let lines = output.json();
        let end = lines.last().expect("lines");
        assert_eq!(end["complete"], true, "{end}");
        drops += end["drops"].as_u64().expect("a number");
        for line in lines.iter().filter(|line| line["type"] == "drop") {
            assert_eq!(line["process"]["comm"], "sender", "with details: {line}");
        }
    }
    assert_eq!(drops, sent);
}

#[test]
fn a_full_disk() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("rec");
    // A file of this process may not get longer than 32 blocks of 512 bytes,
    // which fails as a full disk does.
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 32; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_tracer"))
        .args(["record", "-v", "--netns", &net.name, "-o", text(&file)])
        .process_group(0);
    let running = Running::start(command);
    running.wait_for_stderr("attached");
    let loaded = running.loaded();
    wait_for("the limit", || {
        // Few, so that some of them fit.
        net.send(1, b"sender");
        // It ends by itself.
        loaded.is_gone().then_some(())
    });
    let output = running.finish();
    output.assert_code(125);
    let last = output.stderr.lines().last().expect("an error");
    for word in [text(&file), "cannot write", "what was recorded before"] {
        assert!(last.contains(word), "{output:?}");
    }
    let output = report(&file, &[]);
    output.assert_code(1);
    output.assert_says(&["shown is what is before"]);
}
