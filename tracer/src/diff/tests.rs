//! On recordings of the seed that real kernels made.

use std::path::PathBuf;

use super::*;

fn recording(name: &str) -> Run {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/recordings", name]
        .iter()
        .collect();
    Run {
        name: name.to_owned(),
        ..Run::read(&path).unwrap()
    }
}

#[test]
fn a_recording_is_like_itself() {
    for name in ["seed-5.10.rec", "seed-6.1.rec"] {
        let (a, b) = (recording(name), recording(name));
        let compared = compare(&a, &b);
        assert!(!compared.is_empty());
        assert!(compared.iter().all(|one| one.verdict == Verdict::Same));
        assert_eq!(exit_status(&a, &b, &compared), 0);
    }
}

#[test]
fn the_fix_of_the_seed_is_told() {
    let (a, b) = (recording("seed-5.10.rec"), recording("seed-6.1.rec"));
    let compared = compare(&a, &b);
    assert_eq!(exit_status(&a, &b, &compared), 1);
    let text = render(&a, &b, &compared);
    let expected = "\
A: seed-5.10.rec (5.10.0-32-amd64)
B: seed-6.1.rec (6.1.0-56-amd64)

IPv6 to fe80::d0b0:dfff:fe4c:fcbc (ICMPv6 echo request) over fou_test (sit, fou, remote 127.0.0.1): dropped in A, sent, then lost in B
";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("this kernel's sit accepts RTN_UNICAST only"));
    // The other way round it is a difference as well.
    let compared = compare(&b, &a);
    assert_eq!(exit_status(&b, &a, &compared), 1);
}

#[test]
fn what_was_cut_off_is_no_difference() {
    let (mut a, b) = (recording("seed-5.10.rec"), recording("seed-6.1.rec"));
    a.report.broken_off = true;
    let compared = compare(&a, &b);
    assert_eq!(count(&compared, Verdict::Different), 0);
    assert_eq!(count(&compared, Verdict::Unsure), 1);
    assert_eq!(exit_status(&a, &b, &compared), crate::COULD_NOT_TRACE);
    assert!(render(&a, &b, &compared).contains("A is incomplete"));
}

#[test]
fn what_was_not_asked_for_is_no_difference() {
    let (mut a, b) = (recording("seed-5.10.rec"), recording("seed-6.1.rec"));
    a.scope.filter = Some("icmp6".to_owned());
    let compared = compare(&a, &b);
    assert_eq!(exit_status(&a, &b, &compared), crate::COULD_NOT_TRACE);
    assert!(render(&a, &b, &compared).contains("with other options"));
}

#[test]
fn what_only_one_saw_is_no_difference() {
    let (mut a, b) = (recording("seed-6.1.rec"), recording("seed-6.1.rec"));
    a.report.rows.clear();
    a.sent.clear();
    let compared = compare(&a, &b);
    assert!(compared.iter().all(|one| one.verdict == Verdict::OnlyB));
    assert_eq!(exit_status(&a, &b, &compared), crate::COULD_NOT_TRACE);
}

#[test]
fn a_flow_that_passes_now_is_a_difference() {
    let (a, mut b) = (recording("seed-6.1.rec"), recording("seed-6.1.rec"));
    b.report.rows.clear();
    let compared = compare(&a, &b);
    assert!(compared.iter().all(|one| one.verdict == Verdict::Different));
    let text = render(&a, &b, &compared);
    assert!(text.contains("sent, then lost in A, sent in B"), "{text}");
}

#[test]
fn lines_are_json() {
    let (a, b) = (recording("seed-5.10.rec"), recording("seed-6.1.rec"));
    let text = lines(&a, &b, &compare(&a, &b));
    let parsed: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(parsed[0]["verdict"], "different");
    assert_eq!(parsed[0]["a"]["dropped"]["route-type-not-accepted"], 2);
    assert_eq!(parsed[0]["b"]["lost"]["no-listener"], 1);
    let end = parsed.last().unwrap();
    assert_eq!(
        (&end["type"], &end["different"]),
        (&json!("end"), &json!(1))
    );
}

#[test]
fn ports_that_senders_choose_do_not_count() {
    let flow = |sport, dport| Flow {
        sport,
        dport,
        ..Flow::default()
    };
    assert_eq!(service(&flow(40000, 53)), 53);
    assert_eq!(service(&flow(53, 40000)), 53);
    assert_eq!(service(&flow(40000, 50000)), 0);
    assert_eq!(service(&flow(0, 0)), 0);
    assert_eq!(
        namespace(Some(&"net:[4026532]".to_owned())).as_deref(),
        Some("net")
    );
    assert_eq!(namespace(Some(&"A".to_owned())).as_deref(), Some("A"));
}
