//! Where a password comes from: a line of stdin, or a question on the terminal. Never an argument,
//! which every user of the machine can see, and never the environment.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::OnceLock;

use anyhow::{Context, bail};
use clap::Args;

use imgfs_core::source::Secret;

/// Longest password, in bytes: tokens have a few KiB, and so much fits into a pipe whose reader has
/// not begun.
const MAX_PASSWORD: u64 = 16 << 10;

/// The user in whose name a registry is asked.
#[derive(Args, Clone)]
pub(super) struct UserOptions {
    /// User name for the registry
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// Read the password for it from stdin, one line, instead of asking on the terminal
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
    /// What was read, for which host: it is asked for once, and is no other host's business.
    #[arg(skip)]
    read: OnceLock<(String, Secret)>,
}

impl UserOptions {
    /// The password for `host`, if a user name is given.
    pub(super) fn password(&self, host: &str) -> anyhow::Result<Option<Secret>> {
        let Some(username) = &self.username else {
            return Ok(None);
        };
        if self.read.get().is_none() {
            let password = read_password(self.password_stdin, username, host)?;
            let _just_looked = self.read.set((host.to_owned(), password));
        }
        match self.read.get() {
            Some((asked_for, password)) if asked_for == host => Ok(Some(password.clone())),
            Some((asked_for, _)) => bail!(
                "--username is for one registry: the password for {asked_for} is not sent to {host}"
            ),
            None => Ok(None),
        }
    }
}

/// The password of a user: from stdin if `from_stdin`, else asked for on the terminal.
pub(super) fn read_password(
    from_stdin: bool,
    username: &str,
    host: &str,
) -> anyhow::Result<Secret> {
    // In the one form in which it is sent a colon ends the name.
    if username.is_empty() || username.contains(':') {
        bail!("the user name {username:?} is empty or has a colon");
    }
    let text = if from_stdin {
        read_line(std::io::stdin().lock())?
    } else if std::io::stdin().is_terminal() {
        rpassword::prompt_password(format!("Password of {username} on {host}: "))
            .context("cannot read a password from the terminal")?
    } else {
        bail!("no terminal to ask for the password on: pass it on stdin with --password-stdin");
    };
    if text.is_empty() {
        bail!("the password is empty");
    }
    Ok(Secret::new(text))
}

/// The user name for `host`, asked for on the terminal.
pub(super) fn ask_username(host: &str) -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        bail!("no terminal to ask for the user name on: give it with --username");
    }
    let mut terminal = std::io::stderr();
    write!(terminal, "User name on {host}: ")
        .and_then(|()| terminal.flush())
        .context("cannot ask on the terminal")?;
    let name = read_line(std::io::stdin().lock())?;
    if name.is_empty() {
        bail!("the user name is empty");
    }
    Ok(name)
}

/// One line, without its end. More lines are a mistake, as the password would not be what was
/// meant.
fn read_line(input: impl BufRead) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut input = input.take(MAX_PASSWORD + 2);
    input
        .read_line(&mut text)
        .context("cannot read from stdin")?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.len() as u64 > MAX_PASSWORD {
        bail!("the line on stdin has more than {MAX_PASSWORD} bytes, which is no password");
    }
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_a_line() {
        let check = |input: &[u8], expected: Result<&str, &str>| match (read_line(input), expected)
        {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.to_string().contains(expected), "{found}"),
            (found, _) => panic!("{input:?}: {found:?}"),
        };
        check(b"secret\n", Ok("secret"));
        check(b"secret", Ok("secret"));
        check(b" two words \r\n", Ok(" two words "));
        check(b"first\nsecond\n", Ok("first"));
        check(b"", Ok(""));
        check(b"\xff\n", Err("cannot read"));
        check(&vec![b'x'; 16 << 10], Ok(&"x".repeat(16 << 10)));
        check(&vec![b'x'; (16 << 10) + 1], Err("more than 16384 bytes"));
    }
}
