//! A tracer that runs, and everything it says meanwhile.

use std::{
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{bpf::Loaded, wait_for};

/// A process with its output collected; it does not survive the test.
pub struct Running {
    child: Child,
    stdout: Collected,
    stderr: Collected,
}

/// What is left of it.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Bytes as they arrive.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Running {
    /// Starts it with pipes on both sides, and nothing to read.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::start_with_input(command)
    }

    /// Starts it with the input that the command has.
    pub fn start_with_input(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Collected::from(child.stdout.take().expect("piped"));
        let stderr = Collected::from(child.stderr.take().expect("piped"));
        Self {
            child,
            stdout,
            stderr,
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until stdout has this.
    pub fn wait_for_stdout(&self, text: &str) -> String {
        self.wait_for_text(&self.stdout, text)
    }

    /// Waits until stderr has this.
    pub fn wait_for_stderr(&self, text: &str) -> String {
        self.wait_for_text(&self.stderr, text)
    }

    fn wait_for_text(&self, collected: &Collected, text: &str) -> String {
        wait_for(format!("{text:?}"), || {
            let all = collected.text();
            assert!(
                all.contains(text) || !collected.reader.is_finished(),
                "{text:?} never came: {}{}",
                self.stdout.text(),
                self.stderr.text()
            );
            all.contains(text).then_some(all)
        })
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// What it has in the kernel.
    pub fn loaded(&self) -> Loaded {
        Loaded::by(self.pid())
    }

    /// Closes our end of the command's input.
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for its end; not for that of processes it left behind.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the end of the tracer", || {
            self.child.try_wait().expect("a child of ours")
        })
    }

    /// Waits for its end and for the end of its output.
    pub fn finish(mut self) -> Output {
        let status = self.wait();
        wait_for("the end of the output", || {
            (self.stdout.reader.is_finished() && self.stderr.reader.is_finished()).then_some(())
        });
        Output {
            status,
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    /// Runs it to its end.
    pub fn of(command: Command) -> Self {
        Running::start(command).finish()
    }

    #[track_caller]
    pub fn assert_code(&self, code: i32) {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }

    /// Asserts one line on stderr, with all of these in it.
    #[track_caller]
    pub fn assert_says(&self, words: &[&str]) {
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self:?}");
        }
    }

    /// The objects of JSON lines.
    #[track_caller]
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }
}

impl Collected {
    fn from(mut source: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = source.read(&mut buffer) {
                sink.lock()
                    .expect("no panic in between")
                    .extend_from_slice(&buffer[..length]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no panic in between")).into_owned()
    }
}
