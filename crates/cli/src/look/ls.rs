//! `imgfs ls`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use super::entry::{Entry, device, mode_text, target};
use super::walk::{Keep, Walk, is_known};
use super::{find_all, found_of, peek};
use crate::globals::{Globals, ImageOptions, runtime};
use crate::output::{self, Colours, JsonArray, Out, printable_name};
use crate::time::utc;
use imgfs_formats::tree::{Ino, Node, PartialTree, Tree};

/// List directories of an image.
#[derive(Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Layers are opened from the top down, only as far as the answer needs. Links named on the command \
line are followed. Where names stand in a table or on a terminal, control characters, bytes that \
are not UTF-8 and backslashes are escaped as \\n, \\xff and \\\\.

Examples:
  imgfs ls golang
  imgfs ls -lh golang /usr/local/go
  imgfs ls -Ra alpine:3.20 /etc /root"
)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub(crate) struct LsArgs {
    /// The image
    image: String,
    /// Directories or files in it
    #[arg(default_value = "/")]
    paths: Vec<OsString>,
    #[command(flatten)]
    options: ImageOptions,
    /// Modes, owners, sizes and times too
    #[arg(short)]
    long: bool,
    /// Names that begin with a dot too
    #[arg(short, long)]
    all: bool,
    /// Directories below, too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Sizes with units: powers of 1024
    #[arg(short = 'h', long)]
    human_readable: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

pub(crate) fn ls(globals: &Globals, args: &LsArgs) -> anyhow::Result<ExitCode> {
    let details = args.long || args.json;
    let keep = |name: &[u8], _: &Node| args.all || !name.starts_with(b".");
    let max_depth = if args.recursive { usize::MAX } else { 1 };
    runtime()?.block_on(async {
        let mut peek = peek(globals, &args.options, &args.image).await?;
        let enough = |tree: &PartialTree, ino: Ino, path: &[u8]| {
            let walk = Walk::new(tree.tree(), ino, path, max_depth, &keep);
            is_known(tree, walk, |place| {
                details && (place.depth > 0 || !place.node.is_directory())
            })
        };
        let found = find_all(&mut peek, &args.paths, true, globals.quiet, enough).await?;
        let (found, failed) = found_of(&args.paths, found);
        let tree = peek.tree();
        if args.json {
            print_json(tree, &found, max_depth, &keep)?;
        } else {
            Printer {
                tree,
                args,
                colours: Colours::of_stdout(),
                out: Out::new(),
                is_first: true,
            }
            .print(&found, &keep)?;
        }
        Ok(ExitCode::from(u8::from(failed)))
    })
}

fn print_json(
    tree: &Tree,
    found: &[(&[u8], Ino)],
    max_depth: usize,
    keep: Keep<'_>,
) -> anyhow::Result<()> {
    let mut array = JsonArray::new();
    for (path, ino) in found {
        let mut walk = Walk::new(tree, *ino, path, max_depth, keep);
        while let Some(place) = walk.next() {
            if place.depth > 0 || !place.node.is_directory() {
                array.push(&Entry::new(tree, place.path, place.node))?;
            }
        }
    }
    array.end()
}

/// Prints lists as ls does: files that were named first, then each directory under its name if
/// there are several.
struct Printer<'t> {
    tree: &'t Tree,
    args: &'t LsArgs,
    colours: Colours,
    out: Out,
    is_first: bool,
}

impl Printer<'_> {
    fn print(mut self, found: &[(&[u8], Ino)], keep: Keep<'_>) -> anyhow::Result<()> {
        let tree = self.tree;
        let mut found = found.to_vec();
        found.sort_unstable();
        let nodes = found
            .iter()
            .filter_map(|(path, ino)| Some((path.to_vec(), *ino, tree.node(*ino)?)));
        let (directories, files): (Vec<_>, Vec<_>) =
            nodes.partition(|(_, _, node)| node.is_directory());
        if !files.is_empty() {
            let rows: Vec<_> = files
                .into_iter()
                .map(|(path, _, node)| (path, node))
                .collect();
            self.list(&rows)?;
            self.is_first = false;
        }
        let named = self.args.recursive || found.len() > 1;
        for (path, ino, _) in directories {
            let depth = if self.args.recursive { usize::MAX } else { 0 };
            let mut walk = Walk::new(tree, ino, &path, depth, keep);
            while let Some(place) = walk.next() {
                if place.node.is_directory() {
                    self.directory(place.path, place.node, named, keep)?;
                }
            }
        }
        self.out.flush()
    }

    fn directory(
        &mut self,
        path: &[u8],
        node: &Node,
        named: bool,
        keep: Keep<'_>,
    ) -> anyhow::Result<()> {
        if named {
            let gap: &[u8] = if self.is_first { b"" } else { b"\n" };
            self.out
                .bytes(&[gap, &output::name(path), b":\n"].concat())?;
        }
        self.is_first = false;
        let tree = self.tree;
        let rows: Vec<_> = (tree.children(node).iter())
            .filter_map(|dirent| Some((tree.name(dirent), tree.node(dirent.ino())?)))
            .filter(|(name, node)| keep(name, node))
            .map(|(name, node)| (name.to_vec(), node))
            .collect();
        self.list(&rows)
    }

    fn list(&mut self, rows: &[(Vec<u8>, &Node)]) -> anyhow::Result<()> {
        if self.args.long {
            return self.table(rows);
        }
        for (name, node) in rows {
            let name = self.colours.name(node, output::name(name));
            self.out.bytes(&[&name[..], b"\n"].concat())?;
        }
        Ok(())
    }

    fn table(&mut self, rows: &[(Vec<u8>, &Node)]) -> anyhow::Result<()> {
        let cells: Vec<_> = (rows.iter())
            .map(|(name, node)| {
                let name = self.colours.name(node, printable_name(name).into_bytes());
                let target = target(self.tree, node)
                    .map(|target| format!(" -> {}", printable_name(target)))
                    .unwrap_or_default();
                let size = if self.args.human_readable {
                    output::human(node.size())
                } else {
                    node.size().to_string()
                };
                vec![
                    mode_text(node),
                    node.nlink().to_string(),
                    node.uid().to_string(),
                    node.gid().to_string(),
                    device(self.tree, node).unwrap_or(size),
                    utc(node.mtime().seconds),
                    format!("{}{target}", String::from_utf8_lossy(&name)),
                ]
            })
            .collect();
        let heading = [
            "MODE",
            "LINKS",
            "UID",
            "GID",
            "SIZE",
            "MODIFIED (UTC)",
            "NAME",
        ];
        let text = output::table_text(&heading, &cells, &[1, 2, 3, 4]);
        self.out.bytes(text.as_bytes())
    }
}
