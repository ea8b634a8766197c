//! Judging: each expectation once met and once not.

use super::*;
use crate::scenario::file::Scenario;

const START: &str = r#"{"v":1,"type":"start"}"#;
const DROP: &str = r#"{"v":1,"type":"drop","cause":"c","tunnel":{"dev":"t0"},"inner":{"dst":"fd09::2"},"count":2,"told":null}"#;
const NOISE: &str = r#"{"v":1,"type":"drop","cause":"c","tunnel":{"dev":"t0"},"inner":{"dst":"ff02::2"},"count":9}"#;
const DEVICE: &str = r#"{"v":1,"type":"device","dev":"t0","netns":"A","packets_in":5,"sent":3,"dropped":2,"unexplained":0,"by_cause":{"c":2},"asymmetry":[{"attribute":"family","value":"ipv4","passed":3,"dropped":0}]}"#;
const END: &str = r#"{"v":1,"type":"end","complete":true}"#;

fn expect(text: &str) -> Expect {
    let head = "name='n'\ntitle='t'\ntrigger='t'\n[[expect]]\nkernels=['*']\n";
    let scenario = Scenario::parse(&format!("{head}{text}\n")).unwrap();
    scenario.expect[0].clone()
}

fn section(part: &str, status: Option<i32>, text: &str) -> Section {
    Section {
        name: "n".into(),
        part: part.into(),
        status,
        text: text.into(),
    }
}

/// What is wrong when a run of exit status 1 prints `lines`.
fn wrong(want: &str, lines: &[&str]) -> Vec<String> {
    let setup = section("setup.out", Some(0), "");
    let trigger = section("trigger.out", Some(1), &lines.join("\n"));
    let human = section("human.out", Some(1), "one\ntwo\n");
    scenario(&expect(want), &[&setup, &trigger, &human]).wrong
}

const C: &str = "[[expect.drop]]\ncause = 'c'\n";

#[test]
fn drops_are_counted_together_without_noise() {
    let all = [START, DROP, NOISE, DROP, DEVICE, END];
    for right in [
        "",
        "count = 4",
        "count_min = 4",
        "count_max = 4",
        "told = false\ncount = 4",
    ] {
        assert_eq!(
            wrong(&format!("{C}{right}"), &all),
            Vec::<String>::new(),
            "{right}"
        );
    }
    for bad in [
        "count = 3",
        "count_min = 5",
        "count_max = 3",
        "count = 0",
        "told = true",
    ] {
        assert_eq!(wrong(&format!("{C}{bad}"), &all).len(), 1, "{bad}");
    }
    assert_eq!(
        wrong(&format!("ignore = []\n{C}count = 13"), &all),
        Vec::<String>::new()
    );
}

