//! Running programs with a time limit, and waiting for what has to come.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// No program and no wait of these tests may take longer. Generous: what is slow is no failure
/// here.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What a program did.
#[derive(Debug)]
pub struct Outcome {
    pub line: String,
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Outcome {
    finish(start(command))
}

/// A program under way; it is killed when dropped.
pub struct Running {
    pub child: Child,
    line: String,
    stdout: mpsc::Receiver<Vec<u8>>,
    stderr: mpsc::Receiver<Vec<u8>>,
}

/// Runs a program to its end with this on stdin.
pub fn run_with_input(command: &mut Command, input: &str) -> Outcome {
    let mut running = start_with(command, Stdio::piped());
    // A program that ends before it has read all has its reasons, and says them.
    let _unread = (running.child.stdin.take().unwrap()).write_all(input.as_bytes());
    finish(running)
}

/// Starts a program with its output collected.
pub fn start(command: &mut Command) -> Running {
    start_with(command, Stdio::null())
}

fn start_with(command: &mut Command, stdin: Stdio) -> Running {
    let line = format!("{command:?}");
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|err| panic!("{line}: {err}"));
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    Running {
        child,
        line,
        stdout,
        stderr,
    }
}

/// Waits for its end. Its output must end with it: a daemon that keeps the caller's pipe open is a
/// fault.
pub fn finish(mut running: Running) -> Outcome {
    let line = running.line.clone();
    let mut status = None;
    wait_for(&format!("the end of {line}"), || {
        status = running.child.try_wait().unwrap();
        status.is_some()
    });
    let text = |output: &mpsc::Receiver<Vec<u8>>| {
        let output = output.recv_timeout(LIMIT);
        output.unwrap_or_else(|_| panic!("{line} ended but its output is still open"))
    };
    Outcome {
        code: status.and_then(|status| status.code()),
        stdout: text(&running.stdout),
        stderr: String::from_utf8_lossy(&text(&running.stderr)).into_owned(),
        line,
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came until an error is the output.
        let _whole = pipe.read_to_end(&mut bytes);
        // Nobody waits if the test has failed.
        let _unheard = sender.send(bytes);
    });
    receiver
}

/// Asks again and again until `is_so`, and fails after [`LIMIT`].
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < end, "waited {LIMIT:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Outcome {
    /// It must have succeeded; its stdout.
    #[track_caller]
    pub fn ok(self) -> String {
        String::from_utf8_lossy(&self.ok_bytes()).into_owned()
    }

    /// It must have succeeded; its stdout.
    #[track_caller]
    pub fn ok_bytes(self) -> Vec<u8> {
        assert_eq!(self.code, Some(0), "{}\n{}", self.line, self.stderr);
        self.stdout
    }

    /// It must have succeeded and said all of this on stderr.
    #[track_caller]
    pub fn ok_saying(self, words: &[&str]) -> String {
        self.says(words);
        self.ok()
    }

    /// It must have ended with this code and said all of this on stderr.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}\n{}", self.line, self.stderr);
        self.says(words);
    }

    #[track_caller]
    fn says(&self, words: &[&str]) {
        for word in words {
            let text = &self.stderr;
            assert!(
                text.contains(word),
                "{}\nsays: {text}not: {word}",
                self.line
            );
        }
    }
}
