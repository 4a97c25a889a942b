//! `imgfs find`.

mod expression;
mod glob;
mod operands;
mod permissions;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, CommandFactory};

use self::expression::Expression;
use super::entry::Entry;
use super::walk::{Walk, everything, is_known};
use super::{PIECE, find, find_all, found_of, leads_nowhere, peek, read_pieces};
use crate::globals::{Globals, ImageOptions, runtime};
use crate::output::{self, JsonArray, Out};
use imgfs_core::image::Peek;
use imgfs_formats::tree::{Ino, PartialTree};

/// Most bytes read of an image's `/etc/passwd` or `/etc/group`; real ones have some kB.
const MAX_ACCOUNTS: u64 = 16 << 20;

/// Find files of an image by name, type, size, time, owner or mode.
#[derive(Args)]
#[command(
    override_usage = "imgfs find [OPTIONS] IMAGE [PATH]... [TEST]...",
    after_help = "\
Tests are those of find(1); all of them must hold:
  -name GLOB, -iname GLOB     the last part of the path; -iname without regard to case
  -path GLOB, -ipath GLOB     the whole path; * matches / too
  -type f|d|l|c|b|p[,...]     file, directory, symbolic link, character or block device, pipe
  -size [+-]N[bcwkMG]         in 512-byte blocks, bytes, words, KiB, MiB or GiB, rounded up
  -mtime [+-]N                changed N days ago; +N more, -N less
  -newermt TIME               changed after 2024-01-31, '2024-01-31 12:00:00' (UTC) or @SECONDS
  -user NAME|UID, -uid [+-]N  owner; names are those of the image's /etc/passwd
  -group NAME|GID, -gid [+-]N group; names are those of the image's /etc/group
  -perm MODE|-MODE|/MODE      just these permissions, all of them or any: 644, -4000, /u=s,g=s
  -empty                      files of no bytes, directories without names
  -maxdepth N, -mindepth N    levels below PATH
  -not TEST, ! TEST           the test must not hold
  -print0                     end paths with a zero byte instead of a line end
Symbolic links are not followed. Layers are opened from the top down, only as far as the answer \
needs.

Examples:
  imgfs find debian /usr -name '*.so*' -type f -size +1M
  imgfs find golang / -perm /6000 -type f
  imgfs find --json alpine:3.20 /etc -newermt 2024-06-01 ! -user root"
)]
pub(crate) struct FindArgs {
    /// The image
    image: String,
    /// Where to search
    #[arg(default_value = "/")]
    paths: Vec<OsString>,
    #[command(flatten)]
    options: ImageOptions,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Tests
    #[arg(last = true, allow_hyphen_values = true, hide = true)]
    tests: Vec<OsString>,
}

pub(crate) fn find_files(globals: &Globals, args: &FindArgs) -> anyhow::Result<ExitCode> {
    let mut expression = match Expression::parse(&args.tests, now()) {
        Ok(expression) => expression,
        Err(err) => {
            output::error(&err.context("find"));
            return Ok(ExitCode::from(2));
        }
    };
    runtime()?.block_on(async {
        let mut peek = peek(globals, &args.options, &args.image).await?;
        if expression.names_users() {
            let accounts = accounts(&mut peek, "/etc/passwd", globals.quiet).await?;
            expression.resolve_users(&accounts)?;
        }
        if expression.names_groups() {
            let accounts = accounts(&mut peek, "/etc/group", globals.quiet).await?;
            expression.resolve_groups(&accounts)?;
        }
        // One level more tells whether the lowest directories are empty.
        let max_depth = expression.max_depth;
        let known_depth = max_depth.saturating_add(expression.looks_into_directories().into());
        let enough = |tree: &PartialTree, ino: Ino, path: &[u8]| {
            let walk = Walk::new(tree.tree(), ino, path, known_depth, &everything);
            is_known(tree, walk, |place| {
                place.depth <= max_depth && expression.needs_attributes(place, args.json)
            })
        };
        let found = find_all(&mut peek, &args.paths, false, globals.quiet, enough).await?;
        let (found, failed) = found_of(&args.paths, found);
        let tree = peek.tree();
        let (mut out, mut array) = if args.json {
            (None, Some(JsonArray::new()))
        } else {
            (Some(Out::new()), None)
        };
        for (path, ino) in found {
            let mut walk = Walk::new(tree, ino, path, max_depth, &everything);
            while let Some(place) = walk.next() {
                if !expression.holds(&place, tree) {
                    continue;
                }
                if let Some(array) = &mut array {
                    array.push(&Entry::new(tree, place.path, place.node))?;
                }
                if let Some(out) = &mut out {
                    if expression.print0 {
                        out.bytes(&[place.path, b"\0"].concat())?;
                    } else {
                        out.bytes(&[&output::name(place.path)[..], b"\n"].concat())?;
                    }
                }
            }
        }
        if let Some(mut out) = out {
            out.flush()?;
        }
        if let Some(array) = array {
            array.end()?;
        }
        Ok(ExitCode::from(u8::from(failed)))
    })
}

