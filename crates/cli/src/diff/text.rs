//! `imgfs diff -u`: the lines that changed.

use std::sync::Arc;

use anyhow::Context;
use futures_util::{StreamExt, stream};
use similar::{Algorithm, TextDiff};

use super::super::look::{kind_name, read_file};
use super::super::output;
use super::count;
use imgfs_core::view::ImageFs;
use imgfs_core::work::Differences;
use imgfs_formats::tree::{Aspects, Change, ChangeKind, Content, Ino, Node};

/// Largest file whose lines are compared, in bytes: text that people wrote is smaller, and both
/// versions are held in memory.
const MAX_TEXT: u64 = 4 << 20;
/// Most bytes of files that one run reads: a comparison of two whole images is better served by a
/// list.
const MAX_TEXTS: u64 = 256 << 20;
/// A file with a zero byte in its first bytes is no text, as git and diff have it.
const LOOKED_AT: u64 = 8000;
/// Lines around a change.
const CONTEXT: usize = 3;
/// Files read at the same time: their fetches overlap.
const READS: usize = 4;
/// What stands for a file that is not there.
const NOTHING: &[u8] = b"/dev/null";

/// A path on one side.
enum Side {
    /// It does not exist, or is a directory.
    Nothing,
    Text(Vec<u8>),
    Binary,
    /// A device and the like: what it is.
    Other(&'static str),
    /// Not read: its size in bytes.
    Large(u64),
}

/// Prints what changed in text, and which binary files changed.
pub(super) async fn print(found: &Differences, quiet: bool) -> anyhow::Result<()> {
    let mut left = MAX_TEXTS;
    let mut not_read = 0;
    let mut wanted = Vec::new();
    for change in found.found.changes.iter().filter(|change| has_text(change)) {
        let (old, new) = inos(change);
        let size = readable_size(&found.old, old) + readable_size(&found.new, new);
        match left.checked_sub(size) {
            Some(rest) => {
                left = rest;
                wanted.push((change, old, new));
            }
            None => not_read += 1,
        }
    }
    let sides = wanted.into_iter().map(|(change, old, new)| async move {
        let sides = tokio::try_join!(side(&found.old, old), side(&found.new, new));
        let sides = sides.with_context(|| format!("cannot read {}", change.path.escape_ascii()))?;
        anyhow::Ok((change, sides))
    });
    let mut sides = stream::iter(sides).buffered(READS);
    while let Some(read) = sides.next().await {
        let (change, (old, new)) = read?;
        let is_other_type = matches!(change.kind, ChangeKind::Changed { aspects, .. } if aspects.contains(Aspects::KIND));
        let mut text = Vec::new();
        if is_other_type {
            // As git has it: the one goes, the other comes.
            compare(&change.path, &old, &Side::Nothing, &mut text);
            compare(&change.path, &Side::Nothing, &new, &mut text);
        } else {
            compare(&change.path, &old, &new, &mut text);
        }
        output::bytes(&text)?;
    }
    if not_read > 0 && !quiet {
        output::message(&format!(
            "{} not read: one run reads {} at most; name a PATH",
            count(not_read, "changed file was", "changed files were"),
            output::size(MAX_TEXTS)
        ));
    }
    Ok(())
}

/// Whether lines of it can have changed.
fn has_text(change: &Change) -> bool {
    match change.kind {
        ChangeKind::Added(_) | ChangeKind::Removed(_) => true,
        ChangeKind::Changed { aspects, .. } => {
            aspects.contains(Aspects::CONTENT) || aspects.contains(Aspects::KIND)
        }
        // All is opened for lines.
        ChangeKind::Unknown { .. } => false,
    }
}

fn inos(change: &Change) -> (Option<Ino>, Option<Ino>) {
    match change.kind {
        ChangeKind::Added(ino) => (None, Some(ino)),
        ChangeKind::Removed(ino) => (Some(ino), None),
        ChangeKind::Changed { old, new, .. } => (Some(old), Some(new)),
        ChangeKind::Unknown { .. } => (None, None),
    }
}

/// How much of a file would be read at most.
fn readable_size(image: &ImageFs, ino: Option<Ino>) -> u64 {
    let node = ino.and_then(|ino| image.tree().node(ino));
    node.filter(|node| node.is_file() && node.size() <= MAX_TEXT)
        .map_or(0, Node::size)
}

async fn side(image: &Arc<ImageFs>, ino: Option<Ino>) -> anyhow::Result<Side> {
    let tree = image.tree();
    let Some((ino, node)) = ino.and_then(|ino| Some((ino, tree.node(ino)?))) else {
        return Ok(Side::Nothing);
    };
    let size = node.size();
    match tree.content(node) {
        Content::Directory => return Ok(Side::Nothing),
        Content::Symlink(target) => return Ok(Side::Text(target.to_vec())),
        Content::File { .. } | Content::SparseFile { .. } => {}
        Content::Device { .. } | Content::Fifo | Content::Missing => {
            return Ok(Side::Other(kind_name(node.kind())));
        }
    }
    if size > MAX_TEXT {
        return Ok(Side::Large(size));
    }
    let mut text = Vec::new();
    let keep = |text: &mut Vec<u8>, bytes: &[u8]| {
        text.extend_from_slice(bytes);
        Ok(())
    };
    read_file(image, ino, 0..LOOKED_AT.min(size), |bytes| {
        keep(&mut text, bytes)
    })
    .await?;
    if text.contains(&0) {
        return Ok(Side::Binary);
    }
    read_file(image, ino, LOOKED_AT.min(size)..size, |bytes| {
        keep(&mut text, bytes)
    })
    .await?;
    Ok(Side::Text(text))
}

/// Writes what differs between the two sides of a path.
fn compare(path: &[u8], old: &Side, new: &Side, out: &mut Vec<u8>) {
    let header = |side: &Side, prefix: &[u8]| match side {
        Side::Nothing => NOTHING.to_vec(),
        _ => [prefix, &output::name(path)].concat(),
    };
    let (from, to) = (header(old, b"a"), header(new, b"b"));
    let mut differ = |what: &str, why: &str| {
        out.extend_from_slice(what.as_bytes());
        for part in [
            &b" "[..],
            &from,
            b" and ",
            &to,
            b" differ",
            why.as_bytes(),
            b"\n",
        ] {
            out.extend_from_slice(part);
        }
    };
    let (one, other): (&[u8], &[u8]) = match (old, new) {
        (Side::Nothing, Side::Nothing) => return,
        (Side::Large(size), _) | (_, Side::Large(size)) => {
            let (size, most) = (output::size(*size), output::size(MAX_TEXT));
            differ(
                "Files",
                &format!(": {size}, lines are compared up to {most}"),
            );
            return;
        }
        (Side::Binary, _) | (_, Side::Binary) => {
            differ("Binary files", "");
            return;
        }
        (Side::Other(kind), _) | (_, Side::Other(kind)) => {
            differ("Files", &format!(": {kind}"));
            return;
        }
        (Side::Text(one), Side::Text(other)) => (one, other),
        (Side::Text(one), Side::Nothing) => (one, b""),
        (Side::Nothing, Side::Text(other)) => (b"", other),
    };
    unified((&from, one), (&to, other), out);
}

/// Writes a unified diff of two texts, each with its name.
fn unified((from, old): (&[u8], &[u8]), (to, new): (&[u8], &[u8]), out: &mut Vec<u8>) {
    let (old, new) = (lines(old), lines(new));
    let diff = TextDiff::configure()
        .algorithm(Algorithm::Myers)
        .newline_terminated(true)
        .diff_slices(&old, &new);
    for (position, hunk) in diff
        .unified_diff()
        .context_radius(CONTEXT)
        .iter_hunks()
        .enumerate()
    {
        if position == 0 {
            out.extend([b"--- ", from, b"\n+++ ", to, b"\n"].concat());
        }
        out.extend(format!("{}\n", hunk.header()).into_bytes());
        for change in hunk.iter_changes() {
            let line = change.value();
            out.extend(change.tag().to_string().into_bytes());
            out.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                out.extend_from_slice(b"\n\\ No newline at end of file\n");
            }
        }
    }
}

/// Only \n ends a line, as in diff and patch.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}
