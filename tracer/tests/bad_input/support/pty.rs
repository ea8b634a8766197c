//! A tracer on a terminal, and what the terminal shows.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use rustix::{
    fs::OFlags,
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::{bpf::Loaded, wait_for};

/// The keyboard's way to say SIGINT.
pub const CTRL_C: &[u8] = b"\x03";

/// A process on a terminal of its own.
pub struct Pty {
    child: Child,
    keyboard: File,
    shown: Arc<Mutex<Shown>>,
    reader: JoinHandle<()>,
}

struct Shown {
    terminal: vt100::Parser,
    bytes: Vec<u8>,
}

impl Pty {
    /// Starts the tracer in the foreground of a new terminal of this size.
    pub fn start(rows: u16, columns: u16, arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).expect("a terminal has a size");
        let name = ptsname(&master, Vec::new()).expect("a terminal has a name");
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits().cast_signed())
            .open(std::ffi::OsStr::from_bytes(name.as_bytes()))
            .expect("a terminal");
        let file = || slave.try_clone().expect("a terminal");
        // setsid makes the terminal the tracer's own and becomes the tracer.
        let child = Command::new("setsid")
            .args(["--ctty", env!("CARGO_BIN_EXE_tracer")])
            .args(arguments)
            .env_remove("RUST_BACKTRACE")
            .stdin(file())
            .stdout(file())
            .stderr(file())
            .spawn()
            .expect("setsid of util-linux");
        let shown = Arc::new(Mutex::new(Shown {
            terminal: vt100::Parser::new(rows, columns, 1000),
            bytes: Vec::new(),
        }));
        let keyboard = File::from(master);
        let mut source = keyboard.try_clone().expect("a terminal");
        let sink = Arc::clone(&shown);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = source.read(&mut buffer) {
                let mut shown = sink.lock().expect("no panic in between");
                shown.terminal.process(&buffer[..length]);
                shown.bytes.extend_from_slice(&buffer[..length]);
            }
        });
        Self {
            child,
            keyboard,
            shown,
            reader,
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("a terminal");
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    pub fn loaded(&self) -> Loaded {
        Loaded::by(self.pid())
    }

    /// What the terminal shows now.
    pub fn screen(&self) -> vt100::Screen {
        let shown = self.shown.lock().expect("no panic in between");
        shown.terminal.screen().clone()
    }

    /// Waits until the terminal shows this.
    pub fn wait_for_text(&self, text: &str) -> vt100::Screen {
        wait_for(format!("{text:?}"), || {
            let screen = self.screen();
            let there = screen.contents().contains(text);
            assert!(
                there || !self.reader.is_finished(),
                "{text:?} never came: {}",
                screen.contents()
            );
            there.then_some(screen)
        })
    }

    /// Everything that was ever sent to the terminal.
    pub fn bytes(&self) -> Vec<u8> {
        self.shown
            .lock()
            .expect("no panic in between")
            .bytes
            .clone()
    }

    /// Waits for its end, and until the terminal shows everything.
    pub fn finish(&mut self) -> (ExitStatus, vt100::Screen) {
        let status = wait_for("the end of the tracer", || {
            self.child.try_wait().expect("a child of ours")
        });
        wait_for("the end of the output", || {
            self.reader.is_finished().then_some(())
        });
        (status, self.screen())
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
