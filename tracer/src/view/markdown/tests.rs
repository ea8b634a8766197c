use proptest::prelude::*;

use super::*;

#[test]
fn what_is_no_word_is_code() {
    assert_eq!(
        words("the underlay route to 127.0.0.1 is RTN_LOCAL via lo; this kernel's sit"),
        "the underlay route to `127.0.0.1` is `RTN_LOCAL` via lo; this kernel's sit"
    );
    assert_eq!(
        words("(to fe80::100:1), ping[7]"),
        "(to `fe80::100:1`), `ping[7]`"
    );
    for evil in [
        "@all", "#12", "<b>", "*x*", "_x_", "www.x.y", "a|b", "!", "--", "-", "ä", "[x](y)",
    ] {
        let marked = words(evil);
        assert!(
            marked.starts_with('`') && marked.ends_with(['`', ')']),
            "{marked}"
        );
    }
    assert_eq!(
        words("IPv6 fe80::1 > fe80::2, by t0 > t1 (TCP)"),
        "IPv6 `fe80::1 > fe80::2`, by `t0 > t1` (TCP)"
    );
    assert_eq!(words("> >"), "`> >`");
    assert_eq!(words("5 packets, at most."), "5 packets, at most.");
}

#[test]
fn code_holds_anything() {
    assert_eq!(code("a"), "`a`");
    assert_eq!(code("`a``"), "``` `a`` ```");
    assert_eq!(code("a\nb"), "`a\\x0ab`");
    assert_eq!(code(""), "");
    assert_eq!(cell(&code("a|b")), "`a\\|b`");
    let mut out = String::new();
    fenced(&mut out, &["````".to_owned()]);
    assert_eq!(out, "`````sh\n````\n`````\n\n");
}

/// What is left of a text without its pieces of code.
fn without_code(text: &str) -> String {
    let mut left = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('`') {
        left.push_str(&rest[..at]);
        let fence: String = rest[at..].chars().take_while(|char| *char == '`').collect();
        rest = &rest[at + fence.len()..];
        // It ends at a run of as many.
        let mut end = 0;
        loop {
            let found = rest[end..].find('`').expect("an end");
            let run = rest[end + found..]
                .chars()
                .take_while(|char| *char == '`')
                .count();
            end += found + run;
            if run == fence.len() {
                break;
            }
        }
        rest = &rest[end..];
    }
    left + rest
}

proptest! {
    #[test]
    fn any_sentence_is_words_and_code(text in "(\\PC|[`*_<>|@# \n]){0,40}") {
        let marked = words(&text);
        let left = without_code(&marked);
        let harmless = |char: char| char.is_ascii_alphanumeric() || " '(),.;:-".contains(char);
        prop_assert!(left.chars().all(harmless), "{left:?} of {marked:?}");
        prop_assert!(!marked.contains(char::is_control));
        let unescaped = cell(&marked).replace("\\|", "");
        prop_assert!(!unescaped.contains('|'));
    }
}
