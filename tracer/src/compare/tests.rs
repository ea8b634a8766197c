//! On recordings of the seed that real kernels made.

use std::path::PathBuf;

use super::*;
use crate::record::Begin;

fn sides(name: &str, a: &str, b: &str) -> [Side; 2] {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/recordings", name]
        .iter()
        .collect();
    let asked = Asked {
        a: a.to_owned(),
        b: b.to_owned(),
    };
    let begin = |begin: Begin| Pair::new(&begin.start, &asked, &report::world(&path));
    let (mut pair, whole) = report::take_in(&path, begin, Pair::take).unwrap();
    assert!(whole);
    [
        Side::of("A", a, &mut pair.a, false),
        Side::of("B", b, &mut pair.b, false),
    ]
}

#[test]
fn twins_go_the_same_way() {
    let [a, b] = sides("seed-6.1.rec", "inner ip6", "inner ip");
    let (ways, parting) = compare(&a, &b);
    assert_eq!(parting.parted, None, "{ways:?}");
    assert_eq!(exit_status(&a, &b, parting), 0);
    let text = render(&a, &b, &ways, parting);
    for words in [
        "A: inner ip6: 1 vanished, 1 sent",
        "B: inner ip: 1 vanished, 1 sent",
        "fou_test (sit, fou, remote 127.0.0.1)",
        "they do not part",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_side_that_is_not_there_is_no_difference() {
    let [a, b] = sides("seed-5.10.rec", "inner ip6", "inner ip");
    let (ways, parting) = compare(&a, &b);
    assert_eq!(exit_status(&a, &b, parting), crate::COULD_NOT_TRACE);
    let text = render(&a, &b, &ways, parting);
    assert!(text.contains("Of B no packet was seen."), "{text}");
    assert!(text.contains("accepts RTN_UNICAST only"), "{text}");
}

#[test]
fn what_vanishes_parts_from_what_passes() {
    let [a, _] = sides("seed-5.10.rec", "inner ip6", "inner ip");
    let [_, mut b] = sides("seed-6.1.rec", "inner ip6", "inner ip");
    // Its twin, on a host where somebody listens.
    b.report.rows.clear();
    let (ways, parting) = compare(&a, &b);
    assert_eq!(exit_status(&a, &b, parting), 1);
    let text = render(&a, &b, &ways, parting);
    for words in [
        "Last step in common: taken by its driver, yes.",
        "They part at: handed to the underlay: no in A, yes in B.",
        "Not known of both, so that they may part there already: route of the outer packet.",
        "nothing of it was seen to vanish",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let parsed: Value = serde_json::from_str(&line(&a, &b, &ways, parting)).unwrap();
    assert_eq!(parsed["parted"], "handed to the underlay");
    assert_eq!(
        parsed["a"]["verdicts"][0]["cause"],
        "route-type-not-accepted"
    );
    assert_eq!(parsed["b"]["sent"], 1);
}
