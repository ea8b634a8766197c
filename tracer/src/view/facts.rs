//! What is known of one row, fact by fact, for reports that have room for all of
//! it; and the commands that show the same on the host. Printable, but not
//! escaped for any format.

use std::fmt::Write as _;

use tracer_common::tally::outcome;

use super::{text, why};
use crate::{
    flows::{Row, until_zero},
    judge::names,
};

/// What became of the packets, in a word or two.
pub fn fate(row: &Row) -> &'static str {
    match row.evidence.key.outcome {
        outcome::LOST_LATER if row.evidence.received() => "sent, received, then lost",
        outcome::LOST_LATER => "sent, then lost",
        outcome::STRAY | outcome::UNRELATED => "lost",
        _ => "dropped",
    }
}

/// `ICMPv6 destination unreachable/3 raised to the outer source`.
pub fn told(row: &Row) -> Option<String> {
    let (version, kind, code) = row.evidence.told()?;
    let name = if version == 6 { "ICMPv6" } else { "ICMP" };
    let kind = names::icmp(version, kind).map_or(kind.to_string(), str::to_owned);
    let whom = if text::inner_is_told(row) {
        ""
    } else {
        " to the outer source"
    };
    Some(format!("{name} {kind}/{code} raised{whom}"))
}

/// `IPv6 fe80::1 > fe80::2 (ICMPv6 echo request)`.
pub fn packet(flow: &tracer_common::flow::Flow) -> String {
    let protocol = text::protocol(flow);
    let family = text::family(flow);
    let endpoints = text::endpoints(flow);
    match protocol.is_empty() {
        true => format!("{family} {endpoints}"),
        false => format!("{family} {endpoints} ({protocol})"),
    }
}

/// All of it, each with its name; what is not known is not there.
pub fn of(row: &Row) -> Vec<(&'static str, String)> {
    let evidence = &row.evidence;
    let record = evidence.record.as_deref();
    let mut facts = vec![(
        "cause",
        format!(
            "{} ({}): {}",
            row.cause.id,
            row.confidence.word(),
            row.cause.title
        ),
    )];
    let mut fact = |name, text: String| {
        if !text.is_empty() {
            facts.push((name, text));
        }
    };
    fact("condition", row.cause.condition.to_owned());
    fact("inner packet", sized(evidence.flow(), record, |r| r.length));
    if let Some(record) = record {
        if record.origin.ethertype != 0 {
            fact("carried in it", packet(&record.origin));
        }
        if record.outer.ethertype != 0 {
            let outer = sized(&record.outer, Some(record), |r| r.outer_length);
            fact("outer packet", outer);
        }
    }
    fact("tunnel", text::tunnel(row));
    fact("path", row.path.join(" > "));
    let mut freed = text::place(evidence.place.as_ref());
    let by = if evidence.by_kfree() {
        "kfree_skb"
    } else {
        "consume_skb"
    };
    let _ = write!(freed, " by {by}");
    if let Some(record) = record.filter(|record| record.freed_dev[0] != 0) {
        let dev = crate::devices::printable(until_zero(&record.freed_dev));
        let _ = write!(freed, ", on {dev}");
    }
    fact("freed in", freed);
    fact("drop reason", evidence.reason.clone().unwrap_or_default());
    if let Some(route) = text::route_of(row) {
        let to = text::looked_up(row).map_or(String::new(), |to| format!(" for {to}"));
        fact("route", format!("{route}{to}"));
    }
    if let Some(why) = why::of(row) {
        fact("look-up failed by", why.sentence());
    }
    let counters = text::counters(row);
    fact(
        "counters",
        match counters.is_empty() {
            true => "no error counter of the device moved".to_owned(),
            false => counters,
        },
    );
    fact(
        "sender told",
        told(row).unwrap_or_else(|| "no ICMP error was seen".to_owned()),
    );
    fact("sender", text::sender(row));
    if let Some(record) = record {
        if record.mark != 0 {
            fact("mark", format!("{:#x}", record.mark));
        }
        fact("CPU", record.cpu.to_string());
    }
    fact("what to do", text::remedy(row));
    fact("fixed upstream by", fixes(row));
    facts
}

/// Commits that fix it, where they fix this.
pub fn fixes(row: &Row) -> String {
    // That of the route type is for RTN_LOCAL.
    match row.evidence.key.route_type {
        2 => row.cause.fixes.join(", "),
        _ => String::new(),
    }
}

fn sized(
    flow: &tracer_common::flow::Flow,
    record: Option<&tracer_common::record::Record>,
    length: impl Fn(&tracer_common::record::Record) -> u32,
) -> String {
    match record.map(length) {
        Some(bytes) if bytes != 0 => format!("{}, {bytes} bytes", packet(flow)),
        _ => packet(flow),
    }
}

/// Commands that show on the host what the verdict says.
pub fn commands(row: &Row) -> Vec<String> {
    let mut commands = vec![format!("tracer explain {}", row.cause.id)];
    let netns = match &row.netns {
        // What is no name cannot be given to ip.
        Some(label) if label.contains([':', '/', ' ']) => return commands,
        Some(name) => format!("-n {} ", shell(name.as_bytes())),
        None => String::new(),
    };
    if let Some(device) = &row.evidence.device {
        let name = shell(&device.name);
        commands.push(format!("ip {netns}-d -s -s link show dev {name}"));
    }
    let of_lookup = row.evidence.route_seen() && row.evidence.key.outcome == outcome::DROPPED;
    if let Some(to) = text::looked_up(row).filter(|_| of_lookup) {
        let answer = row.evidence.record.as_ref().map(|record| record.route);
        let mut command = format!("ip {netns}route get {to}");
        if let Some(mark) = answer.map(|route| route.mark).filter(|mark| *mark != 0) {
            let _ = write!(command, " mark {mark:#x}");
        }
        commands.push(command);
    }
    commands
}

/// A word of a shell's command line: printable, without backticks.
pub fn shell(word: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./:@%+=,".contains(byte);
    match str::from_utf8(word) {
        Ok(text) if !text.is_empty() && word.iter().all(plain) => text.to_owned(),
        _ => {
            let mut quoted = String::from("$'");
            for byte in word {
                match byte {
                    b'\'' | b'\\' => {
                        let _ = write!(quoted, "\\{}", char::from(*byte));
                    }
                    b'`' => quoted.push_str("\\x60"),
                    b' '..=b'~' => quoted.push(char::from(*byte)),
                    _ => {
                        let _ = write!(quoted, "\\x{byte:02x}");
                    }
                }
            }
            quoted.push('\'');
            quoted
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// What bash makes of it.
    fn read(quoted: &str) -> Option<Vec<u8>> {
        let script = format!("printf %s {quoted}");
        let output = Command::new("bash").args(["-c", &script]).output();
        Some(output.ok()?.stdout)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_word_is_one_word(word in proptest::collection::vec(1_u8.., 0..24)) {
            let quoted = shell(&word);
            prop_assert!(quoted.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert!(!quoted.contains('`'));
            if let Some(back) = read(&quoted) {
                prop_assert_eq!(back, word);
            }
        }
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(shell(b"fou_test"), "fou_test");
        assert_eq!(shell(b""), "$''");
        assert_eq!(shell(b"a b"), "$'a b'");
        assert_eq!(shell(b"$(x)`y`'\\"), "$'$(x)\\x60y\\x60\\'\\\\'");
        assert_eq!(shell(b"v\xff\x1b"), "$'v\\xff\\x1b'");
    }
}
