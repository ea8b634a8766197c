//! What cannot be done is said in one line that names it and the way out, and
//! nothing was begun.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
    thread,
};

use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use tempfile::TempDir;

use crate::support::{Output, can_trace, is_root, net::Net, tracer};

/// Nobody, by the kernel's habit.
const NOBODY: u32 = 65534;

/// The tracer as a user without any privileges runs it. The directory is its
/// home as long as it is kept.
fn unprivileged(arguments: &[&str]) -> (Command, TempDir) {
    let home = tempfile::tempdir().expect("a directory");
    let binary = home.path().join("tracer");
    // Where it was built may be closed to others. Not fs::copy: a process that
    // another test starts meanwhile would have the file open for writing, and
    // it could not be run.
    let mut copy = Command::new("cp");
    copy.arg(env!("CARGO_BIN_EXE_tracer")).arg(&binary);
    assert!(copy.status().expect("cp").success());
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("our own");
    let mut command = Command::new(binary);
    command.args(arguments).env_remove("RUST_BACKTRACE");
    if rustix::process::geteuid().is_root() {
        // Drops the supplementary groups as well.
        command.uid(NOBODY).gid(NOBODY);
    }
    (command, home)
}

/// Runs the tracer as root without these capabilities.
fn without(capabilities: &[CapabilitySet], arguments: &[&str]) -> Output {
    let command = tracer(arguments);
    // A bounding set is a thread's own, and its children's.
    let run = || {
        for capability in capabilities {
            remove_capability_from_bounding_set(*capability).expect("root may");
        }
        Output::of(command)
    };
    thread::scope(|scope| scope.spawn(run).join().expect("no panic"))
}

/// Runs the tracer in a mount namespace of its own after this shell script.
fn mounted(script: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec"])
        .arg(format!("{script}\nexec \"$@\""))
        .args(["sh", env!("CARGO_BIN_EXE_tracer")])
        .args(arguments)
        .env_remove("RUST_BACKTRACE");
    Output::of(command)
}

#[test]
fn no_privileges() {
    for arguments in [
        &["--duration", "1"][..],
        &["watch", "--duration", "1"],
        &["run", "--", "sh", "-c", "echo began"],
        &["run", "--format", "json", "--", "sh", "-c", "echo began"],
    ] {
        let (command, _home) = unprivileged(arguments);
        let output = Output::of(command);
        output.assert_code(125);
        output.assert_says(&[
            "tracer: ",
            "CAP_BPF",
            "CAP_PERFMON",
            "run as root",
            "setcap",
        ]);
        assert_eq!(output.stdout, "");
    }
}

#[test]
fn the_capability_that_is_missing_is_named() {
    if !is_root() {
        return;
    }
    let admin = CapabilitySet::SYS_ADMIN;
    let output = without(&[admin, CapabilitySet::BPF], &["--duration", "1"]);
    output.assert_code(125);
    output.assert_says(&["missing CAP_BPF, CAP_SYS_ADMIN"]);
    let output = without(&[admin, CapabilitySet::PERFMON], &["--duration", "1"]);
    output.assert_code(125);
    output.assert_says(&["missing CAP_PERFMON, CAP_SYS_ADMIN"]);
}

#[test]
fn two_capabilities_are_enough() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx0") else { return };
    let arguments = ["run", "--netns", &net.name, "--", "true"];
    without(&[CapabilitySet::SYS_ADMIN], &arguments).assert_code(0);
}

