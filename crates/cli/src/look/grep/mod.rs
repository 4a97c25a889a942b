//! `imgfs grep`.

mod search;

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use regex::bytes::Regex;
use serde::Serialize;

use self::search::{Lines, Pattern, pattern};
use super::walk::{Place, Walk, everything, is_known};
use super::{find_all, found_of, peek, read_pieces, why_unreadable};
use crate::globals::{Globals, ImageOptions, runtime};
use crate::output::{self, Colours, JsonArray, Out, json_base64, json_text, shown_text};
use imgfs_core::view::ImageFs;
use imgfs_formats::tree::{Ino, Kind, PartialTree};

/// Bytes read at a time.
const PIECE: usize = 256 << 10;

/// Search files of an image for a pattern.
#[derive(Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
The pattern is a regular expression as grep -E has them (docs.rs/regex has the details), not a \
basic one. Files are searched line by line; a line longer than 1 MiB as several. Of a file with \
zero bytes only `Binary file x matches` is said on stderr. With -r symbolic links are followed \
only if they are named on the command line, and devices and pipes are left out. Only files that \
are searched are fetched.

Exit codes: 0 a line was selected, 1 none was, 2 something failed.

Examples:
  imgfs grep -n root debian /etc/passwd /etc/group
  imgfs grep -ri --json 'proxy|mirror' debian /etc
  imgfs grep -rlF BEGIN alpine:3.20 /etc/ssl"
)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub(crate) struct GrepArgs {
    /// What to search for; several patterns one a line
    pattern: String,
    /// The image
    image: String,
    /// Files in it; with -r directories too, and / if none is named
    #[arg(required_unless_present = "recursive")]
    paths: Vec<OsString>,
    #[command(flatten)]
    options: ImageOptions,
    /// Search all files below directories
    #[arg(short, long, short_alias = 'R')]
    recursive: bool,
    /// Make no difference between upper and lower case
    #[arg(short, long)]
    ignore_case: bool,
    /// Print line numbers
    #[arg(short = 'n', long)]
    line_number: bool,
    /// Print only the names of files with selected lines
    #[arg(short = 'l', long)]
    files_with_matches: bool,
    /// Print only the number of selected lines of each file
    #[arg(short, long, conflicts_with = "files_with_matches")]
    count: bool,
    /// The pattern is text, not a regular expression
    #[arg(short = 'F', long)]
    fixed_strings: bool,
    /// The pattern is an extended regular expression: always so
    #[arg(short = 'E', long, conflicts_with = "fixed_strings")]
    extended_regexp: bool,
    /// Only where it is not part of a longer word
    #[arg(short, long)]
    word_regexp: bool,
    /// Select the lines where it is not
    #[arg(short = 'v', long = "invert-match", id = "invert_match")]
    invert_match: bool,
    /// Search files with zero bytes as any others
    #[arg(short = 'a', long)]
    text: bool,
    /// Print file names [default: if there can be several files]
    #[arg(short = 'H', long, overrides_with = "no_filename")]
    with_filename: bool,
    /// Print no file names
    #[arg(short = 'h', long, overrides_with = "with_filename")]
    no_filename: bool,
    /// Print nothing; the exit code tells
    #[arg(short = 'q', long = "quiet", id = "silent", visible_alias = "silent")]
    silent: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print only data and errors
    #[arg(short = 's', long = "no-messages", id = "quiet")]
    _quiet: bool,
    /// Say more; twice: requests
    #[arg(long = "verbose", id = "verbose", action = clap::ArgAction::Count)]
    _verbose: u8,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// A selected line, or what `-l` and `-c` tell of a file.
#[derive(Serialize)]
struct Hits {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    binary: bool,
}

pub(crate) fn grep(globals: &Globals, args: &GrepArgs) -> anyhow::Result<ExitCode> {
    match search(globals, args) {
        Err(err) if !output::is_broken_pipe(&err) => {
            output::error(&err);
            Ok(ExitCode::from(2))
        }
        outcome => outcome,
    }
}

fn search(globals: &Globals, args: &GrepArgs) -> anyhow::Result<ExitCode> {
    let regex = pattern(
        &args.pattern,
        Pattern {
            fixed: args.fixed_strings,
            ignore_case: args.ignore_case,
            words: args.word_regexp,
        },
    )?;
    let root = [OsString::from("/")];
    let paths = if args.paths.is_empty() {
        &root
    } else {
        &args.paths[..]
    };
    let max_depth = if args.recursive { usize::MAX } else { 0 };
    runtime()?.block_on(async {
        let mut peek = peek(globals, &args.options, &args.image).await?;
        let enough = |tree: &PartialTree, ino: Ino, path: &[u8]| {
            let walk = Walk::new(tree.tree(), ino, path, max_depth, &everything);
            is_known(tree, walk, |_| false)
        };
        let found = find_all(&mut peek, paths, true, globals.quiet, enough).await?;
        let (found, failed) = found_of(paths, found);
        let fs = peek.into_fs();
        let is_directory =
            |ino: Ino| (fs.tree().node(ino)).is_some_and(imgfs_formats::tree::Node::is_directory);
        let several =
            paths.len() > 1 || args.recursive && found.iter().any(|(_, ino)| is_directory(*ino));
        let mut grep = Grep {
            fs: Arc::clone(&fs),
            args,
            regex,
            colours: Colours::of_stdout(),
            names: (several || args.with_filename) && !args.no_filename,
            printer: if args.json {
                Printer::Json(JsonArray::new())
            } else {
                Printer::Text(Out::new())
            },
            selected: false,
            failed,
        };
        for (path, ino) in found {
            let mut walk = Walk::new(fs.tree(), ino, path, max_depth, &everything);
            while let Some(place) = walk.next() {
                grep.place(&place).await?;
                if args.silent && grep.selected {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
        let code = match (grep.failed, grep.selected) {
            (true, _) => 2,
            (false, true) => 0,
            (false, false) => 1,
        };
        match grep.printer {
            Printer::Json(array) if !args.silent => array.end()?,
            Printer::Json(_) => {}
            Printer::Text(mut out) => out.flush()?,
        }
        Ok(ExitCode::from(code))
    })
}

enum Printer {
    Json(JsonArray),
    Text(Out),
}

struct Grep<'a> {
    fs: Arc<ImageFs>,
    args: &'a GrepArgs,
    regex: Regex,
    colours: Colours,
    /// Whether names are printed before lines.
    names: bool,
    printer: Printer,
    /// Whether a line was.
    selected: bool,
    failed: bool,
}

/// A file that is being searched.
struct Searched<'p> {
    path: &'p [u8],
    /// Number of lines selected so far.
    selected: u64,
    /// A zero byte has come.
    is_binary: bool,
}

impl Grep<'_> {
    async fn place(&mut self, place: &Place<'_>) -> anyhow::Result<()> {
        let is_file = matches!(place.node.kind(), Kind::File | Kind::SparseFile);
        let is_named = place.depth == 0 && !(self.args.recursive && place.node.is_directory());
        let is_broken = place.node.is_file() && !is_file;
        if is_file {
            return self.file(place.path, place.ino).await;
        }
        if (is_named || is_broken)
            && let Some(why) = why_unreadable(place.path, place.node)
        {
            output::message(&format!("imgfs: {why}"));
            self.failed = true;
        }
        Ok(())
    }

    async fn file(&mut self, path: &[u8], ino: Ino) -> anyhow::Result<()> {
        let fs = Arc::clone(&self.fs);
        let mut lines = Lines::default();
        let mut file = Searched {
            path,
            selected: 0,
            is_binary: false,
        };
        let mut flow = ControlFlow::Continue(());
        let read = read_pieces(&fs, ino, 0..u64::MAX, PIECE, |bytes| {
            file.is_binary |= !self.args.text && bytes.contains(&0);
            flow = lines.feed(bytes, |number, line| self.select(&mut file, number, line))?;
            Ok(flow)
        });
        read.await?;
        if flow.is_continue()
            && let Some((number, line)) = lines.rest()
        {
            let _last = self.select(&mut file, number, line)?;
        }
        let is_selected = file.selected > 0;
        if self.args.count && !self.args.silent
            || is_selected && !self.args.silent && (self.args.files_with_matches || file.is_binary)
        {
            self.summary(&file)?;
        }
        if let Printer::Text(out) = &mut self.printer
            && is_selected
        {
            out.flush()?;
        }
        Ok(())
    }

    /// Looks at a line, and prints it if it is one to print.
    fn select(
        &mut self,
        file: &mut Searched<'_>,
        number: u64,
        line: &[u8],
    ) -> anyhow::Result<ControlFlow<()>> {
        let args = self.args;
        if self.regex.is_match(line) == args.invert_match {
            return Ok(ControlFlow::Continue(()));
        }
        file.selected += 1;
        self.selected = true;
        if args.silent || args.files_with_matches {
            return Ok(ControlFlow::Break(()));
        }
        if args.count {
            return Ok(ControlFlow::Continue(()));
        }
        if file.is_binary {
            return Ok(ControlFlow::Break(()));
        }
        self.line(file.path, number, line)?;
        Ok(ControlFlow::Continue(()))
    }

    /// Prints what `-l` or `-c` tell of a file, or that a binary one matches.
    fn summary(&mut self, file: &Searched<'_>) -> anyhow::Result<()> {
        let prints_lines = !(self.args.count || self.args.files_with_matches);
        let is_binary = file.is_binary && prints_lines;
        let out = match &mut self.printer {
            Printer::Json(array) => {
                return array.push(&Hits {
                    count: self.args.count.then_some(file.selected),
                    binary: is_binary,
                    ..Hits::of(file.path)
                });
            }
            Printer::Text(out) => out,
        };
        if is_binary {
            // Not among the lines, as GNU grep does it since 3.5.
            let name = output::printable_name(file.path);
            output::message(&format!("Binary file {name} matches"));
            return Ok(());
        }
        let name = self.colours.file_name(output::name(file.path));
        if self.args.files_with_matches {
            return out.bytes(&[&name[..], b"\n"].concat());
        }
        if self.names {
            let colon = self.colours.separator(b":".to_vec());
            out.bytes(&[name, colon].concat())?;
        }
        out.bytes(format!("{}\n", file.selected).as_bytes())
    }

    fn line(&mut self, path: &[u8], number: u64, line: &[u8]) -> anyhow::Result<()> {
        let colours = self.colours;
        let out = match &mut self.printer {
            Printer::Json(array) => {
                return array.push(&Hits {
                    line: Some(number),
                    text: Some(json_text(line)),
                    text_base64: json_base64(line),
                    ..Hits::of(path)
                });
            }
            Printer::Text(out) => out,
        };
        let colon = colours.separator(b":".to_vec());
        if self.names {
            out.bytes(&[&colours.file_name(output::name(path)), &colon[..]].concat())?;
        }
        if self.args.line_number {
            let number = number.to_string().into_bytes();
            out.bytes(&[&colours.number(number), &colon[..]].concat())?;
        }
        if colours.on() && !self.args.invert_match {
            let mut end = 0;
            for found in self.regex.find_iter(line).filter(|found| !found.is_empty()) {
                out.bytes(&shown_text(
                    line.get(end..found.start()).unwrap_or_default(),
                ))?;
                out.bytes(&colours.found(shown_text(found.as_bytes())))?;
                end = found.end();
            }
            out.bytes(&shown_text(line.get(end..).unwrap_or_default()))?;
        } else {
            out.bytes(&shown_text(line))?;
        }
        out.bytes(b"\n")
    }
}

impl Hits {
    fn of(path: &[u8]) -> Self {
        Self {
            path: json_text(path),
            path_base64: json_base64(path),
            line: None,
            text: None,
            text_base64: None,
            count: None,
            binary: false,
        }
    }
}
