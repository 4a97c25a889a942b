//! Credential helpers: programs named `docker-credential-NAME` that keep secrets in a keychain.
//!
//! ```text
//! docker-credential-NAME get     < server                            > {"ServerURL", "Username", "Secret"}
//! docker-credential-NAME store   < {"ServerURL", "Username", "Secret"}
//! docker-credential-NAME erase   < server
//! ```
//!
//! A helper is an arbitrary program: it has a process group of its own, a time limit and a limit on
//! what it may write, and all of the group ends with either. Its output is never quoted, as it may
//! hold a secret.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use super::{Credential, CredentialsError};
use crate::source::secret::Secret;

/// Most bytes a helper may answer. Tokens have a few KiB.
const MAX_OUTPUT: u64 = 64 << 10;
/// How long a helper may take: it may have to ask the user for a passphrase.
const LIMIT: Duration = Duration::from_secs(30);
/// How often a helper that has closed its output is looked at until it ends.
const POLL: Duration = Duration::from_millis(5);
/// The user name that means: the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// What helpers say when they have nothing, by the library that they are made with.
const NOT_FOUND: &str = "credentials not found";

/// Where helpers are, and how long they may take. By default nowhere: a program that uses this
/// library says where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Helpers {
    /// The directories that are searched, in order; of the environment's, those in `$PATH`.
    pub(super) dirs: Vec<PathBuf>,
    pub(super) limit: Duration,
}

impl Default for Helpers {
    fn default() -> Self {
        Self {
            dirs: Vec::new(),
            limit: LIMIT,
        }
    }
}

/// The answer to `get`, and what `store` is given.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Exchange {
    #[serde(rename = "ServerURL", default)]
    server: String,
    #[serde(default)]
    username: String,
    secret: String,
}

/// How a program ended.
struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
}

/// The name of a helper's program.
pub(super) fn program_name(helper: &str) -> String {
    format!("docker-credential-{helper}")
}

impl Helpers {
    /// Asks a helper that `file` names; `None` if it has nothing.
    pub(super) fn get(
        &self,
        helper: &str,
        server: &str,
        file: &Path,
    ) -> Result<Option<Credential>, CredentialsError> {
        let call = Call::new(self, helper, "get", server, file);
        let ended = call.run(server.as_bytes())?;
        if !ended.status.success() {
            return if says_not_found(&ended.stdout) {
                Ok(None)
            } else {
                Err(call.failed(&ended))
            };
        }
        let answer: Exchange = serde_json::from_slice(&ended.stdout).map_err(|_| {
            call.problem(&format!(
                "gave no answer of the expected form{}",
                call.hint()
            ))
        })?;
        if answer.secret.is_empty() {
            return Ok(None);
        }
        let secret = Secret::new(answer.secret);
        Ok(Some(match answer.username.as_str() {
            TOKEN_USER | "" => Credential::IdentityToken(secret),
            _ => Credential::Password {
                username: answer.username,
                password: secret,
            },
        }))
    }

    /// Hands a user name and a password to a helper.
    pub(super) fn store(
        &self,
        helper: &str,
        server: &str,
        username: &str,
        password: &Secret,
        file: &Path,
    ) -> Result<(), CredentialsError> {
        let call = Call::new(self, helper, "store", server, file);
        let exchange = Exchange {
            server: server.to_owned(),
            username: username.to_owned(),
            secret: password.expose().to_owned(),
        };
        let input = serde_json::to_vec(&exchange)
            .map_err(|_| call.problem("cannot be given this name and password"))?;
        let ended = call.run(&input)?;
        if ended.status.success() {
            Ok(())
        } else {
            Err(call.failed(&ended))
        }
    }

    /// Makes a helper forget a server.
    pub(super) fn erase(
        &self,
        helper: &str,
        server: &str,
        file: &Path,
    ) -> Result<(), CredentialsError> {
        let call = Call::new(self, helper, "erase", server, file);
        let ended = call.run(server.as_bytes())?;
        if ended.status.success() || says_not_found(&ended.stdout) {
            Ok(())
        } else {
            Err(call.failed(&ended))
        }
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        // What lies in the current directory by chance is not run.
        let absolute = self.dirs.iter().filter(|dir| dir.is_absolute());
        absolute.map(|dir| dir.join(program)).find(|candidate| {
            let metadata = candidate.metadata();
            metadata.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
    }
}

fn says_not_found(output: &[u8]) -> bool {
    String::from_utf8_lossy(output).contains(NOT_FOUND)
}

/// One run of a helper.
struct Call<'a> {
    helpers: &'a Helpers,
    program: String,
    verb: &'static str,
    server: &'a str,
    file: &'a Path,
}

impl<'a> Call<'a> {
    fn new(
        helpers: &'a Helpers,
        helper: &str,
        verb: &'static str,
        server: &'a str,
        file: &'a Path,
    ) -> Self {
        Self {
            helpers,
            program: program_name(helper),
            verb,
            server,
            file,
        }
    }