#[test]
fn doctor_and_explain_need_no_privileges() {
    let (command, _home) = unprivileged(&["doctor"]);
    let output = Output::of(command);
    output.assert_code(125);
    assert_eq!(output.stderr, "");
    for line in ["kernel  ", "types (BTF)  ", "kprobes  ", "lockdown  "] {
        assert!(output.stdout.contains(line), "{output:?}");
    }
    assert!(output.stdout.contains("missing CAP_BPF"), "{output:?}");
    assert!(output.stdout.contains("cannot trace: "), "{output:?}");

    let (command, _home) = unprivileged(&["doctor", "--format", "json"]);
    let output = Output::of(command);
    output.assert_code(125);
    let [start] = &output.json()[..] else {
        panic!("{output:?}")
    };
    assert_eq!(start["type"], "start");
    let why = start["missing"][0]["why"].as_str().expect("a reason");
    assert!(why.contains("CAP_BPF"), "{why}");

    let (command, _home) = unprivileged(&["explain"]);
    let output = Output::of(command);
    output.assert_code(0);
    assert!(output.stdout.lines().count() > 5, "{output:?}");
}

#[test]
fn no_btf() {
    if !can_trace() {
        return;
    }
    let hide = "mount -t tmpfs none /sys/kernel/btf";
    for arguments in [&["--duration", "1"][..], &["run", "--", "true"]] {
        let output = mounted(hide, arguments);
        output.assert_code(125);
        output.assert_says(&["no BTF", "CONFIG_DEBUG_INFO_BTF"]);
        assert_eq!(output.stdout, "");
    }
    let output = mounted(hide, &["doctor"]);
    output.assert_code(125);
    assert!(output.stdout.contains("types (BTF)   no BTF"), "{output:?}");
    assert!(output.stdout.contains("privileges  "), "{output:?}");
}

#[test]
fn unreadable_btf() {
    if !can_trace() {
        return;
    }
    let garble = "mount -t tmpfs none /sys/kernel/btf; echo garbage > /sys/kernel/btf/vmlinux";
    let output = mounted(garble, &["--duration", "1"]);
    output.assert_code(125);
    output.assert_says(&["tracer: ", "BTF"]);
}

#[test]
fn lockdown() {
    const SECURITY: &str = "/sys/kernel/security";
    if !can_trace() {
        return;
    }
    if !Path::new(SECURITY).exists() {
        eprintln!("skipped: this kernel has no {SECURITY}");
        return;
    }
    let lock = format!(
        "mount -t tmpfs none {SECURITY}
        echo 'none integrity [confidentiality]' > {SECURITY}/lockdown"
    );
    let output = mounted(&lock, &["--duration", "1"]);
    output.assert_code(125);
    output.assert_says(&["lockdown", "confidentiality", "lockdown=integrity"]);
}

#[test]
fn unknown_device_or_namespace() {
    if !can_trace() {
        return;
    }
    let Some(net) = Net::new("vx-known") else {
        return;
    };
    let inside = ["--netns", &net.name];
    for (arguments, words) in [
        (
            &["-i", "no-such-dev"][..],
            &["'no-such-dev'", "(ip link)"][..],
        ),
        (&["-i", ""], &["''"]),
        (&["-i", "a-name-no-device-can-have"], &["'a-name-no"]),
        (&["-i", "\x1b[7m\u{202e}"], &["'\\x1b[7m\\xe2\\x80\\xae'"]),
        (
            &[&inside[..], &["-i", "vx-knwon"]].concat(),
            &["'vx-knwon'", &net.name, "did you mean vx-known?"],
        ),
        (
            &["--netns", "no-such-netns"],
            &["'no-such-netns'", "(ip netns list)"],
        ),
        (&["--netns", "4294967295"], &["no process 4294967295"]),
        (
            &["--netns", "/dev/null"],
            &["'/dev/null' is not a network namespace"],
        ),
        (&["--netns", "/no/such"], &["'/no/such'"]),
        (&["--netns", ""], &["NAME", "PID", "PATH"]),
    ] {
        for command in [
            &["watch", "--duration", "1"][..],
            &["run", "--", "echo", "began"],
        ] {
            // Options go first: what follows -- is the command's.
            let arguments = [arguments, command].concat();
            let output = Output::of(tracer(&arguments));
            output.assert_code(2);
            // Namespaces that may not be looked into are said before.
            let last = output.stderr.lines().last().unwrap_or_default();
            assert!(last.starts_with("tracer: "), "{arguments:?} {output:?}");
            for word in words {
                assert!(last.contains(word), "{arguments:?}: no {word:?} in {last}");
            }
            assert!(!output.stderr.contains('\x1b'), "{output:?}");
            assert_eq!(output.stdout, "");
        }
    }
    // No name of this world's, but a name a device can have.
    let mut command = tracer(&["--duration", "1", "-i"]);
    command.arg(OsStr::from_bytes(b"vx\xff"));
    let output = Output::of(command);
    output.assert_code(2);
    assert!(output.stderr.contains("'vx\\xff'"), "{output:?}");
}

