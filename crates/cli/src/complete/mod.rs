//! `imgfs completions`, and what the scripts that it prints ask for.
//!
//! The scripts call `imgfs __complete SHELL WORDS...` for what fits at the cursor, so that they
//! never grow old. Options and commands come from the command line's own definition; images and the
//! paths in them from the cache alone: nobody is asked for anything, nothing is written, and
//! whatever is wrong is no reason to disturb a user who is typing.

mod candidates;
mod line;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::engine::CompletionCandidate;

use super::{Cli, output};

/// What the scripts call: no command, as nobody should.
pub(super) const HIDDEN_COMMAND: &str = "__complete";

/// Print a completion script for a shell.
///
/// It completes commands, options, names of images in the cache and paths in them.
#[derive(Args)]
#[command(after_help = "\
The script asks imgfs itself for what fits, so it need not be made anew when imgfs is.

Examples:
  imgfs completions bash > /etc/bash_completion.d/imgfs
  imgfs completions zsh > /usr/local/share/zsh/site-functions/_imgfs
  imgfs completions fish > ~/.config/fish/completions/imgfs.fish
  source <(imgfs completions bash)                 for this shell alone")]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// The shells there are scripts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let script = match args.shell {
        Shell::Bash => include_str!("imgfs.bash"),
        Shell::Zsh => include_str!("imgfs.zsh"),
        Shell::Fish => include_str!("imgfs.fish"),
    };
    output::bytes(script.as_bytes())
}

/// Answers a script: one candidate a line. Where nothing fits, nothing is printed.
pub(super) fn answer(arguments: &[OsString]) -> ExitCode {
    if let Some(lines) = lines(arguments) {
        // A shell that does not listen any more has its reasons.
        let _unheard = output::bytes(&lines);
    }
    ExitCode::SUCCESS
}

fn lines(arguments: &[OsString]) -> Option<Vec<u8>> {
    let (shell, rest) = arguments.split_first()?;
    let shell = Shell::from_str(shell.to_str()?, false).ok()?;
    let (words, last) = match shell {
        Shell::Bash => {
            let (typed, breaks) = (rest.first()?, rest.get(1));
            let breaks = breaks.map_or(&b""[..], |breaks| breaks.as_bytes());
            let (words, last) = line::split(typed.as_bytes(), breaks);
            (program_first(words), last)
        }
        // They quote by themselves, and zsh has taken quotes away.
        Shell::Zsh => (rest.to_vec(), line::LastWord::default()),
        Shell::Fish => {
            let mut words = rest.to_vec();
            let typed = words.pop().unwrap_or_default();
            words.push(line::unquoted(typed.as_bytes()));
            (words, line::LastWord::default())
        }
    };
    let mut lines = Vec::new();
    for candidate in candidates_for(words)? {
        let value = candidate.get_value();
        if value.as_bytes().iter().any(u8::is_ascii_control) {
            // Its line would be none.
            continue;
        }
        match shell {
            Shell::Bash => lines.extend(line::for_bash(value.as_bytes(), &last)),
            Shell::Zsh | Shell::Fish => {
                lines.extend(value.as_bytes());
                if let Some(help) = candidate.get_help() {
                    let help = help.to_string();
                    lines.push(b'\t');
                    lines.extend(help.lines().next().unwrap_or_default().as_bytes());
                }
            }
        }
        lines.push(b'\n');
    }
    Some(lines)
}

/// What fits in the place of the last word.
fn candidates_for(words: Vec<OsString>) -> Option<Vec<CompletionCandidate>> {
    let position = words.len().checked_sub(1).filter(|last| *last > 0)?;
    let mut command = candidates::attach(Cli::command(), &words);
    let here = std::env::current_dir().ok();
    clap_complete::engine::complete(&mut command, words, position, here.as_deref()).ok()
}

/// Without what stands before the program's name, such as variables.
fn program_first(words: Vec<OsString>) -> Vec<OsString> {
    let is_program =
        |word: &OsString| std::path::Path::new(word).file_name() == Some(OsStr::new("imgfs"));
    let first = words.iter().position(is_program).unwrap_or(0);
    words.into_iter().skip(first).collect()
}
