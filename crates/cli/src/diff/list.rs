//! The forms that name paths: lines, `--name-status`, `--stat` and `--json`.

use std::collections::HashSet;

use serde::Serialize;

use super::super::look::kind_name;
use super::super::output;
use super::count;
use imgfs_core::work::Differences;
use imgfs_formats::tree::{
    Aspects, Change, ChangeKind, ChangesAbove, Content, Ino, Node, Side, Tree, known,
};

/// Most columns that paths are padded to with `--stat`: a long one sticks out, and does not push
/// all others' sizes off the screen.
const MAX_COLUMN: usize = 60;

/// A path that differs.
#[derive(Serialize)]
struct Row {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<There>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<There>,
}

/// What is known of a path in one of the images.
#[derive(Serialize)]
#[serde(untagged)]
enum There {
    Something(Attributes),
    /// Written as `null`.
    Nothing,
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
    target_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<String>,
}

/// How a letter and a path are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// A space between them, and what changed after them if there are to be details.
    Plain { details: bool },
    /// A tab between them.
    Tab,
    /// A zero byte after each, and the path as it is.
    Zero,
}

/// A line for each path.
pub(super) fn names(found: &Differences, form: Lines) -> anyhow::Result<()> {
    let mut text = Vec::new();
    for change in &found.found.changes {
        text.push(letter(change));
        if form == Lines::Zero {
            text.extend([b"\0", &change.path[..], b"\0"].concat());
            continue;
        }
        text.push(if form == Lines::Tab { b'\t' } else { b' ' });
        text.extend(output::name(&change.path));
        if form == (Lines::Plain { details: true })
            && let Some(details) = details(change)
        {
            text.extend(format!(" [{details}]").into_bytes());
        }
        text.push(b'\n');
    }
    output::bytes(&text)
}

/// What changed, or may have.
fn details(change: &Change) -> Option<String> {
    let may_be = match change.kind {
        ChangeKind::Added(_) | ChangeKind::Removed(_) => return None,
        ChangeKind::Changed { aspects, .. } => return Some(words(aspects)),
        ChangeKind::Unknown { old, new } => match (old, new) {
            (Side::Below, Side::Absent) => "removed, if it was there",
            (Side::Absent, Side::Below) => "added, if it is there",
            (Side::Below, _) => "added, changed or the same",
            (_, Side::Below) => "removed, changed or the same",
            (_, Side::Absent) => "removed, with all in it",
            (Side::Absent, _) => "added, with all in it",
            (Side::Node(_), Side::Node(_)) => "changed or the same, or something in it",
        },
    };
    Some(may_be.to_owned())
}

/// How sizes changed, and a sum.
pub(super) fn stat(found: &Differences) -> anyhow::Result<()> {
    let (old, new) = (found.old.tree(), found.new.tree());
    let mut rows = Vec::new();
    let (mut added, mut removed, mut changed, mut unknown) = (0, 0, 0, 0);
    let kept = |side: usize, tree| Sizes {
        seen: kept(&found.found, side, tree),
        sum: 0,
    };
    let (mut before, mut after) = (kept(0, old), kept(1, new));
    for change in &found.found.changes {
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
            ChangeKind::Unknown { old: from, new: to } => {
                unknown += 1;
                format!("{} -> {}", known_size(old, from), known_size(new, to))
            }
        };
        let name = output::name(&change.path);
        let wide = output::width(&String::from_utf8_lossy(&name));
        rows.push((letter(change), name, wide, what));
    }
    if rows.is_empty() {
        return Ok(());
    }
    let fitting = rows.iter().map(|(_, _, wide, _)| *wide);
    let width = (fitting.filter(|wide| *wide <= MAX_COLUMN).max()).unwrap_or(0);
    let mut text = Vec::new();
    for (letter, name, wide, what) in &rows {
        text.extend([*letter, b' ']);
        text.extend(name);
        text.extend(std::iter::repeat_n(b' ', width.saturating_sub(*wide)));
        text.extend(format!(" | {what}\n").into_bytes());
    }
    let sum = signed(before.sum, after.sum);
    let added = count(added, "path", "paths");
    let unknown = match unknown {
        0 => String::new(),
        _ => format!("{unknown} not known, "),
    };
    let sum = format!("{added} added, {removed} removed, {changed} changed, {unknown}{sum}\n");
    text.extend(sum.into_bytes());
    output::bytes(&text)
}

