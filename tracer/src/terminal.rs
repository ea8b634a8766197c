//! The user's terminal: its size, and a screen of our own that is given back
//! on every way out.

use std::{
    io::{self, IsTerminal as _, Write as _},
    panic,
};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Columns and rows where the terminal does not say.
const DEFAULT_SIZE: (u16, u16) = (80, 24);

/// Is stdout a terminal?
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Prints to stdout. That whoever read it has left is no error: the exit status is
/// what is told then.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// Columns and rows.
pub fn size() -> (u16, u16) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => DEFAULT_SIZE,
    }
}

/// Is stdout a pipe whose reader has left? A quiet host would let nobody find
/// out by writing.
pub fn is_unread() -> bool {
    let out = io::stdout();
    // Nothing asked for: what went wrong is always told.
    let mut polled = [PollFd::new(&out, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec::default())).is_ok()
        && polled[0]
            .revents()
            .intersects(PollFlags::ERR | PollFlags::HUP)
}

/// The alternate screen, for a view that is redrawn in place.
pub struct Screen(());

impl Screen {
    pub fn open() -> io::Result<Self> {
        let mut out = io::stdout();
        // Alternate screen, cursor hidden.
        out.write_all(b"\x1b[?1049h\x1b[?25l")?;
        out.flush()?;
        // A release build aborts on a panic without dropping anything, and what
        // it says would go with the screen.
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
        Ok(Self(()))
    }

    /// Puts `text` in place of what was there.
    pub fn draw(&self, text: &str, height: u16) -> io::Result<()> {
        let mut out = io::stdout();
        out.write_all(frame(text, height.into()).as_bytes())?;
        out.flush()
    }
}

/// What to write to show `text` without a flicker: each line erases its row
/// first, the end erases what is below. What does not fit in `height` rows is
/// cut, as it would scroll the rest away.
fn frame(text: &str, height: usize) -> String {
    let mut frame = String::from("\x1b[H");
    for (row, line) in text.lines().take(height).enumerate() {
        if row > 0 {
            frame.push_str("\r\n");
        }
        // Not after the line: where it is as wide as the terminal, the cursor
        // still stands on its last character.
        frame.push_str("\x1b[2K");
        frame.push_str(line);
    }
    if text.lines().count() < height {
        frame.push_str("\r\n\x1b[J");
    }
    frame
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Cursor shown, the screen as it was before.
fn restore() {
    let mut out = io::stdout();
    let _ = out.write_all(b"\x1b[?25h\x1b[?1049l");
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_erases_before_it_writes() {
        assert_eq!(
            frame("one\ntwo\n", 3),
            "\x1b[H\x1b[2Kone\r\n\x1b[2Ktwo\r\n\x1b[J"
        );
    }

    #[test]
    fn a_frame_never_scrolls() {
        let full = "\x1b[H\x1b[2Kone\r\n\x1b[2Ktwo";
        assert_eq!(frame("one\ntwo\n", 2), full);
        assert_eq!(frame("one\ntwo\nthree\n", 2), full);
    }
}