/// The image's `/etc/passwd` or `/etc/group`; nothing if it has none.
async fn accounts(peek: &mut Peek, path: &str, quiet: bool) -> anyhow::Result<Vec<u8>> {
    let ino = match find(peek, path, true, quiet, |_, _| true).await {
        Ok(ino) => ino,
        Err(err) if leads_nowhere(&err) => return Ok(Vec::new()),
        Err(err) => return Err(err),
    };
    let fs = peek.fs();
    let mut text = Vec::new();
    let take = |bytes: &[u8]| {
        text.extend(bytes);
        Ok(std::ops::ControlFlow::Continue(()))
    };
    read_pieces(&fs, ino, 0..MAX_ACCOUNTS, PIECE, take).await?;
    Ok(text)
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// `imgfs find IMAGE -name x` with all tests behind a `--`, as clap cannot tell words with one dash
/// from short options. What is not `find` stays as it is.
pub(crate) fn with_tests_last<C: CommandFactory>(args: Vec<OsString>) -> Vec<OsString> {
    if position_of_command(&C::command(), &args)
        .and_then(|position| args.get(position))
        .is_none_or(|command| command != "find")
    {
        return args;
    }
    let (mut others, mut tests) = (Vec::new(), Vec::new());
    let mut words = args.into_iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if text == "--" {
            tests.extend(words);
            break;
        }
        if let Some(operands) = expression::operands_of(&text) {
            tests.push(word);
            tests.extend(words.by_ref().take(operands));
        } else if expression::is_test(&text) {
            tests.push(word);
        } else {
            others.push(word);
        }
    }
    if !tests.is_empty() {
        others.push("--".into());
    }
    [others, tests].concat()
}

/// Where the command stands, behind global options.
fn position_of_command(cli: &clap::Command, args: &[OsString]) -> Option<usize> {
    let mut position = 1;
    loop {
        let text = args.get(position)?.to_string_lossy();
        let Some(option) = text.strip_prefix('-') else {
            return Some(position);
        };
        let takes_value = |arg: &clap::Arg| {
            arg.get_long()
                .is_some_and(|long| option.strip_prefix('-') == Some(long))
                && arg.get_action().takes_values()
        };
        position += if cli.get_arguments().any(takes_value) {
            2
        } else {
            1
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[arg(long)]
        cache_dir: Option<String>,
    }

    #[test]
    fn tests_of_find_go_to_the_end() {
        let check = |args: &str, expected: &str| {
            let args = args.split(' ').map(OsString::from).collect();
            let expected: Vec<_> = expected.split(' ').map(OsString::from).collect();
            assert_eq!(with_tests_last::<Cli>(args), expected);
        };
        check(
            "imgfs find img /a -name --json --json ! -type f -q",
            "imgfs find img /a --json -q -- -name --json ! -type f",
        );
        check(
            "imgfs --cache-dir find -q find -newer x",
            "imgfs --cache-dir find -q find x -- -newer",
        );
        check("imgfs find img -- -o", "imgfs find img -- -o");
        check("imgfs find img -vq -h", "imgfs find img -vq -h");
        check("imgfs ls find -name x", "imgfs ls find -name x");
        check("imgfs --cache-dir", "imgfs --cache-dir");
    }
}