/// An array of all that is known.
pub(super) fn json(found: &Differences) -> anyhow::Result<()> {
    let (old, new) = (found.old.tree(), found.new.tree());
    let there = |tree: &Tree, ino| attributes(tree, ino).map(There::Something);
    let what = |tree: &Tree, side: Side| match side {
        Side::Node(ino) => there(tree, ino),
        Side::Absent => Some(There::Nothing),
        Side::Below => None,
    };
    let row = |change: &Change| {
        let (status, changed, from, to) = match change.kind {
            ChangeKind::Added(ino) => ("added", Vec::new(), None, there(new, ino)),
            ChangeKind::Removed(ino) => ("removed", Vec::new(), there(old, ino), None),
            ChangeKind::Changed {
                old: from,
                new: to,
                aspects,
            } => (
                "changed",
                aspects.names().collect(),
                there(old, from),
                there(new, to),
            ),
            ChangeKind::Unknown { old: from, new: to } => {
                ("unknown", Vec::new(), what(old, from), what(new, to))
            }
        };
        Row {
            path: output::json_text(&change.path),
            path_base64: output::json_base64(&change.path),
            status,
            changed,
            old: from,
            new: to,
        }
    };
    output::json(&found.found.changes.iter().map(row).collect::<Vec<_>>())
}

fn attributes(tree: &Tree, ino: Ino) -> Option<Attributes> {
    let node = known(tree, ino)?;
    let (mut target, mut device) = (None, None);
    match tree.content(node) {
        Content::Symlink(bytes) => target = Some(bytes),
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
        target: target.map(output::json_text),
        target_base64: target.and_then(output::json_base64),
        device,
        xattrs: (tree.xattrs(node).iter())
            .map(|(name, _)| output::json_text(name))
            .collect(),
    })
}

fn letter(change: &Change) -> u8 {
    match change.kind {
        ChangeKind::Added(_) => b'A',
        ChangeKind::Removed(_) => b'D',
        ChangeKind::Changed { aspects, .. } if aspects.contains(Aspects::KIND) => b'T',
        ChangeKind::Changed { .. } => b'M',
        ChangeKind::Unknown { .. } => b'X',
    }
}

fn words(aspects: Aspects) -> String {
    aspects.names().collect::<Vec<_>>().join(", ")
}

fn size(tree: &Tree, ino: Ino) -> u64 {
    tree.node(ino).map_or(0, Node::size)
}

/// The size of what may differ, as far as it is known.
fn known_size(tree: &Tree, side: Side) -> String {
    match side {
        Side::Node(ino) => known(tree, ino).map(|node| output::size(node.size())),
        Side::Absent => Some("none".to_owned()),
        Side::Below => None,
    }
    .unwrap_or_else(|| "?".to_owned())
}

/// The difference of two sizes, with its sign.
fn signed(from: u64, to: u64) -> String {
    if to < from {
        format!("-{}", output::size(from - to))
    } else {
        format!("+{}", output::size(to - from))
    }
}

/// Files of the tree of this side of which a name is the same in both, beside others: those others
/// are no bytes more.
fn kept(found: &ChangesAbove, side: usize, tree: &Tree) -> HashSet<Ino> {
    let changed: HashSet<&[u8]> = (found.changes.iter())
        .map(|change| change.path.as_slice())
        .collect();
    let mut kept = HashSet::new();
    let mut pending = vec![];
    if let Some(Side::Node(start)) = found.start.get(side) {
        pending.push((found.path.clone(), *start));
    }
    while let Some((path, ino)) = pending.pop() {
        let Some(node) = tree.node(ino) else {
            continue;
        };
        if node.is_file() && node.nlink() > 1 && !changed.contains(path.as_slice()) {
            kept.insert(ino);
        }
        pending.extend(tree.children(node).iter().map(|dirent| {
            let path = [path.as_slice(), b"/", tree.name(dirent)].concat();
            (path, dirent.ino())
        }));
    }
    kept
}

/// Bytes of files, one with several names counted once.
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
