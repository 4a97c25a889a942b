//! `imgfs tree`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::entry::{Named, target};
use super::walk::{Keep, Walk, is_known};
use super::{find_all, found_of, peek};
use crate::globals::{Globals, ImageOptions, runtime};
use crate::output::{Colours, JsonArray, Out, printable_name};
use imgfs_formats::tree::{Ino, Node, PartialTree, Tree};

/// Show directories of an image as a tree.
#[derive(Args)]
#[command(after_help = "\
Layers are opened from the top down, only as far as the answer needs. Symbolic links are not \
followed but for those named on the command line; each counts as a file. Control characters, \
bytes that are not UTF-8 and backslashes are escaped in names as \\n, \\xff and \\\\.

Examples:
  imgfs tree -L 2 golang
  imgfs tree -d debian /var
  imgfs tree -a alpine:3.20 /root")]
pub(crate) struct TreeArgs {
    /// The image
    image: String,
    /// Directories in it
    #[arg(default_value = "/")]
    paths: Vec<OsString>,
    #[command(flatten)]
    options: ImageOptions,
    /// Go down at most this many levels
    #[arg(short = 'L', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    level: Option<u16>,
    /// Names that begin with a dot too
    #[arg(short, long)]
    all: bool,
    /// Directories only
    #[arg(short, long)]
    directories: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One place as JSON.
#[derive(Serialize)]
struct Level {
    #[serde(flatten)]
    named: Named,
    depth: usize,
}

pub(crate) fn tree(globals: &Globals, args: &TreeArgs) -> anyhow::Result<ExitCode> {
    let max_depth = args.level.map_or(usize::MAX, usize::from);
    let keep = |name: &[u8], node: &Node| {
        (args.all || !name.starts_with(b".")) && (!args.directories || node.is_directory())
    };
    runtime()?.block_on(async {
        let mut peek = peek(globals, &args.options, &args.image).await?;
        let enough = |tree: &PartialTree, ino: Ino, path: &[u8]| {
            let walk = Walk::new(tree.tree(), ino, path, max_depth, &keep);
            is_known(tree, walk, |_| false)
        };
        let found = find_all(&mut peek, &args.paths, true, globals.quiet, enough).await?;
        let (found, failed) = found_of(&args.paths, found);
        let tree = peek.tree();
        if args.json {
            let mut array = JsonArray::new();
            for (path, ino) in found {
                let mut walk = Walk::new(tree, ino, path, max_depth, &keep);
                while let Some(place) = walk.next() {
                    array.push(&Level {
                        named: Named::new(tree, place.path, place.node),
                        depth: place.depth,
                    })?;
                }
            }
            array.end()?;
        } else {
            draw(tree, &found, max_depth, &keep, args.directories)?;
        }
        Ok(ExitCode::from(u8::from(failed)))
    })
}

fn draw(
    tree: &Tree,
    found: &[(&[u8], Ino)],
    max_depth: usize,
    keep: Keep<'_>,
    only_directories: bool,
) -> anyhow::Result<()> {
    let (colours, mut out) = (Colours::of_stdout(), Out::new());
    let (mut directories, mut files) = (0_u64, 0_u64);
    for (path, ino) in found {
        // For each directory on the way: whether others come after it.
        let mut trail: Vec<bool> = Vec::new();
        let before = (directories, files);
        let mut walk = Walk::new(tree, *ino, path, max_depth, keep);
        while let Some(place) = walk.next() {
            let name = if place.depth == 0 {
                place.path
            } else {
                place.name
            };
            let mut line = String::new();
            if let Some(above) = place.depth.checked_sub(1) {
                trail.truncate(above);
                for is_followed in &trail {
                    line += if *is_followed { "\u{2502}   " } else { "    " };
                }
                line += if place.is_last {
                    "\u{2514}\u{2500}\u{2500} "
                } else {
                    "\u{251c}\u{2500}\u{2500} "
                };
                trail.push(!place.is_last);
                if place.node.is_directory() {
                    directories += 1;
                } else {
                    files += 1;
                }
            }
            let name = colours.name(place.node, printable_name(name).into_bytes());
            let target = target(tree, place.node)
                .map(|target| format!(" -> {}", printable_name(target)))
                .unwrap_or_default();
            out.bytes(&[line.as_bytes(), &name, target.as_bytes(), b"\n"].concat())?;
        }
        // As tree(1) since 2.0: the start counts too, unless nothing is in it.
        let is_directory = tree.node(*ino).is_some_and(Node::is_directory);
        match (is_directory, before == (directories, files)) {
            (true, false) => directories += 1,
            (false, _) => files += 1,
            (true, true) => {}
        }
    }
    let count = |count: u64, one: &str, more: &str| {
        format!("{count} {}", if count == 1 { one } else { more })
    };
    let directories = count(directories, "directory", "directories");
    let summary = if only_directories {
        directories
    } else {
        format!("{directories}, {}", count(files, "file", "files"))
    };
    out.bytes(format!("\n{summary}\n").as_bytes())?;
    out.flush()
}
