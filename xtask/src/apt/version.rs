//! Order of Debian package versions.

use std::cmp::Ordering;

/// Compares `[epoch:]upstream[-revision]` as dpkg does.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (split(left), split(right));
    left.0
        .cmp(&right.0)
        .then_with(|| part(left.1, right.1))
        .then_with(|| part(left.2, right.2))
}

fn split(version: &str) -> (u32, &str, &str) {
    let (epoch, rest) = version
        .split_once(':')
        .and_then(|(epoch, rest)| Some((epoch.parse().ok()?, rest)))
        .unwrap_or((0, version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Text and numbers alternate, text first.
fn part(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let (text_left, text_right) = (take(&mut left, false), take(&mut right, false));
        let (number_left, number_right) = (take(&mut left, true), take(&mut right, true));
        let order = text(text_left, text_right).then_with(|| number(number_left, number_right));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn take<'a>(from: &mut &'a str, digits: bool) -> &'a str {
    let end = from
        .find(|c: char| c.is_ascii_digit() != digits)
        .unwrap_or(from.len());
    let (taken, rest) = from.split_at(end);
    *from = rest;
    taken
}

/// `~` before the end, the end before letters, letters before the rest.
fn text(left: &str, right: &str) -> Ordering {
    let weight = |c: Option<u8>| match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(c),
        Some(c) => i32::from(c) + 256,
    };
    (0..left.len().max(right.len()))
        .map(|i| {
            weight(left.as_bytes().get(i).copied()).cmp(&weight(right.as_bytes().get(i).copied()))
        })
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// As numbers of any length.
fn number(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordered_as_dpkg_orders() {
        let ordered = [
            "5.10.223-1",
            "5.10.251-1",
            "6.1.176-1~deb11u1",
            "6.1.176-1",
            "6.1.192-1",
            "6.1.192-2",
            "6.12.9-1",
            "6.12.107-1",
            "7.3~rc2-1",
            "7.3-1",
            "7.3.4-1~bpo13+1",
            "7.3.4-1",
            "1:0.1-1",
        ];
        for (i, left) in ordered.iter().enumerate() {
            for (j, right) in ordered.iter().enumerate() {
                assert_eq!(compare(left, right), i.cmp(&j), "{left} and {right}");
            }
        }
        assert_eq!(compare("1.0", "1.00"), Ordering::Equal);
    }
}
