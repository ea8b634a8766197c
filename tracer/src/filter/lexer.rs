//! An expression's words and signs.

use std::ops::Range;

use super::error::Error;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A word as it stands.
    Word(String),
    /// A word in quotation marks: never a keyword, any bytes.
    Quoted(Vec<u8>),
    And,
    Or,
    Not,
    Open,
    Close,
    End,
}

#[derive(Clone, Debug)]
pub struct Token {
    pub kind: Kind,
    /// Bytes of the text.
    pub spot: Range<usize>,
}

/// Ends a word.
fn is_sign(char: char) -> bool {
    char.is_whitespace() || matches!(char, '(' | ')' | '!' | '&' | '|' | '"')
}

/// All tokens, the last of which is the end.
pub fn tokens(text: &str) -> Result<Vec<Token>, Error> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(char) = text[at..].chars().next() {
        if char.is_whitespace() {
            at += char.len_utf8();
            continue;
        }
        let rest = &text[at..];
        let (kind, length) = match char {
            '(' => (Kind::Open, 1),
            ')' => (Kind::Close, 1),
            '!' => (Kind::Not, 1),
            '&' if rest.starts_with("&&") => (Kind::And, 2),
            '|' if rest.starts_with("||") => (Kind::Or, 2),
            '&' => {
                return Err(Error::new(
                    "a single '&': and, or && fits here",
                    text,
                    at..at + 1,
                ));
            }
            '|' => {
                return Err(Error::new(
                    "a single '|': or, or || fits here",
                    text,
                    at..at + 1,
                ));
            }
            '"' => quoted(text, at)?,
            _ => {
                let word = &rest[..rest.find(is_sign).unwrap_or(rest.len())];
                let kind = match word {
                    "and" => Kind::And,
                    "or" => Kind::Or,
                    "not" => Kind::Not,
                    _ => Kind::Word(word.to_owned()),
                };
                (kind, word.len())
            }
        };
        tokens.push(Token {
            kind,
            spot: at..at + length,
        });
        at += length;
    }
    tokens.push(Token {
        kind: Kind::End,
        spot: at..at,
    });
    Ok(tokens)
}

/// The quoted word that begins at `start`, and its length in the text.
fn quoted(text: &str, start: usize) -> Result<(Kind, usize), Error> {
    let bytes = text.as_bytes();
    let mut word = Vec::new();
    let mut at = start + 1;
    loop {
        match bytes.get(at) {
            None => {
                return Err(Error::new(
                    "no end of this quotation: \" fits behind it",
                    text,
                    start..text.len(),
                ));
            }
            Some(b'"') => return Ok((Kind::Quoted(word), at + 1 - start)),
            Some(b'\\') => {
                let (byte, length) = escape(&text[at..]).ok_or_else(|| {
                    let spot = at..at + 1;
                    Error::new(
                        "an unknown escape: \\\\, \\\" or \\xNN fits here",
                        text,
                        spot,
                    )
                })?;
                word.push(byte);
                at += length;
            }
            Some(byte) => {
                word.push(*byte);
                at += 1;
            }
        }
    }
}

/// The byte that an escape at the start of `text` stands for, and its length.
fn escape(text: &str) -> Option<(u8, usize)> {
    match text.as_bytes().get(1)? {
        byte @ (b'"' | b'\\') => Some((*byte, 2)),
        b'x' => {
            let digits = text.get(2..4)?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let byte = u8::from_str_radix(digits, 16).ok()?;
            plain.then_some((byte, 4))
        }
        _ => None,
    }
}
