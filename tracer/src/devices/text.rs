//! Names that can hold any bytes, as text for people.

/// How many names a message lists at most.
const LISTED: usize = 5;

/// The name as text that is safe on a terminal: valid UTF-8 as it is, control
/// characters, those that turn the direction of writing around, and other
/// bytes as `\xNN`.
pub fn printable(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    let escape = |text: &mut String, bytes: &[u8]| {
        for byte in bytes {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    };
    for chunk in name.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_control() || is_bidirectional(char) {
                escape(&mut text, char.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(char);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

/// Unicode's `Bidi_Control` and line separators: invisible, and what comes after
/// them is not where it seems to be.
fn is_bidirectional(char: char) -> bool {
    matches!(
        char,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// The first few of the names, and how many there are besides.
pub(super) fn some_of(names: &[String]) -> String {
    let listed = names.get(..LISTED).unwrap_or(names).join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

/// `, did you mean a, b?` with the known names closest to the one asked for,
/// or nothing.
pub fn did_you_mean<'a>(asked: &[u8], known: impl Iterator<Item = &'a [u8]>) -> String {
    let mut close: Vec<(usize, &[u8])> = known
        .filter_map(|name| Some((closeness(asked, name)?, name)))
        .collect();
    close.sort_unstable();
    close.dedup();
    if close.is_empty() {
        return String::new();
    }
    let names: Vec<String> = close.iter().map(|(_, name)| printable(name)).collect();
    format!(", did you mean {}?", some_of(&names))
}

/// How far the names are apart, if they are close: 0 when only case differs.
fn closeness(asked: &[u8], known: &[u8]) -> Option<usize> {
    // Namespace names can be long, and the distance is quadratic.
    const LONGEST: usize = 64;
    if asked.is_empty() || asked.len() > LONGEST || known.len() > LONGEST {
        return None;
    }
    if asked.eq_ignore_ascii_case(known) {
        return Some(0);
    }
    let distance = edits(asked, known);
    let allowed = if asked.len() < 4 { 1 } else { 2 };
    let extends = asked.len() >= 2 && (known.starts_with(asked) || asked.starts_with(known));
    (distance <= allowed || (extends && !known.is_empty())).then_some(distance)
}

/// The Levenshtein distance.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_any_bytes() {
        assert_eq!(printable(b"gre0"), "gre0");
        assert_eq!(printable("tün-é".as_bytes()), "tün-é");
        assert_eq!(printable(b"a\x1b[2J\xff"), "a\\x1b[2J\\xff");
        assert_eq!(printable("\u{9b}m".as_bytes()), "\\xc2\\x9bm");
        assert_eq!(printable("a\u{202e}b".as_bytes()), "a\\xe2\\x80\\xaeb");
    }

    #[test]
    fn counts_edits() {
        assert_eq!(edits(b"", b""), 0);
        assert_eq!(edits(b"kitten", b"sitting"), 3);
        assert_eq!(edits(b"vxlan10", b"vxlan01"), 2);
        assert_eq!(edits(b"gre", b""), 3);
    }

    #[test]
    fn suggests_only_close_names() {
        let known: [&[u8]; 5] = [b"vxlan0", b"vxlan1", b"lo", b"eth0", b"vxlan1"];
        assert_eq!(
            did_you_mean(b"vxlan2", known.into_iter()),
            ", did you mean vxlan0, vxlan1?"
        );
        assert_eq!(
            did_you_mean(b"ETH0", known.into_iter()),
            ", did you mean eth0?"
        );
        assert_eq!(did_you_mean(b"wireguard", known.into_iter()), "");
        assert_eq!(did_you_mean(b"", known.into_iter()), "");
    }

    #[test]
    fn lists_a_few() {
        let names: Vec<String> = (0..7).map(|n| n.to_string()).collect();
        assert_eq!(some_of(&names), "0, 1, 2, 3, 4 and 2 more");
        assert_eq!(some_of(&names[..2]), "0, 1");
    }
}
