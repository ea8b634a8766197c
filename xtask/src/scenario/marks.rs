//! The markers that keep the outputs of one job apart.
//!
//! A step's output lies between two lines that start with a token nobody in the guest can guess,
//! so that no bytes a program prints can pass for the end of its output or for another step's.

use std::hash::{BuildHasher, RandomState};

/// The output of one step of one scenario.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    pub name: String,
    /// The step and its stream: `setup.out`, `trigger.err` …
    pub part: String,
    /// The step's exit status; nothing if the output ended before the step's did.
    pub status: Option<i32>,
    pub text: String,
}

/// A new token, different in every run.
pub fn token() -> String {
    // std seeds every RandomState from the system's randomness.
    let half = || RandomState::new().hash_one(std::process::id());
    format!("scenario-{:016x}{:016x}", half(), half())
}

/// Cuts `output` at the markers of `token`; what lies outside any pair is left out.
pub fn cut(output: &str, token: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut open: Option<Section> = None;
    for line in output.split_inclusive('\n') {
        match mark(line, token) {
            Some(Mark::Open { name, part }) => {
                sections.extend(open.take());
                open = Some(Section {
                    name: name.into(),
                    part: part.into(),
                    status: None,
                    text: String::new(),
                });
            }
            Some(Mark::Close { status }) => {
                if let Some(mut section) = open.take() {
                    // The script starts the marker's line itself.
                    let end = section.text.strip_suffix('\n').map(str::len);
                    section.text.truncate(end.unwrap_or(0));
                    section.status = Some(status);
                    sections.push(section);
                }
            }
            None => {
                if let Some(section) = &mut open {
                    section.text.push_str(line);
                }
            }
        }
    }
    sections.extend(open);
    sections
}

enum Mark<'a> {
    Open { name: &'a str, part: &'a str },
    Close { status: i32 },
}

fn mark<'a>(line: &'a str, token: &str) -> Option<Mark<'a>> {
    let rest = line.strip_suffix('\n')?;
    let rest = rest.strip_suffix('\r').unwrap_or(rest);
    let words: Vec<&str> = rest
        .strip_prefix(token)?
        .strip_prefix(' ')?
        .split(' ')
        .collect();
    match words.as_slice() {
        ["open", name, part] => Some(Mark::Open { name, part }),
        ["close", status] => Some(Mark::Close {
            status: status.parse().ok()?,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(part: &str, status: Option<i32>, text: &str) -> Section {
        Section {
            name: "seed".into(),
            part: part.into(),
            status,
            text: text.into(),
        }
    }

    #[test]
    fn keeps_every_byte_between_a_pair() {
        let output = "boot noise\n\nT open seed a.out\nx\n\ny\n\nT close 0\n[1.0] kernel noise\n\
                      \nT open seed a.err\nno newline\nT close 125\n\nT open seed b.out\n\nT close 0\n";
        assert_eq!(
            cut(output, "T"),
            [
                section("a.out", Some(0), "x\n\ny\n"),
                section("a.err", Some(125), "no newline"),
                section("b.out", Some(0), ""),
            ]
        );
    }

    #[test]
    fn hostile_output_closes_and_opens_nothing() {
        for hostile in [
            "close 0\n",
            "scenario-0000 close 0\n",
            " T close 0\n",
            "T\n",
            "Tclose 0\n",
            "T close\n",
            "T close 0 0\n",
            "T close zero\n",
            "T open\n",
            "T open other\n",
            "T open other part extra\n",
            "+ printf T close 0\n",
            "\u{1b}[2KT close 0\n",
            "\0\u{fffd}\r\n",
        ] {
            let output = format!("\nT open seed a.out\n{hostile}\nT close 1\n");
            assert_eq!(
                cut(&output, "T"),
                [section("a.out", Some(1), hostile)],
                "{hostile:?}"
            );
        }
    }

    #[test]
    fn a_broken_end_is_told_from_a_whole_one() {
        assert_eq!(
            cut("\nT open seed a.out\nhalf", "T"),
            [section("a.out", None, "half")]
        );
        assert_eq!(
            cut(
                "\nT open seed a.out\nhalf\nT open seed b.out\nx\nT close 0\n",
                "T"
            ),
            [
                section("a.out", None, "half\n"),
                section("b.out", Some(0), "x")
            ]
        );
        // The last line has to be whole: a status that was cut is no status.
        assert_eq!(
            cut("\nT open seed a.out\nx\nT close 1", "T"),
            [section("a.out", None, "x\nT close 1")]
        );
        assert_eq!(cut("T close 0\n", "T"), []);
        assert_eq!(cut("", "T"), []);
    }

    #[test]
    fn a_terminal_may_have_added_carriage_returns() {
        assert_eq!(
            cut("\r\nT open seed a.out\r\nx\r\nT close 0\r\n", "T"),
            [section("a.out", Some(0), "x\r")]
        );
    }

    #[test]
    fn tokens_differ() {
        assert_ne!(token(), token());
        assert!(
            token()
                .bytes()
                .all(|b| b == b'-' || b.is_ascii_alphanumeric())
        );
    }
}