#[test]
fn a_drop_that_is_not_there() {
    let none = [START, DEVICE, END];
    for bad in ["", "count = 1", "count_min = 1", "count_max = 1"] {
        assert_eq!(wrong(&format!("{C}{bad}"), &none).len(), 1, "{bad}");
    }
    assert!(wrong(&format!("{C}count = 0"), &none).is_empty());
    let without = DROP.replace(r#""count":2,"#, "");
    assert_eq!(wrong(C, &[START, &without, END]).len(), 1);
}

#[test]
fn unexpected_drops() {
    let all = [START, DROP, END];
    assert!(wrong("", &all)[0].contains("nobody expected"));
    assert!(wrong("only = false", &all).is_empty());
    assert!(wrong("ignore = [{ inner_dst = 'fd09::2' }]", &all).is_empty());
    assert_eq!(
        wrong("ignore = ['kernel-noise', { inner_dst = 'fd09::3' }]", &all).len(),
        1
    );
}

#[test]
fn exit_status_and_setup() {
    assert!(wrong("exit = 1", &[START, END]).is_empty());
    assert_eq!(wrong("exit = 0", &[START, END]).len(), 1);
    let want = expect("exit = 0");
    let good = section("setup.out", Some(0), "");
    let bad = section("setup.out", Some(1), "");
    let why = section("setup.err", Some(1), "Unknown device type.\n\n");
    let cut = section("trigger.out", None, START);
    assert!(scenario(&want, &[&bad, &why]).wrong[0].contains("Unknown device type."));
    assert!(scenario(&want, &[]).wrong[0].contains("before this scenario"));
    assert!(scenario(&want, &[&good]).wrong[0].contains("before the trigger"));
    assert!(scenario(&want, &[&good, &cut]).wrong[0].contains("during this pass"));
    let broken = section("setup.out", None, "");
    assert!(scenario(&want, &[&broken]).wrong[0].contains("during setup"));
}

#[test]
fn the_end_has_to_be_there_and_complete() {
    let incomplete = END.replace("true", "false");
    assert_eq!(wrong("", &[START, &incomplete]).len(), 1);
    assert!(wrong("complete = false", &[START, &incomplete]).is_empty());
    assert_eq!(wrong("complete = false", &[START]).len(), 1);
    let silent = END.replace(r#","complete":true"#, "");
    assert_eq!(wrong("", &[START, &silent]).len(), 1);
}

#[test]
fn every_ledger_balances() {
    for bad in [
        DEVICE.replace(r#""sent":3"#, r#""sent":2"#),
        DEVICE
            .replace(r#""sent":3"#, r#""sent":2"#)
            .replace(r#""unexplained":0"#, r#""unexplained":1"#),
        DEVICE.replace(r#""sent":3,"#, ""),
        DEVICE.replace(r#""sent":3"#, r#""sent":18446744073709551615"#),
        DEVICE.replace(r#""sent":3"#, r#""sent":-3"#),
    ] {
        assert_eq!(wrong("", &[START, &bad, END]).len(), 1, "{bad}");
        assert!(wrong("balanced = false", &[START, &bad, END]).is_empty());
    }
}

#[test]
fn devices_field_by_field() {
    let pairs = [
        ("", "netns = 'B'"),
        ("netns = 'A'", "packets_in = 4"),
        ("packets_in = 5", "packets_in_min = 6"),
        ("packets_in_min = 5", "packets_in_max = 4"),
        ("packets_in_max = 5", "sent = 4"),
        ("sent = 3", "sent_min = 4"),
        ("sent_min = 3", "sent_max = 2"),
        ("sent_max = 3", "dropped = 1"),
        ("dropped = 2", "dropped_min = 3"),
        ("dropped_min = 2", "dropped_max = 1"),
        ("dropped_max = 2", "unexplained = 1"),
        ("unexplained = 0", "unexplained_min = 1"),
        (
            "unexplained_min = 0\nunexplained_max = 0",
            "by_cause = { c = 1 }",
        ),
        ("by_cause = { c = 2 }", "by_cause = { d = 1 }"),
        (
            "asymmetry = [{ attribute = 'family', value = 'ipv4', passed = 3, dropped = 0 }]",
            "asymmetry = [{ attribute = 'family', value = 'ipv4', passed = 2 }]",
        ),
        (
            "asymmetry = [{ attribute = 'family', value = 'ipv4' }]",
            "asymmetry = [{ attribute = 'family', value = 'ipv6' }]",
        ),
        (
            "",
            "asymmetry = [{ attribute = 'size', value = 'ipv4', dropped = 0 }]",
        ),
        (
            "",
            "asymmetry = [{ attribute = 'family', value = 'ipv4', dropped = 1 }]",
        ),
    ];
    for (right, bad) in pairs {
        let of = |fields| format!("[[expect.device]]\ndev = 't0'\n{fields}");
        assert_eq!(
            wrong(&of(right), &[START, DEVICE, END]),
            Vec::<String>::new(),
            "{right}"
        );
        assert_eq!(wrong(&of(bad), &[START, DEVICE, END]).len(), 1, "{bad}");
    }
    let none = "[[expect.device]]\ndev = 't1'";
    assert_eq!(wrong(none, &[START, DEVICE, END]).len(), 1);
    let twice = "[[expect.device]]\ndev = 't0'\nsent = 6\nby_cause = { c = 4 }";
    assert!(wrong(twice, &[START, DEVICE, DEVICE, END]).is_empty());
    let absent = DEVICE.replace(r#""sent":3,"#, "");
    let zero = "balanced = false\n[[expect.device]]\ndev = 't0'\nsent = 0";
    assert_eq!(wrong(zero, &[START, &absent, END]).len(), 1);
}

#[test]
fn the_form_for_people() {
    let all = [START, END];
    for right in [
        "contains = ['one', 'two']",
        "lacks = ['three']",
        "max_lines = 2",
    ] {
        assert!(
            wrong(&format!("[expect.human]\n{right}"), &all).is_empty(),
            "{right}"
        );
    }
    for bad in ["contains = ['three']", "lacks = ['two']", "max_lines = 1"] {
        assert_eq!(
            wrong(&format!("[expect.human]\n{bad}"), &all).len(),
            1,
            "{bad}"
        );
    }
    let setup = section("setup.out", Some(0), "");
    let trigger = section("trigger.out", Some(1), &all.join("\n"));
    let want = expect("exit = 1\n[expect.human]");
    assert!(scenario(&want, &[&setup, &trigger]).wrong[0].contains("second pass"));
    let human = section("human.out", Some(0), "");
    assert_eq!(scenario(&want, &[&setup, &trigger, &human]).wrong.len(), 1);
}

#[test]
fn a_broken_contract_fails_whatever_else_is_right() {
    let polluted = [START, "PING 1.1.1.1", END];
    assert!(wrong("", &polluted)[0].contains("not JSON"));
}

#[test]
fn a_trigger_may_fail_unless_it_must_not() {
    let setup = section("setup.out", Some(0), "");
    let trigger = section("trigger.out", Some(0), &[START, END].join("\n"));
    let good = section("trigger.err", Some(0), "done\n");
    let bad = section(
        "trigger.err",
        Some(0),
        "no way\nWARN the command ended with exit status: 1\n",
    );
    for (want, err, wrong) in [
        ("", &bad, 0),
        ("trigger_ok = true", &good, 0),
        ("trigger_ok = true", &bad, 1),
    ] {
        let verdict = scenario(&expect(want), &[&setup, &trigger, err]);
        assert_eq!(verdict.wrong.len(), wrong, "{want}: {:?}", verdict.wrong);
    }
}
