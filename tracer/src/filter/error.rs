//! What is wrong with an expression, and where.

use std::{fmt, ops::Range};

use unicode_width::UnicodeWidthChar as _;

use crate::devices::printable;

/// How much of a long expression is shown, in columns.
const SHOWN: usize = 72;
/// How much of it stands before the spot at least.
const BEFORE: usize = 24;
const MORE: &str = "…";

/// One line that says what is wrong and what would fit. The expression with
/// the spot marked is [`Error::marked`].
#[derive(Debug)]
pub struct Error {
    message: String,
    text: String,
    /// The option that it was given by.
    option: &'static str,
    /// Bytes of the text.
    spot: Range<usize>,
}

impl Error {
    pub fn new(message: impl Into<String>, text: &str, spot: Range<usize>) -> Self {
        Self {
            message: printable(message.into().as_bytes()),
            text: text.to_owned(),
            option: "--filter",
            spot,
        }
    }

    /// The same of an expression that another option gave.
    pub fn given_by(self, option: &'static str) -> Self {
        Self { option, ..self }
    }

    /// The expression, and carets below the spot: two lines that are safe on a
    /// terminal.
    pub fn marked(&self) -> String {
        // Each character as it is shown, with its width, and whether it is
        // part of the spot.
        let mut cells: Vec<(String, usize, bool)> = self
            .text
            .char_indices()
            .map(|(at, char)| {
                let shown = printable(char.encode_utf8(&mut [0; 4]).as_bytes());
                let width = shown.chars().filter_map(|char| char.width()).sum();
                (shown, width, self.spot.contains(&at))
            })
            .collect();
        if !cells.iter().any(|(.., spot)| *spot) {
            // At the end.
            cells.push((" ".to_owned(), 1, true));
        }
        let first = cells.iter().position(|(.., spot)| *spot).unwrap_or(0);
        let width = |cells: &[(String, usize, bool)]| -> usize {
            cells.iter().map(|(_, width, _)| width).sum()
        };
        let mut start = 0;
        if width(&cells) > SHOWN {
            start = first;
            while start > 0 && width(&cells[start - 1..first]) <= BEFORE {
                start -= 1;
            }
        }
        let mut end = start;
        while end < cells.len() && width(&cells[start..=end]) <= SHOWN {
            end += 1;
        }
        let mut line = String::from("  ");
        let mut carets = String::from("  ");
        if start > 0 {
            line.push_str(MORE);
            carets.push(' ');
        }
        for (shown, width, spot) in &cells[start..end] {
            line.push_str(shown);
            let mark = if *spot { "^" } else { " " };
            carets.push_str(&mark.repeat(*width));
        }
        if end < cells.len() {
            line.push_str(MORE);
        }
        if !carets.contains('^') {
            // Below what takes no column.
            carets.push('^');
        }
        format!("{}\n{}", line.trim_end(), carets.trim_end())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.message)
    }
}

impl std::error::Error for Error {}
