//! The user's terminal: its size, and a screen of our own that is given back
//! on every way out.

use std::io::{self, IsTerminal as _, Write as _};

/// Columns and rows where the terminal does not say.
const DEFAULT_SIZE: (u16, u16) = (80, 24);

/// Is stdout a terminal?
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Columns and rows.
pub fn size() -> (u16, u16) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => DEFAULT_SIZE,
    }
}

/// The alternate screen, for a view that is redrawn in place.
pub struct Screen(());

impl Screen {
    pub fn open() -> io::Result<Self> {
        let mut out = io::stdout();
        // Alternate screen, cursor hidden.
        out.write_all(b"\x1b[?1049h\x1b[?25l")?;
        out.flush()?;
        Ok(Self(()))
    }

    /// Puts `text` in place of what was there, without a flicker: each line
    /// erases its own rest, the end erases what is below.
    pub fn draw(&self, text: &str) -> io::Result<()> {
        let mut frame = String::from("\x1b[H");
        for line in text.lines() {
            frame.push_str(line);
            frame.push_str("\x1b[K\r\n");
        }
        frame.push_str("\x1b[J");
        let mut out = io::stdout();
        out.write_all(frame.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout();
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l");
        let _ = out.flush();
    }
}
