//! `imgfs du`.

use std::collections::HashSet;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::walk::{Walk, everything, is_known};
use super::{find_all, found_of, peek};
use crate::globals::{Globals, ImageOptions, runtime};
use crate::history::command_text;
use crate::output::{self, JsonArray, Out, json_base64, json_text};
use imgfs_core::image::Peek;
use imgfs_formats::tree::{Ino, Node, PartialTree, Tree};

/// Show how large directories of an image are.
#[derive(Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Sizes are those of the files' bytes, as `du -b` counts them: uncompressed, holes included, each \
file once however many names it has. Directories count nothing, symbolic links the length of \
their targets. Layers are opened from the top down, only as far as the answer needs.

Examples:
  imgfs du -sh golang /usr/local/go
  imgfs du -h -d 1 debian
  imgfs du -h --by-layer golang /usr"
)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub(crate) struct DuArgs {
    /// The image
    image: String,
    /// Directories or files in it
    #[arg(default_value = "/")]
    paths: Vec<OsString>,
    #[command(flatten)]
    options: ImageOptions,
    /// Only the sum for each path
    #[arg(short, long, conflicts_with = "max_depth")]
    summarize: bool,
    /// Sums only for directories at most this many levels below
    #[arg(short = 'd', long, value_name = "N")]
    max_depth: Option<usize>,
    /// Sizes with units: powers of 1024
    #[arg(short = 'h', long)]
    human_readable: bool,
    /// How much of it each layer brings, and the command that made the layer
    #[arg(long, conflicts_with_all = ["summarize", "max_depth"])]
    by_layer: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// What lies at and below a path.
#[derive(Serialize)]
struct Sum {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    size: u64,
}

/// What a layer brings.
#[derive(Serialize)]
struct LayerSum {
    layer: usize,
    digest: String,
    size: u64,
    files: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
}

pub(crate) fn du(globals: &Globals, args: &DuArgs) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let mut peek = peek(globals, &args.options, &args.image).await?;
        let enough = |tree: &PartialTree, ino: Ino, path: &[u8]| {
            let walk = Walk::new(tree.tree(), ino, path, usize::MAX, &everything);
            is_known(tree, walk, |_| false)
        };
        let found = find_all(&mut peek, &args.paths, true, globals.quiet, enough).await?;
        let (found, failed) = found_of(&args.paths, found);
        if args.by_layer {
            by_layer(&peek, &found, args)?;
        } else {
            let tree = peek.tree();
            by_directory(tree, &found, args)?;
        }
        Ok(ExitCode::from(u8::from(failed)))
    })
}

fn by_directory(tree: &Tree, found: &[(&[u8], Ino)], args: &DuArgs) -> anyhow::Result<()> {
    let shown_depth = if args.summarize {
        0
    } else {
        args.max_depth.unwrap_or(usize::MAX)
    };
    if args.json {
        let mut array = JsonArray::new();
        sums(tree, found, |path, depth, size| {
            if depth > shown_depth {
                return Ok(());
            }
            array.push(&Sum {
                path: json_text(path),
                path_base64: json_base64(path),
                size,
            })
        })?;
        return array.end();
    }
    let mut out = Out::new();
    sums(tree, found, |path, depth, size| {
        if depth > shown_depth {
            return Ok(());
        }
        let size = shown(size, args.human_readable);
        out.bytes(&[size.as_bytes(), b"\t", &output::name(path), b"\n"].concat())
    })?;
    out.flush()
}

/// Tells of each directory, and of files that were asked for: path, depth and size, directories
/// after what is in them.
fn sums(
    tree: &Tree,
    found: &[(&[u8], Ino)],
    mut tell: impl FnMut(&[u8], usize, u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    for (path, ino) in found {
        // The directories that the walk is in, with their sizes so far.
        let mut within: Vec<(Vec<u8>, u64)> = Vec::new();
        let mut walk = Walk::new(tree, *ino, path, usize::MAX, &everything);
        while let Some(place) = walk.next() {
            leave(&mut within, place.depth, &mut tell)?;
            let size = new_bytes(&mut seen, place.ino, place.node);
            if place.node.is_directory() || place.depth == 0 {
                within.push((place.path.to_vec(), size));
            } else if let Some((_, sum)) = within.last_mut() {
                *sum += size;
            }
        }
        leave(&mut within, 0, &mut tell)?;
    }
    Ok(())
}

/// Leaves all directories but the topmost `depth`.
fn leave(
    within: &mut Vec<(Vec<u8>, u64)>,
    depth: usize,
    tell: &mut impl FnMut(&[u8], usize, u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    while within.len() > depth
        && let Some((path, size)) = within.pop()
    {
        tell(&path, within.len(), size)?;
        if let Some((_, above)) = within.last_mut() {
            *above += size;
        }
    }
    Ok(())
}

/// The bytes of a node that were not counted before.
fn new_bytes(seen: &mut HashSet<Ino>, ino: Ino, node: &Node) -> u64 {
    let is_seen = !node.is_directory() && node.nlink() > 1 && !seen.insert(ino);
    if is_seen { 0 } else { node.size() }
}

fn by_layer(peek: &Peek, found: &[(&[u8], Ino)], args: &DuArgs) -> anyhow::Result<()> {
    let resolved = &peek.image.resolved;
    let steps = resolved.config.steps_of_layers();
    let mut sums: Vec<_> = (resolved.manifest.layers.iter().enumerate())
        .map(|(layer, blob)| LayerSum {
            layer,
            digest: blob.digest.to_string(),
            size: 0,
            files: 0,
            created_by: (steps.get(layer).cloned().flatten()).map(|step| step.created_by),
        })
        .collect();
    // Layers that are not open bring nothing.
    let lowest = peek.layers().next().map_or(0, |(position, _)| position);
    let tree = peek.tree();
    let mut seen = HashSet::new();
    for (path, ino) in found {
        let mut walk = Walk::new(tree, *ino, path, usize::MAX, &everything);
        while let Some(place) = walk.next() {
            // A directory is of no single layer.
            let is_new = !place.node.is_directory() && seen.insert(place.ino);
            if is_new && let Some(sum) = sums.get_mut(lowest + place.node.layer()) {
                sum.size += place.node.size();
                sum.files += 1;
            }
        }
    }
    if args.json {
        let mut array = JsonArray::new();
        for sum in &sums {
            array.push(sum)?;
        }
        return array.end();
    }
    let rows: Vec<_> = (sums.iter().zip(&resolved.manifest.layers))
        .map(|(sum, blob)| {
            vec![
                sum.layer.to_string(),
                blob.digest.short(),
                shown(sum.size, args.human_readable),
                sum.files.to_string(),
                command_text(sum.created_by.as_deref().unwrap_or_default(), false),
            ]
        })
        .collect();
    output::table(
        &["#", "LAYER", "SIZE", "FILES", "COMMAND"],
        &rows,
        &[0, 2, 3],
    )
}

fn shown(size: u64, human: bool) -> String {
    if human {
        output::human(size)
    } else {
        size.to_string()
    }
}