#[test]
fn wrong_usage() {
    for arguments in [
        &["no-such-command"][..],
        &["--no-such-option"],
        &["run"],
        &["run", "--"],
        &["run", "true"],
        &["--duration", "0"],
        &["--duration", "5 parsecs"],
        &["--format", "yaml"],
        &["explain", "no-such-cause"],
    ] {
        let output = Output::of(tracer(arguments));
        output.assert_code(2);
        assert!(!output.stderr.is_empty(), "{arguments:?}");
        assert_eq!(output.stdout, "");
    }
}

#[test]
fn a_filter_that_does_not_parse() {
    let long = ["icmp"; 40].join(" or ");
    let deep = "(".repeat(4096);
    for (filter, words, spot) in [
        ("", "a test fits here: host, net, port", "  ^"),
        (
            "host 10.0.0.1 and prot 80",
            "unknown word 'prot', did you mean proto",
            "                    ^^^^",
        ),
        ("host 10.0.0.0/8", "net before it", "       ^^^^^^^^^^"),
        ("icmp and", "a test fits here", "          ^"),
        ("(icmp", "no ) for this (", "  ^"),
        // Reverse video, text from right to left, two columns a character.
        (
            "dev \x1b[7m\u{202e}漢 or \x07 1",
            "unknown word '\\x07'",
            "                               ^^^^",
        ),
        (
            "uid no-such-user",
            "no user 'no-such-user'",
            "      ^^^^^^^^^^^^",
        ),
        (
            "netns no-such-netns",
            "no network namespace named 'no-such-netns'",
            "        ^^^^^^^^^^^^^",
        ),
        (&long, "32 tests, and, or and not fit", "^^"),
        (&deep, "nested too deep: 32 levels fit", "^"),
    ] {
        for command in [
            &["watch", "--duration", "1"][..],
            &["run", "--", "echo", "began"],
            &["doctor"],
        ] {
            // It is looked at before privileges are.
            let (command, _home) = unprivileged(&[&["--filter", filter], command].concat());
            let output = Output::of(command);
            output.assert_code(2);
            let lines: Vec<&str> = output.stderr.lines().collect();
            let [message, shown, carets] = lines[..] else {
                panic!("{output:?}")
            };
            assert!(message.starts_with("tracer: --filter: "), "{output:?}");
            assert!(message.contains(words), "no {words:?} in {message}");
            assert!(carets.ends_with(spot), "{output:?}");
            assert!(shown.chars().count() <= 76, "{output:?}");
            for char in ['\x1b', '\x07', '\u{202e}'] {
                assert!(!output.stderr.contains(char), "{output:?}");
            }
            assert_eq!(output.stdout, "");
        }
    }
}

#[test]
fn a_command_that_cannot_be_started() {
    if !can_trace() {
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    let plain = home.path().join("plain");
    fs::write(&plain, "no program").expect("our own");
    let plain = plain.to_str().expect("plain");
    let directory = home.path().to_str().expect("plain");
    for (command, why) in [
        ("/no/such/command", "No such file or directory"),
        ("no-such-command-anywhere", "No such file or directory"),
        ("", "No such file or directory"),
        (plain, "Permission denied"),
        (directory, "Permission denied"),
    ] {
        let output = Output::of(tracer(&["run", "--", command]));
        output.assert_code(125);
        output.assert_says(&["tracer: cannot run ", command, why]);
        assert_eq!(output.stdout, "");
    }
}
