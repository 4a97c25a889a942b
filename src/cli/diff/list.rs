//! The forms that name paths: lines, `--name-status`, `--stat` and `--json`.

use std::collections::HashSet;

use serde::Serialize;

use super::super::look::kind_name;
use super::super::output;
use super::count;
use crate::mount::Differences;
use crate::tree::{Aspects, Change, ChangeKind, Content, Ino, Node, Tree};

/// A path that differs.
#[derive(Serialize)]
struct Row {
    path: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<Attributes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<Attributes>,
}

/// What a path is in one of the images.
#[derive(Serialize)]
struct Attributes {
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: i64,
    mtime_nanoseconds: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<String>,
}

/// A line for each path.
pub(super) fn names(found: &Differences, as_git: bool, details: bool) -> anyhow::Result<()> {
    let separator = if as_git { b'\t' } else { b' ' };
    let mut text = Vec::new();
    for change in &found.changes {
        text.extend([letter(change), separator]);
        text.extend(output::name(&change.path));
        if let ChangeKind::Changed { aspects, .. } = change.kind
            && details
            && !as_git
        {
            text.extend(format!(" [{}]", words(aspects)).into_bytes());
        }
        text.push(b'\n');
    }
    output::bytes(&text)
}

/// How sizes changed, and a sum.
pub(super) fn stat(found: &Differences) -> anyhow::Result<()> {
    let (old, new) = (found.old.tree(), found.new.tree());
    let mut rows = Vec::new();
    let (mut added, mut removed, mut changed) = (0, 0, 0);
    let (mut before, mut after) = (Sizes::default(), Sizes::default());
    for change in &found.changes {
        let what = match change.kind {
            ChangeKind::Added(ino) => {
                added += 1;
                after.add(new, ino);
                signed(0, size(new, ino))
            }
            ChangeKind::Removed(ino) => {
                removed += 1;
                before.add(old, ino);
                signed(size(old, ino), 0)
            }
            ChangeKind::Changed {
                old: from,
                new: to,
                aspects,
            } => {
                changed += 1;
                before.add(old, from);
                after.add(new, to);
                let (from, to) = (size(old, from), size(new, to));
                if aspects.contains(Aspects::CONTENT) || from != to {
                    let (one, other) = (output::size(from), output::size(to));
                    format!("{one} -> {other} ({})", signed(from, to))
                } else {
                    words(aspects)
                }
            }
        };
        rows.push((output::name(&change.path), what));
    }
    if rows.is_empty() {
        return Ok(());
    }
    let length = |name: &[u8]| String::from_utf8_lossy(name).chars().count();
    let width = rows.iter().map(|(name, _)| length(name)).max().unwrap_or(0);
    let mut text = Vec::new();
    for (name, what) in &rows {
        text.push(b' ');
        text.extend(name);
        text.extend(std::iter::repeat_n(b' ', width - length(name)));
        text.extend(format!(" | {what}\n").into_bytes());
    }
    let sum = signed(before.sum, after.sum);
    let added = count(added, "path", "paths");
    text.extend(
        format!("{added} added, {removed} removed, {changed} changed, {sum}\n").into_bytes(),
    );
    output::bytes(&text)
}

/// An array of all that is known.
pub(super) fn json(found: &Differences) -> anyhow::Result<()> {
    let (old, new) = (found.old.tree(), found.new.tree());
    let row = |change: &Change| {
        let (status, changed, from, to) = match change.kind {
            ChangeKind::Added(ino) => ("added", Vec::new(), None, Some(ino)),
            ChangeKind::Removed(ino) => ("removed", Vec::new(), Some(ino), None),
            ChangeKind::Changed {
                old: from,
                new: to,
                aspects,
            } => ("changed", aspects.names().collect(), Some(from), Some(to)),
        };
        Row {
            path: output::printable(&change.path),
            status,
            changed,
            old: from.and_then(|ino| attributes(old, ino)),
            new: to.and_then(|ino| attributes(new, ino)),
        }
    };
    output::json(&found.changes.iter().map(row).collect::<Vec<_>>())
}

fn attributes(tree: &Tree, ino: Ino) -> Option<Attributes> {
    let node = tree.node(ino)?;
    let (mut target, mut device) = (None, None);
    match tree.content(node) {
        Content::Symlink(bytes) => target = Some(output::printable(bytes)),
        Content::Device { major, minor } => device = Some(format!("{major}, {minor}")),
        _ => {}
    }
    let mtime = node.mtime();
    Some(Attributes {
        kind: kind_name(node.kind()),
        mode: format!("{:04o}", node.permissions()),
        uid: node.uid(),
        gid: node.gid(),
        size: node.size(),
        mtime: mtime.seconds,
        mtime_nanoseconds: mtime.nanoseconds,
        target,
        device,
        xattrs: (tree.xattrs(node).iter())
            .map(|(name, _)| output::printable(name))
            .collect(),
    })
}

fn letter(change: &Change) -> u8 {
    match change.kind {
        ChangeKind::Added(_) => b'A',
        ChangeKind::Removed(_) => b'D',
        ChangeKind::Changed { aspects, .. } if aspects.contains(Aspects::KIND) => b'T',
        ChangeKind::Changed { .. } => b'M',
    }
}

fn words(aspects: Aspects) -> String {
    aspects.names().collect::<Vec<_>>().join(", ")
}

fn size(tree: &Tree, ino: Ino) -> u64 {
    tree.node(ino).map_or(0, Node::size)
}

/// The difference of two sizes, with its sign.
fn signed(from: u64, to: u64) -> String {
    if to < from {
        format!("-{}", output::size(from - to))
    } else {
        format!("+{}", output::size(to - from))
    }
}

/// Bytes of files, one with several names counted once.
#[derive(Default)]
struct Sizes {
    seen: HashSet<Ino>,
    sum: u64,
}

impl Sizes {
    fn add(&mut self, tree: &Tree, ino: Ino) {
        if self.seen.insert(ino) {
            self.sum = self.sum.saturating_add(size(tree, ino));
        }
    }
}