    fn run(&self, input: &[u8]) -> Result<Ended, CredentialsError> {
        // A path in the name would be run from wherever it leads.
        if self.program.contains('/') {
            return Err(self.problem("is no name of a program: correct that file"));
        }
        let path = self.helpers.find(&self.program).ok_or_else(|| {
            self.problem("is not on the PATH: install it, or take it out of that file")
        })?;
        let end = Instant::now() + self.helpers.limit;
        let mut child = self.start(&path, end)?;
        let ended = self.attend(&mut child, input, end);
        if ended.is_err() {
            // Not reaped yet, so the number is still the group's. All of it: what a script started
            // holds its pipes.
            if let Ok(Some(group)) = i32::try_from(child.id()).map(Pid::from_raw) {
                // It may just have ended by itself.
                let _gone = kill_process_group(group, Signal::KILL);
            }
            let _reaped = child.wait();
        }
        ended
    }

    fn start(&self, path: &Path, end: Instant) -> Result<Child, CredentialsError> {
        loop {
            let started = Command::new(path)
                .arg(self.verb)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn();
            match started {
                // It is being replaced right now.
                Err(cause)
                    if cause.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < end =>
                {
                    std::thread::sleep(POLL);
                }
                started => {
                    return started
                        .map_err(|cause| self.problem(&format!("cannot be started: {cause}")));
                }
            }
        }
    }

    /// Feeds a helper, listens to it, and waits for its end.
    fn attend(
        &self,
        child: &mut Child,
        input: &[u8],
        end: Instant,
    ) -> Result<Ended, CredentialsError> {
        let (sender, heard) = mpsc::channel();
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.to_vec();
            std::thread::spawn(move || {
                // Not every helper reads all of it; what it answers decides.
                let _unread = stdin.write_all(&input);
            });
        }
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut output = Vec::new();
                let read = stdout.take(MAX_OUTPUT + 1).read_to_end(&mut output);
                // Nobody listens any more after the time limit.
                let _unheard = sender.send(read.map(|_| output));
            });
        }
        let late = || {
            let limit = self.helpers.limit;
            self.problem(&format!(
                "did not end within {limit:?} and was stopped{}",
                self.hint()
            ))
        };
        let left = end.saturating_duration_since(Instant::now());
        let stdout = heard
            .recv_timeout(left)
            .map_err(|_| late())?
            .map_err(|cause| self.problem(&format!("cannot be read: {cause}")))?;
        if stdout.len() as u64 > MAX_OUTPUT {
            return Err(self.problem(&format!(
                "wrote more than {MAX_OUTPUT} bytes and was stopped{}",
                self.hint()
            )));
        }
        loop {
            let status = child
                .try_wait()
                .map_err(|cause| self.problem(&format!("cannot be waited for: {cause}")))?;
            if let Some(status) = status {
                return Ok(Ended { status, stdout });
            }
            if Instant::now() >= end {
                return Err(late());
            }
            std::thread::sleep(POLL);
        }
    }

    fn failed(&self, ended: &Ended) -> CredentialsError {
        let server = self.server;
        let text = format!("failed for {server} ({}){}", ended.status, self.hint());
        self.problem(&text)
    }

    /// How to see what is wrong; what the helper said may hold a secret.
    fn hint(&self) -> String {
        match self.verb {
            "store" => format!(": run `{} list` to see whether it works", self.program),
            verb => format!(
                ": run `echo {} | {} {verb}` to see why",
                self.server, self.program
            ),
        }
    }

    fn problem(&self, problem: &str) -> CredentialsError {
        CredentialsError::Helper {
            helper: self.program.clone(),
            file: self.file.to_owned(),
            problem: problem.to_owned(),
        }
    }
}
